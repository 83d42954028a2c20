"""Tests of image/walk.py: a tree as items, whatever lies in it, and whoever changes it meanwhile."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from virttools.errors import ApplyError, Busy
from virttools.image import walk
from virttools.image.items import Item


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def found(folder: Path) -> dict[str, Item]:
    with opened(folder) as fd:
        return {item.path: item for item in walk.items(fd)}


def test_every_kind_of_thing_is_told_as_it_is(tmp_path: Path) -> None:
    """Files with content, links by target, second names by the first, fifos unread, sockets not at all."""
    (tmp_path / "etc").mkdir(mode=0o750)
    (tmp_path / "etc/passwd").write_bytes(b"root")
    (tmp_path / "etc/passwd").chmod(0o640)
    (tmp_path / "etc/second").hardlink_to(tmp_path / "etc/passwd")
    (tmp_path / "link").symlink_to("/etc/shadow")
    os.mkfifo(tmp_path / "fifo")
    os.setxattr(tmp_path / "etc", "user.note", b"x")
    with socket.socket(socket.AF_UNIX) as log:
        log.bind(str(tmp_path / "log"))
        items = found(tmp_path)
    assert {path: (it.type, it.size, it.link, it.target) for path, it in items.items()} == {
        "": ("directory", 0, None, None),
        "etc": ("directory", 0, None, None),
        "etc/passwd": ("file", 4, None, None),
        "etc/second": ("file", 4, "etc/passwd", None),
        "fifo": ("fifo", 0, None, None),
        "link": ("symlink", 0, None, "/etc/shadow"),
    }
    assert items["etc/passwd"].mode == 0o640
    assert items["etc"].xattrs == (("user.note", b"x"),)


def test_names_that_no_terminal_should_see_are_names(tmp_path: Path) -> None:
    """A newline, an escape, broken UTF-8 and 255 characters are read like any other."""
    names = {"a\nb", "\x1b[31m", "bro\udcffken", "n" * 255}
    for name in names:
        (tmp_path / name).write_bytes(b"!")
    assert set(found(tmp_path)) == {"", *names}


def test_a_tree_deeper_than_any_path_is_read(tmp_path: Path) -> None:
    """A tenant can nest folders until their path is longer than PATH_MAX."""
    with opened(tmp_path) as fd:
        deep = os.dup(fd)
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=deep)
            below = os.open("d" * 250, os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=deep))
        os.close(deep)
    assert "/".join(["d" * 250] * 20) + "/file" in found(tmp_path)


def test_a_sparse_file_has_its_whole_size(tmp_path: Path) -> None:
    """Holes are zeros in an image."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(5 << 20)
    assert found(tmp_path)["sparse"].size == 5 << 20


def test_times_are_whole_seconds_rounded_down(tmp_path: Path) -> None:
    """A fraction next to the next second does not become it; one before 1970 is 1970."""
    for name, moment in (("late", 10**18 - 1), ("early", -5 * 10**9)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(moment, moment))
    items = found(tmp_path)
    assert (items["late"].mtime, items["early"].mtime) == (10**9 - 1, 0)


def test_a_file_that_was_replaced_by_a_link_or_a_fifo_is_noticed(tmp_path: Path) -> None:
    """What is put into an image is opened through no link, and never waited for."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    with opened(tmp_path) as fd:
        for name in ("link", "fifo", "gone"):
            with pytest.raises(Busy, match=f"/{name} into an image: it changed"):
                walk.regular(fd, name).__enter__()


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    """An image without what is in it would be a wrong one, in silence."""
    (tmp_path / "closed").mkdir(mode=0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.chown(tmp_path, 65534, 65534)
                with opened(tmp_path) as fd:
                    os.setgroups([])
                    os.setresuid(65534, 65534, 65534)
                    walk.items(fd)
            else:
                found(tmp_path)
        except ApplyError as error:
            status = 0 if "cannot read /closed" in error.message else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_modes_are_permissions_with_set_id_bits(tmp_path: Path) -> None:
    """Set-uid, set-gid and sticky bits are part of the mode."""
    (tmp_path / "su").touch()
    (tmp_path / "su").chmod(0o6755)
    assert found(tmp_path)["su"].mode == 0o6755
    assert stat.S_IMODE((tmp_path / "su").stat().st_mode) == 0o6755


def test_terabytes_of_a_hole_are_not_read(tmp_path: Path) -> None:
    """A file that says more than its disk has is told, at once; a hole that a disk could fill is content."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(ApplyError, match="cannot read /huge: it says 8796093022208 bytes"):
        found(tmp_path)
    os.truncate(tmp_path / "huge", 1 << 20)
    assert found(tmp_path)["huge"].size == 1 << 20
