"""Values: what secrets look like in a text: private keys, password hashes, tokens of known services.

Each shape is looked for only where one of its marks is in the text: bytes.find is 50 times faster than re.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

TLS = "tls-private-keys"
SSH = "ssh-userdir"
PASSWORDS = "password-hashes"
TOKENS = "tool-credentials"


class Hit(NamedTuple):
    """A secret in a text. at: its offset. secret: its bytes, never shown to anybody."""

    at: int
    operation: str
    what: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """marks: one of these is in every text that holds the secret. binary: also looked for in programs."""

    operation: str
    what: str
    marks: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    binary: bool = False

    def hits(self, text: bytes) -> Iterator[Hit]:
        if any(mark in text for mark in self.marks):
            for match in self.pattern.finditer(text):
                yield Hit(match.start(), self.operation, self.what, match[0])


def _shape(operation: str, what: str, marks: str, pattern: bytes, *, binary: bool = False) -> Shape:
    return Shape(operation, what, tuple(marks.encode().split(b" ")), re.compile(pattern), binary)


# After the marker of a key: white space, or what stands between lines in a quoted or indented string.
_GAP = rb"(?:[ \t\r\n\"'+,>|#*]|\\[nrt])*+"
_BODY = rb"[A-Za-z0-9+/=]{32}"
"""A body that is one; the marker alone is in every program that reads keys."""

_HEADERS = rb"(?:[A-Z][A-Za-z-]{2,30}: [^\r\n\\]{0,200}" + _GAP + rb"){0,8}+"

_KEYS = (
    _shape(
        TLS,
        "a private key (PEM)",
        "PRIVATE",
        rb"-----BEGIN (?:(?:RSA|DSA|EC|DH|X25519|ED25519|ENCRYPTED|ANY) )?PRIVATE KEY-----"
        + _GAP + _HEADERS + _BODY,
        binary=True,
    ),
    _shape(
        SSH,
        "a private key of OpenSSH",
        "PRIVATE",
        rb"-----BEGIN OPENSSH PRIVATE KEY-----" + _GAP + rb"b3BlbnNzaC1rZXktdjE" + _BODY,
        binary=True,
    ),
    _shape(
        SSH,
        "a private key of SSH2",
        "PRIVATE",
        rb"---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----" + _GAP + _HEADERS + _BODY,
        binary=True,
    ),
    _shape(
        TOKENS,
        "a private key of PGP",
        "PRIVATE",
        rb"-----BEGIN PGP PRIVATE KEY BLOCK-----" + _GAP + _HEADERS + _BODY,
        binary=True,
    ),
    _shape(
        SSH,
        "a private key of PuTTY",
        "PuTTY-User-Key-File-",
        rb"Private-Lines: [0-9]{1,4}\s{1,4}" + _BODY,
    ),
    _shape(TOKENS, "a private key of age", "AGE-SECRET-KEY-1", rb"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
)  # fmt: skip

# crypt(5); and apr1, argon2 and phpass of web servers.
_END = rb"(?![./0-9A-Za-z])"
_HASH_KINDS = (
    rb"(?:1|apr1)\$[^\s$:]{0,8}\$[./0-9A-Za-z]{22}",
    rb"2[abxy]?\$[0-9]{2}\$[./0-9A-Za-z]{53}",
    rb"5\$(?:rounds=[0-9]{1,9}\$)?[^\s$:]{0,16}\$[./0-9A-Za-z]{43}",
    rb"6\$(?:rounds=[0-9]{1,9}\$)?[^\s$:]{0,16}\$[./0-9A-Za-z]{86}",
    rb"7\$[./0-9A-Za-z]{11,97}\$[./0-9A-Za-z]{43}",
    rb"g?y\$[./0-9A-Za-z]{1,32}\$[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}",
    rb"sha1\$[0-9]{1,9}\$[./0-9A-Za-z]{1,64}\$[./0-9A-Za-z]{28}",
    rb"argon2(?:id?|d)\$v=[0-9]{1,3}\$[a-z0-9=,]{1,64}\$[+/0-9A-Za-z]{8,128}\$[+/0-9A-Za-z]{16,128}",
    rb"[PH]\$[./0-9A-Za-z]{31}",
)
_HASHES = (
    _shape(
        PASSWORDS,
        "a password hash",
        "$1$ $apr1$ $2$ $2a$ $2b$ $2x$ $2y$ $5$ $6$ $7$ $y$ $gy$ $sha1$ $argon2 $P$ $H$",
        rb"\$(?:" + rb"|".join(_HASH_KINDS) + rb")" + _END,
    ),
)

_START = rb"(?<![A-Za-z0-9])"
_STOP = rb"(?![A-Za-z0-9])"
_TOKENS = (
    _shape(
        TOKENS,
        "an access key of AWS",
        "AKIA ASIA",
        _START + rb"(?:AKIA|ASIA)[0-9A-Z]{16}" + _STOP
        + rb"[\s\S]{0,400}?(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
    ),
    _shape(
        TOKENS,
        "a secret key of AWS",
        "aws_secret_access_key AWS_SECRET_ACCESS_KEY",
        rb"(?i:aws_secret_access_key)[\"' \t]{0,4}[:=][\"' \t]{0,4}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
    ),
    _shape(
        TOKENS,
        "a token of GitHub",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        _START + rb"(?:gh[opusr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22})",
    ),
    _shape(TOKENS, "a token of GitLab", "glpat-", _START + rb"glpat-[A-Za-z0-9_-]{20}"),
    _shape(
        TOKENS,
        "a private token in an address",
        "private_token=",
        rb"private_token=[A-Za-z0-9_-]{16}",
    ),
    _shape(
        TOKENS,
        "a token of Slack",
        "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs-",
        _START + rb"xox[abeoprs]-[0-9A-Za-z]{1,16}-[A-Za-z0-9-]{10}",
    ),
    _shape(
        TOKENS,
        "a live key of Stripe",
        "sk_live_ rk_live_",
        _START + rb"[rs]k_live_[0-9A-Za-z]{24}",
    ),
    _shape(TOKENS, "a key of Google", "AIza", _START + rb"AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
    _shape(TOKENS, "a token of npm", "npm_", _START + rb"npm_[A-Za-z0-9]{36}" + _STOP),
    _shape(TOKENS, "a token of PyPI", "pypi-AgE", _START + rb"pypi-AgE[A-Za-z0-9_-]{50}"),
    _shape(TOKENS, "a token of Hugging Face", "hf_", _START + rb"hf_[A-Za-z0-9]{34}" + _STOP),
    _shape(
        TOKENS,
        "a signed token (JWT)",
        "eyJ",
        rb"(?<![A-Za-z0-9_.-])eyJ[A-Za-z0-9_-]{10,4000}+\.eyJ[A-Za-z0-9_-]{10,8000}+\.[A-Za-z0-9_-]{16}",
    ),
)  # fmt: skip

_SHAPES = _KEYS + _HASHES + _TOKENS
_BINARY_SHAPES = tuple(shape for shape in _SHAPES if shape.binary)


def hits(text: bytes, *, binary: bool = False) -> tuple[Hit, ...]:
    """The secrets in a text (or, with `binary`, the private keys in a program), in order."""
    shapes = _BINARY_SHAPES if binary else _SHAPES
    return tuple(sorted(hit for shape in shapes for hit in shape.hits(text)))


HASH_LIKE = re.compile(rb"\$[\s\S]+|[./0-9A-Za-z_]{13,}")
"""A field of shadow(5) that holds a hash, of whatever kind: DES, its BSD kin, or a modern one."""


def locked_off(field: bytes) -> bytes:
    """A password field without the signs that lock it: the hash is there all the same."""
    return field.lstrip(b"!*")
