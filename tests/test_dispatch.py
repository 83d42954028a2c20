"""Who serves a call: by the name it came by, and by its first word."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.dispatch import main, read_call
from virttools.enter.options import read as read_exec

VIRT = str(Path(__file__).parents[1] / "bin" / "virt")
words = st.lists(st.text(max_size=8) | st.sampled_from(["exec", "--", "--json", "--root", "-v"]))


@pytest.mark.parametrize(
    ("argv", "command", "rest"),
    [
        (["/usr/bin/virt", "exec", "--", "id"], "exec", ["--", "id"]),
        (["virt", "virtuald", "/c", "p"], "virtuald", ["/c", "p"]),
        (["virt", "--root", "/r", "-v", "--json", "exec", "id"], "exec", ["id"]),
        (["virt", "--root=exec", "exec", "id"], "exec", ["id"]),
        (["virt", "--root", "exec"], "cli", ["--root", "exec"]),
        (["virt", "--root"], "cli", ["--root"]),
        (["virt", "-q", "create", "exec"], "cli", ["-q", "create", "exec"]),
        (["virt"], "cli", []),
        (["virt", "--bogus", "exec"], "cli", ["--bogus", "exec"]),
        (["/x/virtexec", "id"], "exec", ["id"]),
        (
            ["/usr/bin/virtuald", "/virtual/conf.ftp", "wu.ftpd", "-l"],
            "virtuald",
            ["/virtual/conf.ftp", "wu.ftpd", "-l"],
        ),
        (["virtfs"], "cli", ["create"]),
        (["virtfs", "a.com"], "cli", ["create", "a.com"]),
        (["/usr/local/bin/virtpasswd", "bob"], "named", ["passwd", "bob"]),
    ],
)
def test_name_and_first_word_decide(argv: list[str], command: str, rest: list[str]) -> None:
    """argv[0] first, then the word after the options; nothing behind that word is looked at."""
    call = read_call(argv)
    assert (call.command, call.words) == (command, rest)


def test_options_before_the_command_are_kept() -> None:
    """--root and --json count where they stand before the command, and only there."""
    call = read_call(["virt", "--root", "/a", "--json", "exec", "--root", "/b"])
    assert (call.root, call.is_json, call.words) == ("/a", True, ["--root", "/b"])
    assert not read_call(["virt", "exec", "--json"]).is_json


@given(words)
def test_all_arguments_of_virtname_are_its_own(rest: list[str]) -> None:
    """A symlink's arguments pass through as they are, whatever they look like."""
    assert read_call(["/x/virtmailq", *rest]).words == ["mailq", *rest]


@given(words)
def test_the_command_is_what_follows_two_hyphens(rest: list[str]) -> None:
    """After `--` nothing is read as an option."""
    if rest:
        assert read_exec(["--user", "bob", "--", *rest]).argv == rest


@given(words)
def test_any_words_find_a_server(rest: list[str]) -> None:
    """Reading a call never fails, and loses no word."""
    call = read_call(["virt", *rest])
    assert call.words == rest[len(rest) - len(call.words) :]


def test_a_bug_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unforeseen exception prints one line and a hint, no traceback; 70, or 125 for exec."""
    monkeypatch.delenv("VIRT_DEBUG", raising=False)
    monkeypatch.setattr("virttools.settings.load", lambda *_, **__: 1 / 0)
    assert main(["virt", "exec", "true"]) == 125
    assert capsys.readouterr().err == (
        "virt: internal error: ZeroDivisionError: division by zero\n"
        "hint: VIRT_DEBUG=1 shows where\n"
    )


@pytest.mark.parametrize(
    ("raised", "status"), [(KeyboardInterrupt(), 130), (RuntimeError("x"), 70)]
)
def test_interruptions_and_bugs_have_their_status(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int
) -> None:
    """Ctrl-C is 130, a bug 70."""

    def interrupt(_: object) -> int:
        raise raised

    monkeypatch.setattr("virttools.dispatch._serve", interrupt)
    assert main(["virt", "list"]) == status


def run(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of sh that calls "$0", which is virt."""
    clean = {"PATH": "/usr/bin:/bin", "VIRT_ROOT": "/nonexistent", **env}
    return subprocess.run(
        ["sh", "-c", line, VIRT], env=clean, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "line", ["--version >&-", "--json list >/dev/full", "profile show base >/dev/full"]
)
def test_a_result_that_cannot_be_written_is_told(line: str) -> None:
    """A full disk or a closed stdout is no bug of ours, and never passes for success."""
    done = run(f'"$0" {line}')
    assert (done.returncode, done.stderr[:20]) == (74, "virt: cannot write: ")
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


def test_closed_descriptors_are_no_files_of_ours() -> None:
    """Without stdin and stderr a result comes as ever; a usage that nobody reads to the end ends as a pipe does."""
    done = run('"$0" list --help <&- 2>&-')
    assert (done.returncode, done.stdout[:17]) == (0, "Usage: virt list ")
    assert run('{ "$0" log; echo $? >&3; } 3>&1 2>&1 | :').stderr == ""


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("list --json", "--json stands before the command: virt --json list"),
        (
            "manifest show x --root /y",
            "--root stands before the command: virt --root DIR manifest show",
        ),
        ("show x --bogus", "virt show --help"),
    ],
)
def test_an_option_behind_its_place_is_told_its_place(words: str, hint: str) -> None:
    """--json and the like stand before the command, and who wrote them behind it reads so."""
    done = run(f'"$0" {words}')
    assert (done.returncode, done.stderr.splitlines()[1]) == (2, f"hint: {hint}")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("virt show ", "a.com b.com"),
        ("virt exec --domain b", "b.com"),
        ("virt --root /nonexistent show ", ""),
        ("virt create -p log", "login"),
    ],
)
def test_a_shell_completes_names(tmp_path: Path, line: str, found: str) -> None:
    """Domains of the root that is meant, profiles, kinds of `render`."""
    for name in ("a.com", "b.com", ".virt"):
        (tmp_path / name).mkdir()
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = run('"$0"', VIRT_ROOT=str(tmp_path), _VIRT_COMPLETE="complete_bash", **words)
    assert done.stdout.split() == found.split()
