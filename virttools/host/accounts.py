"""Reads which names the numbers of users and groups have on a host."""

from collections.abc import Iterable
from dataclasses import dataclass

from virttools.host.sysroot import Sysroot


@dataclass(frozen=True, slots=True)
class Accounts:
    """(number, name), the first name of each number, sorted by number."""

    users: tuple[tuple[int, str], ...]
    groups: tuple[tuple[int, str], ...]

    def of(self, uids: Iterable[int], gids: Iterable[int]) -> "Accounts":
        """Only those numbers."""
        some, others = frozenset(uids), frozenset(gids)
        return Accounts(
            tuple(pair for pair in self.users if pair[0] in some),
            tuple(pair for pair in self.groups if pair[0] in others),
        )


def read(sysroot: Sysroot) -> Accounts:
    """The accounts of /etc/passwd and /etc/group; no NSS, as a sysroot may be another system's."""
    return Accounts(_named(sysroot, "/etc/passwd"), _named(sysroot, "/etc/group"))


def _named(sysroot: Sysroot, path: str) -> tuple[tuple[int, str], ...]:
    found: dict[int, str] = {}
    for line in (sysroot.read(path) or b"").decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isascii() and fields[2].isdigit():
            found.setdefault(int(fields[2]), fields[0])
    return tuple(sorted(found.items()))
