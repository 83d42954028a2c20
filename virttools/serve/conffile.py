"""Reads a file of settings that someone may be writing at this moment: never half of it."""

import os
import time

from virttools.errors import ConfigError

_QUIET = 0.1
"""Seconds without a change after which a writer is taken to be done; one that truncates first writes at once."""

_PATIENCE = 1.0


def read(path: str, patience: float = _PATIENCE) -> tuple[bytes, os.stat_result]:
    """The whole of a file, once nobody changes it, or after `patience` seconds as it was last seen whole.

    An empty one is waited for too, while it may just have been truncated; one that was left so is empty.
    Raises ConfigError.
    """
    deadline = time.monotonic() + patience
    whole = None
    try:
        while True:
            text, seen, is_same = _look(path)
            age = time.time() - seen.st_mtime
            if is_same and not 0 <= age < (_QUIET if text else _PATIENCE):
                return text, seen
            if is_same and text:
                whole = text, seen
            if time.monotonic() > deadline:
                return whole or (text, seen)
            time.sleep(_QUIET / 5)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _look(path: str) -> tuple[bytes, os.stat_result, bool]:
    """What is in it, what it is, and whether it was left alone while it was read."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        before = os.fstat(fd)
        text = file.read() or b""
        after = os.fstat(fd)
    marks = [(found.st_mtime_ns, found.st_size) for found in (before, after)]
    return text, after, marks[0] == marks[1]
