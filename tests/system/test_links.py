"""`virt link`, `unlink`, `links`, and the symlinks themselves, through the real launcher."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.handmade import REPOSITORY, VIRT, tree, virt

pytestmark = pytest.mark.usefixtures("as_root")

SAY = '#!/bin/sh\nprintf "%s" "${0##*/}"; for word; do printf " [%s]" "$word"; done\n'
"""A program that says by which name and with which words it was called, and ends with 42."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One domain; `say` in it says how it was called."""
    root = tmp_path / "virtual"
    domain = tree(root / "domain1.com", "sh", "true", "false", "cat")
    for name in ("say", "useradd"):
        (domain / "bin" / name).write_text(SAY + "exit 42\n")
        (domain / "bin" / name).chmod(0o755)
    (domain / "bin/data").write_text("no program\n")
    return root


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    """A folder for links."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def call(path: Path, *words: str, root: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path, *words],
        env={"VIRT_ROOT": str(root), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_links_are_made_listed_and_removed(root: Path, bin_: Path) -> None:
    """As typed; the list marks what is not ours, and that stays."""
    there = ("--bindir", str(bin_))
    done = virt("link", "say", "newuser=useradd", *there, root=root)
    assert (done.returncode, done.stdout) == (
        0,
        f"linked {bin_}/virtsay\nlinked {bin_}/virtnewuser\n",
    )
    (bin_ / "virtgone").symlink_to("nowhere")
    (bin_ / "virttrue").symlink_to("/bin/true")
    assert virt("links", *there, root=root).stdout == (
        "virtgone\tgone\tbroken\tnowhere\n"
        "virtnewuser\tuseradd\tok\t.virt/useradd\n"
        f"virtsay\tsay\tok\t{VIRT}\n"
        "virttrue\ttrue\tforeign\t/bin/true\n"
    )
    told = json.loads(virt("--json", "links", *there, root=root).stdout)["data"]["links"]
    assert [one["state"] for one in told] == ["broken", "ok", "ok", "foreign"]
    assert virt("unlink", "say", "true", *there, root=root).returncode == 73
    assert virt("link", "gone", *there, root=root).returncode == 73
    assert virt("link", "exec", *there, root=root).returncode == 2
    assert virt("unlink", "none", *there, root=root).returncode == 1
    assert virt("unlink", "say", "newuser", *there, root=root).returncode == 0
    assert sorted(os.listdir(bin_)) == ["virtgone", "virttrue"]


def test_links_lie_beside_the_virt_that_is_called(root: Path, tmp_path: Path) -> None:
    """Without --bindir: also where that virt is itself a link, as /usr/local/bin/virt may be."""
    for name, target in (("one/bin/virt", VIRT), ("two/virt", tmp_path / "one/bin/virt")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(target)
        done = call(tmp_path / name, "link", "say", root=root)
        assert done.returncode == 0, done.stderr
        link = (tmp_path / name).with_name("virtsay")
        assert os.readlink(link) == "virt"
        assert call(link, "x", root=root).stdout == "say [x]"


def test_every_argument_is_the_programs(root: Path, bin_: Path) -> None:
    """Not even --help, --version, --domain or -- is ours; blanks and empty words come through."""
    virt("link", "say", "newuser=useradd", "--bindir", str(bin_), root=root)
    words = ("--help", "--version", "--domain", "x", "--", "-v", "", "a b", "--json", "--root=/x")
    shown = "".join(f" [{word}]" for word in words)
    for name, program in (("virtsay", "say"), ("virtnewuser", "useradd")):
        done = call(bin_ / name, *words, root=root)
        assert (done.returncode, done.stdout, done.stderr) == (42, f"{program}{shown}", "")


def test_a_link_never_finds_itself_again(root: Path, bin_: Path) -> None:
    """Whatever PATH says here, and even with virt and links to it inside, the tree's program runs once."""
    virt("link", "say", "--bindir", str(bin_), root=root)
    for name in ("say", "sh"):  # what would be found by PATH out here
        (bin_ / name).symlink_to("virtsay")
    done = call(bin_ / "virtsay", "x", root=root, PATH=str(bin_))
    assert (done.returncode, done.stdout) == (42, "say [x]")
    inner = root / "domain1.com/usr/local/bin"
    inner.mkdir(parents=True)
    (inner / "virt").write_bytes(VIRT.read_bytes())
    (inner / "virt").chmod(0o755)
    (inner / "virtsay").symlink_to("virt")
    done = call(bin_ / "virtsay", "x", root=root, PATH=str(bin_))
    assert (done.returncode, done.stdout) == (42, "say [x]")


def test_reserved_names_keep_their_meaning(tmp_path: Path) -> None:
    """virtfs, virtexec and virtuald are what they were, wherever they lie."""
    for name, told in (
        ("virtexec", "Usage: virt exec"),
        ("virtuald", "virtuald"),
        ("virtfs", "Usage: virt create"),
    ):
        (tmp_path / name).symlink_to(VIRT)
        assert told in call(tmp_path / name, "--help", root=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "exit 125"], 125),
        (["data"], 126),
        (["none"], 127),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
    ],
)
def test_the_status_is_the_commands(root: Path, bin_: Path, words: list[str], status: int) -> None:
    """Through exec, contained and plain, and through a symlink; a shell sees 128+n of a signal."""
    link = bin_ / f"virt{words[0]}"
    link.symlink_to(VIRT)
    found = {
        "exec": virt("exec", "--", *words, root=root).returncode,
        "chroot": virt("exec", "--chroot", "--", *words, root=root).returncode,
        "link": call(link, *words[1:], root=root).returncode,
    }
    assert found == dict.fromkeys(found, status)
    shell = subprocess.run(
        ["/bin/sh", "-c", '"$@"', "sh", link, *words[1:]],
        env={"VIRT_ROOT": str(root)},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert shell.returncode == (status if status >= 0 else 128 - status)


def test_an_installed_wheel_has_its_links_beside_it(root: Path, tmp_path: Path) -> None:
    """A prefix with bin/virt as pip puts it there: the link finds the same interpreter and package."""
    prefix = tmp_path / "prefix"
    python = f"python3.{sys.version_info.minor}"
    site = prefix / "lib" / python / "site-packages"
    site.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (site / "virttools").symlink_to(REPOSITORY / "virttools")
    (prefix / "bin/virt").write_bytes(VIRT.read_bytes())
    (prefix / "bin/virt").chmod(0o755)
    (prefix / "bin" / python).symlink_to(REPOSITORY / ".venv/bin/python3")
    (prefix / "bin/virtsay").symlink_to("virt")
    assert call(prefix / "bin/virtsay", "x", root=root).stdout == "say [x]"
