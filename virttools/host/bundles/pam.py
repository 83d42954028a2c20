"""What libpam reads and loads for a service: a closed set of pam.d files, modules, what those use.

One absent include makes PAM deny everything, and say so nowhere.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from virttools.host.bundles.rule import Program, Rule, Wish, folder, links
from virttools.host.sysroot import Sysroot

_LIBPAM = "libpam.so.0"
# pam.d(5): the administrator's files, then those of the vendor.
_FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d")

# Modules that speak to daemons of a desktop or of systemd; left out where a service may do without.
_LEFT_OUT = ("pam_systemd*.so", "pam_gnome_keyring.so", "pam_kwallet*.so", "pam_ck_connector.so")

# What modules read or start that no argument of theirs names: module, paths (from their man pages).
_USED = (
    ("pam_unix.so", ("/usr/sbin/unix_chkpwd", "/usr/sbin/unix_update")),
    ("pam_pwhistory.so", ("/usr/sbin/pwhistory_helper", "/etc/security/pwhistory.conf")),
    ("pam_mkhomedir.so", ("/usr/sbin/mkhomedir_helper",)),
    ("pam_limits.so", ("/etc/security/limits.conf", "/etc/security/limits.d")),
    ("pam_env.so", ("/etc/security/pam_env.conf",)),
    ("pam_access.so", ("/etc/security/access.conf", "/etc/security/access.d")),
    ("pam_time.so", ("/etc/security/time.conf",)),
    ("pam_group.so", ("/etc/security/group.conf",)),
    ("pam_faillock.so", ("/etc/security/faillock.conf",)),
    ("pam_sepermit.so", ("/etc/security/sepermit.conf",)),
    ("pam_namespace.so", ("/etc/security/namespace.conf", "/etc/security/namespace.init")),
    ("pam_pwquality.so", ("/etc/security/pwquality.conf", "/etc/security/pwquality.conf.d")),
    ("pam_cap.so", ("/etc/security/capability.conf",)),
    ("pam_shells.so", ("/etc/shells",)),
    ("pam_securetty.so", ("/etc/securetty",)),
)
# Less envfile=, as the host's environment is not the tree's: its proxies, its locale.
_ARGUMENT = re.compile(r"(?:(?!envfile)[a-z_]+=)?(/[^\s\]]+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a pam.d file: control is "@include" for Debian's form of inclusion."""

    control: str
    module: str
    arguments: tuple[str, ...]
    is_optional: bool

    @property
    def includes(self) -> bool:
        return self.control in ("@include", "include", "substack")


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Line, ...]:
    """The lines of a pam.d file as pam.d(5) has them, less those that are malformed."""
    lines = text.replace("\\\n", " ").splitlines()
    return tuple(found for line in lines if (found := _line(line)) is not None)


def _line(text: str) -> Line | None:
    words = _words(text.partition("#")[0])
    if len(words) >= 2 and words[0] == "@include":
        return Line("@include", words[1], (), is_optional=False)
    if len(words) < 3:
        return None
    kind, control, module, *arguments = words
    control = control.lower()
    may_lack = control == "optional" or "module_unknown=ignore" in control
    return Line(control, module, tuple(arguments), is_optional=kind.startswith("-") or may_lack)


def _words(text: str) -> list[str]:
    """Split at blanks; `[…]` is one word."""
    return [bracketed or plain for bracketed, plain in re.findall(r"(\[[^\]]*\])|(\S+)", text)]


def _wishes(sysroot: Sysroot, program: Program) -> Iterator[Wish]:
    library = program.library(_LIBPAM)
    if library is None:
        return
    modules = f"{folder(library[1])}/security"
    pending = [(service, program.path) for service in _services(sysroot, program)]
    seen: set[str] = set()
    while pending:
        service, by = pending.pop(0)
        path = _find(sysroot, service)
        if path is None:
            yield Wish(f"{_FOLDERS[0]}/{service}", by, is_needed=True)
        elif path not in seen:
            seen.add(path)
            yield Wish(path, by)
            for line in parse((sysroot.read(path) or b"").decode(errors="replace")):
                if line.includes:
                    pending.append((line.module, path))
                else:
                    yield from _module(line, modules, path)


def _services(sysroot: Sysroot, program: Program) -> Iterator[str]:
    """Those named as the program is, or so with a suffix (su-l, sudo-i); and the fallback."""
    names = sorted({name for pam in _FOLDERS for name in sysroot.names(pam)})
    for called in program.called:
        yield from (name for name in names if name == called or name.startswith(f"{called}-"))
    if "other" in names:
        yield "other"


def _find(sysroot: Sysroot, service: str) -> str | None:
    places = [service] if service.startswith("/") else [f"{pam}/{service}" for pam in _FOLDERS]
    return next((place for place in places if sysroot.is_file(place)), None)


def _module(line: Line, modules: str, by: str) -> Iterator[Wish]:
    name = line.module.rpartition("/")[2]
    if line.is_optional and any(fnmatchcase(name, pattern) for pattern in _LEFT_OUT):
        return
    path = line.module if line.module.startswith("/") else f"{modules}/{line.module}"
    yield Wish(path.replace("$ISA", ""), by, is_needed=not line.is_optional)
    for argument in line.arguments:
        found = _ARGUMENT.fullmatch(argument.strip("[]"))
        if found and not found[1].startswith(("/run/", "/var/run/", "/dev/", "/proc/")):
            yield Wish(found[1], by)
    for module, used in _USED:
        if module == name:
            yield from (Wish(file, path) for file in used)


RULE = Rule(
    name="pam",
    about="the service's pam.d file, `other`, all they include, modules, their files and helpers",
    trigger=links(_LIBPAM),
    wishes=_wishes,
)
