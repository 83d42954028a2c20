"""Values: users of a tree, found in the text of its own passwd and group, without NSS."""

_LARGEST = 2**32 - 2
"""(uid_t)-1 means "leave as it is" to setresuid(2)."""


class Account:
    """A user of a tree. Text as bytes, as the tree's files have it; groups holds gid too."""

    __slots__ = ("gid", "groups", "home", "name", "shell", "uid")

    def __init__(
        self, name: bytes, home: bytes, shell: bytes, *, uid: int, gid: int, groups: list[int]
    ) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home
        self.shell = shell
        self.groups = groups


def root(passwd: bytes, group: bytes) -> Account:
    """Uid 0, with home and shell of the first entry that has it, or those root has everywhere."""
    found = find(passwd, group, b"0")
    if found is None or found.uid != 0:
        return Account(b"root", b"/root", b"/bin/sh", uid=0, gid=0, groups=[0])
    return found


def find(passwd: bytes, group: bytes, wanted: bytes) -> Account | None:
    """The first entry of passwd(5) text with that name, or else with that number as uid.

    Lines that are no entries are passed over, as libc does.
    """
    by_number: Account | None = None
    for line in passwd.split(b"\n"):
        fields = line.split(b":")
        if len(fields) < 7:
            continue
        is_named = fields[0] == wanted
        if not is_named and (by_number is not None or fields[2] != wanted):
            continue
        account = _account(fields, group)
        if account is not None and is_named:
            return account
        by_number = by_number or account
    return by_number


def listed(passwd: bytes, most: int) -> list[Account]:
    """The accounts of passwd(5) text, at most so many, without their groups."""
    rows = (line.split(b":") for line in passwd.split(b"\n", most)[:most])
    found = (_account(fields, b"") for fields in rows if len(fields) >= 7)
    return [one for one in found if one is not None]


def find_group(group: bytes, wanted: bytes) -> int | None:
    """The gid of the first entry of group(5) text with that name, or wanted itself as a number."""
    for line in group.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 4 and fields[0] and fields[0] == wanted:
            return _number(fields[2])
    return _number(wanted)


def _account(fields: list[bytes], group: bytes) -> Account | None:
    uid, gid = _number(fields[2]), _number(fields[3])
    has_nul = any(b"\0" in field for field in fields)  # no environment variable can hold one
    if not fields[0] or uid is None or gid is None or has_nul:
        return None
    return Account(
        fields[0],
        fields[5] or b"/",
        fields[6] or b"/bin/sh",
        uid=uid,
        gid=gid,
        groups=_groups(group, fields[0], gid),
    )


def _groups(group: bytes, user: bytes, primary: int) -> list[int]:
    found = {primary}
    for line in group.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 4 and user in fields[3].split(b","):
            gid = _number(fields[2])
            if gid is not None:
                found.add(gid)
    return sorted(found)


def _number(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > 10 or int(text) > _LARGEST:
        return None
    return int(text)
