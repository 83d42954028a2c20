"""Questions to whoever sits at the terminal; an option must be able to say the same."""

import sys

from virttools.errors import UsageError


def is_possible() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(what: str, consequence: str) -> None:
    """Go on only after a yes. Raises UsageError without one, or where there is nobody to ask."""
    if not is_possible():
        raise UsageError(
            f"cannot {what} without being sure: there is no terminal to ask",
            hint="--yes says so beforehand",
        )
    import questionary

    if not questionary.confirm(f"{consequence} Really {what}?", default=False).unsafe_ask():
        raise UsageError(f"cannot {what}: the answer was no")


def ask_password(question: str, variable: str) -> str:
    """A password, typed unseen. Raises UsageError where there is nobody to ask; `variable` says it too."""
    if not is_possible():
        raise UsageError(
            "cannot ask for a password: there is no terminal", hint=f"{variable} says it beforehand"
        )
    import getpass

    return getpass.getpass(question)
