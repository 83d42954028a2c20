"""examples/howto.toml makes what virtfs of the Virtual Services HOWTO (section 4.1, revision 1.21) made."""

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

import pytest

from tests.system.calls import Virt

DOMAIN = "domain1.com"
EXAMPLE = Path(__file__).parents[2] / "examples" / "howto.toml"


@dataclass(frozen=True, slots=True)
class Row:
    """One `echo Create …` or `echo Linking …` of the script.

    kind: d folder, f file, s socket, l link. filled: the script copied something into the folder.
    owner: of `chown`. bits: what `mkdir -m` and `chmod` set. target: of `ln -s`.
    """

    path: str
    kind: str = "d"
    filled: bool = False
    owner: str = "root"
    bits: int = 0
    target: str = ""


SCRIPT = (
    Row("bin", filled=True),
    Row("dev", filled=True),
    Row("dev/log", "s"),
    Row("etc", filled=True),
    Row("etc/skel"),
    *(Row(f"home/{letter}") for letter in ascii_lowercase),
    Row("home/c/crc", owner="crc.users"),
    Row("lib", filled=True),
    Row("proc"),
    Row("sbin", filled=True),
    Row("tmp", bits=0o1777),
    Row("usr"),
    Row("usr/bin", filled=True),
    Row("usr/lib", filled=True),
    Row("usr/lib/locale", filled=True),
    Row("usr/share/terminfo"),  # usr/lib/terminfo then
    Row("usr/share/zoneinfo", filled=True),  # usr/lib/zoneinfo then
    Row("usr/sbin", filled=True),
    Row("usr/tmp", "l", target="/tmp"),
    Row("var"),
    Row("var/lock"),
    Row("var/log"),
    Row("var/log/wtmp", "f"),
    Row("var/run"),
    Row("var/run/utmp", "f"),
    Row("var/spool", filled=True),
    Row("var/tmp", "l", target="/tmp"),
    Row("var/www/html", owner="webmast.www", bits=stat.S_ISGID),
    Row("var/www/master", owner="webmast.www"),
    Row("var/www/server", owner="webmast.www"),
)

# What the script found in /etc of its time, and still means the same.
ETC = (
    "HOSTNAME",
    "group",
    "host.conf",
    "hosts",
    "localtime",
    "login.defs",
    "motd",
    "nsswitch.conf",
    "passwd",
    "profile",
    "protocols",
    "resolv.conf",
    "securetty",
    "services",
    "shadow",
    "shells",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example, created where a syslog daemon has bound /virtual/log."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("virtual")
    root.chmod(0o755)
    virt = Virt(root)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        _bind(log, root)
        virt.good("create", DOMAIN, "-m", str(EXAMPLE))
        yield virt.tree(DOMAIN)
        virt.good("remove", "--yes", DOMAIN)


def _bind(log: socket.socket, folder: Path) -> None:
    """By a short name: unix(7) has 108 bytes for a path."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    log.bind(f"/proc/self/fd/{fd}/log")
    os.close(fd)


def inside(tree: Path, path: str) -> Path:
    """Where a path of the tree lies, its folders' links followed as from inside; the last one not."""
    found = tree
    *folders, name = path.strip("/").split("/")
    for folder in folders:
        found = followed(tree, found / folder)
    return found / name


def followed(tree: Path, found: Path) -> Path:
    """Where a link of the tree leads, seen from inside; what is no link is itself."""
    if not found.is_symlink():
        return found
    target = str(found.readlink())
    base = tree if target.startswith("/") else found.parent
    return base / target.lstrip("/")


@pytest.mark.parametrize("row", SCRIPT, ids=lambda row: row.path)
def test_everything_that_the_script_made_is_there(tree: Path, row: Row) -> None:
    """The same kind of thing, with the owner and the bits that the script gave it."""
    if row.kind == "l":
        assert str(inside(tree, row.path).readlink()) == row.target
        return
    found = inside(tree, row.path)
    if row.kind == "d":
        found = followed(tree, found)
    status = found.lstat()
    assert (
        stat.S_IFMT(status.st_mode)
        == {
            "d": stat.S_IFDIR,
            "f": stat.S_IFREG,
            "s": stat.S_IFSOCK,
        }[row.kind]
    )
    assert status.st_mode & row.bits == row.bits
    if row.owner != "root":
        assert (status.st_uid, status.st_gid) == numbers(tree, row.owner)
    if row.filled:
        assert list(found.iterdir())


def numbers(tree: Path, owner: str) -> tuple[int, int]:
    """User.group, as the tree's own files number them."""
    user, group = owner.split(".")
    return _number(tree / "etc/passwd", user), _number(tree / "etc/group", group)


def _number(file: Path, name: str) -> int:
    rows = [line.split(":") for line in file.read_text().splitlines()]
    (found,) = [int(row[2]) for row in rows if row[0] == name]
    return found


def test_the_files_of_etc_are_there(tree: Path) -> None:
    """Each of them, and none is the host's: they bear this domain's name only."""
    names = {path.name for path in (tree / "etc").iterdir()}
    assert set(ETC) <= names
    assert (tree / "etc/HOSTNAME").read_text() == f"{DOMAIN}\n"


def test_empty_logs_are_empty(tree: Path) -> None:
    """The script's `cp /dev/null`."""
    assert inside(tree, "var/log/wtmp").stat().st_size == 0
    assert inside(tree, "var/run/utmp").stat().st_size == 0


def test_dev_log_is_the_shared_socket(tree: Path) -> None:
    """The script's `ln -f /virtual/log`: one inode, so that what is said inside is heard outside."""
    own, shared = (tree / "dev/log").lstat(), (tree.parent / "log").lstat()
    assert (own.st_dev, own.st_ino) == (shared.st_dev, shared.st_ino)


def test_no_disk_of_the_host_is_in_dev(tree: Path) -> None:
    """The script copied all of /dev; here are six harmless nodes."""
    nodes = [
        path for path in (tree / "dev").iterdir() if path.is_block_device() or path.is_char_device()
    ]
    assert sorted(path.name for path in nodes if not path.is_symlink()) == [
        "full",
        "null",
        "random",
        "tty",
        "urandom",
        "zero",
    ]


def test_shared_libraries_are_found_where_programs_look(tree: Path) -> None:
    """The script's lib held the loader and libc; so does this one, and the tree lives."""
    virt = Virt(tree.parent)
    assert virt.good("exec", "--domain", DOMAIN, "--", "/bin/ls", "-d", "/lib") == "/lib\n"
    assert virt.good("exec", "--domain", DOMAIN, "--user", "crc", "--", "sh", "-c", "cd; pwd") == (
        "/home/c/crc\n"
    )
