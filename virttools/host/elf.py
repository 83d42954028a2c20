"""Reads the headers of ELF files: what ld.so looks at before it maps one. Nothing is ever run.

Every read is bounded and every number checked: the files may be hostile. Layouts: elf(5), <elf.h>.
"""

import os
import stat
import struct

EM_386, EM_ARM, EM_X86_64, EM_AARCH64 = 3, 40, 62, 183

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 1, 4, 5, 6, 10
_DT_SONAME, _DT_RPATH, _DT_RUNPATH = 14, 15, 29
_DT_GNU_HASH, _DT_FLAGS_1, _DT_VERDEF, _DT_VERDEFNUM = (
    0x6FFFFEF5, 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFD,
)  # fmt: skip
_DT_DEPAUDIT, _DT_AUDIT, _DT_AUXILIARY, _DT_FILTER = (
    0x6FFFFEFB, 0x6FFFFEFC, 0x7FFFFFFD, 0x7FFFFFFF,
)  # fmt: skip
_DF_1_NODEFLIB = 0x800

# https://uapi-group.org/specifications/specs/elf_dlopen_metadata/
_NOTE_DLOPEN = 0x407C0C0A
_PRIORITIES = ("required", "recommended", "suggested")

_MAGIC = b"\x7fELF"
_HEAD = 2048
"""Holds the headers of all but odd files, and costs no more than a smaller read."""
_TABLE_LIMIT = 65536
"""Bytes of program headers (as load_elf_phdrs in the kernel), dynamic section or notes."""
_WINDOW = 8192
_STRING_LIMIT = 65536
_STRINGS_LIMIT = 1 << 23
_SYMBOL_LIMIT = 65536
_SYMBOL_NAME_LIMIT = 4096
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Dlopen:
    """One entry of .note.dlopen: the first of `sonames` that is found serves.

    priority: "required", "recommended" or "suggested".
    """

    __slots__ = ("feature", "priority", "sonames")

    def __init__(self, sonames: tuple[str, ...], feature: str, priority: str) -> None:
        self.sonames = sonames
        self.feature = feature
        self.priority = priority


class Elf:
    """What one file's headers say. A slotted class: hundreds are made in a few milliseconds.

    bits: 32 or 64. machine, type: e_machine, e_type (2 executable, 3 shared or PIE).
    abi: (machine, bits, byte order): programs load libraries of their own only.
    file: (device, inode). is_dynamic: it has a dynamic section; without one it is static.
    interp: PT_INTERP. rpath is None where there is a runpath, as ld.so ignores it then.
    audits: (tag name, library) of DT_AUDIT and DT_DEPAUDIT; filters: of DT_FILTER and DT_AUXILIARY.
    has_nodeflib: linked with -z nodefaultlib. damage: what is wrong with the file, or None.
    """

    __slots__ = (
        "abi", "audits", "bits", "damage", "dlopens", "file", "filters", "has_nodeflib", "interp",
        "is_dynamic", "machine", "needed", "rpath", "runpath", "soname", "type",
    )  # fmt: skip

    def __init__(self, bits: int, file: tuple[int, int]) -> None:
        self.bits = bits
        self.file = file
        self.machine = self.type = 0
        self.abi = (0, bits, "")
        self.is_dynamic = self.has_nodeflib = False
        self.needed: tuple[str, ...] = ()
        self.audits: tuple[tuple[str, str], ...] = ()
        self.filters: tuple[tuple[str, str], ...] = ()
        self.dlopens: tuple[Dlopen, ...] = ()
        self.interp: str | None = None
        self.soname: str | None = None
        self.rpath: str | None = None
        self.runpath: str | None = None
        self.damage: str | None = None


def read(path: str) -> Elf | None:
    """The headers of the file that `path` leads to; None where that is no regular ELF file.

    Raises OSError where it can't be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    fd = os.open(path, _OPEN_FLAGS)
    try:
        return parse(fd, (status.st_dev, status.st_ino))
    finally:
        os.close(fd)


def parse(fd: int, file: tuple[int, int] = (0, 0)) -> Elf | None:
    """As `read`, of an open file; of a damaged one what could be read, and `damage` says so."""
    head = os.pread(fd, _HEAD, 0)
    layout = _LAYOUTS.get(head[:6])
    if layout is None and not head.startswith(_MAGIC):
        return None
    elf = Elf(32 if layout is None else layout.bits, file)
    try:
        _fill(elf, _Image(fd, head, layout))
    except _DamagedError as error:
        elf.damage = str(error)
    return elf


def imports(fd: int) -> frozenset[str]:
    """The symbols that the open ELF file takes from its libraries: empty for what is none."""
    try:
        image = _Image(fd, os.pread(fd, _HEAD, 0))
        return frozenset(_undefined(image))
    except _DamagedError:
        return frozenset()


def glibc_version(fd: int) -> tuple[int, int] | None:
    """The newest GLIBC_x.y that the open file, a libc.so.6, defines; None where it defines none.

    A libc.so.6 has a version of each release that added a symbol, hence its own or one just below.
    """
    try:
        image = _Image(fd, os.pread(fd, _HEAD, 0))
        versions = [_release(name) for name in _definitions(image)]
    except _DamagedError:
        return None
    return max((version for version in versions if version is not None), default=None)


class _DamagedError(Exception):
    """The file is not what its headers say."""


class _Layout:
    """How a class and byte order lays structures out. program: type, offset, vaddr, filesz."""

    __slots__ = ("bits", "dynamic", "header", "order", "program", "word")

    def __init__(self, bits: int, order: str) -> None:
        self.bits = bits
        self.order = order
        self.word = "Q" if bits == 64 else "I"
        # type, machine, phoff, phentsize, phnum
        self.header = struct.Struct(f"{order}16xHH{'12xQ14x' if bits == 64 else '8xI10x'}HH")
        self.program = struct.Struct(order + ("I4xQQ8xQ16x" if bits == 64 else "III4xI12x"))
        self.dynamic = 16 if bits == 64 else 8


_LAYOUTS = {
    _MAGIC + bytes((number, data)): _Layout(bits, order)
    for number, bits in ((1, 32), (2, 64))
    for data, order in ((1, "<"), (2, ">"))
}


class _Image:
    """The segments of one open file. Raises _DamagedError where the headers lie."""

    __slots__ = ("dynamic", "fd", "head", "interp", "layout", "loads", "machine", "notes", "type")

    def __init__(self, fd: int, head: bytes, layout: _Layout | None = None) -> None:
        layout = layout or _LAYOUTS.get(head[:6])
        if layout is None:
            raise _DamagedError("its class or byte order is none")
        if len(head) < layout.header.size:
            raise _DamagedError("its header is cut short")
        self.fd = fd
        self.head = head
        self.layout = layout
        self.type, self.machine, offset, size, count = layout.header.unpack_from(head)
        self.loads: list[tuple[int, int, int]] = []
        self.notes: list[tuple[int, int]] = []
        self.dynamic: tuple[int, int, int] | None = None
        self.interp: tuple[int, int] | None = None
        if count:
            self._sort(self._table(offset, size, count))

    def _table(self, offset: int, size: int, count: int) -> bytes:
        length = size * count
        if size != self.layout.program.size or length > _TABLE_LIMIT:
            raise _DamagedError("its program headers have an impossible size")
        table = self.bytes(offset, length)
        if len(table) < length:
            raise _DamagedError("its program headers are cut short")
        return table

    def _sort(self, table: bytes) -> None:
        for kind, offset, address, size in self.layout.program.iter_unpack(table):
            if kind == _PT_LOAD:
                self.loads.append((address, offset, size))
            elif kind == _PT_DYNAMIC:
                self.dynamic = (address, offset, size)
            elif kind == _PT_INTERP:
                self.interp = (offset, size)
            elif kind == _PT_NOTE:
                self.notes.append((offset, size))

    def bytes(self, offset: int, size: int) -> bytes:
        """At most `size` bytes; fewer where the file ends."""
        end = offset + size
        if end <= len(self.head):
            return self.head[offset:end]
        if end >= 1 << 62:
            raise _DamagedError("it points beyond any file")
        return os.pread(self.fd, size, offset)

    def offset(self, address: int) -> int:
        """Where in the file lies what is loaded at `address`."""
        for start, offset, size in self.loads:
            if start <= address < start + size:
                return offset + address - start
        raise _DamagedError("a table lies in no segment")

    def entries(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tags and the values of the dynamic section, up to DT_NULL."""
        assert self.dynamic is not None
        address, offset, size = self.dynamic
        # ld.so goes by the address; the two differ in files made to deceive.
        for start, begin, length in self.loads:
            if start <= address < start + length:
                offset = begin + address - start
                break
        data = self.bytes(offset, min(size, _TABLE_LIMIT))
        layout = self.layout
        count = len(data) // layout.dynamic * 2
        words = struct.unpack_from(f"{layout.order}{count}{layout.word}", data)
        tags = words[::2]
        if 0 not in tags:
            raise _DamagedError("its dynamic section has no end")
        end = tags.index(0)
        return tags[:end], words[1 : 2 * end : 2]

    def names(self, single: dict[int, int], offsets: list[int]) -> list[str]:
        """The strings at `offsets` of the dynamic string table."""
        base = self.offset(single.get(_DT_STRTAB, 0))
        limit = single.get(_DT_STRSZ, 0)
        low, high = min(offsets), max(offsets)
        if high >= limit:
            raise _DamagedError("a name lies outside its string table")
        if high - low > _WINDOW:
            return [self._string(base + offset) for offset in offsets]
        window = self.bytes(base + low, min(high + 256, limit) - low)
        found = []
        for offset in offsets:
            end = window.find(b"\0", offset - low)
            if end < 0:
                found.append(self._string(base + offset))
            else:
                found.append(window[offset - low : end].decode("utf-8", "surrogateescape"))
        return found

    def _string(self, offset: int) -> str:
        for size in (256, 4096, _STRING_LIMIT):
            text, end, _rest = self.bytes(offset, size).partition(b"\0")
            if end:
                return text.decode("utf-8", "surrogateescape")
        raise _DamagedError("a name has no end")

    def numbers(self, offset: int, pattern: str) -> tuple[int, ...]:
        packed = struct.Struct(self.layout.order + pattern)
        data = self.bytes(offset, packed.size)
        if len(data) < packed.size:
            raise _DamagedError("a table is cut short")
        return packed.unpack(data)


def _fill(elf: Elf, image: _Image) -> None:
    elf.machine = image.machine
    elf.abi = (image.machine, elf.bits, image.layout.order)
    elf.type = image.type
    if image.interp is not None:
        offset, size = image.interp
        text = image.bytes(offset, min(size, 4096)).partition(b"\0")[0]
        elf.interp = text.decode("utf-8", "surrogateescape")
    if image.dynamic is not None:
        elf.is_dynamic = True
        _link(elf, image)
    for offset, size in image.notes:
        data = image.bytes(offset, min(size, _TABLE_LIMIT))
        if b"FDO\0" in data:
            elf.dlopens += tuple(_notes(data, image.layout.order))


def _link(elf: Elf, image: _Image) -> None:
    """Fill in what the dynamic section says."""
    tags, values = image.entries()
    wanted = [entry for entry in zip(tags, values, strict=True) if entry[0] in _NAMED]
    single = dict(zip(tags, values, strict=True))
    elf.has_nodeflib = bool(single.get(_DT_FLAGS_1, 0) & _DF_1_NODEFLIB)
    if not wanted:
        return
    names = image.names(single, [value for _tag, value in wanted])
    needed = []
    for (tag, _value), name in zip(wanted, names, strict=True):
        if tag == _DT_NEEDED:
            needed.append(name)
        elif tag == _DT_SONAME:
            elf.soname = name
        elif tag == _DT_RUNPATH:
            elf.runpath = name
        elif tag == _DT_RPATH:
            elf.rpath = name
        elif tag in (_DT_AUDIT, _DT_DEPAUDIT):
            elf.audits += ((_NAMED[tag], name),)
        else:
            elf.filters += ((_NAMED[tag], name),)
    elf.needed = tuple(needed)
    if elf.runpath is not None:
        elf.rpath = None


def _notes(data: bytes, order: str) -> list[Dlopen]:
    """The entries of every .note.dlopen in one note segment."""
    header = struct.Struct(f"{order}III")
    found: list[Dlopen] = []
    start = 0
    while start + header.size <= len(data):
        name_size, size, kind = header.unpack_from(data, start)
        name = start + header.size
        text = name + (name_size + 3 & ~3)
        if kind == _NOTE_DLOPEN and data[name : name + name_size] == b"FDO\0":
            found += _dlopens(data[text : text + size])
        start = text + (size + 3 & ~3)
    return found


def _dlopens(text: bytes) -> list[Dlopen]:
    import json

    try:
        entries = json.loads(text.rstrip(b"\0"))
    except (ValueError, RecursionError) as error:
        raise _DamagedError("its .note.dlopen is no JSON") from error
    if not isinstance(entries, list):
        raise _DamagedError("its .note.dlopen is no list")
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise _DamagedError("its .note.dlopen has an entry that is no object")
        sonames, priority = entry.get("soname"), entry.get("priority", "recommended")
        if not isinstance(sonames, list) or priority not in _PRIORITIES:
            raise _DamagedError("its .note.dlopen has an entry that says nothing")
        names = tuple(name for name in sonames if isinstance(name, str) and name)
        found.append(Dlopen(names, str(entry.get("feature", "")), priority))
    return found


def _undefined(image: _Image) -> set[str]:
    """The names of the dynamic symbols that are defined elsewhere."""
    single = dict(zip(*image.entries(), strict=True)) if image.dynamic else {}
    if _DT_SYMTAB not in single or _DT_STRTAB not in single:
        return set()
    wide = image.layout.bits == 64
    symbol = struct.Struct(image.layout.order + ("I2xH16x" if wide else "I10xH"))
    count = min(_symbols(image, single, symbol.size), _SYMBOL_LIMIT)
    table = image.bytes(image.offset(single[_DT_SYMTAB]), count * symbol.size)
    whole = table[: len(table) // symbol.size * symbol.size]
    strings = image.bytes(
        image.offset(single[_DT_STRTAB]), min(single.get(_DT_STRSZ, 0), _STRINGS_LIMIT)
    )
    found = set()
    for name, section in symbol.iter_unpack(whole):
        if section == 0 and 0 < name < len(strings):
            end = strings.find(b"\0", name, name + _SYMBOL_NAME_LIMIT)
            found.add(strings[name : max(end, name)].decode("utf-8", "surrogateescape"))
    return found


def _symbols(image: _Image, single: dict[int, int], size: int) -> int:
    """How many dynamic symbols there may be, as far as undefined ones go; no header says it."""
    if _DT_HASH in single:
        return image.numbers(image.offset(single[_DT_HASH]), "II")[1]
    if _DT_GNU_HASH in single:
        first_defined = image.numbers(image.offset(single[_DT_GNU_HASH]), "II")[1]
        if first_defined > 1:
            return first_defined
    # With nothing exported GNU ld writes 1 there: the table ends where the next one begins.
    start = single[_DT_SYMTAB]
    ends = [value for tag, value in single.items() if tag in _TABLES and value > start]
    return (min(ends) - start) // size if ends else 0


def _definitions(image: _Image) -> list[str]:
    """The names of the versions that the file defines."""
    single = dict(zip(*image.entries(), strict=True)) if image.dynamic else {}
    if _DT_VERDEF not in single:
        return []
    place = image.offset(single[_DT_VERDEF])
    names = []
    for _ in range(min(single.get(_DT_VERDEFNUM, 0), 4096)):
        auxiliary, step = image.numbers(place, "12xII")
        names.append(image.numbers(place + auxiliary, "I")[0])
        if not step:
            break
        place += step
    return image.names(single, names) if names else []


def _release(name: str) -> tuple[int, int] | None:
    """(2, 36) of "GLIBC_2.36" and of "GLIBC_2.3.4" (2, 3)."""
    prefix, _, version = name.partition("_")
    parts = version.split(".")
    if prefix != "GLIBC" or len(parts) < 2 or not all(map(str.isdecimal, parts)):
        return None
    return int(parts[0][:6]), int(parts[1][:6])


_NAMED = {
    _DT_NEEDED: "DT_NEEDED",
    _DT_SONAME: "DT_SONAME",
    _DT_RPATH: "DT_RPATH",
    _DT_RUNPATH: "DT_RUNPATH",
    _DT_AUDIT: "DT_AUDIT",
    _DT_DEPAUDIT: "DT_DEPAUDIT",
    _DT_FILTER: "DT_FILTER",
    _DT_AUXILIARY: "DT_AUXILIARY",
}
# DT_HASH, DT_STRTAB, DT_RELA, DT_REL, DT_JMPREL, DT_GNU_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED
_TABLES = frozenset((4, 5, 7, 17, 23, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE))
