"""Which texts name a domain or an address, and the one form each is kept in."""

import json
import re

from virttools.errors import BadName

LONGEST_NAME = 253
LONGEST_LABEL = 63
_LONGEST_INPUT = 1000

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOTTED_QUAD = re.compile(r"[0-9]+(?:\.[0-9]+){3}")


class UnfitError(ValueError):
    """A text is not what it should be: the cause, and a hint or ""."""

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


def domain(text: str) -> str:
    """The name of a domain: lower case A-labels (RFC 1123, IDNA 2008), no dot at the end.

    Raises BadName for what is no such name, and for names the root folder uses itself.
    """
    try:
        _refuse_folders(text)
        name = host(text)
        _refuse_taken(name)
    except UnfitError as error:
        raise BadName(
            f"cannot use {quoted(text)} as a domain name: {error.cause}", hint=error.hint or None
        ) from error
    return name


def address(text: str) -> str:
    """An IPv4 or IPv6 address in canonical form (RFC 5952). Raises BadName."""
    try:
        return interface(text)
    except UnfitError as error:
        raise BadName(
            f"cannot use {quoted(text)} as an address: {error.cause}", hint=error.hint or None
        ) from error


def quoted(text: str) -> str:
    """The text as messages show it: on one line, printable, not too long."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return json.dumps(shown, ensure_ascii=not shown.isprintable())


def host(text: str) -> str:
    """A host name (RFC 1123 2.1), normalised as `domain` does. Raises UnfitError."""
    _refuse_characters(text)
    name = text.lower() if text.isascii() else _a_labels(text)
    name = name.removesuffix(".")
    if len(name) > LONGEST_NAME:
        raise UnfitError(f"it is {len(name)} characters long, {LONGEST_NAME} are allowed")
    for label in name.split("."):
        _check_label(label)
    if _DOTTED_QUAD.fullmatch(name):
        raise UnfitError(
            "it is an address", "a domain has a name; its addresses are given with --ip"
        )
    return name


def interface(text: str) -> str:
    """An address that an interface can have, in canonical form. Raises UnfitError."""
    import ipaddress

    example = "write it as 192.0.2.1 or 2001:db8::1"
    if "%" in text or "/" in text:
        raise UnfitError("it is more than an address", f"{example}, without what follows % or /")
    try:
        found = ipaddress.ip_address(text)
    except ValueError as error:
        raise UnfitError("it is neither IPv4 nor IPv6", example) from error
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped  # a socket for ::ffff:192.0.2.1 answers for 192.0.2.1
    if found.is_unspecified or found.is_multicast or str(found) == "255.255.255.255":
        raise UnfitError("no single machine can have it", example)
    return str(found)


def network(text: str) -> str:
    """An address, or a network with its mask, in canonical form. Raises UnfitError."""
    import ipaddress

    example = "write it as 192.0.2.1, 10.1.0.0/16 or 2001:db8::/32"
    if "%" in text:
        raise UnfitError("it has a zone", example)
    try:
        found = ipaddress.ip_network(text, strict=False)
        written = ipaddress.ip_address(text.partition("/")[0])
    except ValueError as error:
        raise UnfitError("it is neither IPv4 nor IPv6", example) from error
    if "/" in text and written != found.network_address:
        raise UnfitError("it has bits beyond its mask", f"did you mean {quoted(str(found))}?")
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped:
            found = ipaddress.ip_network(f"{mapped}/{found.prefixlen - 96}")
    return str(found.network_address) if found.num_addresses == 1 else str(found)


def _refuse_folders(text: str) -> None:
    if text in {".", ".."}:
        raise UnfitError("it means a folder itself", "name a domain, such as domain1.com")
    if text.startswith("."):
        raise UnfitError("names that begin with a dot are kept for virttools' own records")
    if text.startswith("-"):
        raise UnfitError(
            "it begins with -", "options stand before the domain and are listed by --help"
        )
    if "/" in text:
        raise UnfitError(
            "it holds a /", "a domain is a name; the folder of all trees is set by --root"
        )
    if text.lower() == "lost+found":
        raise UnfitError("that folder belongs to the file system")


def _refuse_taken(name: str) -> None:
    """Names of our own beside the trees (DESIGN 3): the log socket and the routes files."""
    if name == "log":
        raise UnfitError("the shared syslog socket is called so", "add a label, as in log.example")
    if name.startswith("conf."):
        raise UnfitError("files of routes are called conf.SERVICE", "choose a name without conf.")


def _refuse_characters(text: str) -> None:
    if not text:
        raise UnfitError("it is empty", "name a domain, such as domain1.com")
    if len(text) > _LONGEST_INPUT:
        raise UnfitError(f"it is {len(text)} characters long, {LONGEST_NAME} are allowed")
    if _CONTROL.search(text):
        raise UnfitError("it holds a control character")
    if text != text.strip():
        raise UnfitError("it begins or ends with a space", f"did you mean {quoted(text.strip())}?")
    if "_" in text:
        meant = quoted(text.replace("_", "-"))
        raise UnfitError("host names have no underscore (RFC 1123)", f"did you mean {meant}?")


def _a_labels(text: str) -> str:
    import idna

    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:
        cause = str(error).encode("ascii", "backslashreplace").decode("ascii")
        raise UnfitError(f"it is no international name ({cause})") from error


def _check_label(label: str) -> None:
    if not label:
        raise UnfitError("a label is empty", "labels are separated by single dots")
    if len(label) > LONGEST_LABEL:
        raise UnfitError(f"a label is {len(label)} characters long, {LONGEST_LABEL} are allowed")
    if not _LABEL.fullmatch(label):
        raise UnfitError(
            f"the label {quoted(label)} is not made of letters, digits and inner hyphens",
            "labels are as in RFC 1123: domain1, shop-2",
        )
