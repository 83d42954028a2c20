"""`virt log tail` on real files: which file, how many lines, since when, as JSON, in colour, and on and on."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.system.calls import VIRT, Virt
from tests.system.terminal import running

DAY = "2001-11-20T12:00"


def line(second: int, domain: str, severity: str = "info") -> str:
    return (
        f"{DAY}:{second:02}.000000+00:00 {domain} auth.{severity} uid=0 sshd[{second}]: said this\n"
    )


@pytest.fixture
def logs(virt: Virt) -> Path:
    """What a server writes for two domains, where it does so by itself for this root."""
    folder = virt.root / ".virt" / "logs"
    (folder / "domains").mkdir(parents=True)
    first = [line(second, "domain1.com") for second in range(20)]
    second = [line(second, "domain2.com", "err") for second in range(20, 25)]
    (folder / "domains/domain1.com.log").write_text("".join(first))
    (folder / "domains/domain2.com.log").write_text("".join(second))
    (folder / "all.log").write_text("".join(first + second))
    return folder


def test_tail_prints_the_last_ten_lines_of_all(virt: Virt, logs: Path) -> None:
    """As they stand in the file; a domain's own with --domain, as many as --lines says."""
    whole = (logs / "all.log").read_text().splitlines()
    assert virt.good("log", "tail").splitlines() == whole[-10:]
    assert virt.good("log", "tail", "-n", "100").splitlines() == whole
    assert virt.good("log", "tail", "--lines", "0") == ""
    own = virt.good("log", "tail", "--domain", "Domain1.COM", "-n", "2")
    assert own.splitlines() == whole[18:20]


def test_since_names_a_moment(virt: Virt, logs: Path) -> None:
    """Then all lines from there on, or the last of them."""
    since = ("--since", f"{DAY}:08+00:00")
    assert len(virt.good("log", "tail", *since).splitlines()) == 17
    assert len(virt.good("log", "tail", *since, "-n", "3").splitlines()) == 3
    assert virt.good("log", "tail", "--since", "0s") == ""
    done = virt("log", "tail", "--since", "noon")
    assert (done.status, done.err.splitlines()[0]) == (
        2,
        "virt: cannot understand --since 'noon': it is no moment",
    )


def test_json_has_a_line_for_each(virt: Virt, logs: Path) -> None:
    """Each an object; before the command, --json gives one document of them all."""
    with (logs / "all.log").open("a") as file:
        file.write("a stranger's line\n")
    told = [json.loads(one) for one in virt.good("log", "tail", "--json", "-n", "2").splitlines()]
    assert told == [
        {
            "time": f"{DAY}:24.000000+00:00",
            "domain": "domain2.com",
            "facility": "auth",
            "severity": "err",
            "uid": 0,
            "tag": "sshd",
            "pid": 24,
            "text": "said this",
        },
        {"text": "a stranger's line"},
    ]
    assert virt.json("log", "tail", "-n", "2") == {"file": str(logs / "all.log"), "lines": told}


def test_a_terminal_has_colour_that_adds_nothing(virt: Virt, logs: Path) -> None:
    """The same words in the same order; none with --no-color."""
    words = [str(VIRT), "log", "tail", "-n", "1"]
    with running(words, virt.environment()) as terminal:
        assert terminal.end() == 0
    plain = (logs / "all.log").read_text().splitlines()[-1]
    shown = terminal.shown
    assert "\x1b[31m" in shown
    for code in ("0", "2", "31", "36"):
        shown = shown.replace(f"\x1b[{code}m", "")
    assert shown.rstrip("\n") == plain
    with running([words[0], "--no-color", *words[1:]], virt.environment()) as terminal:
        assert terminal.end() == 0
    assert terminal.shown.rstrip("\n") == plain


def test_nothing_logged_yet_is_said(virt: Virt) -> None:
    """With the file that was looked for, and what writes it."""
    virt.root.joinpath(".virt").mkdir(mode=0o700)
    done = virt("log", "tail", "--domain", "domain1.com")
    assert done.status == 68
    assert "domains/domain1.com.log: nothing was logged there" in done.err
    assert "virt log serve" in done.err


def test_follow_goes_on_through_a_rotation(virt: Virt, logs: Path) -> None:
    """Each line as it is written, in the old file and then in the new."""
    own = logs / "domains/domain1.com.log"
    with subprocess.Popen(
        [str(VIRT), "log", "tail", "--domain", "domain1.com", "-f", "-n", "1"],
        env=virt.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as tail:
        try:
            assert tail.stdout is not None
            assert tail.stdout.readline() == line(19, "domain1.com")
            with own.open("a") as old:
                old.write(line(20, "domain1.com"))
                old.flush()
                assert tail.stdout.readline() == line(20, "domain1.com")
                own.rename(own.with_suffix(".log.1"))
                old.write(line(21, "domain1.com"))
            own.write_text(line(22, "domain1.com"))
            assert tail.stdout.readline() == line(21, "domain1.com")
            assert tail.stdout.readline() == line(22, "domain1.com")
        finally:
            tail.terminate()
