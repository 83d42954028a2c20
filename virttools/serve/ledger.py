"""Doer: counts connections in memory that all spawners share, so that a limit holds for all of them.

Whoever changes a count holds the lock of the file; it is freed when its holder dies (fcntl(2)).
"""

import fcntl
import mmap
import os
from _blake2 import blake2b  # hashlib would load openssl

from virttools.serve import admission
from virttools.serve.admission import Limits

LIVE, ACCEPTED, FAILED, WINDOW, COUNTED, PAUSED, LAST_RUN, BUSY_NS = range(8)
REFUSED = 8
"""Cells of a row; from REFUSED on one for each of REASONS."""

REASONS = (*admission.REASONS, "workers")
WIDTH = 16
_MOST_ROWS = 1 << 16
_SLOTS = 1 << 14
_MOST_STEPS = 256
_MOST_DIGESTS = 4096
_HEAD = 4  # cells: 0 the spare, 1 and 2 a secret, 3 the lines of the log that were lost
_LOST = 3
_ROWS = _HEAD + 2 * _SLOTS
_CELLS = _ROWS + WIDTH * _MOST_ROWS
_SECOND = 1_000_000_000
NO_SLOT = -1


class Ledger:
    """One row per target, and one slot per source that has connections to a target that counts them.

    Pages that were never written take no memory.
    """

    __slots__ = ("_cells", "_digests", "_map", "_secret", "fd", "map_fd")

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("virt-serve-ledger")
            os.truncate(fd, _CELLS * 8)
            os.pwrite(fd, os.urandom(16), 8)
        self.fd = fd
        self.map_fd = os.dup(fd)  # mmap duplicates what it maps: this number, once it is free again
        os.close(self.map_fd)
        self._map = mmap.mmap(fd, _CELLS * 8)
        self._cells = memoryview(self._map).cast("q")
        self._secret = os.pread(fd, 16, 8)
        self._digests: dict[tuple[int, str], int] = {}

    def close(self) -> None:
        """Forget the memory: a worker, which is a tenant's, must not reach it."""
        self._cells.release()
        self._map.close()
        os.close(self.fd)

    def lock(self) -> None:
        fcntl.lockf(self.fd, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def row(self, number: int) -> tuple[int, ...]:
        """The cells of a row, as they are now."""
        start = _ROWS + number * WIDTH
        return tuple(self._cells[start : start + WIDTH])

    def clear(self, number: int) -> None:
        """Make a row new: its target is another one."""
        start = _ROWS + number * WIDTH
        for cell in range(start, start + WIDTH):
            self._cells[cell] = 0

    def take(self, number: int, old: "Ledger") -> None:
        """Begin with the counts of an older ledger, and no connection live."""
        start = _ROWS + number * WIDTH
        for cell, value in enumerate(old.row(number)):
            self._cells[start + cell] = value if cell != LIVE else 0

    def lost(self) -> int:
        """The lines of the log that nobody took."""
        return self._cells[_LOST]

    def add_lost(self, count: int) -> None:
        """Count such lines; the lock is not held."""
        if count:
            self.lock()
            self._cells[_LOST] += count
            self.unlock()

    def set(self, number: int, cell: int, value: int) -> None:
        self._cells[_ROWS + number * WIDTH + cell] = value

    def add(self, number: int, cell: int, value: int = 1) -> None:
        """Add to a count; the lock is held."""
        self._cells[_ROWS + number * WIDTH + cell] += value

    def admit(self, number: int, limits: Limits, source: str, now: float) -> tuple[str | None, int]:
        """Count a connection in: (None, the slot to give back at its end), or why it may not come.

        The lock is held.
        """
        cells, start = self._cells, _ROWS + number * WIDTH
        if limits.cps is not None and self._is_too_fast(start, limits.cps, int(now * _SECOND)):
            return self._refuse(start, admission.CPS)
        if limits.instances and cells[start] >= limits.instances:
            return self._refuse(start, admission.INSTANCES)
        slot = NO_SLOT
        if limits.per_source:
            slot = self._slot(number, source)
            if slot == NO_SLOT or cells[slot + 1] >= limits.per_source:
                return self._refuse(start, admission.PER_SOURCE)
            cells[slot + 1] += 1
        cells[start] += 1
        cells[start + ACCEPTED] += 1
        return None, slot

    def refuse(self, number: int, reason: str) -> None:
        """Count a refusal that was decided elsewhere; the lock is held."""
        self._refuse(_ROWS + number * WIDTH, reason)

    def end(self, number: int, slot: int, seconds: float) -> None:
        """A connection has ended; the lock is held."""
        start = _ROWS + number * WIDTH
        self._cells[start] -= 1
        self._cells[start + BUSY_NS] += int(seconds * _SECOND)
        if slot != NO_SLOT:
            self._cells[slot + 1] -= 1

    def _refuse(self, start: int, reason: str) -> tuple[str, int]:
        self._cells[start + REFUSED + REASONS.index(reason)] += 1
        return reason, NO_SLOT

    def _is_too_fast(self, start: int, rate: admission.Rate, now: int) -> bool:
        cells = self._cells
        if now < cells[start + PAUSED]:
            return True
        if now - cells[start + WINDOW] >= rate.seconds * _SECOND:
            cells[start + WINDOW] = now
            cells[start + COUNTED] = 0
        cells[start + COUNTED] += 1
        if cells[start + COUNTED] <= rate.count:
            return False
        cells[start + PAUSED] = now + int(rate.pause * _SECOND)
        cells[start + COUNTED] = 0
        return True

    def _slot(self, number: int, source: str) -> int:
        """The cell of a source's slot (its count is the next one), or NO_SLOT where all are taken."""
        wanted = self._digests.get((number, source)) or self._digest(number, source)
        place, free, cells = wanted % _SLOTS, NO_SLOT, self._cells
        for _ in range(_MOST_STEPS):
            cell = _HEAD + 2 * place
            if cells[cell] == wanted:
                return cell
            if free == NO_SLOT and not cells[cell + 1]:
                free = cell
            if not cells[cell]:
                break
            place = (place + 1) % _SLOTS
        if free != NO_SLOT:
            cells[free] = wanted
        return free

    def _digest(self, number: int, source: str) -> int:
        """What a slot is known by, never 0; those of the last sources are remembered."""
        counted = admission.counted_as(source)
        text = counted.encode() if isinstance(counted, str) else counted
        digest = blake2b(b"%d " % number + text, digest_size=8, key=self._secret).digest()
        found = int.from_bytes(digest, "little", signed=True) or 1
        if len(self._digests) >= _MOST_DIGESTS:
            self._digests.clear()
        self._digests[number, source] = found
        return found


class Rows:
    """Which row is whose, over reloads and upgrades: a target keeps its counts while it is served."""

    __slots__ = ("numbers", "spare")

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.spare: list[int] = []

    def assign(self, ledger: Ledger, names: list[str]) -> list[int]:
        """A row for each name. Those of names that are gone are used again, once they are idle."""
        wanted = set(names)
        for name in [name for name in self.numbers if name not in wanted]:
            if not ledger.row(self.numbers[name])[LIVE]:
                self.spare.append(self.numbers.pop(name))
        return [self._number(ledger, name) for name in names]

    def _number(self, ledger: Ledger, name: str) -> int:
        number = self.numbers.get(name)
        if number is None:
            number = self.spare.pop() if self.spare else len(self.numbers)
            ledger.clear(number)
            self.numbers[name] = number
        return number
