"""Values: how many messages a domain may send: `rate` a second on the long run, `burst` at once.

What is beyond is dropped and counted; the count is told once, when it is over or lasts too long.
"""

_QUIET = 1.0
_LONGEST = 10.0


class Limit:
    """One domain's bucket; rate 0: no limit. `now` is a clock's that never goes back."""

    __slots__ = ("_burst", "_dropped", "_first", "_last", "_left", "_rate", "_since")

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = float(max(burst, 1))
        self._left = self._burst
        self._since: float | None = None
        self._dropped = 0
        self._first = self._last = 0.0

    def take(self, count: int, now: float) -> int:
        """How many of count messages may pass."""
        if not self._rate:
            return count
        since = now if self._since is None else self._since
        self._left = min(self._burst, self._left + (now - since) * self._rate)
        self._since = now
        allowed = min(count, int(self._left))
        self._left -= allowed
        if allowed < count:
            self._first = self._first if self._dropped else now
            self._last = now
            self._dropped += count - allowed
        return allowed

    @property
    def has_dropped(self) -> bool:
        """Whether there is a count that was not told yet."""
        return self._dropped > 0

    def told(self, now: float, *, at_once: bool = False) -> int:
        """How many were dropped, if it is time to say so; then counting begins anew."""
        is_due = now - self._last >= _QUIET or now - self._first >= _LONGEST
        if not self._dropped or not (is_due or at_once):
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped
