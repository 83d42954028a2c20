"""Doer: writes the items of a tree as a tar archive, and sees that what it writes is what was looked at."""

import os
from collections.abc import Iterable

from virttools.image import tar, walk
from virttools.image.items import Item
from virttools.image.pack import Sink

_BLOCK = 256 << 10  # what stays in a cache until it is digested and written


class Archive:
    """A tar archive that is written to a sink, item by item."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written = 0
        self._buffer = memoryview(bytearray(_BLOCK))

    def tree(
        self,
        tree_fd: int,
        items: Iterable[Item],
        advance: walk.Advance = lambda _: None,
    ) -> None:
        """All items of a tree. Raises Busy where a content is not what its item says, ApplyError."""
        for item in items:
            self._put(tar.header(item))
            if item.type == "file" and item.link is None:
                self._content(tree_fd, item)
                advance(item.size)

    def file(self, path: str, content: bytes, mtime: int) -> None:
        """A file with that content."""
        self._put(tar.header(tar.file(path, len(content), mtime)) + tar.padded(content))

    def folder(self, path: str, mtime: int) -> None:
        self._put(tar.header(tar.folder(path, mtime)))

    def copy(self, path: str, source_fd: int, size: int, mtime: int) -> None:
        """A file whose content is the first `size` bytes of an open one."""
        self._put(tar.header(tar.file(path, size, mtime)))
        left = size
        while left and (block := os.read(source_fd, min(left, _BLOCK))):
            self._put(block)
            left -= len(block)
        assert not left, f"{path} is shorter than it was"
        self._put(tar.padding(size))

    def end(self) -> None:
        self._put(tar.end(self._written))

    def _put(self, data: bytes | memoryview) -> None:
        self._sink.write(data)
        self._written += len(data)

    def _content(self, tree_fd: int, item: Item) -> None:
        for piece in walk.content(tree_fd, item, self._buffer):
            self._put(piece)
        self._put(tar.padding(item.size))
