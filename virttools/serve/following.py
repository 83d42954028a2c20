"""Doer: learns from the kernel that domains came, changed or went (inotify(7)), and when to look what they declare.

Nothing wakes the server up for it while nothing changes.
"""

import os
import struct

from virttools import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = linux.IN_MOVED_TO | linux.IN_MOVED_FROM | linux.IN_DELETE | linux.IN_ONLYDIR
_WATCHED = _NAMES | linux.IN_MOVE_SELF
_LOST = linux.IN_Q_OVERFLOW | linux.IN_IGNORED | linux.IN_MOVE_SELF
_OURS = b".virt"  # records lie in it
_EVENT = struct.Struct("=iIII")

_QUIET = 0.2
_LATEST = 2.0
_REST = 2.0
_REST_FOR_EACH = 0.5


class Calm:
    """When it is time to look after something changed: when no more comes, and not too often.

    Changes are waited out, for two seconds at most. Then the server rests twice as long as the last
    reload took, and half a second for each spawner that still drains: of a thousand domains that are
    made in a loop, few have a reload of their own, and sessions that last for hours do not pile up
    the spawners of as many sets.
    """

    __slots__ = ("_first", "_last", "_rested")

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._rested = 0.0

    def note(self, now: float) -> None:
        """Something changed."""
        self._first = now if self._first is None else self._first
        self._last = now

    def due(self, draining: int = 0) -> float | None:
        """When to look; None: nothing changed since `looked`. draining: spawners of sets before this one."""
        if self._first is None:
            return None
        rested = self._rested + _REST_FOR_EACH * draining
        return max(min(self._last + _QUIET, self._first + _LATEST), rested)

    def looked(self) -> None:
        """What changed until now is being read."""
        self._first = None

    def rest(self, now: float, spent: float) -> None:
        """It was read, and served, in so many seconds."""
        self._rested = now + _REST * spent


class Watch:
    """A queue that tells of names that came into some folders, or went from them.

    gone: folders that went, since somebody took note of it.
    """

    __slots__ = ("_folders", "_watches", "fd", "gone")

    def __init__(self, folders: "Iterable[str]") -> None:
        self._folders = tuple(folders)
        self.fd = -1
        self._watches: set[int] = set()
        self.gone: set[str] = set()

    def begin(self) -> str:
        """Watch from now on, the folders that are there now; why that cannot be done, or ""."""
        try:
            if self._folders and self.fd < 0:
                self.fd = linux.inotify_init()
                os.set_blocking(self.fd, False)
            now = {linux.inotify_add_watch(self.fd, each, _WATCHED) for each in self._folders}
        except OSError as error:
            return str(error.strerror)
        for watch in self._watches - now:  # of a folder that has another name by now, or is gone
            try:  # noqa: SIM105  contextlib would be loaded for it
                linux.inotify_rm_watch(self.fd, watch)
            except OSError:
                pass  # the kernel has done it
        self._watches = now
        return ""

    def has_changed(self) -> bool:
        """Whether something has, since the last time; never waits."""
        found = False
        while self.fd >= 0:
            try:
                found |= self._read(os.read(self.fd, 1 << 16))
            except BlockingIOError:
                break
        return found

    def _read(self, events: bytes) -> bool:
        """Whether one of them may be about a domain: its record, or its tree."""
        at, found = 0, False
        while at < len(events):
            _, mask, _, size = _EVENT.unpack_from(events, at)
            name = events[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0")
            is_folder = bool(mask & linux.IN_ISDIR)
            found |= bool(mask & _LOST) or _is_domains(name, is_folder=is_folder)
            if is_folder and mask & (linux.IN_MOVED_FROM | linux.IN_DELETE):
                self.gone.add(os.fsdecode(name))
            at += _EVENT.size + size
        return found


def _is_domains(name: bytes, *, is_folder: bool) -> bool:
    """A tree, or a record: NAME.json, or NAME~ (tree/root.py), whose temporary names begin with a dot; or .virt."""
    if name.startswith(b"."):
        return name == _OURS
    return is_folder or name.endswith((b".json", b"~"))
