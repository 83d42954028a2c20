"""Values: may this connection be served? Limits, networks and hours, named as xinetd names them.

A few microseconds per connection, and no memory that a client can make grow: sources are counted while they live.
"""

import _socket
import time

from virttools.serve.routes import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from virttools.manifest.model import Service

INSTANCES = "instances"
PER_SOURCE = "per_source"
CPS = "cps"
ADDRESS = "address"
TIME = "time"
PROXY = "proxy"
REASONS = (INSTANCES, PER_SOURCE, CPS, ADDRESS, TIME, PROXY)
"""Why a connection is refused: the limit's name, `address` (only_from, no_access), `time` (access_times), or
`proxy`: one of proxy_protocol sent no good header in time."""


_MOST_KNOWN = 4096


class Networks:
    """A set of networks; the longest prefix that holds an address is found by one look-up per length."""

    __slots__ = ("_four", "_six")

    def __init__(self, texts: "Iterable[str]") -> None:
        found: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}
        for text in texts:
            packed, bits = network(text)
            mask = _mask(len(packed), bits)
            found[len(packed)].setdefault(bits, set()).add(int.from_bytes(packed) & mask)
        self._four = _longest_first(found[4], 4)
        self._six = _longest_first(found[16], 16)

    def has(self, source: str) -> bool:
        """Whether an address, as accept(2) tells it, is in one of them."""
        packed = pack(source.partition("%")[0])
        return packed is not None and self.match(packed) >= 0

    def match(self, packed: bytes) -> int:
        """The prefix length of the closest network that holds packed, or -1."""
        number = int.from_bytes(packed)
        for bits, mask, networks in self._four if len(packed) == 4 else self._six:
            if number & mask in networks:
                return bits
        return -1


def network(text: str) -> tuple[bytes, int]:
    """`192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`: the address, packed, and the prefix length.

    Raises ValueError with the cause where it is none, or has bits set to the right of its prefix.
    """
    address, slash, length = text.partition("/")
    packed = pack(address)
    if packed is None:
        raise ValueError(f"not an address or network: {text!r}")
    most = len(packed) * 8
    if not slash:
        return packed, most
    if not (length.isascii() and length.isdigit()) or int(length) > most:
        raise ValueError(f"not a prefix length between 0 and {most}: {text!r}")
    bits = int(length)
    if int.from_bytes(packed) & ~_mask(len(packed), bits):
        raise ValueError(f"address bits to the right of the prefix: {text!r}")
    return packed, bits


def _mask(size: int, bits: int) -> int:
    return ((1 << bits) - 1) << (size * 8 - bits)


def _longest_first(found: dict[int, set[int]], size: int) -> tuple[tuple[int, int, set[int]], ...]:
    return tuple((bits, _mask(size, bits), found[bits]) for bits in sorted(found, reverse=True))


def minute_of_day() -> int:
    """The local time. Asked only outside of trees: libc may read /etc/localtime (tzset(3))."""
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min


class Rate:
    """At most `count` connections in `seconds`; one more, and all are refused for `pause` seconds.

    xinetd's `cps = N WAIT` is Rate(N, 1, WAIT); inetd's `nowait.MAX` is Rate(MAX, 60, 600).
    """

    __slots__ = ("count", "pause", "seconds")

    def __init__(self, count: int, seconds: float, pause: float) -> None:
        self.count = count
        self.seconds = seconds
        self.pause = pause


class Limits:
    """What is declared for one service of one domain; 0 and None mean no limit.

    only_from and no_access are networks: the closest one decides, no_access where both are as close.
    access_times: minutes of the day, from the first up to but without the second; over midnight where that is smaller.
    """

    __slots__ = ("access_times", "cps", "instances", "no_access", "only_from", "per_source")

    def __init__(
        self,
        *,
        instances: int = 0,
        per_source: int = 0,
        cps: Rate | None = None,
        only_from: tuple[str, ...] = (),
        no_access: tuple[str, ...] = (),
        access_times: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.instances = instances
        self.per_source = per_source
        self.cps = cps
        self.only_from = only_from
        self.no_access = no_access
        self.access_times = access_times


def declared(service: "Service") -> Limits:
    """The limits of a manifest's service."""
    rate = service.cps
    return Limits(
        instances=service.instances or 0,
        per_source=service.per_source or 0,
        cps=Rate(rate.connections, 1, rate.pause) if rate else None,
        only_from=service.only_from,
        no_access=service.no_access,
        access_times=tuple((span.start, span.end) for span in service.access_times),
    )


def of_inetd(most: int) -> Limits:
    """The limit of an inetd.conf line: so many starts a minute, or ten minutes of rest."""
    return Limits(cps=Rate(most, 60, 600))


class Gate:
    """Who may come at all, and when: only_from, no_access, access_times. How many, the ledger counts."""

    __slots__ = ("_allowed", "_clock", "_denied", "_times", "_welcome")

    def __init__(self, limits: Limits, clock: "Callable[[], int]" = minute_of_day) -> None:
        self._welcome: dict[str, bool] = {}
        self._allowed = Networks(limits.only_from) if limits.only_from else None
        self._denied = Networks(limits.no_access) if limits.no_access else None
        self._times = limits.access_times
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether everyone may always come, and nobody need ask."""
        return self._allowed is None and self._denied is None and not self._times

    def refusal(self, source: str) -> str | None:
        """Why a client may not come, or None. source: its address as accept(2) tells it, mapped or not."""
        is_welcome = self._welcome.get(source)
        if is_welcome is None:
            if len(self._welcome) >= _MOST_KNOWN:
                self._welcome.clear()
            is_welcome = self._welcome[source] = self._is_welcome(source)
        if not is_welcome:
            return ADDRESS
        return None if not self._times or self._is_time() else TIME

    def _is_welcome(self, source: str) -> bool:
        if self._allowed is None and self._denied is None:
            return True
        packed = pack(source.partition("%")[0])
        if packed is None:
            return False
        denied = -1 if self._denied is None else self._denied.match(packed)
        if self._allowed is None:
            return denied < 0
        return self._allowed.match(packed) > denied

    def _is_time(self) -> bool:
        minute = self._clock()
        for start, end in self._times:
            if start <= end:
                if start <= minute < end:
                    return True
            elif minute >= start or minute < end:
                return True
        return False


def counted_as(source: str) -> str | bytes:
    """What per_source counts a client by: an IPv4 address, or an IPv6 client's /64, which is one client's."""
    if ":" not in source:
        return source
    packed = pack(source.partition("%")[0])
    if packed is None:
        return source
    return packed[:8] if len(packed) == 16 else _socket.inet_ntop(_socket.AF_INET, packed)


class Bursts:
    """The refusals of one service of one domain, told once per burst.

    The first is told at once; the others are counted, and told together when `quiet` seconds pass
    without one, or after `most` seconds of a burst that does not end.
    """

    __slots__ = ("_burst", "most", "quiet")

    def __init__(self, quiet: float = 2.0, most: float = 60.0) -> None:
        self.quiet = quiet
        self.most = most
        self._burst: dict[str, list[float]] = {}  # reason: first, last, further refusals

    def add(self, reason: str, now: float) -> bool:
        """Count a refusal; True: the first of a burst, tell it now."""
        burst = self._burst.get(reason)
        if burst is None:
            self._burst[reason] = [now, now, 0]
            return True
        burst[1] = now
        burst[2] += 1
        return False

    def due(self) -> float | None:
        """When `ended` may have something to tell; None while no burst is open."""
        times = [self._end(burst) for burst in self._burst.values()]
        return min(times) if times else None

    def ended(self, now: float) -> list[tuple[str, int, float]]:
        """The bursts that ended by now and had more than was told: (reason, further refusals, seconds)."""
        over = [reason for reason, burst in self._burst.items() if self._end(burst) <= now]
        told = []
        for reason in over:
            first, last, more = self._burst.pop(reason)
            if more:
                told.append((reason, int(more), last - first))
        return told

    def _end(self, burst: list[float]) -> float:
        return min(burst[1] + self.quiet, burst[0] + self.most)
