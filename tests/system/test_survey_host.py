"""The survey of this very host: as ldd has it, closed, equal each time, and enough to run in a chroot."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.terminal import running
from tests.system.waiting import PATIENCE
from virttools.host.bundles import pam
from virttools.host.facts import Facts, HostEntry, Kind
from virttools.host.survey import survey
from virttools.host.sysroot import Sysroot
from virttools.manifest.model import Binary, Manifest, Origin

NAMES = (
    *(
        "bash",
        "ls",
        "id",
        "getent",
        "cat",
        "passwd",
        "chpasswd",
        "adduser",
        "deluser",
        "vi",
        "nano",
    ),
    *("useradd", "userdel", "usermod", "groupadd", "groupdel", "chfn", "python3", "perl"),
    # What adduser runs besides.
    *("sh", "find", "rm", "gpasswd"),
)

PYTHON = """
import ssl, json, sqlite3, ctypes, lzma, bz2, hashlib, asyncio, urllib.request, zoneinfo
import curses, readline, multiprocessing, decimal, email, uuid, unittest
print(json.dumps([1]), bool(ssl.create_default_context().get_ca_certs()))
"""


def manifest(*names: str) -> Manifest:
    # What a host lacks (vi, nano) is left out: the rest still has to work.
    return Manifest(binaries=tuple(Binary(name, True, Origin("t", 1)) for name in names))


@pytest.fixture(scope="module")
def facts() -> Facts:
    return survey(manifest(*NAMES), template_text=str)


def test_every_library_that_ldd_lists_is_there(facts: Facts) -> None:
    """For each program and library the closure of ldd is in the tree, under each name on the way."""
    paths = {str(entry.path) for entry in facts.entries}
    sysroot = Sysroot()
    lacking = []
    for entry in facts.entries:
        if entry.kind is Kind.FILE and (entry.mode & 0o111 or ".so" in entry.path.name):
            for library in _ldd(entry.path.as_posix()):
                walk = sysroot.walk(library)
                lacking += [
                    (entry.path, way) for way in (*walk.links, walk.path) if way not in paths
                ]
    assert lacking == []


def _ldd(path: str) -> list[str]:
    said = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    return re.findall(r"(/\S+) \(0x", said.stdout) if said.returncode == 0 else []


def test_both_resolvers_bring_the_same_files() -> None:
    """Ld.so's own word differs in nothing but the reasons."""
    names = ("bash", "ls", "passwd", "adduser", "perl")
    paths = [
        [entry.path for entry in survey(manifest(*names), resolver=by, template_text=str).entries]
        for by in ("own", "ldd")
    ]
    assert paths[0] == paths[1]


def test_the_pam_set_is_closed(facts: Facts) -> None:
    """Every include and every module that a pam.d file of the tree names is in the tree."""
    paths = {str(entry.path) for entry in facts.entries}
    files = [entry for entry in facts.entries if str(entry.path.parent) == "/etc/pam.d"]
    lacking = []
    for file in files:
        for line in pam.parse(file.source.read_text()):
            if line.includes:
                found = f"/etc/pam.d/{line.module}" in paths
            else:
                found = line.is_optional or any(path.endswith(f"/{line.module}") for path in paths)
            lacking += [] if found else [(file.path, line.module)]
    assert {file.path.name for file in files} >= {"passwd", "chpasswd", "other"}
    assert lacking == []


def test_every_entry_says_who_asked_and_stands_in_a_folder(facts: Facts) -> None:
    """`by` is a path of the tree, a parent is a folder, and only what was named is explicit."""
    kinds = {entry.path: entry.kind for entry in facts.entries}
    strangers = [entry for entry in facts.entries if entry.why.by not in {None, *kinds}]
    parents = {kinds.get(entry.path.parent) for entry in facts.entries if len(entry.path.parts) > 2}
    explicit = {entry.why.rule for entry in facts.entries if entry.explicit}
    assert (strangers, parents, explicit) == ([], {Kind.DIRECTORY}, {"binaries"})


def test_checksums_of_packages_are_those_of_the_files(facts: Facts) -> None:
    """Content that equals its package's is known to be public: so the sums must be of that very file."""
    known = [
        entry for entry in facts.entries if entry.md5 and str(entry.path).startswith("/usr/bin")
    ]
    wrong = [
        entry.path
        for entry in known
        if hashlib.md5(entry.source.read_bytes(), usedforsecurity=False).hexdigest() != entry.md5
    ]
    assert wrong == []
    if os.path.exists("/var/lib/dpkg/status"):
        assert len(known) >= 5


def test_two_surveys_are_equal_whatever_the_surroundings() -> None:
    """Hash seed, locale, umask, time zone and working folder change nothing."""
    code = (
        "from virttools.host.survey import survey\n"
        "from virttools.manifest.model import Binary, Manifest, Origin\n"
        "names = ('bash', 'passwd', 'adduser', 'python3', 'ls')\n"
        "wanted = tuple(Binary(name, True, Origin('t', 1)) for name in names)\n"
        "print(ascii(survey(Manifest(binaries=wanted), template_text=str)))\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "LC_ALL": locale, "TZ": zone, "PYTHONPATH": _checkout()},
            cwd=folder,
            umask=umask,
            capture_output=True,
            check=True,
        ).stdout
        for seed, locale, zone, folder, umask in (
            ("1", "C", "UTC", "/", 0o022),
            ("2", "en_US.ISO-8859-1", "Asia/Tokyo", "/tmp", 0o777),
        )
    ]
    assert said[0] == said[1]


def _checkout() -> str:
    import virttools

    return os.path.dirname(os.path.dirname(virttools.__file__))


@pytest.fixture(scope="module")
def tree(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was surveyed, copied as plainly as can be, with the few files that a skeleton has."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("tree")
    materialise(facts.entries, root)
    for folder, mode in (("etc", 0o755), ("home", 0o755), ("run", 0o755), ("tmp", 0o1777)):
        (root / folder).mkdir(exist_ok=True)
        (root / folder).chmod(mode)
    (root / "etc/skel").mkdir(exist_ok=True)
    (root / "proc").mkdir()
    (root / "proc/mounts").touch()
    (root / "dev").mkdir()
    # No device nodes below /tmp, which may be mounted nodev: an empty file reads as /dev/null does.
    (root / "dev/null").touch()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\nusers:x:100:\nshadow:x:42:\n")
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (root / "etc/gshadow").write_text("root:*::\nusers:*::\n")
    return root


def materialise(entries: Sequence[HostEntry], root: Path) -> None:
    for entry in entries:
        place = root / str(entry.path).lstrip("/")
        match entry.kind:
            case Kind.DIRECTORY:
                place.mkdir(exist_ok=True)
                place.chmod(entry.mode)
            case Kind.SYMLINK:
                place.symlink_to(entry.target or "")
            case _:
                place.write_bytes(entry.source.read_bytes())
                place.chmod(entry.mode)


def inside(tree: Path, *argv: str, stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        ["/usr/sbin/chroot", str(tree), *argv],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "xterm", "LC_ALL": "C.UTF-8"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("bash", "-c", "x=é; echo ${#x}"), "1\n"),
        (("ls", "/etc/passwd"), "/etc/passwd\n"),
        (("getent", "passwd", "root"), "root:x:0:0:root:/root:/bin/bash\n"),
        (("id", "-un"), "root\n"),
        (("perl", "-e", "use strict; use POSIX; use File::Temp; print POSIX::floor(2.5)"), "2"),
        (("python3", "-c", PYTHON), "[1] True\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_program_runs_in_a_tree_of_what_was_surveyed(
    tree: Path, argv: tuple[str, ...], said: str
) -> None:
    """It says the right thing, and nothing on stderr."""
    assert inside(tree, *argv) == (0, said, "")


def test_accounts_are_made_changed_and_removed_in_the_tree(tree: Path) -> None:
    """The scripts adduser and deluser find perl, its modules and the programs they call; PAM is whole."""
    made = inside(tree, "adduser", "--disabled-password", "--gecos", "Bob", "bob")
    assert made[0] == 0, made
    changed = inside(tree, "chpasswd", stdin="bob:secret-1\n")
    assert changed == (0, "", "")
    assert re.search(r"^bob:\$", (tree / "etc/shadow").read_text(), re.MULTILINE)
    asked = inside(tree, "passwd", "bob", stdin="other-2\nother-2\n")
    assert asked[0] == 0, asked
    gone = inside(tree, "deluser", "--remove-home", "bob")
    assert gone[0] == 0, gone
    assert "bob" not in (tree / "etc/passwd").read_text()
    assert not (tree / "home/bob").exists()


@pytest.mark.parametrize(
    ("editor", "ready", "keys"),
    [("vi", "vi.txt", "ihello\x1b:wq\r"), ("nano", "New File", "hello\x18y\r")],
)
def test_an_editor_starts_on_a_terminal_without_a_complaint(
    tree: Path, editor: str, ready: str, keys: str
) -> None:
    """It draws its screen, takes keys and writes the file."""
    if not os.path.lexists(tree / f"usr/bin/{editor}"):
        pytest.skip(f"this host has no {editor}")
    words = ["/usr/sbin/chroot", str(tree), f"/usr/bin/{editor}", f"/tmp/{editor}.txt"]
    with running(words, {"TERM": "xterm"}) as terminal:
        terminal.expect(ready)
        terminal.type(keys)
        assert terminal.end() == 0
    assert (tree / f"tmp/{editor}.txt").read_text() == "hello\n"
    assert not re.search(r"E\d+:|[Ee]rror|No such file", terminal.shown)


def test_a_library_that_only_the_cache_knows_is_found_in_a_tree_without_one(
    as_root: None, tmp_path: Path
) -> None:
    """A library of /opt that ldconfig was told of gets a link where ld.so looks by itself."""
    host = tmp_path / "host"
    host.mkdir()
    bash = survey(manifest("bash"), template_text=str)
    materialise(bash.entries, host)
    (host / "opt/lib").mkdir(parents=True)
    tinfo = next(entry for entry in bash.entries if entry.path.name.startswith("libtinfo.so.6."))
    (host / str(tinfo.path).lstrip("/")).rename(host / "opt/lib/libtinfo.so.6")
    (host / str(tinfo.path).lstrip("/")).with_name("libtinfo.so.6").unlink()
    (host / "etc").mkdir(exist_ok=True)
    (host / "etc/ld.so.conf").write_text("/opt/lib\n")
    subprocess.run(["/usr/sbin/ldconfig", "-r", str(host)], check=True)
    facts = survey(manifest("bash"), root=str(host), template_text=str)
    tree = tmp_path / "tree"
    tree.mkdir()
    materialise(facts.entries, tree)
    assert not (tree / "etc/ld.so.cache").exists()
    assert inside(tree, "bash", "-c", "echo runs") == (0, "runs\n", "")
