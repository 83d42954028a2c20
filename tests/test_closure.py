"""The libraries of files made for the purpose, in roots of their own: no host file takes part."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.elf_files import AARCH64, I386, dlopen_note, elf, place
from tests.test_ldso import HWCAPS, NAMED, cache
from virttools.errors import HostLacks
from virttools.host.closure import Closure, Library, Missing, Resolver, _listed, ldd

LOADER = "/lib64/ld-linux-x86-64.so.2"
FILES = {
    LOADER: elf(("soname", "ld-linux-x86-64.so.2")),
    "/lib/libc.so.6": elf(("soname", "libc.so.6"), ("needed", "ld-linux-x86-64.so.2")),
    "/lib/libm.so.6": elf(("soname", "libm.so.6"), ("needed", "libc.so.6")),
}


def needs(*names: str) -> list[tuple[str, str]]:
    return [("needed", name) for name in names]


def closed(root: Path, files: dict[str, bytes], path: str = "/bin/prog") -> Closure:
    """The closure of one file in a root that holds these files and a small C library."""
    for name, content in {**FILES, **files}.items():
        place(root / name[1:], content)
    found = Resolver(str(root)).closure(path)
    assert found is not None
    return found


def paths(libraries: tuple[Library, ...]) -> list[str]:
    return [library.path for library in libraries]


def test_each_library_says_who_asked_and_by_what(tmp_path: Path) -> None:
    """The whole answer for a program with two libraries and the loader."""
    prog = elf(*needs("libm.so.6", "libc.so.6"), interp=LOADER)
    assert closed(tmp_path, {"/bin/prog": prog}) == Closure(
        "/bin/prog",
        (
            Library("/lib/libc.so.6", "libc.so.6", "/bin/prog", "DT_NEEDED libc.so.6"),
            Library("/lib/libm.so.6", "libm.so.6", "/bin/prog", "DT_NEEDED libm.so.6"),
            Library(LOADER, "ld-linux-x86-64.so.2", "/lib/libc.so.6",
                    "DT_NEEDED ld-linux-x86-64.so.2"),
        ),
    )  # fmt: skip


def test_static_programs_have_no_libraries_and_no_fault(tmp_path: Path) -> None:
    """Neither a static nor a static-pie file needs anything; the first has no dynamic section."""
    static = bytearray(elf()[:64])
    static[56:58] = bytes(2)
    assert closed(tmp_path, {"/bin/prog": elf()}) == Closure("/bin/prog")
    assert closed(tmp_path, {"/bin/prog": bytes(static)}) == Closure("/bin/prog")


def test_what_is_no_elf_file_has_no_closure(tmp_path: Path) -> None:
    """A script, a folder and a fifo: None. What cannot be read: one sentence that names it."""
    place(tmp_path / "script", b"#!/bin/sh\n")
    os.mkfifo(tmp_path / "fifo")
    resolver = Resolver(str(tmp_path))
    assert [resolver.closure(path) for path in ("/script", "/", "/fifo")] == [None, None, None]
    for call in (resolver.closure, resolver.elf, resolver.imports, resolver.glibc_version):
        with pytest.raises(HostLacks, match="cannot read /none: no such file or directory"):
            call("/none")
        with pytest.raises(HostLacks, match="cannot read"):
            call("/a\0b")


def test_a_library_that_is_missing_is_named_with_who_wants_it(tmp_path: Path) -> None:
    """The rest of the closure is still found."""
    found = closed(
        tmp_path,
        {
            "/bin/prog": elf(*needs("liba.so", "libc.so.6"), interp=LOADER),
            "/lib/liba.so": elf(*needs("libgone.so", "libm.so.6")),
        },
    )
    assert found.missing == (Missing("libgone.so", "/lib/liba.so", required=True),)
    assert "/lib/libm.so.6" in paths(found.libraries)


def test_a_missing_loader_is_missed(tmp_path: Path) -> None:
    """PT_INTERP that leads nowhere keeps a program from starting; the libraries are still found."""
    found = closed(tmp_path, {"/bin/prog": elf(*needs("libm.so.6"), interp="/lib/ld-gone.so.1")})
    assert found.missing == (Missing("/lib/ld-gone.so.1", "/bin/prog", required=True),)
    assert paths(found.libraries) == ["/lib/libc.so.6", "/lib/libm.so.6", LOADER]


def test_a_loader_that_no_library_names_is_an_extra(tmp_path: Path) -> None:
    """The kernel wants it all the same; ldd does not list it."""
    found = closed(tmp_path, {"/bin/prog": elf(interp=LOADER)})
    assert (found.libraries, paths(found.extras)) == ((), [LOADER])


def test_links_stay_inside_the_root(tmp_path: Path) -> None:
    """Absolute and climbing links resolve as a process with that root would, never to the host."""
    os.makedirs(tmp_path / "usr/bin")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/alternative").symlink_to("/../../opt/prog")
    (tmp_path / "usr/bin/prog").symlink_to("../../../../etc/alternative")
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "out").symlink_to("/etc/passwd")
    found = closed(
        tmp_path,
        {
            "/opt/prog": elf(*needs("libo.so"), ("runpath", "$ORIGIN/lib"), interp=LOADER),
            "/opt/lib/libo.so": elf(),
        },
    )
    assert (found.path, paths(found.libraries)) == ("/opt/prog", ["/opt/lib/libo.so"])
    with pytest.raises(HostLacks):
        Resolver(str(tmp_path)).closure("/out")


def test_magic_links_are_not_followed(tmp_path: Path) -> None:
    """A root whose /lib leads through /proc gives no file of the host."""
    (tmp_path / "proc").symlink_to("/proc/self/root/lib")
    assert Resolver(str(tmp_path))._binaries.elf("/proc/x86_64-linux-gnu/libc.so.6") is None


def test_files_of_other_machines_are_passed_over(tmp_path: Path) -> None:
    """A 32-bit program takes the 32-bit library though the 64-bit one comes first, and so for ARM."""
    lines = [("libz.so.1", f"/{folder}/libz.so.1", 0) for folder in ("lib64", "lib32", "arm")]
    files = {
        "/etc/ld.so.cache": cache(*lines),
        "/lib64/libz.so.1": elf(),
        "/lib32/libz.so.1": elf(bits=32, machine=I386),
        "/arm/libz.so.1": elf(machine=AARCH64),
        "/bin/wide": elf(*needs("libz.so.1")),
        "/bin/narrow": elf(*needs("libz.so.1"), bits=32, machine=I386),
        "/bin/foreign": elf(*needs("libz.so.1"), machine=AARCH64),
    }
    wide = closed(tmp_path, files, "/bin/wide")
    resolver = Resolver(str(tmp_path))
    found = [wide, resolver.closure("/bin/narrow"), resolver.closure("/bin/foreign")]
    assert [paths(closure.libraries) for closure in found if closure] == [
        ["/lib64/libz.so.1"],
        ["/lib32/libz.so.1"],
        ["/arm/libz.so.1"],
    ]


def test_a_32_bit_program_never_takes_a_64_bit_library(tmp_path: Path) -> None:
    """With nothing but the other kind there, the library is missing."""
    prog = elf(*needs("libm.so.6"), ("rpath", "/lib"), bits=32, machine=I386)
    found = closed(tmp_path, {"/bin/prog": prog})
    assert (found.libraries, [missing.name for missing in found.missing]) == ((), ["libm.so.6"])


def test_foreign_programs_use_their_own_loader_and_folders(tmp_path: Path) -> None:
    """An ARM root is read by its multiarch folders, without its processor's variants."""
    loader = "/lib/ld-linux-aarch64.so.1"
    folder = "/usr/lib/aarch64-linux-gnu"
    found = closed(
        tmp_path,
        {
            "/bin/prog": elf(*needs("libz.so.1"), interp=loader, machine=AARCH64),
            loader: elf(("soname", "ld-linux-aarch64.so.1"), machine=AARCH64),
            f"{folder}/libz.so.1": elf(*needs("ld-linux-aarch64.so.1"), machine=AARCH64),
            f"{folder}/glibc-hwcaps/x86-64-v2/libz.so.1": elf(machine=AARCH64),
        },
    )
    assert (paths(found.libraries), found.extras) == ([loader, f"{folder}/libz.so.1"], ())


def test_without_a_cache_the_configured_folders_stand_for_it(tmp_path: Path) -> None:
    """A root where ldconfig has not run yet is read as if it had; with a cache, the cache counts."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.conf").write_text("/opt/first\n/opt/second\n")
    files = {
        "/bin/prog": elf(*needs("libz.so.1"), interp=LOADER),
        "/opt/second/libz.so.1": elf(),
        "/lib/libz.so.1": elf(),
    }
    assert paths(closed(tmp_path, files).libraries) == ["/opt/second/libz.so.1"]
    files["/etc/ld.so.cache"] = cache(("libz.so.1", "/lib/libz.so.1", 0))
    assert paths(closed(tmp_path, files).libraries) == ["/lib/libz.so.1"]


def test_a_variant_for_this_processor_brings_its_baseline(tmp_path: Path) -> None:
    """What ld.so picks here is a library; what runs everywhere is an extra, with its own needs."""
    from virttools.host import ldso

    if "x86-64-v2" not in ldso.processor(62, 64).hwcaps:
        pytest.skip("this processor has no variants that we could choose from")
    variant = "/opt/lib/glibc-hwcaps/x86-64-v2/libv.so"
    named = "/lib/glibc-hwcaps/x86-64-v2/libn.so"
    found = closed(
        tmp_path,
        {
            "/bin/prog": elf(*needs("libv.so", "libn.so"), ("runpath", "/opt/lib"), interp=LOADER),
            variant: elf(),
            "/opt/lib/libv.so": elf(*needs("libm.so.6")),
            named: elf(),
            "/lib/libn.so": elf(),
            "/etc/ld.so.cache": cache(
                ("libn.so", named, NAMED),
                ("libn.so", "/lib/libn.so", 0),
                ("libm.so.6", "/lib/libm.so.6", 0),
                hwcaps=HWCAPS,
            ),
        },
    )
    assert paths(found.libraries) == [named, variant]
    assert [(extra.path, extra.rule) for extra in found.extras] == [
        ("/lib/libc.so.6", "DT_NEEDED libc.so.6"),
        ("/lib/libm.so.6", "DT_NEEDED libm.so.6"),
        ("/lib/libn.so", f"glibc-hwcaps baseline of {named}"),
        (LOADER, "PT_INTERP"),
        ("/opt/lib/libv.so", f"glibc-hwcaps baseline of {variant}"),
    ]


def test_auditors_and_filters_are_taken_along_and_told(tmp_path: Path) -> None:
    """DT_AUDIT is an extra, as ldd hides it; DT_FILTER a library, as ldd lists it; both are warned of."""
    found = closed(
        tmp_path,
        {
            "/bin/prog": elf(
                *needs("libf.so"), ("audit", "/opt/liba.so:libgone.so"), interp=LOADER
            ),
            "/opt/liba.so": elf(*needs("libm.so.6")),
            "/lib/libf.so": elf(("filter", "libreal.so"), ("auxiliary", "libnone.so")),
            "/lib/libreal.so": elf(),
        },
    )
    assert paths(found.libraries) == ["/lib/libf.so", "/lib/libreal.so"]
    assert ("/opt/liba.so", "DT_AUDIT /opt/liba.so") in [
        (extra.path, extra.rule) for extra in found.extras
    ]
    assert found.missing == (
        Missing("libnone.so", "/lib/libf.so", required=False),
        Missing("libgone.so", "/bin/prog", required=False),
    )
    assert found.warnings == (
        "/bin/prog has ld.so run /opt/liba.so:libgone.so as its auditor (DT_AUDIT)",
        "/lib/libf.so is a filter for libreal.so (DT_FILTER)",
        "/lib/libf.so is a filter for libnone.so (DT_AUXILIARY)",
    )


def test_dlopen_notes_bring_the_first_name_that_is_there(tmp_path: Path) -> None:
    """What is required and absent is missed as required; the rest are extras, or optional."""
    note = dlopen_note(
        '[{"soname": ["libnew.so.2", "libnew.so.1"], "feature": "new"},'
        ' {"soname": ["libmust.so"], "priority": "required"},'
        ' {"soname": ["libmay.so"], "priority": "suggested"},'
        ' {"soname": ["libm.so.6"], "priority": "required"}]'
    )
    found = closed(
        tmp_path,
        {
            "/bin/prog": elf(*needs("libm.so.6"), interp=LOADER, note=note),
            "/lib/libnew.so.1": elf(*needs("libgone.so")),
        },
    )
    assert found.extras == (
        Library("/lib/libnew.so.1", "libnew.so.1", "/bin/prog", ".note.dlopen new (recommended)"),
    )
    assert found.missing == (
        Missing("libgone.so", "/lib/libnew.so.1", required=False),
        Missing("libmust.so", "/bin/prog", required=True),
        Missing("libmay.so", "/bin/prog", required=False),
    )


def test_relative_folders_are_left_out_with_a_warning(tmp_path: Path) -> None:
    """An empty or relative RPATH entry means the caller's folder: it must not choose libraries."""
    found = closed(
        tmp_path, {"/bin/prog": elf(*needs("libm.so.6"), ("rpath", ":lib"), interp=LOADER)}
    )
    assert found.warnings == (
        "/bin/prog has a relative RPATH or RUNPATH folder, which is left out",
    )
    assert "/lib/libm.so.6" in paths(found.libraries)


MUSL = "/lib/ld-musl-x86_64.so.1"


def test_musl_programs_take_libc_from_their_loader(tmp_path: Path) -> None:
    """Its libc, libm and libpthread are the loader; a GNU ld script named libc.so is not read."""
    found = closed(
        tmp_path,
        {
            MUSL: elf(("soname", "libc.musl-x86_64.so.1")),
            "/usr/lib/libc.so": b"/* GNU ld script */",
            "/bin/prog": elf(*needs("libz.so.1", "libc.so", "libm.so.0"), interp=MUSL),
            "/usr/lib/libz.so.1": elf(*needs("libc.musl-x86_64.so.1")),
        },
    )
    assert (paths(found.libraries), found.missing) == ([MUSL, "/usr/lib/libz.so.1"], ())


def test_musl_searches_its_path_file_and_inherits_runpath(tmp_path: Path) -> None:
    """/etc/ld-musl-ARCH.path replaces the defaults, and both kinds of RPATH reach grandchildren."""
    found = closed(
        tmp_path,
        {
            MUSL: elf(("soname", "libc.musl-x86_64.so.1")),
            "/etc/ld-musl-x86_64.path": b"/opt/musl\n",
            "/bin/prog": elf(*needs("liba.so"), ("runpath", "$ORIGIN/../opt/own"), interp=MUSL),
            "/opt/own/liba.so": elf(*needs("libb.so", "libz.so", "libm.so.6x")),
            "/opt/own/libb.so": elf(),
            "/opt/musl/libz.so": elf(),
            "/usr/lib/libz.so": elf(),
        },
    )
    assert paths(found.libraries) == [
        "/bin/../opt/own/liba.so", "/bin/../opt/own/libb.so", MUSL, "/opt/musl/libz.so",
    ]  # fmt: skip


def test_musl_ignores_an_rpath_with_tokens_it_does_not_know(tmp_path: Path) -> None:
    """One $LIB spoils the whole RPATH, where glibc would read the rest."""
    files = {
        MUSL: elf(),
        "/bin/prog": elf(*needs("liba.so"), ("rpath", "$LIB/x:/opt"), interp=MUSL),
        "/opt/liba.so": elf(),
    }
    assert [missing.name for missing in closed(tmp_path, files).missing] == ["liba.so"]


def test_a_musl_library_finds_its_loader(tmp_path: Path) -> None:
    """Without PT_INTERP the C library's name tells which loader is meant."""
    files = {MUSL: elf(), "/usr/lib/libz.so.1": elf(*needs("libc.musl-x86_64.so.1"))}
    assert paths(closed(tmp_path, files, "/usr/lib/libz.so.1").libraries) == [MUSL]


def test_a_resolver_remembers_nothing_wrong_between_files(tmp_path: Path) -> None:
    """Asked for many files, it answers for each what it would answer for that one alone."""
    files = {
        "/bin/a": elf(*needs("libx.so"), ("rpath", "/opt/a"), interp=LOADER),
        "/bin/b": elf(*needs("libx.so"), ("rpath", "/opt/b"), interp=LOADER),
        "/bin/c": elf(*needs("libx.so", "liby.so"), interp=LOADER),
        "/opt/a/libx.so": elf(*needs("liby.so")),
        "/opt/a/liby.so": elf(),
        "/opt/b/libx.so": elf(*needs("liby.so")),
        "/lib/liby.so": elf(),
        "/lib/libx.so": elf(*needs("liby.so")),
    }
    closed(tmp_path, {**files, "/bin/prog": elf()})
    shared = Resolver(str(tmp_path))
    for _ in range(2):
        for name in ("/bin/a", "/bin/b", "/bin/c"):
            assert shared.closure(name) == Resolver(str(tmp_path)).closure(name)


def test_a_second_name_of_a_loaded_file_is_an_extra(tmp_path: Path) -> None:
    """ld.so loads the file once, and so ldd lists it once; in the tree both names must be there."""
    place(tmp_path / "lib/liba.so.1.0", elf(("soname", "liba.so.1.0")))
    for name in ("liba.so.1", "liba.so"):
        (tmp_path / "lib" / name).symlink_to("liba.so.1.0")
    prog = elf(*needs("liba.so.1", "liba.so"), interp=LOADER)
    found = closed(tmp_path, {"/bin/prog": prog})
    assert paths(found.libraries) == ["/lib/liba.so.1"]
    assert "/lib/liba.so" in paths(found.extras)


def test_circles_end(tmp_path: Path) -> None:
    """Libraries that need each other, themselves, and the program."""
    found = closed(
        tmp_path,
        {
            "/bin/prog": elf(*needs("liba.so", "prog"), ("soname", "prog"), interp=LOADER),
            "/lib/liba.so": elf(*needs("libb.so", "liba.so", "prog")),
            "/lib/libb.so": elf(*needs("liba.so")),
        },
    )
    assert paths(found.libraries) == ["/lib/liba.so", "/lib/libb.so"]
    assert found.missing == ()


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_programs_and_libraries_never_raise(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes in the place of a program, a library, the cache or the loader: an answer, or None."""
    root = tmp_path_factory.mktemp("root")
    files = {
        "/bin/prog": elf(
            *needs("liba.so", "libc.so.6"), ("runpath", "$ORIGIN/$LIB"), interp=LOADER
        ),
        "/lib/liba.so": elf(*needs("libm.so.6"), ("filter", "libc.so.6")),
        "/etc/ld.so.cache": cache(("libm.so.6", "/lib/libm.so.6", NAMED), hwcaps=HWCAPS),
        **FILES,
    }
    for name, whole in files.items():
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        place(root / name[1:], bytes(content))
    found = Resolver(str(root)).closure("/bin/prog")
    assert found is None or found.path == "/bin/prog"


def test_what_ld_so_prints_is_understood() -> None:
    """Names with spaces, libraries that are not found, and the vdso, which is no file."""
    text = (
        "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibx.so => /opt/a dir/libx.so (0x00007f1)\n"
        "\tliby.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n"
    )
    assert _listed("/p", text) == Closure(
        "/p",
        (
            Library("/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2", "/p", "ldd"),
            Library("/opt/a dir/libx.so", "libx.so", "/p", "ldd"),
        ),
        missing=(Missing("liby.so", "/p", required=True),),
    )
    assert _listed("/p", "\tstatically linked\n") == Closure("/p")


def test_the_other_resolver_refuses_foreign_files(tmp_path: Path) -> None:
    """`--resolver ldd` can't run another machine's loader, and names the one that can read it."""
    foreign = AARCH64 if os.uname().machine != "aarch64" else 62
    path = place(tmp_path / "prog", elf(*needs("libc.so.6"), machine=foreign))
    with pytest.raises(HostLacks, match="this machine has no loader for it") as caught:
        ldd(path)
    assert caught.value.hint == "the resolver `own` reads files of any machine"
    assert ldd(place(tmp_path / "script", b"#!/bin/sh\n")) is None
