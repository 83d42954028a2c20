"""What the GNU C library loads by name: NSS, the unwinder of pthread_cancel, the UTF-8 locale."""

import os
from collections.abc import Iterator
from functools import lru_cache

from virttools.host import elf
from virttools.host.bundles.rule import Program, Rule, Wish, folder, links
from virttools.host.sysroot import Sysroot

_LIBC = "libc.so.6"
_LOCALE = "/usr/lib/locale/C.utf8"
# Built into libc.so.6 since 2.34; the files that are still shipped then are empty shells.
_BUILT_IN = (2, 34)
_NSS = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")


def _wishes(sysroot: Sysroot, program: Program) -> Iterator[Wish]:
    found = program.library(_LIBC)
    if found is None:
        return
    libc = found[1]
    # pthread_exit and pthread_cancel abort the program where it is absent.
    yield Wish(f"{folder(libc)}/libgcc_s.so.1", program.path)
    yield Wish(f"/usr{folder(libc)}/libgcc_s.so.1", program.path)
    yield Wish(_LOCALE, program.path)
    if _version(sysroot, libc) < _BUILT_IN:
        for name in _NSS:
            yield Wish(f"{folder(libc)}/{name}", program.path)


@lru_cache(maxsize=4)
def _version(sysroot: Sysroot, libc: str) -> tuple[int, int]:
    fd = sysroot.open(sysroot.walk(libc).path)
    if fd is None:
        return (0, 0)
    try:
        return elf.glibc_version(fd) or (0, 0)
    finally:
        os.close(fd)


RULE = Rule(
    name="glibc",
    about="libgcc_s for threads that end early, the C.UTF-8 locale, NSS where glibc is before 2.34",
    trigger=links(_LIBC),
    wishes=_wishes,
)
