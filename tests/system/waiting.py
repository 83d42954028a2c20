"""Waits until something is so that another process brings about, however slow the machine is."""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds after which what was waited for will not come; no test measures time."""


def until(is_so: Callable[[], object], what: str | Callable[[], str] = "it") -> None:
    """Wait until that is so. what: for the message where it never is."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"never: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)
