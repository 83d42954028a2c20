"""What perl and its scripts load: its base library, and the modules that a script names."""

import re
from collections.abc import Iterator

from virttools.host.bundles.rule import Program, Rule, Wish
from virttools.host.sysroot import Sysroot

_NAME = re.compile(r"perl[\d.]*")
# `perl -V`, for any version and architecture: Debian's, then Fedora's.
_INC = (
    "/etc/perl",
    "/usr/local/lib/*/perl/5*",
    "/usr/local/share/perl/5*",
    "/usr/lib/*/perl5/5*",
    "/usr/share/perl5",
    "/usr/lib/*/perl-base",
    "/usr/lib/*/perl/5*",
    "/usr/share/perl/5*",
    "/usr/local/lib/site_perl",
    "/usr/lib64/perl5/vendor_perl",
    "/usr/share/perl5/vendor_perl",
    "/usr/lib64/perl5",
)
_BASE = "/usr/lib/*/perl-base"
_POD = re.compile(r"^=[a-zA-Z].*?(?:^=cut\b.*?$|\Z)", re.MULTILINE | re.DOTALL)
_END = re.compile(r"^__(?:END|DATA)__\b", re.MULTILINE)
# `use X::Y …`, `require X::Y`, also within eval { } and eval ' '; `use parent qw(X Y)` names more.
_USE = re.compile(
    r"""^[ \t]* (?: eval [ \t]* [{"'(]? [ \t]* )?
        (?: use | require ) [ \t]+ ( [A-Za-z_]\w* (?: (?: :: | ' ) \w+ )* ) (?= ( [^;]{0,2000} ) )""",
    re.MULTILINE | re.VERBOSE,
)
_REQUIRE_FILE = re.compile(r"""^[ \t]*require[ \t]+["']([\w./-]+)["']""", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*(?:::\w+)*")


def modules(text: str) -> tuple[str, ...]:
    """The files, relative to @INC, that this perl text names by `use` and `require`; sorted."""
    code = _POD.sub("", _END.split(text, maxsplit=1)[0])
    found = set(_REQUIRE_FILE.findall(code))
    for name, rest in _USE.findall(code):
        found.add(_file(name))
        if name in ("parent", "base", "if", "autouse"):
            found.update(_file(word) for word in _WORD.findall(rest) if word != "qw")
    return tuple(sorted(found))


def _file(module: str) -> str:
    return module.replace("::", "/").replace("'", "/") + ".pm"


def _is_perl(program: Program) -> str | None:
    is_perl = program.interpreter is None and _NAME.fullmatch(program.name) and program.libraries
    return f"is {program.name}" if is_perl else None


def _is_script(program: Program) -> str | None:
    script = program.interpreter
    return "is a perl script" if script is not None and _NAME.fullmatch(script.name) else None


def _base_wishes(sysroot: Sysroot, program: Program) -> Iterator[Wish]:
    found = sysroot.glob(_BASE)
    for path in found:
        yield Wish(path, program.path)
    if not found:
        # Where the distribution has no base set: what nearly every script begins with.
        yield from _load(sysroot, ("strict.pm", "warnings.pm", "XSLoader.pm"), program.path)


def _script_wishes(sysroot: Sysroot, program: Program) -> Iterator[Wish]:
    yield from _load(sysroot, modules(_text(sysroot, program.path)), program.path)


def _load(sysroot: Sysroot, files: tuple[str, ...], by: str) -> Iterator[Wish]:
    """Those modules, what they load in turn, and the compiled part of each (auto/X/Y/Y.so)."""
    pending = [(file, by) for file in files]
    seen = set(files)
    while pending:
        file, by = pending.pop(0)
        path = _find(sysroot, file)
        if path is None:
            continue
        yield Wish(path, by, is_program=False)
        # perl-base comes whole, and needs nothing outside of itself.
        if "/perl-base/" in path:
            continue
        compiled = f"auto/{file.removesuffix('.pm')}"
        for inc in _inc(sysroot):
            for name in sysroot.names(f"{inc}/{compiled}"):
                if not sysroot.is_directory(f"{inc}/{compiled}/{name}"):
                    yield Wish(f"{inc}/{compiled}/{name}", path)
        further = [name for name in modules(_text(sysroot, path)) if name not in seen]
        seen.update(further)
        pending += [(name, path) for name in further]


def _inc(sysroot: Sysroot) -> tuple[str, ...]:
    return tuple(path for pattern in _INC for path in sysroot.glob(pattern))


def _find(sysroot: Sysroot, file: str) -> str | None:
    return next(
        (f"{inc}/{file}" for inc in _inc(sysroot) if sysroot.is_file(f"{inc}/{file}")), None
    )


def _text(sysroot: Sysroot, path: str) -> str:
    return (sysroot.read(path) or b"").decode("utf-8", errors="replace")


BASE = Rule(
    name="perl",
    about="perl-base's own modules, which every perl program may count on",
    trigger=_is_perl,
    wishes=_base_wishes,
)
SCRIPT = Rule(
    name="perl modules",
    about="the modules that a perl script and those modules name, with their compiled parts",
    trigger=_is_script,
    wishes=_script_wishes,
)
