"""Doer: waits until a socket appears in the root or in the folder of sockets: inotify(7), no polling."""

import os
import struct

from virttools import linux
from virttools.errors import ApplyError
from virttools.tree.root import Root

_NEW = linux.IN_CREATE | linux.IN_MOVED_TO | linux.IN_ONLYDIR
_GONE = linux.IN_DELETE_SELF | linux.IN_MOVE_SELF
_EVENT = struct.Struct("=iIII")


class Watch:
    """Watches from the moment it is made, so that nothing is missed between looking and waiting."""

    __slots__ = ("_fd", "_path")

    def __init__(self, root: Root) -> None:
        self._path = root.path
        self._fd = linux.inotify_init()
        try:
            self._add(root.fd, _NEW | _GONE)
            self._add(root.log_fd, _NEW)
        except OSError as error:
            os.close(self._fd)
            raise ApplyError(
                f"cannot watch {root.path}: {error.strerror}",
                hint="fs.inotify.max_user_watches and max_user_instances limit it: see inotify(7)",
            ) from error

    def _add(self, folder_fd: int, mask: int) -> None:
        linux.inotify_add_watch(self._fd, f"/proc/self/fd/{folder_fd}", mask)

    def __enter__(self) -> "Watch":  # noqa: PYI034  as Root
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait(self) -> None:
        """Come back when something appeared. Raises ApplyError where the root itself is gone."""
        while not self._is_news(os.read(self._fd, 1 << 16)):
            pass

    def _is_news(self, events: bytes) -> bool:
        at, is_news = 0, False
        while at < len(events):
            _, mask, _, size = _EVENT.unpack_from(events, at)
            name = os.fsdecode(events[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0"))
            if mask & (_GONE | linux.IN_IGNORED):
                raise ApplyError(f"cannot watch {self._path} any longer: it was moved or removed")
            # Sockets are bound by another name and renamed; a lost event (IN_Q_OVERFLOW) has no name.
            is_news |= not name.startswith(".")
            at += _EVENT.size + size
        return is_news
