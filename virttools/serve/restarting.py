"""Values: when a daemon that has ended is started again, and which of its ends are worth a line of the log.

The first wait is short, each further one twice as long; who runs for a while begins anew.
"""

ALWAYS, ON_FAILURE, NEVER = "always", "on-failure", "no"
SETTLED = 10.0
"""Seconds after which a daemon that was started counts as running well."""
_FIRST = 1.0
_DOUBLINGS = 16


class Course:
    """The life of one daemon over its restarts. most: the longest wait; times: of a clock that only runs on."""

    __slots__ = ("_quick", "_told", "last", "most", "restart", "restarts", "started")

    def __init__(self, restart: str, most: float) -> None:
        self.restart = restart
        self.most = most
        self.started = 0.0
        self.restarts = 0
        self.last = ""
        self._quick = 0
        self._told = ""

    def begin(self, now: float) -> None:
        """It was started."""
        self.started = now

    def ended(self, how: str, now: float, *, is_failure: bool) -> float | None:
        """It ended by itself; how: in words. Seconds to wait before it is started again; None: never."""
        self.last = how
        if self.restart == NEVER or (self.restart == ON_FAILURE and not is_failure):
            self._quick = 0
            return None
        self.restarts += 1
        if now - self.started >= SETTLED:
            self._quick = 0
            self._told = ""
            return 0.0
        self._quick = min(self._quick + 1, _DOUBLINGS)
        return float(min(self.most, _FIRST * 2 ** (self._quick - 1)))

    def is_news(self) -> bool:
        """Whether the last end is worth a line: the first of a burst is, and one that differs from it."""
        is_new = self.last != self._told
        self._told = self.last
        return is_new

    def settles_at(self) -> float | None:
        """When a burst of ends is over, if it runs until then; None: there is no burst."""
        return self.started + SETTLED if self._quick else None

    def settled(self) -> int:
        """It runs well again; how many ends the burst had."""
        ends, self._quick, self._told = self._quick, 0, ""
        return ends

    def state(self) -> tuple[str, float, float, int, str, int, str]:
        """All of it, for a successor."""
        return (
            self.restart, self.most, self.started, self.restarts, self.last, self._quick, self._told,
        )  # fmt: skip

    @classmethod
    def of(cls, state: tuple[str, float, float, int, str, int, str]) -> "Course":
        """What `state` told."""
        made = cls(state[0], state[1])
        made.started, made.restarts, made.last, made._quick, made._told = state[2:]
        return made
