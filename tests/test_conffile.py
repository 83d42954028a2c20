"""A file of settings that somebody may be writing."""

from pathlib import Path

import pytest

from virttools.errors import ConfigError
from virttools.serve import conffile


class Clock:
    """What the reader knows of time, and somebody who writes the file at these moments."""

    def __init__(self, file: Path, now: float, writes: dict[float, str] | None = None) -> None:
        self._file = file
        self._now = now
        self._written = 0.0
        self._deeds = list((writes or {}).items())
        self.slept = 0

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._file.stat().st_mtime + self._now - self._written

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self._now += seconds
        while self._deeds and self._deeds[0][0] <= self._now:
            self._written, text = self._deeds.pop(0)
            self._file.write_text(text)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "conf"


@pytest.mark.parametrize("text", ["", "127.0.0.1 /x\n"])
def test_only_what_was_just_changed_is_waited_for(
    text: str, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been truncated a moment ago; what was left empty costs no connection a second."""
    conf.write_text(text)
    for age, is_waited_for in ((0, True), (3, False)):
        monkeypatch.setattr(conffile, "time", clock := Clock(conf, age))
        assert conffile.read(str(conf))[0] == text.encode()
        assert bool(clock.slept) is is_waited_for


def test_who_truncates_and_then_writes_is_read_whole(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty file between the two is nobody's."""
    conf.write_text("")
    monkeypatch.setattr(conffile, "time", Clock(conf, 0, {0.2: "new\n"}))
    assert conffile.read(str(conf))[0] == b"new\n"


def test_of_one_that_is_written_all_the_time_the_last_that_was_whole_counts(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who truncates it again just when nobody waits any longer is served neither nothing nor half of it."""
    conf.write_text("0\n")
    writes = {tenths / 10: f"{tenths}\n" for tenths in range(1, 10)}
    monkeypatch.setattr(conffile, "_QUIET", 0.2)
    monkeypatch.setattr(conffile, "time", Clock(conf, 0, {**writes, 0.98: ""}))
    assert conffile.read(str(conf))[0] == b"9\n"
    assert conf.read_text() == ""


def test_one_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file or directory"):
        conffile.read(str(tmp_path / "none"))
