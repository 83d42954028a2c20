"""Reader: the files of `virt log serve` read back: their last lines, those since a moment, and what comes.

A file that is rotated away is read to its end, then the new one of its name: by inode, not by name.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from virttools import linux
from virttools.devlog import lines
from virttools.devlog.lines import Line
from virttools.devlog.messages import harmless
from virttools.errors import ApplyError, NeedsPrivilege, UnknownDomain

ROTATED = ".1"
"""What logrotate calls the file before the present one; it is not compressed yet."""

_BLOCK = 1 << 16
_LONGEST = 1 << 20
"""Bytes without an end of line after which they are taken for one."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a log file. line: what it says, None where somebody else wrote it. text: as it stands, harmless."""

    text: str
    line: Line | None

    def when(self) -> float | None:
        """Seconds since 1970, or None where the line does not begin with a time."""
        stamp = self.line.time if self.line else self.text.partition(" ")[0]
        try:
            return datetime.fromisoformat(stamp).timestamp()
        except ValueError:
            return None


def last(path: str, *, count: int | None, since: float | None) -> list[Said]:
    """The last lines of a file and of the one that was rotated before it: at most count, none before since.

    Raises UnknownDomain, NeedsPrivilege, ApplyError.
    """
    try:
        fd = _open(path)
    except UnknownDomain:
        if not os.path.lexists(path + ROTATED):
            raise
        return _last([_backwards_in(path + ROTATED)], count, since)
    try:
        return _last(_recent(fd, os.fstat(fd).st_size, path), count, since)
    finally:
        os.close(fd)


def _recent(fd: int, end: int, path: str) -> Iterable[Iterator[bytes]]:
    yield _backwards(fd, end)
    yield _backwards_in(path + ROTATED)


def _last(files: Iterable[Iterator[bytes]], count: int | None, since: float | None) -> list[Said]:
    found: list[Said] = []
    for raw in chain.from_iterable(files):
        if count is not None and len(found) >= count:
            break
        said = _said(raw)
        when = said.when() if since is not None else None
        if since is not None and when is not None and when < since:
            break
        found.append(said)
    return found[::-1]


def _backwards_in(path: str) -> Iterator[bytes]:
    """The lines of a file, last first; none where there is none."""
    try:
        fd = _open(path)
    except UnknownDomain:
        return
    try:
        yield from _backwards(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _backwards(fd: int, end: int) -> Iterator[bytes]:
    """The whole lines before a place, last first; a line that is still being written is left out."""
    rest, is_first = b"", True
    while end > 0:
        start = max(0, end - _BLOCK)
        parts = (os.pread(fd, end - start, start) + rest).split(b"\n")
        if is_first:
            parts.pop()
            is_first = False
            if not parts:
                rest, end = b"", start
                is_first = True
                continue
        rest = parts[0]
        yield from parts[:0:-1]
        end = start
    if not is_first:
        yield rest


def _said(raw: bytes) -> Said:
    text = harmless(raw).decode()
    return Said(text, lines.read(text))


def follow(path: str, *, count: int | None, since: float | None) -> Iterator[Said]:
    """`last`, and then every line as it comes, for ever. Raises UnknownDomain, NeedsPrivilege, ApplyError."""
    with _Follower(path) as follower:
        yield from _last(_recent(follower.fd, follower.begin(), path), count, since)
        while True:
            yield from follower.news()
            follower.wait()


class _Follower:
    """One file, open, with how far it was read; inotify(7) on its folder tells when to look again."""

    __slots__ = ("_at", "_path", "_queue_fd", "_rest", "fd")

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = 0
        self._rest = b""
        self._queue_fd = _queue(path)
        try:
            self.fd = _open(path)
        except BaseException:
            os.close(self._queue_fd)
            raise

    def __enter__(self) -> "_Follower":  # noqa: PYI034  private
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        os.close(self._queue_fd)

    def begin(self) -> int:
        """Where the last whole line ends now: what comes later is news."""
        end = os.fstat(self.fd).st_size
        while end > 0:
            start = max(0, end - _BLOCK)
            at = os.pread(self.fd, end - start, start).rfind(b"\n")
            if at >= 0:
                self._at = start + at + 1
                break
            end = start
        return self._at

    def wait(self) -> None:
        os.read(self._queue_fd, _BLOCK)

    def news(self) -> Iterator[Said]:
        yield from self._drain()
        if (new_fd := self._successor()) is not None:
            # Whoever writes has opened the new file by now: nothing more comes into the old one.
            yield from self._drain()
            os.close(self.fd)
            self.fd, self._at, self._rest = new_fd, 0, b""
            yield from self._drain()

    def _successor(self) -> int | None:
        """The file that has the name now, once something is in it."""
        try:
            fd = _open(self._path)
        except UnknownDomain:
            return None
        old, new = os.fstat(self.fd), os.fstat(fd)
        if (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino) and new.st_size:
            return fd
        os.close(fd)
        return None

    def _drain(self) -> Iterator[Said]:
        if os.fstat(self.fd).st_size < self._at:  # truncated: logrotate's copytruncate
            self._at, self._rest = 0, b""
        while data := os.pread(self.fd, _BLOCK, self._at):
            self._at += len(data)
            *whole, self._rest = (self._rest + data).split(b"\n")
            yield from map(_said, whole)
            if len(self._rest) > _LONGEST:
                yield _said(self._rest)
                self._rest = b""


def _queue(path: str) -> int:
    queue_fd = linux.inotify_init()
    mask = linux.IN_MODIFY | linux.IN_CREATE | linux.IN_MOVED_TO | linux.IN_ONLYDIR
    try:
        linux.inotify_add_watch(queue_fd, os.path.dirname(path) or ".", mask)
    except OSError as error:
        os.close(queue_fd)
        raise _refusal(path, error) from error
    return queue_fd


def _open(path: str) -> int:
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        raise _refusal(path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ApplyError(f"cannot read {path}: it is not a file")
    return fd


def _refusal(path: str, error: OSError) -> UnknownDomain | NeedsPrivilege | ApplyError:
    if isinstance(error, FileNotFoundError):
        return UnknownDomain(
            f"cannot read {path}: nothing was logged there",
            hint="`virt log serve` writes it; --logs names another folder",
        )
    if isinstance(error, PermissionError):
        return NeedsPrivilege(f"cannot read {path}: {error.strerror}", hint="run it as root")
    return ApplyError(f"cannot read {path}: {error.strerror}")


def moment(text: str, now: Callable[[], datetime] = lambda: datetime.now().astimezone()) -> float:
    """A moment as a user says it: `90s`, `10m`, `2h`, `3d` ago; `15:04`; `2026-11-20 15:04`; RFC 3339.

    Raises ValueError.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    if text[:-1].isdecimal() and text[-1:] in units:
        return now().timestamp() - int(text[:-1]) * units[text[-1]]
    today = now()
    if len(text) <= 8 and ":" in text:
        text = f"{today.date().isoformat()}T{text}"
    said = datetime.fromisoformat(text)
    return (said if said.tzinfo else said.astimezone()).timestamp()
