"""Reads the files of a view and says what secrets and whose names are in them, each content once."""

from collections.abc import Hashable, Iterator
from hashlib import md5, sha256
from typing import NamedTuple

from virttools.scrub import shapes
from virttools.scrub.neighbours import Neighbours, Words, words, words_of_program
from virttools.scrub.view import View, ViewFile

_HEAD = 8192
_MD5 = 32
_OVERLAP = 16384
"""Bytes looked at twice where a file is read in windows: longer than any secret that we know by its shape."""

_MOST_REMEMBERED = 20_000


class Secret(NamedTuple):
    """A secret at a line (from 1; None in a program)."""

    line: int | None
    operation: str
    what: str
    content: bytes


class Features(NamedTuple):
    """What there is in a file, or in one window of a large one, whoever asks."""

    secrets: tuple[Secret, ...]
    words: Words


Cache = dict[Hashable, Features]
_NO_WORDS = Words(frozenset(), frozenset())


class Inspector:
    """Looks into the files of one view. The cache may serve many views, of as many domains.

    only: nobody else's names are asked for, and there is no other view: a text that names none of
    them has no words.
    """

    def __init__(
        self,
        view: View,
        pristine: frozenset[str],
        cache: Cache | None,
        *,
        only: Neighbours | None = None,
    ) -> None:
        self._view = view
        self._pristine = pristine
        self._cache: Cache = {} if cache is None else cache
        self._only = only

    def is_pristine(self, file: ViewFile) -> bool:
        """True if the file is known to be just as its package ships it to everybody."""
        return bool(self._pristine) and f"/{file.path}" in self._pristine

    def is_public(self, file: ViewFile) -> bool:
        """True if the file's content has the digest that makes it public. Reads all of it."""
        if file.public is None:
            return False
        digest = md5(usedforsecurity=False) if len(file.public) == _MD5 else sha256()
        for window in self._view.windows(file.path):
            digest.update(window)
        return digest.hexdigest() == file.public

    def features(self, file: ViewFile) -> Iterator[Features]:
        known = None if file.identity is None else self._cache.get(file.identity)
        if known is not None:
            yield known
            return
        count = 0
        found = None
        for found in self._examined(file):
            count += 1
            yield found
        if count == 1 and found is not None and file.identity is not None:
            self._remember(file.identity, found)

    def secrets(self, file: ViewFile) -> Iterator[Secret]:
        for features in self.features(file):
            yield from features.secrets

    def lines_naming(
        self, file: ViewFile, neighbours: Neighbours
    ) -> Iterator[tuple[int | None, str]]:
        """Each line that names a neighbour, with the name; a program's names have no line."""
        for line, text, binary in self._texts(file):
            if binary:
                name = neighbours.named(words_of_program(text))
                if name is not None:
                    yield None, name
                continue
            for number, one in enumerate(text.split(b"\n"), line):
                name = neighbours.named(words(one))
                if name is not None:
                    yield number, name

    def _examined(self, file: ViewFile) -> Iterator[Features]:
        for line, text, binary in self._texts(file):
            if self._only is not None and not self._only.may_be_in(text, binary=binary):
                found = _NO_WORDS
            else:
                found = words_of_program(text) if binary else words(text)
            yield Features(tuple(_secrets(text, line, binary=binary)), found)

    def _texts(self, file: ViewFile) -> Iterator[tuple[int, bytes, bool]]:
        """The windows of a file, each with the end of the last; the line it starts with; is it a program."""
        line, tail, binary = 1, b"", None
        for window in self._view.windows(file.path):
            if binary is None:
                binary = b"\0" in window[:_HEAD]
            text = tail + window
            yield line, text, binary
            tail = text[-_OVERLAP:]
            line += text.count(b"\n", 0, len(text) - len(tail))

    def _remember(self, identity: Hashable, found: Features) -> None:
        if len(found.words.above) + len(found.secrets) <= _MOST_REMEMBERED:
            self._cache[identity] = found


def _secrets(text: bytes, line: int, *, binary: bool) -> Iterator[Secret]:
    at = 0
    for hit in shapes.hits(text, binary=binary):
        line += text.count(b"\n", at, hit.at)
        at = hit.at
        yield Secret(None if binary else line, hit.operation, hit.what, hit.secret)
