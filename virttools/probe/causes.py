"""Reader: why a client is not served, where that can be seen in the tree: no room, no user, no home."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from virttools.doctor import mending
from virttools.enter import accounts, inside
from virttools.enter.accounts import Account
from virttools.manifest.model import ProbeKind
from virttools.probe.outcome import Cause

_LARGEST_FILE = 16 * 2**20
_LEAST = 64 << 10
"""Bytes: where fewer are free, no message and no file of anybody has room."""
_ROOMS = {
    ProbeKind.FTP: ("/home",),
    ProbeKind.IMAP: ("/var/mail",),
    ProbeKind.POP: ("/var/mail",),
    ProbeKind.POPPASS: ("/etc",),
    ProbeKind.SMTP: ("/var/mail", "/var/spool"),
}
_HOMELY = (ProbeKind.FTP, ProbeKind.SMB)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look, and how commands name it: virt as called for this root; path: of the tree."""

    tree_fd: int
    virt: str
    domain: str
    path: str


def of_room(place: Place, kind: ProbeKind) -> Iterator[Cause]:
    """What a service must write to and is full."""
    for folder in _ROOMS.get(kind, ()):
        try:
            fd = inside.open_folder(place.tree_fd, folder)
        except OSError:
            continue
        lack = _lack(os.fstatvfs(fd))
        os.close(fd)
        if lack:
            path = mending.quoted(place.path + folder)
            yield Cause(
                f"the file system of {folder} is full: {lack}",
                f"make room there; what is large: du -xa {path} | sort -n | tail",
            )


def _lack(found: os.statvfs_result) -> str:
    if found.f_files and not found.f_favail:
        return f"none of its {found.f_files} inodes is free"
    free = found.f_bavail * found.f_frsize
    size = found.f_blocks * found.f_frsize
    # A size of 0 means that it does not tell, as some network file systems do not.
    return f"{free >> 10} of {size >> 10} KiB are free" if size and free < _LEAST else ""


def of_login(place: Place, kind: ProbeKind, name: str, *, is_denied: bool) -> Iterator[Cause]:
    """What keeps a user of the tree out. is_denied: name and password were not taken."""
    found = accounts.find(_read(place, "/etc/passwd"), b"", os.fsencode(name))
    if found is None:
        words = ("useradd", "--create-home", name)
        yield Cause(f"{place.domain} has no user {name}", _inside(place, *words))
        return
    homeless = list(_of_home(place, name, found)) if kind in _HOMELY else []
    yield from homeless
    if is_denied:
        yield from _of_password(place, kind, name, is_wrong=not homeless)


def _of_home(place: Place, name: str, account: Account) -> Iterator[Cause]:
    home = os.fsdecode(account.home)
    seen = inside.status(place.tree_fd, home)
    if seen is None or not inside.is_folder(place.tree_fd, home):
        mend = mending.home(place.virt, place.domain, home, account.uid, account.gid)
        yield Cause(f"{name} has no home directory {home}", mend)
    elif seen.st_uid != account.uid and not seen.st_mode & 0o001:
        mend = _inside(place, "chown", f"{account.uid}:{account.gid}", home)
        yield Cause(f"{home} belongs to the user {seen.st_uid}, and {name} may not enter", mend)


def _of_password(place: Place, kind: ProbeKind, name: str, *, is_wrong: bool) -> Iterator[Cause]:
    """is_wrong: nothing else was seen that explains it."""
    mend = _inside(place, "passwd", name)
    field = _hashed(_read(place, "/etc/shadow"), os.fsencode(name))
    if kind is ProbeKind.SMB:
        what = f"samba has passwords of its own, and this is none of {name}"
        yield Cause(what, _inside(place, "smbpasswd", "-a", name))
    elif field is not None and (not field or field[:1] in b"!*"):
        what = "an empty password" if not field else "no password, or a locked one"
        yield Cause(f"{name} of {place.domain} has {what}", mend)
    elif is_wrong:
        yield Cause(f"the password is not that of {name} in {place.domain}", mend)


def _hashed(shadow: bytes, name: bytes) -> bytes | None:
    rows = (line.split(b":") for line in shadow.split(b"\n"))
    return next((row[1] for row in rows if len(row) > 1 and row[0] == name), None)


def _read(place: Place, path: str) -> bytes:
    return inside.read(place.tree_fd, path, _LARGEST_FILE) or b""


def _inside(place: Place, *words: str) -> str:
    return mending.inside(place.virt, place.domain, *words)
