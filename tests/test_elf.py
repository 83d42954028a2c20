"""ELF headers: what is read from whole files, and that broken ones do no harm."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.elf_files import AARCH64, I386, dlopen_note, elf, place
from virttools.host import elf as headers

T = TypeVar("T")
PROGRAM = elf(
    ("needed", "libone.so.1"),
    ("needed", "libc.so.6"),
    ("soname", "self.so"),
    ("rpath", "/ignored"),
    ("runpath", "$ORIGIN/lib"),
    ("audit", "liba.so"),
    ("depaudit", "libd.so"),
    ("filter", "libf.so"),
    ("auxiliary", "libx.so"),
    interp="/lib64/ld.so",
    note=dlopen_note('[{"soname": ["libz.so.1"], "feature": "zlib", "priority": "required"}]'),
    flags_1=0x800,
)


def parsed(data: bytes, how: Callable[[int], T]) -> T:
    """What a reader makes of these bytes, from a file without a name."""
    fd = os.memfd_create("elf")
    try:
        os.write(fd, data)
        return how(fd)
    finally:
        os.close(fd)


def known(data: bytes) -> headers.Elf:
    found = parsed(data, headers.parse)
    assert found is not None
    return found


def test_every_entry_of_the_dynamic_section_is_read() -> None:
    """One file with all that ld.so heeds gives it all back; DT_RUNPATH silences DT_RPATH."""
    found = known(PROGRAM)
    assert (
        found.needed, found.soname, found.rpath, found.runpath, found.interp, found.damage,
        found.audits, found.filters, found.has_nodeflib, found.is_dynamic, found.abi,
    ) == (
        ("libone.so.1", "libc.so.6"), "self.so", None, "$ORIGIN/lib", "/lib64/ld.so", None,
        (("DT_AUDIT", "liba.so"), ("DT_DEPAUDIT", "libd.so")),
        (("DT_FILTER", "libf.so"), ("DT_AUXILIARY", "libx.so")),
        True, True, (62, 64, "<"),
    )  # fmt: skip
    (dlopen,) = found.dlopens
    assert (dlopen.sonames, dlopen.feature, dlopen.priority) == (("libz.so.1",), "zlib", "required")


@pytest.mark.parametrize(
    ("bits", "machine", "order"),
    [(32, I386, "<"), (64, AARCH64, "<"), (32, 8, ">"), (64, 22, ">")],
)
def test_all_classes_and_byte_orders_are_read(bits: int, machine: int, order: str) -> None:
    """A 32-bit or big-endian file tells as much as ours do."""
    found = known(
        elf(
            ("needed", "libc.so.6"),
            ("rpath", "/opt"),
            interp="/ld",
            bits=bits,
            machine=machine,
            order=order,
            note=dlopen_note('[{"soname": ["a"]}]', order),
        )
    )
    assert (found.needed, found.rpath, found.interp, found.abi, found.damage) == (
        ("libc.so.6",), "/opt", "/ld", (machine, bits, order), None,
    )  # fmt: skip
    assert [dlopen.priority for dlopen in found.dlopens] == ["recommended"]


@pytest.mark.parametrize(
    "data", [b"", b"\x7fEL", b"#!/bin/sh\n", b"/* GNU ld script */", bytes(99)]
)
def test_what_is_no_elf_file_is_none(data: bytes) -> None:
    """Scripts, linker scripts and empty files are no ELF files, and no errors."""
    assert parsed(data, headers.parse) is None


def test_special_files_are_none_and_are_not_waited_for(tmp_path: Path) -> None:
    """A fifo or folder in the place of a program neither blocks nor fails."""
    os.mkfifo(tmp_path / "fifo")
    assert [headers.read(str(path)) for path in (tmp_path, tmp_path / "fifo")] == [None, None]
    assert headers.read("/dev/null") is None


def test_a_file_without_a_dynamic_section_is_static() -> None:
    """A static program is whole: not dynamic, nothing needed, no damage."""
    header = bytearray(elf())[:64]
    header[56:58] = bytes(2)  # e_phnum
    found = known(bytes(header))
    assert (found.is_dynamic, found.needed, found.damage) == (False, (), None)


@pytest.mark.parametrize(
    ("data", "damage"),
    [
        (PROGRAM[:20], "its header is cut short"),
        (PROGRAM[:100], "its program headers are cut short"),
        (PROGRAM[:-16], "its dynamic section has no end"),
        (b"\x7fELF\x09\x09" + PROGRAM[6:], "its class or byte order is none"),
        (PROGRAM[:56] + b"\xff\xff" + PROGRAM[58:], "its program headers have an impossible size"),
        (elf(note=dlopen_note("[[[")), "its .note.dlopen is no JSON"),
        (elf(note=dlopen_note("[" * 60000)), "its .note.dlopen is no JSON"),
        (elf(note=dlopen_note("{}")), "its .note.dlopen is no list"),
        (
            elf(note=dlopen_note('[{"soname": 1}]')),
            "its .note.dlopen has an entry that says nothing",
        ),
        (elf(note=dlopen_note("[7]")), "its .note.dlopen has an entry that is no object"),
    ],
)
def test_damage_is_named(data: bytes, damage: str) -> None:
    """A broken file is still an ELF file, and says what is wrong with it."""
    assert known(data).damage == damage


def test_names_far_apart_and_long_ones_are_read() -> None:
    """Names that no window of the string table holds together are read one by one."""
    far = "/" + "x" * 9000
    found = known(elf(("needed", "first.so"), ("runpath", far), ("needed", "last.so")))
    assert (found.needed, found.runpath) == (("first.so", "last.so"), far)


def test_names_that_are_no_utf_8_survive() -> None:
    """A file name is bytes: what can't be decoded comes back the same."""
    name = os.fsdecode(b"lib\xff.so")
    assert known(elf(("needed", name))).needed == (name,)


def test_the_release_of_the_hosts_glibc_is_the_one_it_says() -> None:
    """DT_VERDEF of libc.so.6 tells the release that confstr does."""
    if not os.path.exists("/lib64/ld-linux-x86-64.so.2"):
        pytest.skip("the host is no x86-64 with glibc")
    said = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        libc = next(line.split()[-1] for line in maps if "/libc.so.6" in line)
    with open(libc, "rb") as file:
        assert headers.glibc_version(file.fileno()) == tuple(map(int, said.split(".")[:2]))


def test_imports_of_a_real_program_are_those_it_calls(tmp_path: Path) -> None:
    """The C library's own start and what every shell calls are found; a made file imports nothing."""
    with open("/bin/sh", "rb") as file:
        assert {"__libc_start_main", "fork", "execve"} <= headers.imports(file.fileno())
    with open(place(tmp_path / "empty", PROGRAM), "rb") as file:
        assert headers.imports(file.fileno()) == frozenset()
        assert headers.glibc_version(file.fileno()) is None


def _read_all(fd: int) -> None:
    headers.parse(fd)
    headers.imports(fd)
    headers.glibc_version(fd)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(["\x01\x01", "\x02\x01", "\x01\x02", "\x02\x02"]))
def test_random_bytes_never_raise(data: bytes, kind: str) -> None:
    """Whatever follows the magic number, reading ends and raises nothing."""
    parsed(b"\x7fELF" + kind.encode() + data, _read_all)


@settings(deadline=None, max_examples=600)
@given(st.data())
def test_damaged_files_never_raise(data: st.DataObject) -> None:
    """A whole file with some numbers overwritten, and cut somewhere, is read without a traceback."""
    content = bytearray(data.draw(st.sampled_from(FUZZED)))
    for _ in range(data.draw(st.integers(1, 6))):
        place_of = data.draw(st.integers(0, len(content) - 8))
        number = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from([2**64 - 1, 2**63, 2**31, 2**16 - 1]))
        )
        size = data.draw(st.sampled_from([1, 2, 4, 8]))
        content[place_of : place_of + size] = (number % 256**size).to_bytes(size, "little")
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    parsed(bytes(content[:end]), _read_all)


FUZZED = [
    PROGRAM,
    elf(("needed", "a"), ("runpath", "/b"), interp="/c", bits=32, machine=I386),
    elf(("needed", "a"), interp="/c", machine=22, order=">"),
]
