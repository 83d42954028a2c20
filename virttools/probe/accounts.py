"""Values: an account for a trial, added to the texts of a tree's passwd, shadow and group."""

from dataclasses import dataclass

from virttools.probe import crypt
from virttools.probe.outcome import Login

_NAME = "virttest"
_HIGHEST = 59999  # below what adduser(8) and systemd give away on their own: 60000 and more


@dataclass(frozen=True, slots=True)
class Added:
    """The account, and the texts with it."""

    login: Login
    uid: int
    home: str
    passwd: bytes
    shadow: bytes
    group: bytes


def added(  # noqa: PLR0917  the three texts, and what makes the account one that nobody can guess
    passwd: bytes, shadow: bytes, group: bytes, uid_base: int, password: str, salt: str
) -> Added:
    """The same texts with an account whose name and number nobody there has."""
    name = _free_name(passwd, group)
    uid = _free_id(passwd, group, uid_base)
    home = f"/home/{name}"
    entry = f"{name}:x:{uid}:{uid}:virt test:{home}:/bin/sh\n"
    field = crypt.hashed(password, salt)
    return Added(
        Login(name, password, is_ours=True),
        uid,
        home,
        _ended(passwd) + entry.encode(),
        _ended(shadow) + f"{name}:{field}:19000:0:99999:7:::\n".encode(),
        _ended(group) + f"{name}:x:{uid}:\n".encode(),
    )


def _ended(text: bytes) -> bytes:
    return text if not text or text.endswith(b"\n") else text + b"\n"


def _free_name(passwd: bytes, group: bytes) -> str:
    taken = {line.split(b":")[0] for text in (passwd, group) for line in text.split(b"\n")}
    number = 1
    while f"{_NAME}{number}".encode() in taken:
        number += 1
    return f"{_NAME}{number}"


def _free_id(passwd: bytes, group: bytes, uid_base: int) -> int:
    taken = {
        fields[2]
        for text in (passwd, group)
        for line in text.split(b"\n")
        if len(fields := line.split(b":")) > 2
    }
    number = uid_base + _HIGHEST
    while str(number).encode() in taken:
        number -= 1
    return number
