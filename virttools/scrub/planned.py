"""Reads the tree that a plan would make, before there is one. Changes nothing."""

import os
from collections.abc import Iterator, Sequence

from virttools.host.facts import Kind
from virttools.scrub.view import ViewFile, blocks, unreadable
from virttools.tree.actions import (
    Action,
    CopyFile,
    LinkFile,
    LinkSocket,
    MakeDir,
    MakeNode,
    MakeSymlink,
    Plan,
    WriteFile,
)

_IDENTITY_LIMIT = 1 << 16


class PlanView:
    """The tree that a plan would make, read from the host's files and the plan's own texts."""

    def __init__(self, plan: Plan) -> None:
        self._actions = {action.path: action for action in plan.actions}
        self._entries: tuple[ViewFile, ...] | None = None

    def entries(self) -> Sequence[ViewFile]:
        if self._entries is None:
            self._entries = tuple(self._file(path) for path in sorted(self._actions))
        return self._entries

    def windows(self, path: str) -> Iterator[bytes]:
        match self._content(path):
            case WriteFile(content=content):
                yield content
            case CopyFile(source=source):
                yield from _host_windows(os.fspath(source))
            case _:
                return

    def _content(self, path: str) -> Action | None:
        """The action whose content `path` has: links among the plan's files are followed."""
        action = self._actions.get(path)
        while isinstance(action, LinkFile):
            action = self._actions.get(action.existing)
        return action

    def _file(self, path: str) -> ViewFile:
        action = self._content(path)
        match action:
            case CopyFile():
                return ViewFile(
                    path, Kind.FILE, action.mode, action.uid, action.gid, action.size,
                    identity=action.identity, public=action.md5,
                )  # fmt: skip
            case WriteFile(content=content):
                identity = content if len(content) <= _IDENTITY_LIMIT else None
                return ViewFile(
                    path, Kind.FILE, action.mode, action.uid, action.gid, len(content),
                    identity=identity,
                )  # fmt: skip
            case MakeDir():
                return ViewFile(path, Kind.DIRECTORY, action.mode, action.uid, action.gid)
            case MakeNode():
                return ViewFile(path, Kind.DEVICE, action.mode, action.uid, action.gid)
            case MakeSymlink(target=target):
                return ViewFile(path, Kind.SYMLINK, 0o777, 0, 0, target=target)
            case LinkSocket() | LinkFile() | None:
                return ViewFile(path, Kind.SOCKET, 0, 0, 0)


def _host_windows(path: str) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        yield from blocks(fd)
    finally:
        os.close(fd)
