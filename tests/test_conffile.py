"""A file of settings that somebody may be writing."""

import os
import threading
import time
from pathlib import Path

import pytest

from virttools.errors import ConfigError
from virttools.serve import conffile


@pytest.mark.parametrize("text", ["", "127.0.0.1 /x\n"])
def test_only_what_was_just_changed_is_waited_for(text: str, tmp_path: Path) -> None:
    """It may have been truncated a moment ago; what was left empty costs no connection a second."""
    path = tmp_path / "conf"
    path.write_text(text)
    assert not conffile._look(str(path))[2]
    assert conffile.read(str(path), patience=0)[0] == text.encode()
    os.utime(path, (time.time() - 3, time.time() - 3))
    assert conffile._look(str(path))[2]


def test_who_truncates_and_then_writes_is_read_whole(tmp_path: Path) -> None:
    """The empty file between the two is nobody's."""
    path = tmp_path / "conf"
    path.write_text("old\n")
    path.write_text("")
    writer = threading.Timer(0.2, lambda: path.write_text("new\n"))
    writer.start()
    try:
        assert conffile.read(str(path))[0] == b"new\n"
    finally:
        writer.join()


def test_one_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file or directory"):
        conffile.read(str(tmp_path / "none"))
