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
REASONS = (INSTANCES, PER_SOURCE, CPS, ADDRESS, TIME)
"""Why a connection is refused: the limit's name, or `address` (only_from, no_access), `time` (access_times)."""


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


class Admission:
    """The connections of one service of one domain: who is in, who may come.

    live: connections now; sources: those of each source, only while it has any.
    """

    __slots__ = (
        "_allowed",
        "_clock",
        "_counted",
        "_denied",
        "limits",
        "live",
        "paused_until",
        "sources",
        "window",
    )

    def __init__(self, limits: Limits, clock: "Callable[[], int]" = minute_of_day) -> None:
        self.live = 0
        self.sources: dict[str | bytes, int] = {}
        self.window = 0.0
        self.paused_until = 0.0
        self._counted = 0
        self._clock = clock
        self.change(limits)

    def change(self, limits: Limits) -> None:
        """Take new limits, on a reload; who is in stays in and stays counted."""
        self.limits = limits
        self._allowed = Networks(limits.only_from) if limits.only_from else None
        self._denied = Networks(limits.no_access) if limits.no_access else None

    def admit(self, source: str, now: float) -> str | None:
        """Let a connection in and count it (None), or say why not. now: a monotonic clock.

        source: the client's address as accept(2) tells it, IPv4-mapped or not.
        """
        limits = self.limits
        if (self._allowed or self._denied) and not self._may_come(source):
            return ADDRESS
        if limits.access_times and not self._is_open():
            return TIME
        if limits.cps is not None and self._is_too_fast(limits.cps, now):
            return CPS
        if limits.instances and self.live >= limits.instances:
            return INSTANCES
        key = counted_as(source)
        count = self.sources.get(key, 0)
        if limits.per_source and count >= limits.per_source:
            return PER_SOURCE
        self.sources[key] = count + 1
        self.live += 1
        return None

    def gone(self, source: str) -> None:
        """A connection that was let in has ended."""
        key = counted_as(source)
        count = self.sources.get(key, 0)
        if count > 1:
            self.sources[key] = count - 1
        else:
            self.sources.pop(key, None)
        self.live -= 1

    def _may_come(self, source: str) -> bool:
        packed = pack(source.partition("%")[0])
        if packed is None:
            return False
        allowed = 0 if self._allowed is None else self._allowed.match(packed)
        if allowed < 0:
            return False
        if self._denied is None:
            return True
        denied = self._denied.match(packed)
        return denied < 0 or (self._allowed is not None and allowed > denied)

    def _is_open(self) -> bool:
        minute = self._clock()
        for start, end in self.limits.access_times:
            if start <= end:
                if start <= minute < end:
                    return True
            elif minute >= start or minute < end:
                return True
        return False

    def _is_too_fast(self, rate: Rate, now: float) -> bool:
        if now < self.paused_until:
            return True
        if now - self.window >= rate.seconds:
            self.window = now
            self._counted = 0
        self._counted += 1
        if self._counted <= rate.count:
            return False
        self.paused_until = now + rate.pause
        self._counted = 0
        return True


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

    __slots__ = ("_burst", "most", "quiet", "refused")

    def __init__(self, quiet: float = 2.0, most: float = 60.0) -> None:
        self.quiet = quiet
        self.most = most
        self.refused: dict[str, int] = dict.fromkeys(REASONS, 0)
        self._burst: dict[str, list[float]] = {}  # reason: first, last, further refusals

    def add(self, reason: str, now: float) -> bool:
        """Count a refusal; True: the first of a burst, tell it now."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
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
