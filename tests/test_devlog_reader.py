"""Log files read back: from the end, since a moment, and on as they are rotated."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from virttools.devlog import reader
from virttools.devlog.reader import Said
from virttools.errors import ApplyError, UnknownDomain

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def line(number: int, text: str = "text") -> str:
    """One line of domain1.com, a second after the one before."""
    when = (NOON + timedelta(seconds=number)).isoformat(timespec="microseconds")
    return f"{when} domain1.com auth.info uid=1000 sshd[{number}]: {text} {number}\n"


def written(folder: Path, count: int, text: str = "text") -> Path:
    file = folder / "all.log"
    file.write_text("".join(line(number, text) for number in range(count)))
    return file


def numbers(found: list[Said]) -> list[int]:
    return [one.line.pid for one in found if one.line]


@pytest.mark.parametrize("text", ["text", "long " * 200])
@pytest.mark.parametrize("count", [0, 1, 3, 400, 500, 501])
def test_the_last_lines_are_the_last_lines(tmp_path: Path, count: int, text: str) -> None:
    """In their order, however long they are, and no more than there are."""
    file = written(tmp_path, 500, text)
    found = reader.last(str(file), count=count, since=None)
    assert numbers(found) == list(range(500))[max(0, 500 - count) :]


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    """Half a line tells nothing."""
    file = written(tmp_path, 3)
    with file.open("a") as more:
        more.write(line(3)[:-5])
    assert numbers(reader.last(str(file), count=2, since=None)) == [1, 2]
    file.write_text("half a line")
    assert reader.last(str(file), count=2, since=None) == []
    file.write_text("")
    assert reader.last(str(file), count=2, since=None) == []


def test_what_was_rotated_just_now_still_counts(tmp_path: Path) -> None:
    """The file before is read on into, and alone where nothing was written since."""
    file = written(tmp_path, 5)
    file.rename(tmp_path / "all.log.1")
    assert numbers(reader.last(str(file), count=2, since=None)) == [3, 4]
    file.write_text(line(5))
    assert numbers(reader.last(str(file), count=3, since=None)) == [3, 4, 5]
    moment = (NOON + timedelta(seconds=4)).timestamp()
    assert numbers(reader.last(str(file), count=None, since=moment)) == [4, 5]
    lines = reader.follow(str(file), count=2, since=None)
    assert take(lines, 2) == [4, 5]


def test_since_a_moment(tmp_path: Path) -> None:
    """Lines of that moment and later, by what they say of their time; others' lines go with theirs."""
    file = written(tmp_path, 100)
    with file.open("a") as more:
        more.write("a stranger's line\n")
    moment = (NOON + timedelta(seconds=97)).timestamp()
    found = reader.last(str(file), count=None, since=moment)
    assert (numbers(found), found[-1].text) == ([97, 98, 99], "a stranger's line")
    assert len(reader.last(str(file), count=2, since=moment)) == 2


def test_what_is_not_ours_is_made_harmless(tmp_path: Path) -> None:
    """A stranger's bytes cannot move the cursor of who reads them."""
    file = tmp_path / "all.log"
    file.write_bytes(b"\x1b[2Jgone \xff\r\n")
    (found,) = reader.last(str(file), count=1, since=None)
    assert (found.line, found.text) == (None, r"\x1b[2Jgone \xff\r")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOON - timedelta(seconds=90)),
        ("10m", NOON - timedelta(minutes=10)),
        ("2h", NOON - timedelta(hours=2)),
        ("3d", NOON - timedelta(days=3)),
        ("2026-11-20T11:00:00+00:00", NOON - timedelta(hours=1)),
        ("2026-11-20 13:30+02:00", NOON - timedelta(minutes=30)),
    ],
)
def test_a_moment_is_understood(text: str, moment: datetime) -> None:
    """As long ago, or as a day and time."""
    assert reader.moment(text, lambda: NOON) == moment.timestamp()


def test_a_time_without_a_day_is_todays() -> None:
    """And a day without a time begins at midnight; both in local time."""
    now = datetime(2026, 11, 20, 23, 59, 59).astimezone()
    today = now.replace(hour=7, minute=5, second=0)
    assert reader.moment("07:05", lambda: now) == today.timestamp()
    midnight = datetime(2026, 11, 20).astimezone()
    assert reader.moment("2026-11-20") == midnight.timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "m", "10y", "25:00", "-3d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """A ValueError, which the command turns into a sentence."""
    with pytest.raises(ValueError, match=r"."):
        reader.moment(text)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With what writes it; a link in its place is not followed, a folder not read."""
    with pytest.raises(UnknownDomain, match="nothing was logged there"):
        reader.last(str(tmp_path / "all.log"), count=1, since=None)
    (tmp_path / "all.log").symlink_to("/etc/passwd")
    with pytest.raises(ApplyError):
        reader.last(str(tmp_path / "all.log"), count=1, since=None)
    with pytest.raises(ApplyError):
        reader.last(str(tmp_path), count=1, since=None)


def take(lines: Iterator[Said], count: int) -> list[int]:
    return numbers([next(lines) for _ in range(count)])


def test_what_comes_is_followed_through_a_rotation(tmp_path: Path) -> None:
    """Renamed, made anew before the writer knows, and written on: every line once, in order."""
    file = written(tmp_path, 3)
    lines = reader.follow(str(file), count=2, since=None)
    assert take(lines, 2) == [1, 2]
    with file.open("a") as old:
        old.write(line(3) + line(4)[:20])
        old.flush()
        assert take(lines, 1) == [3]
        old.write(line(4)[20:])
        file.rename(tmp_path / "all.log.1")
        file.touch()
        old.write(line(5))
    with file.open("a") as new:
        new.write(line(6))
    assert take(lines, 3) == [4, 5, 6]
    file.write_text("")  # truncated in place
    with file.open("a") as new:
        new.write(line(7, "x"))
    assert take(lines, 1) == [7]
