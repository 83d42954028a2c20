"""ELF files made in Python, whole enough for ld.so to list, and what the real ldd says of files."""

import os
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

TAGS = {
    "needed": 1,
    "soname": 14,
    "rpath": 15,
    "runpath": 29,
    "audit": 0x6FFFFEFC,
    "depaudit": 0x6FFFFEFB,
    "auxiliary": 0x7FFFFFFD,
    "filter": 0x7FFFFFFF,
}
X86_64, I386, AARCH64 = 62, 3, 183


def elf(
    *entries: tuple[str, str],
    interp: str | None = None,
    note: bytes = b"",
    bits: int = 64,
    machine: int = X86_64,
    order: str = "<",
    flags_1: int = 0,
) -> bytes:
    """A shared object or, with `interp`, a position independent program.

    entries: (key of TAGS, text) in the order of the dynamic section.
    """
    word, wide = ("Q", True) if bits == 64 else ("I", False)
    strings = b"\0" + b"".join(os.fsencode(text) + b"\0" for _key, text in entries)
    interpreter = b"" if interp is None else interp.encode() + b"\0"
    count = 2 + bool(interp) + bool(note)
    start = (64 if wide else 52) + count * (56 if wide else 32)
    parts: dict[str, int] = {}
    body = b""
    for name, data in (
        ("symbols", bytes(24 if wide else 16)),
        ("hash", struct.pack(f"{order}IIII", 1, 1, 0, 0)),
        ("note", note),
        ("strings", strings),
        ("interp", interpreter),
    ):
        body += bytes(-(start + len(body)) % 8)
        parts[name] = start + len(body)
        body += data
    body += bytes(-(start + len(body)) % 8)
    dynamic = start + len(body)
    body += _dynamic(entries, parts, len(strings), order + word, flags_1)
    size = start + len(body)
    segments = [(1, 0, size), (2, dynamic, size - dynamic)]
    segments += [(3, parts["interp"], len(interpreter))] if interp else []
    segments += [(4, parts["note"], len(note))] if note else []
    table = b"".join(_segment(order, *segment, wide=wide) for segment in segments)
    return _header(order, machine, count, wide=wide) + table + body


def _dynamic(
    entries: Iterable[tuple[str, str]], parts: dict[str, int], size: int, word: str, flags_1: int
) -> bytes:
    offset, pairs = 1, []
    for key, text in entries:
        pairs.append((TAGS[key], offset))
        offset += len(os.fsencode(text)) + 1
    pairs += [(4, parts["hash"]), (5, parts["strings"]), (6, parts["symbols"]), (10, size)]
    pairs += [(11, 24 if word[-1] == "Q" else 16), (0x6FFFFFFB, flags_1), (0, 0)]
    return b"".join(struct.pack(f"{word[0]}2{word[1]}", *pair) for pair in pairs)


def _segment(order: str, kind: int, offset: int, size: int, *, wide: bool) -> bytes:
    align = 0x1000 if kind == 1 else 8
    if wide:
        return struct.pack(f"{order}IIQQQQQQ", kind, 6, offset, offset, offset, size, size, align)
    return struct.pack(f"{order}8I", kind, offset, offset, offset, size, size, 6, align)


def _header(order: str, machine: int, count: int, *, wide: bool) -> bytes:
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    word = "QQQ" if wide else "III"
    sizes = (64, 64, 56) if wide else (52, 52, 32)
    return ident + struct.pack(
        f"{order}HHI{word}IHHHHHH", 3, machine, 1, 0, sizes[0], 0, 0, *sizes[1:], count, 0, 0, 0
    )


def dlopen_note(text: str, order: str = "<") -> bytes:
    """A .note.dlopen that holds the JSON text."""
    data = text.encode() + b"\0"
    head = struct.pack(f"{order}III", 4, len(data), 0x407C0C0A)
    return head + b"FDO\0" + data + bytes(-len(data) % 4)


def place(path: Path, content: bytes) -> str:
    """Write an executable file, its folders too; its path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return str(path)


def ldd(paths: Sequence[str], *, chroot: str | None = None) -> dict[str, set[str]]:
    """The paths that the real ldd prints for each file; "name => not found" where it does.

    chroot: run ld.so itself in there, as ldd is a shell script.
    """
    if chroot is not None:
        return {path: _listed(_list_in(chroot, path).splitlines()) for path in paths}
    command = ["ldd", *paths] if len(paths) > 1 else ["ldd", *paths, *paths]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}
    )
    lines: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("\t"):
            lines[next(reversed(lines))].append(line)
        else:
            lines[line.removesuffix(":")] = []
    return {path: _listed(found) for path, found in lines.items()}


def _list_in(root: str, path: str) -> str:
    done = subprocess.run(
        ["chroot", root, "/lib64/ld-linux-x86-64.so.2", "--list", path],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    return done.stdout


def _listed(lines: Iterable[str]) -> set[str]:
    found = set()
    for line in lines:
        name, arrow, rest = line.strip().partition(" => ")
        if rest.startswith("not found"):
            found.add(f"{name} => not found")
        path = (rest if arrow else name).rpartition(" (0x")[0]
        if path.startswith("/"):
            found.add(path)
    return found
