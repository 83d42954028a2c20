"""Values: when the periodic commands of the domains are due, and which may start.

One at a time in a domain; one that is late runs once, however late; nothing wakes up while nothing is due.
"""

import heapq
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Job:
    """A command of a domain, every so many seconds; what: whatever its owner runs it by.

    last: when it last ran, where that is known; it goes on from there.
    """

    __slots__ = ("domain", "every", "last", "name", "what")

    def __init__(
        self,
        domain: str,
        name: str,
        every: float,
        *,
        last: float | None = None,
        what: object = None,
    ) -> None:
        self.domain = domain
        self.name = name
        self.every = every
        self.last = last
        self.what = what

    def first(self, now: float) -> float:
        """When it is due for the first time."""
        return now + self.phase() if self.last is None else self.last + self.every

    def phase(self) -> float:
        """How much of its period a job waits at first: jobs of a thousand domains shall not start at once."""
        return crc32(f"{self.domain}/{self.name}".encode()) / 2**32 * self.every


class Schedule:
    """Times are those of one clock that runs on while the machine sleeps (CLOCK_BOOTTIME)."""

    __slots__ = ("_due", "_heap", "_jobs", "_running", "_waiting")

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}
        self._due: dict[tuple[str, str], float] = {}
        self._heap: list[tuple[float, tuple[str, str]]] = []
        self._running: dict[str, tuple[str, str]] = {}
        self._waiting: dict[str, list[tuple[str, str]]] = {}

    def replace(self, jobs: "Iterable[Job]", now: float) -> None:
        """Take these jobs, and no others, from now on; one that is as it was keeps its time."""
        new = {(job.domain, job.name): job for job in jobs}
        waiting = {key for queue in self._waiting.values() for key in queue}
        for key, job in new.items():
            old = self._jobs.get(key)
            if old is None or old.every != job.every:
                self._due[key] = job.first(now)
                waiting.discard(key)
        self._jobs = new
        self._due = {key: due for key, due in self._due.items() if key in new}
        self._waiting = {}
        for key in sorted(waiting & new.keys(), key=self._due.__getitem__):
            self._waiting.setdefault(key[0], []).append(key)
        away = waiting | set(self._running.values())
        self._heap = [(due, key) for key, due in self._due.items() if key not in away]
        heapq.heapify(self._heap)

    def next_due(self) -> float | None:
        """When `start` should be asked; None: not before a command that runs has ended, or ever."""
        return self._heap[0][0] if self._heap else None

    def start(self, now: float) -> list[Job]:
        """The jobs to start now. Each must be told to `ended`."""
        started = []
        while self._heap and self._heap[0][0] <= now:
            _, key = heapq.heappop(self._heap)
            if key[0] in self._running:
                self._waiting.setdefault(key[0], []).append(key)
            else:
                started.append(self._begin(key))
        return started

    def ended(self, job: Job, now: float) -> list[Job]:
        """A command has ended; the next of its domain, if one waits. Its own next time lies ahead of now."""
        key = (job.domain, job.name)
        if self._running.get(job.domain) != key:
            return []
        del self._running[job.domain]
        if key in self._jobs:
            self._due[key] = self._after(key, now)
            heapq.heappush(self._heap, (self._due[key], key))
        queue = self._waiting.get(job.domain)
        if not queue:
            return []
        following = queue.pop(0)
        if not queue:
            del self._waiting[job.domain]
        return [self._begin(following)]

    def _begin(self, key: tuple[str, str]) -> Job:
        self._running[key[0]] = key
        return self._jobs[key]

    def _after(self, key: tuple[str, str], now: float) -> float:
        """The first time after now in step with the last one: what was missed meanwhile is not made up for."""
        due, every = self._due[key], self._jobs[key].every
        return due if due > now else due + (int((now - due) // every) + 1) * every
