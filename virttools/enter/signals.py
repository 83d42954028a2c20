"""Doer: signals as a program expects them at birth, and the way a process dies of one."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import os

from virttools import linux

EVERY = frozenset(_signal.valid_signals())


def block() -> None:
    """Let every signal wait."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, EVERY)


def unblock() -> None:
    """Let none wait."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def reset() -> None:
    """Give every signal its default action, and let none wait."""
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def die(number: int) -> int:
    """Die of a signal as the program did, so that a shell sees what it would have seen.

    No core is dumped a second time. Comes back with 128+number where the signal does not kill.
    """
    linux.hide_memory()
    reset()
    os.kill(os.getpid(), number)
    return 128 + number
