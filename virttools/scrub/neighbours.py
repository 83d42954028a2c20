"""Values: the names and addresses in a text, and whether one of them is another domain's.

Only whole host names count: `www.domain1.com` names domain1.com, `mydomain1.com` and `domain1.com.example` do not.
"""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from virttools.scrub.findings import Context

_LONGEST = 320
"""Bytes of a word that are looked at, from its end: a host name has 253 (RFC 1123)."""

_LONGEST_ADDRESS = 64

_SIGNS = b"abcdefghijklmnopqrstuvwxyz0123456789.-"
_UTF_8 = bytes(range(0x80, 0x100))


def _table(signs: bytes) -> bytes:
    """For bytes.translate: capitals become small, what belongs to no word becomes a space."""
    low = bytes(range(0x100)).lower()
    return bytes(sign if sign in signs else 0x20 for sign in low)


_IN_PROGRAMS = _table(_SIGNS)
_IN_TEXTS = _table(_SIGNS + _UTF_8)
_IN_TEXTS_WITH_COLONS = _table(_SIGNS + _UTF_8 + b":")

_EXTENSIONS = frozenset(
    b"bak bz2 cer cert cf cfg conf crt csr csv db gz htm html ini jnl json key list local lock log "
    b"mbox new old orig p12 passwd pem pfx php rev save service socket sql swp tar tgz timer tmp "
    b"toml txt vhost xml xz yaml yml zip zone zst".split()
)
"""The end of a file name, which is no part of the host name before it: domain1.com.conf."""

_BARE = re.compile(rb"(?:@|//)([a-z0-9-]+)(?![a-z0-9.-])", re.IGNORECASE)
"""A name without a dot, where it can only be a host's: bob@shop, http://shop/."""

_RANGE = re.compile(rb"[0-9.]+(?:-[0-9.]+)+")

_MOST_LABELS = 36
"""An IPv6 address below ip6.arpa has 34."""

_MOST_EXTENSIONS = 6
_SHORTEST = 3
_FEW = 64
"""Names that are sooner looked for one by one than in all words of a text."""

_OF_EVERYBODY = frozenset((b"localhost", b"localhost.localdomain", b"ip6-localhost", b""))


class Words(NamedTuple):
    """What a text names. Depends on the text only, so it can be kept for other domains' sake.

    found: host names and addresses as they stand there, in lower case. above: they and every name above them.
    """

    found: frozenset[bytes]
    above: frozenset[bytes]


def words(text: bytes, *, bare: bool = False) -> Words:
    """The host names and addresses in a text; with `bare`, every word without a dot may be one."""
    split = set(text.translate(_IN_TEXTS).split())
    found = {word.strip(b".-") for word in split if bare or b"." in word}
    for word in [word for word in found if b"-" in word and _RANGE.fullmatch(word)]:
        found.update(word.split(b"-"))
    if b":" in text:
        found.update(_long_addresses(text))
    if b"@" in text or b"//" in text:
        found.update(name.lower() for name in _BARE.findall(text))
    return _with_above(found)


def words_of_program(data: bytes) -> Words:
    """The host names in a program; what looks like an address there is a version as a rule."""
    split = set(data.translate(_IN_PROGRAMS).split())
    found = {word.strip(b".-") for word in split if b"." in word and len(word) > _SHORTEST}
    return _with_above({word for word in found if not word.replace(b".", b"").isdigit()})


@lru_cache(maxsize=1 << 16)
def words_of_path(path: str) -> Words:
    """The host names and addresses in the name of a file, or in the target of a link."""
    return words(os.fsencode(path))


def _with_above(found: set[bytes]) -> Words:
    above = {name for word in found for name in _candidates(word)}
    return Words(frozenset(found), frozenset(above))


def _candidates(word: bytes) -> Iterator[bytes]:
    """The names a word may be, the longest first: a.b.c, b.c; then the same without the end of a file name."""
    name = b".".join(word[-_LONGEST:].rsplit(b".", _MOST_LABELS)[-_MOST_LABELS:])
    if b"." not in name:
        yield name
    for _ in range(_MOST_EXTENSIONS):
        if name.replace(b".", b"").isdigit():  # 10.0.0.1 is no part of 5.10.0.0.1
            yield name
            return
        yield from _suffixes(name)
        name = _without_extension(name)


def _suffixes(name: bytes) -> Iterator[bytes]:
    while b"." in name:
        yield name
        name = name.partition(b".")[2]


def _without_extension(name: bytes) -> bytes:
    """domain1.com-access.log.2 → domain1.com-access.log → …: no top-level domain has a digit or hyphen."""
    rest, _, last = name.rpartition(b".")
    if last in _EXTENSIONS or last.isdigit():
        return rest
    if b"-" in last and not last.startswith(b"xn--"):
        return rest + b"." + last.partition(b"-")[0]
    return b""


def _long_addresses(text: bytes) -> Iterator[bytes]:
    """The IPv6 addresses of a text, canonical; an IPv4 address in one (::ffff:192.0.2.1) as itself."""
    for word in set(text.translate(_IN_TEXTS_WITH_COLONS).split()):
        if word.count(b":") > 1 and len(word) <= _LONGEST_ADDRESS:
            found = _long_address(word)
            if found is not None:
                yield found


def _long_address(word: bytes) -> bytes | None:
    """The address at the end of a word such as `ip6:2001:db8::1.`, if there is one."""
    text = word.decode("latin-1").rstrip(".-")
    if text.endswith(":::") or (text.endswith(":") and not text.endswith("::")):
        text = text[:-1]
    while text.count(":") > 1:
        try:
            return _canonical(IPv6Address(text))
        except AddressValueError:
            text = text.partition(":")[2]
    return None


def _canonical(address: IPv4Address | IPv6Address) -> bytes:
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(inner or address).encode()


class Neighbours:
    """The names and addresses that must not be in a tree."""

    __slots__ = ("_own", "_theirs")

    def __init__(self, context: Context) -> None:
        self._theirs = _vocabulary(context.other_names, context.host_names, context.other_addresses)
        self._own = _vocabulary((context.domain,), (), context.own_addresses)

    def may_be_in(self, text: bytes, *, binary: bool) -> bool:
        """False where none of them is in a text for sure, which is seen sooner than the text's words.

        Every name stands in a text as we have it, but for an IPv6 address, and an IPv4 address in one;
        of a program (`binary`) no address counts.
        """
        if len(self._theirs) > _FEW:
            return True
        small = text.lower()
        if any(name in small for name in self._theirs):
            return True
        has_addresses = any(b":" in name or name[-1:].isdigit() for name in self._theirs)
        return has_addresses and not binary and text.count(b":") > 1

    def named(self, text: Words) -> str | None:
        """The first name or address of somebody else in a text, or None."""
        if self._theirs.isdisjoint(text.above):
            return None
        owners = {self._owner(word) for word in text.found} - {None}
        return min((owner.decode() for owner in owners if owner), default=None)

    def _owner(self, word: bytes) -> bytes | None:
        """Whose name a word is: of one below ours and below another's, the longer decides."""
        for name in _candidates(word):
            if name in self._own:
                return None
            if name in self._theirs:
                return name
        return None


@lru_cache(maxsize=64)
def _vocabulary(
    names: tuple[str, ...], hosts: tuple[str, ...], addresses: tuple[str, ...]
) -> frozenset[bytes]:
    """Names as texts have them; addresses in canonical form, and their names below arpa."""
    spelled = {form for name in names + hosts for form in _spellings(name)}
    numbered = {form for address in addresses for form in _numberings(address)}
    return frozenset(spelled | numbered) - _OF_EVERYBODY


@lru_cache(maxsize=1 << 16)
def _spellings(name: str) -> tuple[bytes, ...]:
    """A name in A-labels and, where that is not the same, in UTF-8."""
    lower = name.lower().strip(".")
    labels = [_decoded(label) for label in lower.split(".")]
    return lower.encode(), ".".join(labels).encode()


def _decoded(label: str) -> str:
    """The U-label of an A-label (RFC 3492, which the standard library knows)."""
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError):
        return label


@lru_cache(maxsize=1 << 16)
def _numberings(address: str) -> tuple[bytes, ...]:
    found = ip_address(address)
    if found.is_loopback or found.is_unspecified:
        return ()
    return _canonical(found), found.reverse_pointer.encode()
