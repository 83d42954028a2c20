"""How the loaders of glibc and musl look for a library: caches, folders, tokens, processors.

Sources: ld.so(8), ldconfig(8); elf/dl-load.c, dl-cache.h, dl-hwcaps.c of glibc; dynlink.c of musl.
"""

import os
import struct

from virttools.host.elf import EM_386, EM_AARCH64, EM_ARM, EM_X86_64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from virttools.host.sysroot import Sysroot

CACHE = "/etc/ld.so.cache"
CONFIGURATION = "/etc/ld.so.conf"

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_EXTENSION_MAGIC = 0xEAA42174
_EXTENSION_HWCAPS = 1
_NAMED_HWCAP = 1 << 62
# Legacy hwcap subdirectories, until glibc 2.36: x86_64 and tls (sysdeps/x86/dl-hwcap.h).
_LEGACY_HWCAPS = 1 << 1 | 1 << 63
_NAMES_LIMIT = _NAME_LIMIT = 4096

_X86_LEVELS = (
    ("x86-64-v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    ("x86-64-v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"),
    ("x86-64-v4", "avx512f avx512bw avx512cd avx512dq avx512vl"),
)
_AT_PLATFORM = 15

# uname's word for a machine, and the e_machine numbers whose programs it runs.
_NATIVE = {
    "x86_64": (EM_X86_64, EM_386),
    "i686": (EM_386,),
    "aarch64": (EM_AARCH64,),
    "armv7l": (EM_ARM,),
    "ppc64le": (21,),
    "s390x": (22,),
    "riscv64": (243,),
    "loongarch64": (258,),
}

# (e_machine, bits): the loader's standard paths, Debian's multiarch triplets, AT_PLATFORM.
_ABIS: dict[tuple[int, int], tuple[tuple[str, ...], tuple[str, ...], str]] = {
    (EM_X86_64, 64): (("/lib64/ld-linux-x86-64.so.2",), ("x86_64-linux-gnu",), "x86_64"),
    (EM_X86_64, 32): (("/libx32/ld-linux-x32.so.2",), ("x86_64-linux-gnux32",), "x86_64"),
    (EM_386, 32): (("/lib/ld-linux.so.2",), ("i386-linux-gnu",), "i686"),
    (EM_AARCH64, 64): (("/lib/ld-linux-aarch64.so.1",), ("aarch64-linux-gnu",), "aarch64"),
    (EM_ARM, 32): (
        ("/lib/ld-linux-armhf.so.3", "/lib/ld-linux.so.3"),
        ("arm-linux-gnueabihf", "arm-linux-gnueabi"),
        "v7l",
    ),
    (21, 64): (
        ("/lib64/ld64.so.2", "/lib64/ld64.so.1"),
        ("powerpc64le-linux-gnu", "powerpc64-linux-gnu"),
        "power8",
    ),
    (22, 64): (("/lib/ld64.so.1",), ("s390x-linux-gnu",), "z900"),
    (243, 64): (("/lib/ld-linux-riscv64-lp64d.so.1",), ("riscv64-linux-gnu",), ""),
    (258, 64): (
        ("/lib64/ld-linux-loongarch-lp64d.so.1",),
        ("loongarch64-linux-gnu",),
        "loongarch",
    ),
    (8, 64): (("/lib64/ld.so.1",), ("mips64el-linux-gnuabi64",), "mips64"),
    (8, 32): (("/lib/ld.so.1",), ("mipsel-linux-gnu", "mips-linux-gnu"), "mips"),
}

_MUSL_NAMES = {
    (EM_X86_64, 64): ("x86_64",),
    (EM_X86_64, 32): ("x32",),
    (EM_386, 32): ("i386",),
    (EM_AARCH64, 64): ("aarch64",),
    (EM_ARM, 32): ("armhf", "arm"),
    (21, 64): ("powerpc64le", "powerpc64"),
    (22, 64): ("s390x",),
    (243, 64): ("riscv64",),
    (258, 64): ("loongarch64",),
    (8, 64): ("mips64el", "mips64"),
    (8, 32): ("mipsel", "mips"),
}


class Cached:
    """One line of ld.so.cache. hwcap: the glibc-hwcaps name it is for, or "". legacy: its bits."""

    __slots__ = ("hwcap", "legacy", "path")

    def __init__(self, path: str, hwcap: str, legacy: int) -> None:
        self.path = path
        self.hwcap = hwcap
        self.legacy = legacy


class Cache:
    """ld.so.cache: name → where ldconfig saw libraries of that name, in the file's order."""

    __slots__ = ("_data", "_hwcaps", "_lines")

    def __init__(self, data: bytes) -> None:
        """data: the file. What is no cache, or a damaged one, has no lines or fewer."""
        start = max(data.find(_CACHE_MAGIC), 0)
        self._data = data = data[start:] if start else data
        self._lines: dict[bytes, list[tuple[int, int]]] = {}
        self._hwcaps: list[str] = []
        if not data.startswith(_CACHE_MAGIC) or len(data) < 48:
            return
        # The byte order stands in the flags since glibc 2.33: 3 is big, 0 unknown.
        order = ">" if data[28] & 3 == 3 else "<"
        count, _length, extension = struct.unpack_from(f"{order}II4xI", data, 20)
        lines, find = self._lines, data.find
        table = data[48 : 48 + count * 24]
        line = struct.Struct(f"{order}4xII4xQ")
        for key, value, hwcap in line.iter_unpack(table[: len(table) // 24 * 24]):
            end = find(b"\0", key, key + _NAME_LIMIT)
            lines.setdefault(data[key : end if end > 0 else key], []).append((value, hwcap))
        if extension:
            self._hwcaps = self._names(order, extension)

    def is_empty(self) -> bool:
        return not self._lines

    def find(self, name: str) -> list[Cached]:
        """The lines for a library name."""
        lines = self._lines.get(os.fsencode(name), ())
        return [self._cached(value, hwcap) for value, hwcap in lines]

    def _cached(self, value: int, hwcap: int) -> Cached:
        path = self._text(value)
        if not hwcap & _NAMED_HWCAP:
            return Cached(path, "", hwcap)
        index = hwcap & 0xFFFFFFFF
        known = index < len(self._hwcaps)
        return Cached(path, self._hwcaps[index] if known else "?", 0)

    def _names(self, order: str, place: int) -> list[str]:
        """The glibc-hwcaps names of the extension block, by index."""
        try:
            magic, count = struct.unpack_from(f"{order}II", self._data, place)
            if magic != _EXTENSION_MAGIC:
                return []
            for index in range(min(count, 64)):
                tag, _flags, offset, size = struct.unpack_from(
                    f"{order}IIII", self._data, place + 8 + index * 16
                )
                if tag == _EXTENSION_HWCAPS:
                    size = min(size // 4, _NAMES_LIMIT)
                    found = struct.unpack_from(f"{order}{size}I", self._data, offset)
                    return [self._text(value) for value in found]
        except struct.error:
            pass
        return []

    def _text(self, offset: int) -> str:
        end = self._data.find(b"\0", offset, offset + _NAME_LIMIT)
        return os.fsdecode(self._data[offset : max(end, offset)])


class Loader:
    """What a program's loader has built in.

    path: as PT_INTERP names it. is_musl. folders: its default path. lib: what $LIB stands for.
    has_legacy_hwcaps: it still looks into tls/ and x86_64/ (glibc until 2.36).
    """

    __slots__ = ("folders", "has_legacy_hwcaps", "is_musl", "lib", "path")

    def __init__(
        self, path: str, *, folders: tuple[str, ...], lib: str, has_legacy_hwcaps: bool = False
    ) -> None:
        self.path = path
        self.is_musl = is_musl(path)
        self.folders = folders
        self.lib = lib
        self.has_legacy_hwcaps = has_legacy_hwcaps


def is_musl(interp: str) -> bool:
    return interp.rpartition("/")[2].startswith("ld-musl-")


def glibc_loader(path: str, data: bytes, machine: int, bits: int) -> Loader:
    """The loader at `path`, whose content is `data` (b"" where it is missing).

    The default path is compiled in as strings, one after another, each ending in a slash:
    the only place where Debian's, Fedora's and Nix's differences can be read.
    """
    folders = _built_in(data)
    if folders:
        lib = folders[0].removeprefix("/usr").lstrip("/")
        lib = lib if folders[0].startswith(("/lib", "/usr/lib")) else "lib"
    else:
        triplets = [f"lib/{triplet}" for triplet in triplets_of(machine, bits)]
        wide = ("lib64",) if bits == 64 else ()
        folders = tuple(f"{top}/{lib}" for lib in (*triplets, *wide, "lib") for top in ("", "/usr"))
        lib = (*triplets, *wide, "lib")[0]
    return Loader(path, folders=folders, lib=lib, has_legacy_hwcaps=b"Legacy HWCAP" in data)


def _built_in(data: bytes) -> tuple[str, ...]:
    """The longest run of NUL-terminated absolute folder names with a slash at the end."""
    best: tuple[str, ...] = ()
    place = data.find(b"/\0/")
    while place >= 0:
        start = data.rfind(b"\0", 0, place) + 1
        found = []
        while start < len(data) and data[start : start + 1] == b"/":
            end = data.find(b"\0", start, start + 4096)
            text = data[start:end]
            if end < 0 or not text.endswith(b"/") or not text.isascii():
                break
            found.append(text.decode("ascii").rstrip("/") or "/")
            start = end + 1
        if len(found) > len(best):
            best = tuple(found)
        place = data.find(b"/\0/", max(start, place + 1))
    return best


def musl_loader(path: str, text: bytes) -> Loader:
    """The loader of musl; text: what /etc/ld-musl-ARCH.path holds, b"" where there is none."""
    if not text:
        return Loader(path, folders=("/lib", "/usr/local/lib", "/usr/lib"), lib="lib")
    parts = os.fsdecode(text).replace("\n", ":").split(":")
    return Loader(path, folders=tuple(part for part in parts if part.startswith("/")), lib="lib")


def musl_path_file(interp: str) -> str:
    """Where that loader reads its path: /lib/ld-musl-x86_64.so.1 → /etc/ld-musl-x86_64.path."""
    folder, _, name = interp.rpartition("/")
    arch = name.removeprefix("ld-musl-").removesuffix(".so.1")
    return f"{folder.rpartition('/')[0]}/etc/ld-musl-{arch}.path"


_MUSL_OWN = frozenset(("c", "pthread", "rt", "m", "dl", "util", "xnet"))


def is_musl_libc(name: str) -> bool:
    """A file that needs this is of musl: glibc's libc is libc.so.6."""
    return name == "libc.so" or name.startswith("libc.musl-")


def is_musl_itself(name: str) -> bool:
    """Names that the libc of musl answers to without opening a file (dynlink.c, load_library)."""
    if name.startswith("libc.musl-"):
        return True
    return name.startswith("lib") and "." in name and name[3:].partition(".")[0] in _MUSL_OWN


def loaders_of(machine: int, bits: int) -> tuple[str, ...]:
    """The standard paths of glibc's loader for that kind of program."""
    return _ABIS[machine, bits][0] if (machine, bits) in _ABIS else ()


def musl_loaders_of(machine: int, bits: int) -> tuple[str, ...]:
    """The standard paths of the loader of musl for that kind of program."""
    return tuple(f"/lib/ld-musl-{name}.so.1" for name in _MUSL_NAMES.get((machine, bits), ()))


def triplets_of(machine: int, bits: int) -> tuple[str, ...]:
    return _ABIS[machine, bits][1] if (machine, bits) in _ABIS else ()


def is_native(machine: int) -> bool:
    """This kernel and processor run programs of that e_machine."""
    return machine in _NATIVE.get(os.uname().machine, ())


def expand(text: str, origin: str, lib: str | None, platform: str | None) -> str:
    """The text with $ORIGIN, $LIB and $PLATFORM (or ${…}) replaced, as dl-load.c does.

    A token ends where no letter, digit or underscore follows; what is none, or None, stays.
    """
    head, *rest = text.split("$")
    parts = [head]
    known = (("ORIGIN", origin), ("LIB", lib), ("PLATFORM", platform))
    for part in rest:
        for token, value in known:
            if value is None:
                continue
            if part.startswith(f"{{{token}}}"):
                parts.append(value + part[len(token) + 2 :])
                break
            after = part[len(token) : len(token) + 1].replace("_", "a")
            if part.startswith(token) and not (after.isascii() and after.isalnum()):
                parts.append(value + part[len(token) :])
                break
        else:
            parts.append("$" + part)
    return "".join(parts)


class Processor:
    """What this machine's processor lets programs of one kind choose from.

    hwcaps: glibc-hwcaps names, best first. legacy: the subdirectories glibc ≤ 2.36 tries, best
    first. legacy_bits: those of ld.so.cache that may be used. platform: what $PLATFORM stands for.
    """

    __slots__ = ("hwcaps", "legacy", "legacy_bits", "platform")

    def __init__(
        self, hwcaps: tuple[str, ...], platform: str, legacy_names: tuple[str, ...], bits: int
    ) -> None:
        self.hwcaps = hwcaps
        self.platform = platform
        self.legacy = _subsets(legacy_names)
        self.legacy_bits = bits


def _subsets(names: tuple[str, ...]) -> tuple[str, ...]:
    """Every choice of the names as a path, in the order of _dl_important_hwcaps (glibc 2.36)."""
    found = [""]
    for name in reversed(names):
        found = [f"{name}/{path}" for path in found] + found
    return tuple(path.rstrip("/") for path in found if path)


def processor(machine: int, bits: int) -> Processor:
    """This machine's, or the plainest one for programs of another machine."""
    plain = _ABIS[machine, bits][2] if (machine, bits) in _ABIS else ""
    if not is_native(machine):
        return Processor((), plain, (), 0)
    if machine == EM_X86_64:
        return x86_processor(_cpuinfo())
    if machine in (21, 22):
        from virttools import linux

        return numbered_processor(machine, linux.auxiliary_text(_AT_PLATFORM) or plain)
    return Processor((), plain, (), 0)


def x86_processor(cpuinfo: str) -> Processor:
    """cpuinfo: the text of /proc/cpuinfo, or its first processor."""
    flags = {word for line in cpuinfo.splitlines() if line[:5] == "flags" for word in line.split()}
    levels: list[str] = []
    for name, needs in _X86_LEVELS:
        if not flags.issuperset(needs.split()):
            break
        levels.insert(0, name)
    platform, legacy, bits = "x86_64", ["tls"], _LEGACY_HWCAPS
    # These names are for Intel's own processors only (sysdeps/x86/cpu-features.c).
    if "GenuineIntel" in cpuinfo:
        if flags.issuperset(["avx2", "bmi1", "bmi2", "fma", "abm", "movbe", "popcnt"]):
            platform, bits = "haswell", bits | 1 << 50
        legacy.append(platform)
        if flags.issuperset(["avx512cd", "avx512bw", "avx512dq", "avx512vl"]):
            legacy.append("avx512_1")
            bits |= 1 << 2
    else:
        legacy.append(platform)
    return Processor(tuple(levels), platform, (*legacy, "x86_64"), bits)


def numbered_processor(machine: int, platform: str) -> Processor:
    """ppc64le: power10, power9; s390x: z16 … z13. Each runs what its elders run."""
    known = {21: ("power10", "power9"), 22: ("z16", "z15", "z14", "z13")}[machine]
    ours = int("".join(filter(str.isdecimal, platform)) or "0")
    older = [name for name in known if int(name.lstrip("powerz")) <= ours < 100]
    return Processor(tuple(older), platform, (), 0)


def _cpuinfo() -> str:
    try:
        fd = os.open("/proc/cpuinfo", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 8192).decode("ascii", "replace")
    finally:
        os.close(fd)


def configured(host: "Sysroot") -> tuple[str, ...]:
    """The folders that ld.so.conf names, in order, its includes followed."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    _configured(host, CONFIGURATION, found, seen)
    return tuple(found)


def _configured(host: "Sysroot", file: str, found: dict[str, None], seen: set[str]) -> None:
    if file in seen or len(seen) >= _NAMES_LIMIT:
        return
    seen.add(file)
    for line in os.fsdecode(host.read(file) or b"").splitlines():
        words = line.partition("#")[0].split()
        if not words or words[0] == "hwcap":
            continue
        if words[0] == "include":
            folder = file.rpartition("/")[0]
            for pattern in words[1:]:
                for name in host.glob(os.path.join(folder, pattern)):
                    _configured(host, name, found, seen)
            continue
        path = line.partition("#")[0].strip().partition("=")[0].rstrip("/ ")
        if path.startswith("/"):
            found[path] = None
