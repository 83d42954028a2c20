"""Values: the users and groups of a tree with their final numbers, and every conflict between them.

Only declared accounts exist, and root.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import count
from pathlib import PurePosixPath
from typing import TypeVar

from virttools.errors import ManifestError, Problem
from virttools.manifest.model import Group, HomeLayout, Manifest, Origin, User
from virttools.tree.ranges import SPAN

FIRST = 1000
"""The first number for accounts that ask for none: UID_MIN of login.defs(5), as Debian has it."""

_LAST_ID = 2**32 - 2
"""The largest id: (uid_t) -1 means "leave it" to chown(2)."""

_Account = TypeVar("_Account", User, Group)

_IMPLIED = Origin("every tree has it", 0)
_ROOT = User(  # noqa: S604  the shell is a field of passwd(5)
    name="root",
    uid=0,
    group="root",
    groups=(),
    gecos="root",
    home=PurePosixPath("/root"),
    shell="/bin/sh",
    password="*",  # noqa: S106  locks it, as in shadow(5)
    create_home=False,
    origin=_IMPLIED,
)
_ROOT_GROUP = Group("root", 0, (), _IMPLIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedUser:
    """A line of passwd(5) and shadow(5). gid: of the primary group, whose name is `group`."""

    name: str
    uid: int
    gid: int
    group: str
    gecos: str
    home: str
    shell: str
    password: str
    create_home: bool
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedGroup:
    """A line of group(5): members are the users for whom it is a supplementary group."""

    name: str
    gid: int
    members: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Accounts:
    """Users and groups, by number. uid_base is in every id except 0 already."""

    users: tuple[NumberedUser, ...]
    groups: tuple[NumberedGroup, ...]
    uid_base: int = 0
    _uids: dict[str, int] = field(init=False, repr=False, compare=False)
    _gids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        uids = {user.name: user.uid for user in self.users}
        gids = {group.name: group.gid for group in self.groups}
        object.__setattr__(self, "_uids", uids)
        object.__setattr__(self, "_gids", gids)

    def uid_of(self, name: str, default: int | None = None) -> int:
        """The uid of a name; `default` where there is none. Raises KeyError without a default."""
        found = self._uids.get(name, default)
        if found is None:
            raise KeyError(name)
        return found

    def gid_of(self, name: str, default: int | None = None) -> int:
        """The gid of a name; `default` where there is none. Raises KeyError without a default."""
        found = self._gids.get(name, default)
        if found is None:
            raise KeyError(name)
        return found

    def can_begin_at(self, base: int) -> bool:
        """Whether `number` with that `uid_base` would give the same, moved: nothing that it asks is another."""
        highest = max(self.users[-1].uid, self.groups[-1].gid)
        return bool(base) == bool(self.uid_base) and highest - self.uid_base + base <= _LAST_ID

    def moved(self, base: int) -> "Accounts":
        """The same with another `uid_base`, at which they can begin."""
        by = base - self.uid_base
        users = (replace(one, uid=moved(one.uid, by), gid=moved(one.gid, by)) for one in self.users)
        groups = (replace(one, gid=moved(one.gid, by)) for one in self.groups)
        return Accounts(tuple(users), tuple(groups), base)


def moved(number: int, by: int) -> int:
    """An id of a tree in another range; 0 is root in each."""
    return number + by if number else 0


def number(manifest: Manifest) -> Accounts:
    """Give every declared user and group its number.

    A user without uid gets the next one from FIRST that is free as uid and, where it needs a group
    of its own, as gid. Without `group`, that is a group of the user's name (USERGROUPS of adduser).
    With `uid_base` all ids but 0 are moved up by it, so that two domains share none.
    Raises ManifestError with every conflict, each at the line that caused it.
    """
    numbering = _Numbering(manifest)
    accounts = numbering.run()
    if numbering.problems:
        raise ManifestError(
            f"cannot number the accounts: {_count(numbering.problems)}",
            problems=tuple(numbering.problems),
        )
    return accounts


def _count(problems: Sequence[Problem]) -> str:
    return "1 conflict" if len(problems) == 1 else f"{len(problems)} conflicts"


class _Numbering:
    """One pass over a manifest's accounts; what is wrong gathers in `problems`."""

    def __init__(self, manifest: Manifest) -> None:
        self.problems: list[Problem] = []
        self._layout = manifest.home.layout
        self._base = manifest.shift
        self._users = self._once("user", manifest.users)
        self._groups = self._once("group", manifest.groups)
        self._users.setdefault("root", _ROOT)
        self._groups.setdefault("root", _ROOT_GROUP)
        self._uids: dict[int, str] = {}
        self._gids: dict[int, str] = {}
        # What they yield is claimed at once and never given back: each goes on where it stopped.
        self._free_uids = (n for n in count(FIRST) if n not in self._uids)
        self._free_gids = (n for n in count(FIRST) if n not in self._gids)
        self._free_in_both = (
            n for n in count(FIRST) if n not in self._uids and n not in self._gids
        )

    def run(self) -> Accounts:
        self._claim_declared()
        users = [self._user(user) for user in self._users.values()]
        members = self._members()
        groups = [self._group(group, members[group.name]) for group in self._groups.values()]
        return Accounts(
            users=tuple(sorted(users, key=lambda user: user.uid)),
            groups=tuple(sorted(groups, key=lambda group: group.gid)),
            uid_base=self._base,
        )

    def _complain(self, origin: Origin, message: str) -> None:
        self.problems.append(Problem(origin.file, origin.line, message))

    def _once(self, kind: str, declared: Iterable[_Account]) -> dict[str, _Account]:
        """By name. Later layers have replaced earlier ones in merge, so a second is a mistake."""
        found: dict[str, _Account] = {}
        for one in declared:
            before = found.setdefault(one.name, one)
            if before is not one:
                said = f"cannot declare {kind} {one.name!r} twice: {before.origin} has it"
                self._complain(one.origin, said)
        return found

    def _claim_declared(self) -> None:
        for user in self._users.values():
            if user.uid is not None and self._is_usable(user.uid, "uid", user):
                self._claim(self._uids, user.uid, "uid", user)
        for group in self._groups.values():
            if group.gid is not None and self._is_usable(group.gid, "gid", group):
                self._claim(self._gids, group.gid, "gid", group)

    def _is_usable(self, number: int, what: str, one: User | Group) -> bool:
        if (one.name == "root") != (number == 0):
            cause = "0 is root, and root is 0"
        elif self._base and number >= SPAN:
            cause = f"with uid_base ids must be below {SPAN}, or they reach into the next domain's"
        elif not 0 <= number + self._base <= _LAST_ID:
            cause = "the kernel has no such id"
        else:
            return True
        self._complain(one.origin, f"cannot use {number} as {what} of {one.name!r}: {cause}")
        return False

    def _claim(self, taken: dict[int, str], number: int, what: str, one: User | Group) -> None:
        holder = taken.setdefault(number, one.name)
        if holder != one.name:
            self._complain(
                one.origin, f"cannot give {what} {number} to {one.name!r}: {holder!r} has it"
            )

    def _user(self, user: User) -> NumberedUser:
        uid = self._uid(user)
        group, gid = self._primary(user, uid)
        return NumberedUser(
            name=user.name,
            uid=moved(uid, self._base),
            gid=moved(gid, self._base),
            group=group,
            gecos=user.gecos,
            home=_home(user, self._layout),
            shell=user.shell,
            password=user.password,
            create_home=user.create_home,
            origin=user.origin,
        )

    def _uid(self, user: User) -> int:
        if user.uid is not None:
            return user.uid
        if user.name == "root":
            uid = 0
        elif self._needs_own_group(user):
            uid = next(self._free_in_both)
        else:
            uid = next(self._free_uids)
        self._claim(self._uids, uid, "uid", user)
        return uid

    def _needs_own_group(self, user: User) -> bool:
        """Whether its primary group is one of its own name that has no number yet."""
        if user.group not in {None, user.name}:
            return False
        declared = self._groups.get(user.name)
        return declared is None or declared.gid is None

    def _primary(self, user: User, uid: int) -> tuple[str, int]:
        name = user.group or user.name
        group = self._groups.get(name)
        if group is None:
            if name != user.name:
                self._complain_unknown("group", name, self._groups, user.origin)
            group = Group(name, None, (), user.origin)
        if group.gid is not None:
            return name, group.gid
        return name, self._give_gid(group, wanted=uid if name == user.name else None)

    def _give_gid(self, group: Group, wanted: int | None = None) -> int:
        """A number for a group that has none, the wanted one where it is free."""
        if group.name == "root":
            gid = 0
        elif wanted is not None and wanted not in self._gids:
            gid = wanted
        else:
            gid = next(self._free_gids)
        self._claim(self._gids, gid, "gid", group)
        self._groups[group.name] = replace(group, gid=gid)
        return gid

    def _members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in self._groups}
        for group in self._groups.values():
            for name in group.members:
                if name not in self._users:
                    self._complain_unknown("user", name, self._users, group.origin)
                found[group.name].append(name)
        for user in self._users.values():
            for name in user.groups:
                if name not in self._groups:
                    self._complain_unknown("group", name, self._groups, user.origin)
                found.setdefault(name, []).append(user.name)
        return found

    def _complain_unknown(self, kind: str, name: str, known: Iterable[str], origin: Origin) -> None:
        close = get_close_matches(name, list(known), n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        self._complain(origin, f"unknown {kind} {name!r}: `{kind}s` declares none{meant}")

    def _group(self, group: Group, members: Sequence[str]) -> NumberedGroup:
        gid = group.gid if group.gid is not None else self._give_gid(group)
        return NumberedGroup(
            name=group.name,
            gid=moved(gid, self._base),
            members=tuple(dict.fromkeys(members)),
            origin=group.origin,
        )


def _home(user: User, layout: HomeLayout) -> str:
    if user.home is not None:
        return str(user.home)
    if user.name == "root":
        return "/root"
    letter = user.name[0].lower()
    if layout is HomeLayout.LETTERS and "a" <= letter <= "z":
        return f"/home/{letter}/{user.name}"
    return f"/home/{user.name}"
