"""Paths of a host are resolved as its kernel would, and never outside of the root that was given."""

import os
import posixpath
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.host.sysroot import Sysroot


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A small merged-usr host."""
    for folder in ("usr/bin", "usr/lib/x", "etc/alternatives", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/bin/vim.tiny").write_text("vim")
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/vi").symlink_to("/etc/alternatives/vi")
    (tmp_path / "etc/alternatives/vi").symlink_to("/bin/vim.tiny")
    return tmp_path


def test_every_link_on_the_way_is_named_in_order(host: Path) -> None:
    """Merged /usr and alternatives: each link is known, and which of them stand for the last name."""
    walk = Sysroot(str(host)).walk("/bin/vi")
    assert (walk.path, walk.links, walk.chain) == (
        "/usr/bin/vim.tiny",
        ("/bin", "/usr/bin/vi", "/etc/alternatives/vi", "/bin"),
        ("/usr/bin/vi", "/etc/alternatives/vi"),
    )


def test_no_link_leads_out_of_the_root(host: Path) -> None:
    """Absolute targets begin at the root, and .. stops there."""
    (host / "etc/passwd").write_text("inside")
    (host / "etc/absolute").symlink_to("/etc/passwd")
    (host / "etc/climbing").symlink_to("../../../../../../etc/passwd")
    sysroot = Sysroot(str(host))
    found = [sysroot.read(path) for path in ("/etc/absolute", "/etc/climbing", "/../etc/passwd")]
    assert found == [b"inside"] * 3


def test_a_chain_that_leads_nowhere_is_told_whole(host: Path) -> None:
    """The fault names each link, so that a user sees which one is wrong."""
    (host / "etc/a").symlink_to("b")
    (host / "etc/b").symlink_to("/gone/away")
    walk = Sysroot(str(host)).walk("/etc/a")
    assert (walk.stat, walk.fault) == (None, "the links /etc/a -> /etc/b -> /gone lead nowhere")


def test_links_that_form_a_loop_end(host: Path) -> None:
    """A loop is a fault, not a hang."""
    (host / "etc/a").symlink_to("b")
    (host / "etc/b").symlink_to("a")
    walk = Sysroot(str(host)).walk("/etc/a/x")
    assert walk.stat is None
    assert walk.fault == "the links /etc/a -> /etc/b -> /etc/a -> /etc/b … form a loop"


def test_a_file_is_no_folder_on_the_way(host: Path) -> None:
    """What lies below a file does not exist."""
    assert Sysroot(str(host)).walk("/usr/bin/vim.tiny/x").fault == "no such file or directory"


def test_a_fifo_or_link_in_place_of_a_file_is_not_opened(host: Path) -> None:
    """A user who swaps a file for a fifo cannot make us wait."""
    os.mkfifo(host / "etc/fifo")
    sysroot = Sysroot(str(host))
    assert (sysroot.open("/etc/fifo"), sysroot.open("/usr/bin/vi")) == (None, None)
    assert sysroot.head("/etc/fifo", 10) == b""


def test_globs_stay_within_names_and_pass_over_dots(host: Path) -> None:
    """As in a shell: * never matches a slash or a leading dot."""
    for name in (".hidden", "b.conf", "a.conf", "c.txt"):
        (host / "etc" / name).touch()
    (host / "etc/alternatives/d.conf").touch()
    sysroot = Sysroot(str(host))
    assert sysroot.glob("/etc/*.conf") == ("/etc/a.conf", "/etc/b.conf")
    assert sysroot.glob("/etc/.*") == ("/etc/.hidden",)
    assert sysroot.glob("/etc/**/*.conf") == (
        "/etc/a.conf",
        "/etc/alternatives/d.conf",
        "/etc/b.conf",
    )
    assert sysroot.glob("/bin/vi*") == ("/bin/vi", "/bin/vim.tiny")
    assert sysroot.glob("/etc/[xyz]*") == ()


NAMES = ("a", "b", "c")
TARGETS = st.lists(st.sampled_from((*NAMES, "..", ".", "")), min_size=1, max_size=4).map("/".join)


@given(
    links=st.dictionaries(st.sampled_from(("a", "b", "c/a", "c/b")), TARGETS, max_size=4),
    path=TARGETS,
)
def test_a_walk_ends_where_the_kernel_would(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], path: str
) -> None:
    """For any links the canonical path is that of realpath(3) inside the root, where there is one."""
    root = tmp_path_factory.mktemp("host")
    (root / "c/c").mkdir(parents=True)
    for place, target in links.items():
        if target:
            os.symlink(target, root / place)
    walk = Sysroot(str(root)).walk("/" + path)
    expected = _kernel(root, "/" + path)
    assert (walk.path if walk.stat else None) == expected


def _kernel(root: Path, path: str) -> str | None:
    """What openat2(RESOLVE_IN_ROOT) opens."""
    from virttools import linux

    fd = os.open(root, os.O_PATH)
    try:
        opened = linux.openat2(fd, path.lstrip("/") or ".", os.O_PATH, linux.RESOLVE_IN_ROOT)
    except OSError:
        return None
    finally:
        os.close(fd)
    try:
        real = os.readlink(f"/proc/self/fd/{opened}")
    finally:
        os.close(opened)
    return posixpath.normpath("/" + os.path.relpath(real, root))


def test_this_hosts_own_links_resolve_as_readlink_says() -> None:
    """The canonical path of every program of this host is that of `readlink -f`."""
    sysroot = Sysroot()
    paths = sysroot.glob("/usr/bin/*")[:300]
    said = subprocess.run(["readlink", "-m", *paths], capture_output=True, text=True, check=True)
    found = [sysroot.walk(path) for path in paths]
    pairs = zip(found, said.stdout.splitlines(), strict=True)
    assert [(walk.path, real) for walk, real in pairs if walk.stat and walk.path != real] == []
