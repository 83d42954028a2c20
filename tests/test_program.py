"""Programs are started without a shell, in a clean environment, with nothing to read."""

import pytest

from virttools.errors import HostLacks
from virttools.host.program import Result, call


def test_a_program_sees_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only PATH, LC_ALL and what the caller names; nothing of ours."""
    monkeypatch.setenv("LD_PRELOAD", "/evil.so")
    said = call(["/usr/bin/env"], env={"LC_ALL": "C.UTF-8", "OWN": "1"})
    lines = set(said.stdout.decode().split())
    assert lines == {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "OWN=1"}


def test_arguments_are_not_words_of_a_shell() -> None:
    """A list is a list."""
    assert call(["printf", "%s", "$(id) ; x"]) == Result(0, b"$(id) ; x", b"")


def test_input_is_what_was_given_and_else_empty() -> None:
    """A program that reads never waits for a terminal."""
    assert (call(["cat"], stdin=b"x").stdout, call(["cat"]).stdout) == (b"x", b"")


def test_it_runs_from_the_root_folder_and_its_status_comes_back() -> None:
    """The caller's working folder is nobody's business."""
    assert call(["pwd"]).stdout == b"/\n"
    assert call(["false"]).status == 1


def test_a_program_that_is_not_there_is_said_to_be_missing() -> None:
    """One sentence, not a traceback."""
    with pytest.raises(HostLacks, match="cannot run /none: No such file or directory"):
        call(["/none"])
