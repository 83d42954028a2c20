"""Values: what is tried of a service, and what came of it."""

import unicodedata
from dataclasses import dataclass

from virttools.manifest.model import Probe

_LONGEST = 300


class Refused(Exception):
    """The service does not do what it is there for; the text says what it did instead."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in. is_ours: an account that exists for the trial only."""

    name: str
    password: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Call:
    """What a client is to try, and where. login None: as nobody; tree_fd: what it leads to can be looked at."""

    address: str
    port: int
    domain: str
    probe: Probe
    login: Login | None
    seconds: float
    tree_fd: int = -1


@dataclass(frozen=True, slots=True)
class Missing:
    """A path that the build put into the tree and that is gone; supplied: by what line and rule."""

    path: str
    supplied: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Cause:
    """What in the tree or the machine keeps clients from being served, and what mends it."""

    what: str
    mend: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One service as tried. told: what a client saw; evidence: what the program or the log said.

    is_live: whether somebody answers at its address now; only who is asked for needs him there.
    """

    service: str
    port: int
    is_ok: bool
    told: str
    evidence: tuple[str, ...] = ()
    is_live: bool = False
    address: str = ""
    causes: tuple[Cause, ...] = ()

    @property
    def is_denied(self) -> bool:
        """Whether name and password were not taken: each client says so in this word."""
        return not self.is_ok and self.told.startswith("login:")


def printable(text: str, secret: str = "") -> str:
    """What a tree's program said, on one line, without what could steer a terminal, and not too long.

    Nor with the secret, which a program may say back to show it to whoever reads over our shoulder.
    """
    text = text.replace(secret, "(the password)") if secret else text
    safe = "".join(
        " " if letter in "\r\n\t" else letter if _is_plain(letter) else "?"
        for letter in text[: 4 * _LONGEST]
    )
    safe = " ".join(safe.split())
    return safe if len(safe) <= _LONGEST else f"{safe[:_LONGEST]}…"


def _is_plain(letter: str) -> bool:
    return letter == " " or unicodedata.category(letter)[0] not in "CZ"
