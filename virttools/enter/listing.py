"""Values: how the picker shows domains, at any width."""

_GAP = "  "


class Row:
    """One domain: addresses and profiles as text, health "ok" or what is wrong, used in seconds or None."""

    __slots__ = ("addresses", "domain", "health", "profiles", "used")

    def __init__(
        self,
        domain: str,
        *,
        addresses: str = "",
        profiles: str = "",
        health: str = "ok",
        used: "float | None" = None,
    ) -> None:
        self.domain = domain
        self.addresses = addresses
        self.profiles = profiles
        self.health = health
        self.used = used


def lines(rows: "tuple[Row, ...]", width: int, now: float, *, first: int = 1) -> "list[str]":
    """A line for each row: number, domain, and of the rest what fits into width columns.

    A domain is never cut short: two that begin alike must not look the same.
    """
    digits = len(str(first + len(rows) - 1))
    longest = min(max((len(row.domain) for row in rows), default=0), max(width // 2, 1))
    return [
        _cut(f"{number:>{digits}} {row.domain:<{longest}}", details(row, now), width)
        for number, row in enumerate(rows, first)
    ]


def details(row: Row, now: float) -> str:
    """What there is to say of a domain, what matters most first."""
    parts = [
        "" if row.health == "ok" else f"! {row.health}",
        row.addresses,
        row.profiles,
        "" if row.health != "ok" else "ok",
        "" if row.used is None else f"used {ago(now - row.used)}",
    ]
    return _GAP.join(part for part in parts if part)


def ago(seconds: float) -> str:
    """A time that has passed, in the largest unit of which there is a whole one."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def _cut(head: str, tail: str, width: int) -> str:
    room = width - 1 - len(head) - len(_GAP)
    return f"{head}{_GAP}{tail[:room]}".rstrip() if room > 0 else head.rstrip()
