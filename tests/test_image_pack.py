"""Compression: what comes out is what others unpack, and depends on nothing but what goes in."""

import gzip
import hashlib
import io
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from virttools.image.documents import Compression
from virttools.image.pack import Hashing, Packer

MIXED = random.Random(1).randbytes(1_500_000) + bytes(3 << 20) + b"text " * 400_000


@contextmanager
def on_one_core() -> Iterator[None]:
    """As on a machine with a single core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def packed(content: bytes, compression: Compression, step: int) -> bytes:
    """The content packed, handed over in pieces of `step` bytes."""
    file = io.BytesIO()
    with Packer(file, compression) as packer:
        for start in range(0, len(content), step):
            packer.write(content[start : start + step])
    assert packer.plain_sha256 == hashlib.sha256(content).hexdigest()
    assert packer.written == len(content)
    return file.getvalue()


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("content", [b"", b"x", MIXED], ids=["nothing", "a byte", "much"])
def test_others_unpack_what_we_pack(compression: Compression, content: bytes) -> None:
    """Gzip by zlib, zstd by its library, whole and equal."""
    found = packed(content, compression, 100_000)
    match compression:
        case Compression.GZIP:
            assert gzip.decompress(found) == content
        case Compression.ZSTD:
            assert zstandard.ZstdDecompressor().decompressobj().decompress(found) == content
        case Compression.NONE:
            assert found == content


@pytest.mark.parametrize("compression", Compression)
def test_neither_cores_nor_the_size_of_pieces_matter(compression: Compression) -> None:
    """Equal digests on a machine with one core, and however the bytes came."""
    first = packed(MIXED, compression, 1 << 20)
    with on_one_core():
        assert packed(MIXED, compression, 77_777) == first


def test_gzip_is_as_small_as_gzip() -> None:
    """Cutting into blocks costs less than a percent."""
    text = b"".join(b"line %d of a text that is long\n" % number for number in range(100_000))
    assert len(packed(text, Compression.GZIP, 1 << 20)) < 1.01 * len(gzip.compress(text, 6))


@given(st.lists(st.binary(max_size=50)))
def test_a_hashing_file_passes_on_what_it_counts(parts: list[bytes]) -> None:
    """Size and digest are of what was written."""
    file = io.BytesIO()
    sink = Hashing(file)
    for part in parts:
        sink.write(part)
    whole = b"".join(parts)
    assert (file.getvalue(), sink.size, sink.sha256) == (
        whole,
        len(whole),
        hashlib.sha256(whole).hexdigest(),
    )


def test_nothing_is_finished_when_something_went_wrong() -> None:
    """A half image has no valid end."""
    file = io.BytesIO()
    packer = Packer(file, Compression.GZIP)
    packer.write(bytes(1 << 20))
    packer.__exit__(RuntimeError, RuntimeError(), None)
    with pytest.raises(EOFError):
        gzip.decompress(file.getvalue())
