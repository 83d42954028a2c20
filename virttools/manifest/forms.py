"""The forms that single values can have: TOML type, JSON Schema, check, and words for messages."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from virttools.manifest import model, names
from virttools.manifest.names import UnfitError

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
HIGHEST_ID = 2**32 - 2  # -1 means "leave it as it is" to chown(2)
_LONGEST_PATH = 4095  # PATH_MAX without its NUL
_LONGEST_PART = 255  # NAME_MAX
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Form:
    """What one value may be.

    kind: the type tomllib gives. word: a type of words that will do as well. allowed: the same in words, for messages.
    schema: JSON Schema (draft 2020-12). check: the value as the model has it; raises UnfitError.
    octal: it must be written 0o…. secret: messages do not repeat the value.
    """

    kind: type[str] | type[int] | type[bool]
    allowed: str
    schema: Mapping[str, Any]
    check: Callable[[Any], Any] = field(default=lambda value: value)
    octal: bool = False
    secret: bool = False
    word: type[StrEnum] | None = None

    @property
    def kinds(self) -> tuple[type, ...]:
        return (self.kind,) if self.word is None else (self.kind, str)


def nearest(word: str, words: Sequence[str]) -> str:
    """`did you mean "…"?` for the likeliest of the words, or ""."""
    close = get_close_matches(word, words, n=1)
    return f"did you mean {names.quoted(close[0])}?" if close else ""


def closed(words: type[StrEnum] | Sequence[str]) -> Form:
    """One of a few words."""
    make = words if isinstance(words, type) else str
    known = [str(word) for word in words]

    def check(text: str) -> str:
        if text not in known:
            raise UnfitError("", nearest(text, known))
        return make(text)

    return Form(str, ", ".join(known), {"type": "string", "enum": known}, check)


def number(low: int, high: int) -> Form:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise UnfitError("out of range")
        return value

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Form(int, f"a whole number from {low} to {high}", schema, check)


def number_or(word: type[StrEnum], low: int, high: int) -> Form:
    """A number, or a word that stands for one."""
    plain, words = number(low, high), closed(word)

    def check(value: int | str) -> int | str:
        found: int | str = (words if isinstance(value, str) else plain).check(value)
        return found

    schema = {"anyOf": [dict(plain.schema), dict(words.schema)]}
    return Form(int, f"{plain.allowed}, or {words.allowed}", schema, check, word=word)


def worded(pattern: str, allowed: str, *, secret: bool = False) -> Form:
    """A text that a pattern describes whole; the pattern must mean the same to ECMA 262."""
    known = re.compile(pattern)

    def check(text: str) -> str:
        if not known.fullmatch(text):
            raise UnfitError("")
        return text

    schema = {"type": "string", "pattern": f"^(?:{pattern})$"}
    return Form(str, allowed, schema, check, secret=secret)


def _tree_path(text: str) -> PurePosixPath:
    path = _directory_path(text)
    if path == PurePosixPath("/"):
        raise UnfitError("the top of the tree itself")
    return path


def _directory_path(text: str) -> PurePosixPath:
    return PurePosixPath(_absolute(text))


def _absolute(text: str) -> str:
    """An absolute path, without doubled slashes, `.` parts and a slash at the end."""
    if CONTROL.search(text):
        raise UnfitError("it holds a control character")
    if not text.startswith("/"):
        raise UnfitError("a relative path" if text else "", _rooted(text))
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UnfitError("it holds ..")
    if len(text.encode()) > _LONGEST_PATH or any(len(p.encode()) > _LONGEST_PART for p in parts):
        raise UnfitError("longer than a path can be")
    return "/" + "/".join(parts)


def _rooted(text: str) -> str:
    parts = [part for part in text.split("/") if part not in {"", ".", ".."}]
    is_path = "/" in text and bool(parts)
    return f"did you mean {names.quoted('/' + '/'.join(parts))}?" if is_path else ""


def _source(text: str) -> str:
    path = _absolute(text)
    if path == "/":
        raise UnfitError("the whole host")
    return path


def _account_path(text: str) -> PurePosixPath:
    if ":" in text:
        raise UnfitError("passwd(5) has no way to write a colon")
    return _directory_path(text)


def _line(text: str) -> str:
    if CONTROL.search(text):
        raise UnfitError("it holds a control character")
    return text


def _gecos(text: str) -> str:
    if ":" in text:
        raise UnfitError("passwd(5) has no way to write a colon")
    return _line(text)


def _link_target(text: str) -> str:
    if not text:
        raise UnfitError("empty")
    if len(text.encode()) > _LONGEST_PATH:
        raise UnfitError("longer than a path can be")
    return _line(text)


def _message(text: str) -> str:
    if "\0" in text:
        raise UnfitError("it holds a NUL character")
    return text


def _template_name(text: str) -> str:
    if text.startswith("/"):
        return _source(text)
    if not text or any(part in {"", ".", ".."} for part in text.split("/")):
        raise UnfitError("not below templates/")
    return _line(text)


def _program_name(text: str) -> str:
    if "/" in text:
        return _source(text)
    if text in {"", ".", ".."} or text.startswith("-") or " " in text:
        raise UnfitError("")
    return _line(text)


def _zone(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*", text):
        raise UnfitError("")
    return text


def _seconds(text: str) -> int:
    if not re.fullmatch(r"(?:[0-9]{1,8}[smhdw])+", text):
        raise UnfitError("")
    total = sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"([0-9]+)([smhdw])", text))
    if not 1 <= total <= 366 * 86400:
        raise UnfitError("out of range")
    return total


def _rate(text: str) -> model.Rate:
    found = re.fullmatch(_RATE, text)
    if not found:
        raise UnfitError("")
    return model.Rate(int(found[1]), int(found[2]))


def _times(text: str) -> model.TimeSpan:
    found = re.fullmatch(_TIMES, text)
    if not found:
        raise UnfitError("")
    hours = [
        int(hour) * 60 + int(minute) for hour, minute in (found.groups()[:2], found.groups()[2:])
    ]
    if max(hours) > 24 * 60 or hours[0] == hours[1]:
        raise UnfitError("it is no time" if max(hours) > 24 * 60 else "it is over when it begins")
    return model.TimeSpan(*hours)


def _resource_limit(text: str) -> model.ResourceLimit:
    found = re.fullmatch(_LIMIT, text)
    if not found:
        resource = text.partition("=")[0]
        raise UnfitError("", "" if resource in _RESOURCES else nearest(resource, _RESOURCES))
    resource, number_, unit = found.groups()
    value = None if number_ is None else int(number_) << {"K": 10, "M": 20, "G": 30}.get(unit, 0)
    if value is not None and value >= 2**63:
        raise UnfitError("out of range")
    return model.ResourceLimit(resource, value)


def _exposed_port(text: str) -> str:
    port, _, protocol = text.partition("/")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise UnfitError("")
    if "/" in text and protocol not in ("tcp", "udp"):
        raise UnfitError("")
    return f"{port}/{protocol or 'tcp'}"


def _mode(value: int) -> int:
    if not 0 <= value <= 0o7777:
        raise UnfitError("more than twelve bits" if value > 0 else "negative")
    return value


def octal_hint(written: str) -> str:
    """What was meant by a mode that is written as a decimal number or as text, or ""."""
    digits = re.fullmatch("(?:0o|0)?([0-7]{3,4})", written)
    return f"did you mean 0o{digits.group(1)}?" if digits else ""


_RATE = r"([1-9][0-9]{0,5}) ([1-9][0-9]{0,4})"
_TIMES = r"([0-9]{1,2}):([0-5][0-9])-([0-9]{1,2}):([0-5][0-9])"
_RESOURCES = ("as", "core", "cpu", "data", "files", "fsize", "nproc", "rss", "stack")
_LIMIT = rf"({'|'.join(_RESOURCES)})=(?:([0-9]{{1,19}})([KMG]?)|unlimited)"
_STRING = {"type": "string"}
_SAFE = r"[^\u0000-\u001f\u007f]"
_ABSOLUTE = {
    "type": "string",
    "pattern": rf"^(?!.*/\.\.(?:/|$))/{_SAFE}*$",
    "maxLength": _LONGEST_PATH,
}
_ACCOUNT = {
    "type": "string",
    "pattern": r"^(?!.*/\.\.(?:/|$))/[^:\u0000-\u001f\u007f]*$",
    "maxLength": _LONGEST_PATH,
}
_WITHOUT_DOTS = "an absolute path without .. and control characters"

FLAG = Form(bool, "true or false", {"type": "boolean"})
MODE = Form(
    int,
    "a mode in octal, 0o0 to 0o7777",
    {"type": "integer", "minimum": 0, "maximum": 0o7777},
    _mode,
    octal=True,
)
ID = number(0, HIGHEST_ID)
UID_BASE = number_or(model.UidBase, 0, HIGHEST_ID)
PORT = number(1, 65535)
TREE_PATH = Form(str, _WITHOUT_DOTS, _ABSOLUTE, _tree_path)
DIRECTORY_PATH = Form(str, _WITHOUT_DOTS, _ABSOLUTE, _directory_path)
SOURCE = Form(str, f"{_WITHOUT_DOTS}, or a pattern of such paths", _ABSOLUTE, _source)
PROGRAM_PATH = Form(str, "an absolute path of a program", _ABSOLUTE, _source)
PROGRAM = Form(
    str,
    "the name of a program, or its absolute path",
    {
        "type": "string",
        "pattern": rf"^(?:[^-/ \u0000-\u001f\u007f][^/ \u0000-\u001f\u007f]*|/{_SAFE}+)$",
    },
    _program_name,
)
TEMPLATE = Form(
    str,
    "a name below templates/, or an absolute path",
    {"type": "string", "pattern": rf"^(?!(?:.*/)?\.\.?(?:/|$)){_SAFE}+$"},
    _template_name,
)
LINK_TARGET = Form(
    str,
    "a path, absolute inside the tree or relative to the link",
    {"type": "string", "pattern": rf"^{_SAFE}+$"},
    _link_target,
)
ARGUMENT = Form(
    str, "text without control characters", {"type": "string", "pattern": rf"^{_SAFE}*$"}, _line
)
MESSAGE = Form(str, "text without NUL characters", _STRING, _message)
GECOS = Form(
    str,
    "text without colons and control characters",
    {"type": "string", "pattern": r"^[^:\u0000-\u001f\u007f]*$"},
    _gecos,
)
ACCOUNT_PATH = Form(
    str, "an absolute path without colons, .. and control characters", _ACCOUNT, _account_path
)
SHELL = Form(str, ACCOUNT_PATH.allowed, _ACCOUNT, lambda text: str(_account_path(text)))
ADDRESS = Form(str, "an IPv4 or IPv6 address", _STRING, names.interface)
NETWORK = Form(str, "an IPv4 or IPv6 address or network", _STRING, names.network)
RATE = Form(
    str,
    'connections a second and seconds to pause, as in "50 10"',
    {"type": "string", "pattern": f"^{_RATE}$"},
    _rate,
)
TIMES = Form(
    str,
    'hours and minutes as in "8:00-18:30"',
    {"type": "string", "pattern": f"^{_TIMES}$"},
    _times,
)
RESOURCE_LIMIT = Form(
    str,
    f'{", ".join(_RESOURCES)}, with "=" and a number (K, M, G) or unlimited, as in "files=256"',
    {"type": "string", "pattern": f"^{_LIMIT}$"},
    _resource_limit,
)
HOST = Form(str, "a host name", _STRING, names.host)
ZONE = Form(
    str,
    '"UTC", "host", or a zone such as "Europe/Paris"',
    {"type": "string", "pattern": r"^[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*$"},
    _zone,
)
DURATION = Form(
    str,
    'a time of 1 s to 366 d such as "30s", "15m", "1h" or "1d12h"',
    {"type": "string", "pattern": "^(?:[0-9]{1,8}[smhdw])+$"},
    _seconds,
)
# adduser.conf(5): SYS_NAME_REGEX, for the accounts of packages (_apt, Debian-exim);
# useradd(8): 32 characters
ACCOUNT = worded(
    r"[A-Za-z_](?:[A-Za-z0-9_-]{0,31}|[A-Za-z0-9_-]{0,30}\$)",
    "a letter or _, then letters, digits, _ and -, at most 32 characters",
)
# crypt(5). Hashes of the DES kind have no mark, so a password written in clear could pass for one
CRYPT = worded(
    r"!{1,2}\*?|\*|!{0,2}\$[a-z0-9]+\$[!-9<-~]+",
    'a crypt(5) field that begins with $ (openssl passwd -6 makes one), "!" or "*"',
    secret=True,
)
PROFILE = worded(
    r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*", "the name of a profile, not a path"
)
PACKAGE = worded(
    r"[A-Za-z0-9][A-Za-z0-9+._-]*(?::[a-z0-9-]+)?", "the name of a dpkg or rpm package"
)
VARIABLE = worded(r"[A-Za-z_][A-Za-z0-9_]*=[^\u0000-\u001f\u007f]*", "NAME=value")
LABEL = worded(
    r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?=[^\u0000-\u001f\u007f]*", "a.name=value"
)
EXPOSED_PORT = Form(
    str,
    "a port, as in 80, 80/tcp or 53/udp",
    {"type": "string", "pattern": r"^[1-9][0-9]{0,4}(?:/(?:tcp|udp))?$"},
    _exposed_port,
)
IMAGE_USER = worded(
    r"[a-z_][a-z0-9_-]{0,31}(?::[a-z_][a-z0-9_-]{0,31})?", "a user of the tree, or user:group"
)
SIGNAL = worded(r"SIG[A-Z][A-Z0-9]{1,9}", "the name of a signal, as in SIGTERM")
SERVICE = worded(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}", "a name as in /etc/services")
OPERATION = worded(
    "[+-]?[a-z0-9][a-z0-9_-]*", 'an operation or a set of them, as in "default", "-x", "+y"'
)
