"""Log files: many more than may be open, whole lines, and what cannot be written is counted."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from virttools.devlog.writing import Files

Told = list[tuple[str, str, int]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def files(tmp_path: Path, told: Told) -> Iterator[Files]:
    folder_fd = os.open(tmp_path, os.O_RDONLY)
    made = Files(folder_fd, 8, lambda path, cause, lost: told.append((path, cause, lost)))
    yield made
    made.reopen()
    os.close(folder_fd)


def test_more_files_than_may_be_open(files: Files, tmp_path: Path, told: Told) -> None:
    """The longest unused is closed, and opened again when there is more for it."""
    before = len(os.listdir("/proc/self/fd"))
    for round_ in range(3):
        for number in range(30):
            files.append(f"{number}.log", b"%d\n" % round_)
        assert len(os.listdir("/proc/self/fd")) <= before + 8
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"0\n1\n2\n"}
    assert (len(list(tmp_path.iterdir())), told) == (30, [])


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "second name"])
def test_what_is_no_file_of_ours_is_not_written(
    files: Files, tmp_path: Path, told: Told, kind: str
) -> None:
    """It is told once; when the name is free again, how many lines were lost."""
    victim, name = tmp_path / "victim", tmp_path / "a.log"
    victim.touch()
    if kind == "link":
        name.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(name)
    elif kind == "folder":
        name.mkdir()
    else:
        name.hardlink_to(victim)
    for _ in range(3):
        files.append("a.log", b"one\ntwo\n")
    assert [(path, lost) for path, _, lost in told] == [("a.log", 0)]
    if kind == "folder":
        name.rmdir()
    else:
        name.unlink()
    files.append("a.log", b"three\n")
    assert told[1:] == [("a.log", "", 6)]
    assert (victim.read_bytes(), name.read_bytes()) == (b"", b"three\n")
