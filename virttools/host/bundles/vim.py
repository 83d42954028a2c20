"""What vim reads as it starts: without it every start stops at an error (E1187, defaults.vim)."""

import re
from collections.abc import Iterator

from virttools.host.bundles.rule import Program, Rule, Wish
from virttools.host.sysroot import Sysroot

# vim.tiny has no scripts and reads none.
_NAME = re.compile(r"g?vim(?!\.tiny$)(\.[\w-]+)?")
_RUNTIME = "/usr/share/vim/vim[0-9]*"
# The rest of the 40 MB (help, a file per language) is looked for and not missed.
_PARTS = ("*.vim", "syntax/sync*.vim", "syntax/syn[lt]*.vim", "colors/lists", "autoload/dist")


def _trigger(program: Program) -> str | None:
    is_vim = program.interpreter is None and _NAME.fullmatch(program.name) and program.libraries
    return f"is {program.name}" if is_vim else None


def _wishes(sysroot: Sysroot, program: Program) -> Iterator[Wish]:
    yield Wish("/etc/vim/vimrc", program.path)
    for part in _PARTS:
        for path in sysroot.glob(f"{_RUNTIME}/{part}"):
            yield Wish(path, program.path, is_program=False)


RULE = Rule(
    name="vim",
    about="the settings and scripts that a full vim reads at each start",
    trigger=_trigger,
    wishes=_wishes,
)
