"""Our closures beside the real ldd: of every program of this host, and of files made to be hard."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.elf_files import elf, ldd, place
from virttools.host import closure, ldso
from virttools.host.closure import Closure, Resolver

LOADER = "/lib64/ld-linux-x86-64.so.2"
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not os.path.exists(LOADER) or not shutil.which("ldd"),
    reason="needs x86-64, glibc and ldd",
)


def said(found: Closure | None) -> set[str]:
    """A closure as ldd would print it."""
    assert found is not None
    extras = {extra.path for extra in found.extras}  # ldd knows nothing of them
    missing = {f"{miss.name} => not found" for miss in found.missing if miss.by not in extras}
    return {library.path for library in found.libraries} | missing


def native_files() -> Iterator[str]:
    """The real paths of all x86-64 ELF files in /usr/bin and /usr/sbin."""
    for folder in ("/usr/bin", "/usr/sbin"):
        for entry in os.scandir(folder):
            path = os.path.realpath(entry.path)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    head = file.read(20)
                if head[:5] == b"\x7fELF\x02" and head[18:20] == b"\x3e\x00":
                    yield path


def test_every_program_of_this_host_has_the_libraries_that_ldd_prints() -> None:
    """Identical sets for the real path of every native ELF file in /usr/bin and /usr/sbin."""
    files = sorted(set(native_files()))
    listed: dict[str, set[str]] = {}
    for start in range(0, len(files), 100):
        listed |= ldd(files[start : start + 100])
    resolver = Resolver()
    ours = {path: said(resolver.closure(path)) for path in files}
    assert len(files) > 50
    assert ours == {path: listed.get(path, set()) for path in files}


def test_the_other_resolver_agrees() -> None:
    """`--resolver ldd` gives the same libraries for the same programs."""
    files = sorted(set(native_files()))[::25]
    resolver = Resolver()
    assert [said(closure.ldd(path)) for path in files] == [
        said(resolver.closure(path)) for path in files
    ]


def agree(path: str) -> set[str]:
    """What our resolver says of a file, once the real ldd has said the same."""
    ours = said(Resolver().closure(path))
    assert ours == ldd([path])[path]
    return ours


def needs(*names: str) -> list[tuple[str, str]]:
    return [("needed", name) for name in names]


def test_rpath_reaches_grandchildren_and_runpath_does_not(tmp_path: Path) -> None:
    """DT_RPATH is inherited, DT_RUNPATH is the file's own and silences the RPATH above it."""
    own, deep = tmp_path / "own", tmp_path / "deep"
    place(own / "libchild.so", elf(("soname", "libchild.so"), *needs("libgrand.so")))
    place(own / "libgrand.so", elf(("soname", "libgrand.so"), *needs("libc.so.6")))
    place(own / "libsilent.so", elf(*needs("libgrand.so"), ("runpath", str(deep))))
    place(own / "libboth.so", elf(*needs("libgrand.so"), ("rpath", str(own)), ("runpath", "/x")))
    for key, name in [
        (key, name)
        for key in ("rpath", "runpath")
        for name in ("libchild.so", "libsilent.so", "libboth.so")
    ]:
        program = elf(*needs(name), (key, str(own)), interp=LOADER)
        found = agree(place(tmp_path / f"{key}-{name}", program))
        assert (f"{own}/libgrand.so" in found) == (key == "rpath" and name == "libchild.so")


@pytest.mark.parametrize(
    "text",
    [
        "$ORIGIN/lib", "${ORIGIN}/../d/lib/", "$ORIGIN/lib//:/usr", "$ORIGINAL:${ORIGIN}/lib",
        "$ORIGIN/$LIB", "$ORIGIN/${LIB}:$ORIGIN/lib", "$ORIGIN/$PLATFORM", "$ORIGIN/lib.$PLATFORM",
        "/none:$ORIGIN/lib:$ORIGIN/lib", "$ORIGIN/$LIB64:$ORIGIN/lib",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["rpath", "runpath"])
def test_tokens_lead_where_ld_so_goes(tmp_path: Path, text: str, key: str) -> None:
    """$ORIGIN, $LIB and $PLATFORM, with braces and without, in DT_RPATH and DT_RUNPATH."""
    folder = tmp_path / "d"
    lib = "lib/x86_64-linux-gnu"
    for place_of in ("lib", lib, "lib64", "x86_64", "haswell", "lib.x86_64"):
        place(folder / place_of / "libt.so", elf(("soname", "libt.so"), *needs("libc.so.6")))
    agree(place(folder / "prog", elf(*needs("libt.so"), (key, text), interp=LOADER)))


def test_needed_may_be_a_path_with_tokens(tmp_path: Path) -> None:
    """DT_NEEDED $ORIGIN/x.so and /abs/y.so are paths; a file found by two paths is one library."""
    place(tmp_path / "x.so", elf(("soname", "x.so")))
    place(tmp_path / "y.so", elf(*needs("x.so", "other.so")))
    (tmp_path / "other.so").hardlink_to(tmp_path / "x.so")
    names = ("$ORIGIN/x.so", f"{tmp_path}/y.so", f"{tmp_path}/gone.so")
    prog = elf(*needs(*names), ("rpath", str(tmp_path)), interp=LOADER)
    assert len(agree(place(tmp_path / "prog", prog))) == 3


def test_origin_is_the_real_place_of_a_program(tmp_path: Path) -> None:
    """Through a link the program still finds what lies beside it; ldd itself fails there."""
    place(tmp_path / "real/lib/libo.so", elf())
    target = place(
        tmp_path / "real/prog", elf(*needs("libo.so"), ("runpath", "$ORIGIN/lib"), interp=LOADER)
    )
    (tmp_path / "prog").symlink_to(target)
    assert said(Resolver().closure(f"{tmp_path}/prog")) == agree(target)


@pytest.mark.parametrize("where", ["glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v2",
                                   "glibc-hwcaps/x86-64-v9", "tls", "x86_64", "tls/x86_64",
                                   "x86_64/x86_64", "haswell"])  # fmt: skip
def test_variants_for_the_processor_are_chosen_as_ld_so_does(tmp_path: Path, where: str) -> None:
    """glibc-hwcaps and, until glibc 2.36, the legacy folders; the plain file is never lost."""
    plain = place(tmp_path / "libv.so", elf(("soname", "libv.so")))
    variant = place(tmp_path / where / "libv.so", elf(("soname", "libv.so")))
    path = place(tmp_path / "prog", elf(*needs("libv.so"), ("rpath", str(tmp_path)), interp=LOADER))
    agree(path)
    found = Resolver().closure(path)
    assert found is not None
    kept = {library.path for library in (*found.libraries, *found.extras)}
    assert plain in kept
    assert kept <= {plain, variant, LOADER}


def test_filters_are_listed_and_auditors_are_not(tmp_path: Path) -> None:
    """Ldd prints what DT_FILTER and DT_AUXILIARY name; an auditor we take along and warn of."""
    place(tmp_path / "libreal.so", elf(("soname", "libreal.so")))
    place(tmp_path / "libf.so", elf(("filter", "libreal.so"), ("auxiliary", "libnone.so")))
    entries = (*needs("libf.so", "libc.so.6"), ("rpath", str(tmp_path)))
    agree(place(tmp_path / "prog", elf(*entries, interp=LOADER)))
    audited = elf(*entries, ("audit", "libm.so.6"), interp=LOADER)
    found = Resolver().closure(place(tmp_path / "audited", audited))
    assert found is not None
    assert [extra.name for extra in found.extras] == ["libm.so.6"]
    assert any("DT_AUDIT" in warning for warning in found.warnings)


def test_nodefaultlib_shuts_the_default_folders(tmp_path: Path) -> None:
    """A program linked with -z nodefaultlib finds nothing in them, not even through the cache."""
    agree(place(tmp_path / "prog", elf(*needs("libm.so.6"), interp=LOADER, flags_1=0x800)))


def test_a_foreign_library_in_the_way_is_passed_over(tmp_path: Path) -> None:
    """A 32-bit file of the right name, found first, is not taken for a 64-bit program."""
    place(tmp_path / "a/libw.so", elf(bits=32, machine=3))
    place(tmp_path / "b/libw.so", elf())
    prog = elf(*needs("libw.so"), ("runpath", "$ORIGIN/a:$ORIGIN/b"), interp=LOADER)
    assert agree(place(tmp_path / "prog", prog)) == {f"{tmp_path}/b/libw.so"}


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_what_the_compiler_makes_is_read_alike(tmp_path: Path) -> None:
    """Static, static-pie, pie and a library with an RPATH, as gcc links them."""
    source = place(tmp_path / "m.c", b"int f(void){return 0;} int main(void){return f();}")
    library = f"{tmp_path}/libg.so"
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
    for flags in (["-static"], ["-static-pie"], ["-no-pie"], ["-Wl,-z,nodlopen", "-lm"],
                  ["-Wl,--no-as-needed", "-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN",
                   library]):  # fmt: skip
        prog = f"{tmp_path}/prog"
        subprocess.run(["gcc", source, "-o", prog, *flags], check=True)
        agree(prog)


NAMES = ("liba.so", "libb.so", "libc1.so", "libd.so", "libc.so.6")
FOLDERS = ("one", "two", "two/glibc-hwcaps/x86-64-v2", "three")
LINKAGE = st.tuples(
    st.lists(st.sampled_from(NAMES), max_size=3, unique=True),
    st.lists(st.sampled_from(["one", "two", "three"]), max_size=2),
    st.sampled_from(["rpath", "runpath", ""]),
)


def linked(linkage: tuple[list[str], list[str], str], top: Path, **how: str) -> bytes:
    names, folders, key = linkage
    path = ":".join(str(top / folder) for folder in folders)
    return elf(*needs(*names), *([(key, path)] if key and path else []), **how)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=120)
@given(
    program=LINKAGE,
    libraries=st.dictionaries(
        st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES[:4])), LINKAGE, max_size=9
    ),
)
def test_random_graphs_are_walked_as_ld_so_walks_them(
    program: tuple[list[str], list[str], str],
    libraries: dict[tuple[str, str], tuple[list[str], list[str], str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Any mesh of needs, RPATHs and RUNPATHs over folders with same-named files: the same set."""
    top = tmp_path_factory.mktemp("graph")
    for (folder, name), linkage in libraries.items():
        place(top / folder / name, linked(linkage, top))
    agree(place(top / "prog", linked(program, top, interp=LOADER)))


def test_a_root_with_its_own_cache_is_read_as_ld_so_reads_it_there(
    tmp_path: Path, as_root: None
) -> None:
    """Ldconfig's cache with variants in it, through links, in a chroot: the same set as ld.so's."""
    root = str(tmp_path)
    libc = next(p for p in said(Resolver().closure("/bin/sh")) if p.endswith("/libc.so.6"))
    for path in (LOADER, libc):
        place(Path(root + path), Path(path).read_bytes())
    for folder in ("opt/l", "opt/l/glibc-hwcaps/x86-64-v2", "opt/l/glibc-hwcaps/x86-64-v3",
                   "opt/l/tls", "opt/m", "opt/m/x86_64"):  # fmt: skip
        name = "libn.so.1" if "/m" not in folder else "libm1.so.1"
        place(tmp_path / folder / name, elf(("soname", name), *needs("libc.so.6")))
    (tmp_path / "links").symlink_to("/opt")
    os.makedirs(tmp_path / "etc/ld.so.conf.d")
    (tmp_path / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n/links/m\n")
    (tmp_path / "etc/ld.so.conf.d/l.conf").write_text("/opt/l\n")
    path = "/prog"
    place(tmp_path / "prog", elf(*needs("libn.so.1", "libm1.so.1"), interp=LOADER))
    before = said(Resolver(root).closure(path))
    subprocess.run(["/sbin/ldconfig", "-r", root], check=True, capture_output=True)
    found = Resolver(root).closure(path)
    assert said(found) == ldd([path], chroot=root)[path]
    assert {os.path.basename(name) for name in before} == {
        os.path.basename(name) for name in said(found)
    }
    assert found is not None
    plain = [extra.path for extra in found.extras]
    assert ("/opt/l/libn.so.1" in plain) == ("x86-64-v2" in ldso.processor(62, 64).hwcaps)
