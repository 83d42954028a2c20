"""ld.so's rules: cache and configuration files, folders built into loaders, tokens, processors."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virttools import linux
from virttools.host import ldso
from virttools.host.sysroot import Sysroot

NAMED = 1 << 62


def cache(
    *lines: tuple[str, str, int], hwcaps: tuple[str, ...] = (), order: str = "<", old: bytes = b""
) -> bytes:
    """An ld.so.cache of (name, path, hwcap) lines, as ldconfig writes it."""
    start = 48 + 24 * len(lines)
    texts, table = b"", b""
    for name, path, hwcap in lines:
        key = start + len(texts)
        texts += name.encode() + b"\0"
        value = start + len(texts)
        texts += path.encode() + b"\0"
        table += struct.pack(f"{order}IIIIQ", 0x303, key, value, 0, hwcap)
    offsets = b""
    for hwcap_name in hwcaps:
        offsets += struct.pack(f"{order}I", start + len(texts))
        texts += hwcap_name.encode() + b"\0"
    texts += bytes(-(start + len(texts)) % 4)
    extension = start + len(texts)
    tail = struct.pack(f"{order}II", 0xEAA42174, 1)
    tail += struct.pack(f"{order}IIII", 1, 0, extension + 24, len(offsets)) + offsets
    flags = 2 if order == "<" else 3
    head = b"glibc-ld.so.cache1.1" + struct.pack(
        f"{order}IIB3xI12x", len(lines), len(texts), flags, extension if hwcaps else 0
    )
    return old + head + table + texts + (tail if hwcaps else b"")


LINES = (
    ("libz.so.1", "/lib/glibc-hwcaps/x86-64-v3/libz.so.1", NAMED | 1),
    ("libz.so.1", "/lib/libz.so.1", 0),
    ("libz.so.1", "/lib32/libz.so.1", 1 << 63),
)
HWCAPS = ("x86-64-v2", "x86-64-v3")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("old", [b"", b"ld.so-1.7.0\0\0\0\0\0"])
def test_a_cache_gives_every_line_of_a_name(order: str, old: bytes) -> None:
    """Both byte orders, with or without the old format in front, and the hwcaps by name."""
    found = ldso.Cache(cache(*LINES, hwcaps=HWCAPS, order=order, old=old)).find("libz.so.1")
    assert [(line.path, line.hwcap, line.legacy) for line in found] == [
        ("/lib/glibc-hwcaps/x86-64-v3/libz.so.1", "x86-64-v3", 0),
        ("/lib/libz.so.1", "", 0),
        ("/lib32/libz.so.1", "", 1 << 63),
    ]


def test_a_named_variant_without_its_name_is_never_the_plain_file() -> None:
    """A line for unknown processors stays one when the extension block is lost."""
    (first, *_) = ldso.Cache(cache(*LINES)).find("libz.so.1")
    assert first.hwcap == "?"


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_cache_never_raises(data: st.DataObject) -> None:
    """Random bytes in it, or its end cut off: fewer lines, no traceback."""
    content = bytearray(cache(*LINES, hwcaps=HWCAPS))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(20, len(content) - 1))] = data.draw(st.integers(0, 255))
    found = ldso.Cache(bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert isinstance(found.find("libz.so.1"), list)
    assert ldso.Cache(data.draw(st.binary(max_size=60))).is_empty()


def test_the_configuration_follows_its_includes(tmp_path: Path) -> None:
    """Globs, comments, hwcap lines, types and loops, as in ldconfig; all inside the root."""
    etc = tmp_path / "etc"
    (etc / "ld.so.conf.d").mkdir(parents=True)
    (etc / "ld.so.conf").write_text(
        "# first\ninclude ld.so.conf.d/*.conf\nhwcap 1 nosegneg\n/opt/lib/ # end\nrelative\n"
    )
    (etc / "ld.so.conf.d/b.conf").write_text("/b=libc6\ninclude /etc/ld.so.conf\n")
    (etc / "ld.so.conf.d/a.conf").symlink_to("/etc/real.conf")
    (etc / "real.conf").write_text("\t/a\n")
    assert ldso.configured(Sysroot(str(tmp_path))) == ("/a", "/b", "/opt/lib")


@pytest.mark.parametrize(
    ("data", "folders", "lib"),
    [
        (
            b"..\0/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0\0",
            ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"),
            "lib/x86_64-linux-gnu",
        ),
        (b"\0/lib64/\0/usr/lib64/\0x", ("/lib64", "/usr/lib64"), "lib64"),
        (b"/\0/x\0/usr/lib/\0/y/\0", ("/usr/lib", "/y"), "lib"),
        (b"\0/nix/store/a/lib/\0/nix/store/b/lib/\0", ("/nix/store/a/lib", "/nix/store/b/lib"), "lib"),
        (
            b"",
            ("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib",
             "/usr/lib"),
            "lib/aarch64-linux-gnu",
        ),
    ],
    ids=["debian", "fedora", "arch-like", "nix", "nothing to read"],
)  # fmt: skip
def test_the_default_folders_are_read_from_the_loader(
    data: bytes, folders: tuple[str, ...], lib: str
) -> None:
    """Each distribution compiles its own in; where the loader can't be read, the usual ones count."""
    loader = ldso.glibc_loader("/lib/ld.so", data, 183, 64)
    assert (loader.folders, loader.lib) == (folders, lib)


@given(st.binary(max_size=200))
def test_any_loader_has_default_folders(data: bytes) -> None:
    """Hostile bytes in the place of a loader give some absolute folders, and no endless search."""
    folders = ldso.glibc_loader("/x", b"\0/" + data + b"/\0/a/\0", 62, 64).folders
    assert folders
    assert all(folder.startswith("/") for folder in folders)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$ORIGIN", "/o"),
        ("${ORIGIN}/../$LIB", "/o/../lib64"),
        ("$ORIGIN/${LIB}/$PLATFORM", "/o/lib64/p"),
        ("$ORIGINAL:$ORIGIN_2:$ORIGIN2", "$ORIGINAL:$ORIGIN_2:$ORIGIN2"),
        ("$ORIGIN.d:$ORIGIN:a", "/o.d:/o:a"),
        ("${ORIGIN:$$x$", "${ORIGIN:$$x$"),
        ("/plain", "/plain"),
    ],
)
def test_tokens_are_expanded_as_ld_so_does(text: str, expanded: str) -> None:
    """With braces or without; a longer word is no token."""
    assert ldso.expand(text, "/o", "lib64", "p") == expanded


CPU = "vendor_id : {vendor}\nflags : cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 {more}\n"
V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = "avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("vendor", "more", "hwcaps", "platform", "legacy"),
    [
        ("AuthenticAMD", "", 1, "x86_64", ["tls/x86_64/x86_64", "tls/x86_64", "tls/x86_64", "tls",
         "x86_64/x86_64", "x86_64", "x86_64"]),
        ("GenuineIntel", V3, 2, "haswell", ["tls/haswell/x86_64", "tls/haswell", "tls/x86_64",
         "tls", "haswell/x86_64", "haswell", "x86_64"]),
        ("AuthenticAMD", f"{V3} {V4}", 3, "x86_64", None),
    ],
)  # fmt: skip
def test_the_variants_for_a_processor_come_best_first(
    vendor: str, more: str, hwcaps: int, platform: str, legacy: list[str] | None
) -> None:
    """Levels need all their flags and those below; the old folders are tried in glibc's order."""
    found = ldso.x86_processor(CPU.format(vendor=vendor, more=more))
    assert found.hwcaps == ("x86-64-v4", "x86-64-v3", "x86-64-v2")[3 - hwcaps :]
    assert found.platform == platform
    if legacy is not None:
        assert list(found.legacy) == legacy


@pytest.mark.parametrize(
    ("machine", "platform", "hwcaps"),
    [
        (21, "power10", ("power10", "power9")),
        (21, "power9", ("power9",)),
        (21, "power8", ()),
        (22, "z14", ("z14", "z13")),
        (22, "z900", ()),
        (22, "", ()),
    ],
)
def test_numbered_processors_run_what_their_elders_run(
    machine: int, platform: str, hwcaps: tuple[str, ...]
) -> None:
    """POWER and IBM Z count upwards; z900 is the oldest, not the newest."""
    assert ldso.numbered_processor(machine, platform).hwcaps == hwcaps


def test_this_process_knows_its_platform() -> None:
    """AT_PLATFORM comes from the kernel, as $PLATFORM of ld.so does."""
    expected = {"x86_64": "x86_64", "aarch64": "aarch64"}.get(os.uname().machine)
    if expected is None:
        pytest.skip("no name known for this machine")
    assert linux.auxiliary_text(15) == expected


def test_a_processor_of_another_machine_has_no_variants() -> None:
    """What this machine can't run is taken in its plainest form."""
    foreign = 183 if os.uname().machine == "x86_64" else 62
    assert ldso.processor(foreign, 64).hwcaps == ()
    assert ldso.processor(9999, 64).platform == ""


def test_musl_reads_its_path_beside_its_loader() -> None:
    """The path file is found from the loader's place; colons and lines both part it."""
    assert ldso.musl_path_file("/lib/ld-musl-x86_64.so.1") == "/etc/ld-musl-x86_64.path"
    assert ldso.musl_path_file("/opt/m/lib/ld-musl-arm.so.1") == "/opt/m/etc/ld-musl-arm.path"
    assert ldso.musl_loader("/lib/ld-musl-x86_64.so.1", b"/a:/b\n/c\nd").folders == (
        "/a",
        "/b",
        "/c",
    )
    assert ldso.musl_loader("/lib/ld-musl-x86_64.so.1", b"").folders[1] == "/usr/local/lib"


def test_musl_is_its_own_libm_and_libpthread() -> None:
    """Its loader answers to those names; glibc's libc.so.6 means another system's file."""
    assert [ldso.is_musl_itself(name) for name in ("libm.so.6", "libpthread.so.0", "libmagic.so")] == [
        True, True, False,
    ]  # fmt: skip
    assert [ldso.is_musl_libc(name) for name in ("libc.so", "libc.musl-x86_64.so.1", "libc.so.6")] == [
        True, True, False,
    ]  # fmt: skip
