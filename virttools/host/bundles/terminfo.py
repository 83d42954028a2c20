"""What curses reads about terminals: /lib/terminfo whole, or common ones of /usr/share/terminfo."""

from collections.abc import Iterator

from virttools.host.bundles.rule import Program, Rule, Wish, links
from virttools.host.sysroot import Sysroot

# Debian keeps these in /lib/terminfo (240 KB); /usr/share/terminfo has 7 MB of others.
_COMMON = (
    "ansi",
    "dumb",
    "linux",
    "rxvt",
    "rxvt-unicode-256color",
    "screen",
    "screen-256color",
    "tmux",
    "tmux-256color",
    "vt100",
    "vt102",
    "vt220",
    "xterm",
    "xterm-256color",
    "xterm-color",
)


def _wishes(sysroot: Sysroot, program: Program) -> Iterator[Wish]:
    yield Wish("/lib/terminfo", program.path)
    for name in sysroot.names("/etc/terminfo"):
        if sysroot.is_directory(f"/etc/terminfo/{name}"):
            yield Wish(f"/etc/terminfo/{name}", program.path)
    for name in _COMMON:
        entry = f"terminfo/{name[0]}/{name}"
        if not sysroot.is_file(f"/lib/{entry}"):
            yield Wish(f"/usr/share/{entry}", program.path)


RULE = Rule(
    name="terminfo",
    about="the descriptions of common terminals",
    trigger=links("libtinfo.so.", "libtinfow.so.", "libncurses.so.", "libncursesw.so."),
    wishes=_wishes,
)
