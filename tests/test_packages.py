"""Which package a file came from is what the package database itself answers."""

import os
import subprocess
from pathlib import Path

import pytest

from virttools.host.packages import Ownership, Packages
from virttools.host.sysroot import Sysroot

STATUS = """\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21

Package: tool
Status: install ok installed
Architecture: amd64
Version: 2:1.0-1
Conffiles:
 /etc/tool.conf 0123456789abcdef0123456789abcdef
 /etc/with blank.conf fedcba9876543210fedcba9876543210 obsolete
 /etc/new.conf newconffile
Description: a tool
 Version: of no importance

Package: libtool
Architecture: i386
Version: 3-i386

Package: libtool
Architecture: amd64
Version: 3-amd64

Package: diverter
Architecture: all
Version: 4
"""

LISTS = {
    "tool": "/.\n/bin\n/bin/tool\n/etc\n/etc/tool.conf\n/etc/with blank.conf\n/etc/new.conf\n"
    "/usr/share/doc\n/usr/share/doc/tool/copyright\n/usr/share/docs/x\n/usr/bin/moved\n",
    "libtool:amd64": "/usr/lib/libtool.so\n",
    "libtool:i386": "/usr/lib/i386/libtool.so\n",
    "diverter": "/usr/bin/moved\n",
}
MD5 = "a" * 32


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A merged-usr host whose packages still list /bin, one of them diverted."""
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    for name, text in LISTS.items():
        (info / f"{name}.list").write_text(text)
    (info / "tool.md5sums").write_text(f"{MD5}  bin/tool\n{'b' * 32}  usr/bin/moved\n")
    (info / "diverter.md5sums").write_text(f"{'c' * 32}  usr/bin/moved\n")
    diverted = "/usr/bin/moved\n/usr/bin/moved.old\ndiverter\n"
    (tmp_path / "var/lib/dpkg/diversions").write_text(diverted)
    return tmp_path


def owners(host: Path, *paths: str) -> dict[str, Ownership]:
    return Packages(Sysroot(str(host))).owners(paths)


def test_a_path_is_owned_under_its_canonical_name(host: Path) -> None:
    """A package that lists /bin/tool owns /usr/bin/tool where /bin is a link."""
    assert owners(host, "/usr/bin/tool", "/usr/bin/other") == {
        "/usr/bin/tool": Ownership("tool", "2:1.0-1", MD5)
    }


def test_conffiles_have_the_checksum_of_status(host: Path) -> None:
    """They stand apart from the md5sums; one that is new has none."""
    found = owners(host, "/etc/tool.conf", "/etc/with blank.conf", "/etc/new.conf")
    assert [found[path].md5 for path in sorted(found)] == [
        None,
        "0123456789abcdef0123456789abcdef",
        "fedcba9876543210fedcba9876543210",
    ]


def test_a_diverted_file_belongs_to_who_shipped_it(host: Path) -> None:
    """The diverting package has the name, the other package's file lies where it was moved."""
    assert owners(host, "/usr/bin/moved", "/usr/bin/moved.old") == {
        "/usr/bin/moved": Ownership("diverter", "4", "c" * 32),
        "/usr/bin/moved.old": Ownership("tool", "2:1.0-1", "b" * 32),
    }


def test_each_architecture_has_its_own_version(host: Path) -> None:
    """Multi-Arch packages share a name; files and versions are told apart."""
    found = owners(host, "/usr/lib/libtool.so", "/usr/lib/i386/libtool.so")
    assert sorted(owner.version for owner in found.values()) == ["3-amd64", "3-i386"]
    assert Packages(Sysroot(str(host))).files("libtool") == ("/usr/lib/libtool.so",)


def test_a_package_has_its_files_less_documentation(host: Path) -> None:
    """Folders are in, /usr/share/doc is out, and a name that only begins so is not."""
    packages = Packages(Sysroot(str(host)))
    assert packages.files("tool") == (
        "/bin",
        "/bin/tool",
        "/etc",
        "/etc/tool.conf",
        "/etc/with blank.conf",
        "/etc/new.conf",
        "/usr/share/docs/x",
        "/usr/bin/moved",
    )
    assert packages.files("absent") is None
    assert packages.named("tool") == ("/bin/tool",)
    assert packages.names() == ("diverter", "libtool", "tool")


def test_a_host_without_a_database_owns_nothing(tmp_path: Path) -> None:
    """No package manager is no error."""
    packages = Packages(Sysroot(str(tmp_path)))
    found = (packages.owners(["/bin/sh"]), packages.files("x"), packages.names())
    assert found == ({}, None, ())


def test_rpm_is_asked_where_its_database_is(tmp_path: Path) -> None:
    """One question for all paths; what nobody owns is left out. The program is a recording fake."""
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    rpm = tmp_path / "rpm"
    log = tmp_path / "log"
    rpm.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {log}\n'
        "echo 'bash 5.2-1'\necho 'file /usr/bin/x is not owned by any package'\n"
    )
    rpm.chmod(0o755)
    packages = Packages(Sysroot(str(tmp_path)), rpm=str(rpm))
    found = packages.owners(["/usr/bin/x", "/usr/bin/bash"])
    assert found == {"/usr/bin/bash": Ownership("bash", "5.2-1", None)}
    asked = f"--root {tmp_path} --query --queryformat %{{NAME}} %{{EVR}}\\n --file -- "
    assert log.read_text() == asked + "/usr/bin/bash /usr/bin/x\n"


@pytest.mark.skipif(not os.path.exists("/usr/bin/dpkg-query"), reason="no dpkg here")
def test_this_hosts_owners_are_those_of_dpkg_query() -> None:
    """For programs of this host the answer equals `dpkg-query --search` and `--show`."""
    sysroot = Sysroot()
    names = ("bash", "ls", "dash", "passwd", "adduser", "perl", "login", "env", "tar")
    walks = [sysroot.walk(f"/usr/{bin_}/{name}") for bin_ in ("bin", "sbin") for name in names]
    paths = [walk.path for walk in walks if walk.stat is not None]
    found = {path: owner.package for path, owner in Packages(sysroot).owners(paths).items()}
    assert found == {path: owner for path in paths if (owner := _search(path)) is not None}


def _search(path: str) -> str | None:
    for name in (path, path.removeprefix("/usr")):
        said = subprocess.run(
            ["dpkg-query", "--search", name], capture_output=True, text=True, check=False
        )
        if said.returncode == 0:
            return said.stdout.splitlines()[-1].partition(":")[0]
    return None
