"""Tests of image/pack.py: others unpack it, and what comes out depends on what goes in alone."""

import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virttools.image.documents import Compression
from virttools.image.pack import Packer

HERE = Path(__file__).parents[1]
LARGE = random.Random(7).randbytes(1 << 20) + bytes(3 << 20) + b"words and words " * 90_001
UNPACK = {
    Compression.GZIP: ["gzip", "-dc"],
    Compression.ZSTD: ["zstd", "-dcq"],
    Compression.NONE: ["cat"],
}
PROGRAM = """
import hashlib, sys
from tests.test_image_pack import LARGE, packed
from virttools.image.documents import Compression
print(hashlib.sha256(packed(LARGE, Compression(sys.argv[1]), 99_991)).hexdigest())
"""


def packed(content: bytes, compression: Compression, piece: int) -> bytes:
    """The content, written in pieces of that many bytes."""
    sink = io.BytesIO()
    with Packer(sink, compression) as packer:
        for start in range(0, len(content), piece):
            packer.write(content[start : start + piece])
    assert packer.plain_sha256 == hashlib.sha256(content).hexdigest()
    return sink.getvalue()


@pytest.mark.parametrize("compression", Compression)
def test_others_unpack_what_we_packed(compression: Compression) -> None:
    """gzip(1) and zstd(1) check their sums and give back every byte."""
    done = subprocess.run(
        UNPACK[compression],
        input=packed(LARGE, compression, 1 << 16),
        capture_output=True,
        check=True,
    )
    assert done.stdout == LARGE


@settings(deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 700))
def test_gzip_is_one_member_whatever_it_holds(content: bytes, piece: int) -> None:
    """Nothing, one byte, random bytes, in any pieces: the same member, which Python unpacks."""
    found = packed(content, Compression.GZIP, piece)
    assert gzip.decompress(found) == content
    assert found == packed(content, Compression.GZIP, 1 << 20)


@pytest.mark.parametrize("compression", Compression)
def test_the_number_of_cores_changes_nothing(compression: Compression) -> None:
    """Packed by one core and by all of them, in other pieces: the same bytes."""
    one = subprocess.run(
        [
            "taskset",
            "-c",
            str(min(os.sched_getaffinity(0))),
            sys.executable,
            "-c",
            PROGRAM,
            compression,
        ],
        cwd=HERE,
        capture_output=True,
        check=True,
    )
    here = hashlib.sha256(packed(LARGE, compression, 1 << 20)).hexdigest()
    assert one.stdout.decode().strip() == here


def test_gzip_is_about_as_small_as_gzip_makes_it() -> None:
    """Blocks know the end of the one before: a percent more than gzip -6 at most."""
    text = subprocess.run(
        ["tar", "-C", HERE, "-cf", "-", "virttools"], capture_output=True, check=True
    )
    theirs = subprocess.run(["gzip", "-6c"], input=text.stdout, capture_output=True, check=True)
    assert len(packed(text.stdout, Compression.GZIP, 1 << 20)) < 1.01 * len(theirs.stdout)


def test_a_full_disk_ends_the_packing() -> None:
    """An error of the file that is written is told, and no thread is left behind waiting."""

    class Full:
        def write(self, data: bytes | memoryview, /) -> None:
            raise OSError(28, "No space left on device", len(data))

    with pytest.raises(OSError, match="No space"), Packer(Full(), Compression.NONE) as packer:
        packer.write(LARGE)
