"""Values: checks of what is in a tree, against what was put there."""

import os.path
from collections.abc import Iterator, Sequence

from virttools.doctor import mending
from virttools.doctor.facts import Machine, OldFile, Resident, Status, Tree
from virttools.doctor.finding import Fault
from virttools.tree import shared
from virttools.tree.record import Entry

_TENANTS = ("/etc/", "/var/", "/home/", "/srv/", "/root/", "/tmp/", "/run/")  # noqa: S108  nothing is made there
_SET_ID = 0o6000
_EXECUTE = 0o111


def unreadable(machine: Machine, tree: Tree) -> Iterator[Fault]:
    if tree.fault is not None:
        yield Fault(
            "its tree could not be looked at to the end",
            f"{tree.fault}; somebody inside may have moved a folder meanwhile",
            f"{machine.virt} doctor {tree.domain}",
        )


def missing(machine: Machine, tree: Tree) -> Iterator[Fault]:
    """Of what is not the tenant's to change."""
    for entry in _gone(tree):
        if not entry.path.startswith(_TENANTS):
            yield Fault(
                f"{entry.path} is gone",
                f"{entry.origin} asked for it, and somebody removed it",
                _put_back(machine, tree, entry),
            )


def missing_own(machine: Machine, tree: Tree) -> Iterator[Fault]:
    """Of /etc, which is the tenant's, but programs count on it."""
    for entry in _gone(tree):
        if entry.path.startswith("/etc/") and entry.path != "/etc/pam.d/other":
            yield Fault(
                f"{entry.path} is gone",
                f"{entry.origin} asked for it; its tenant may have meant to remove it",
                _put_back(machine, tree, entry),
            )


def replaced(machine: Machine, tree: Tree) -> Iterator[Fault]:
    """A folder that is none now leads everybody who enters it astray."""
    for entry in tree.entries:
        found = tree.walked.statuses.get(entry.path)
        if found is not None and _is_replaced(entry, found):
            yield Fault(
                f"{entry.path} is a {found.type} now, and was made as a folder",
                "somebody inside put it there: what is written to the folder goes elsewhere. Look what"
                " it is; the domain's data is kept, see `remove` in virt(1)",
                mending.again(machine.virt, tree.domain, tree.layers),
            )


def _is_replaced(entry: Entry, found: Status) -> bool:
    is_tenants = entry.path.startswith(_TENANTS)
    return entry.type == "directory" and found.type != "directory" and not is_tenants


def _gone(tree: Tree) -> Iterator[Entry]:
    """An entry below one that is gone, or covered by a mount, is not told by itself."""
    lost: set[str] = set()
    for entry in tree.entries:
        above = os.path.dirname(entry.path)
        is_covered = any(entry.path.startswith(f"{point}/") for point in tree.walked.covered)
        found = tree.walked.statuses.get(entry.path)
        is_there = found is not None and not _is_replaced(entry, found)
        if is_there or is_covered or entry.type == "socket":
            continue
        if found is None and above not in lost:
            yield entry
        lost.add(entry.path)


def _put_back(machine: Machine, tree: Tree, entry: Entry) -> str:
    """Through programs of the tree where it has them and can still run them; else all is made anew."""
    has = mending.programs(tree.entries)
    owner = f"{entry.uid}:{entry.gid}"
    name = entry.path.rpartition("/")[2]
    # Who makes something below a folder that is gone too, or without a shell or its libraries?
    is_whole = entry.type == "directory" and _holds(tree, entry.path)
    if not {"sh", "cat", "chown", "chmod", "ln", "install"} <= has or ".so" in name or is_whole:
        return mending.again(machine.virt, tree.domain, tree.layers)
    words: tuple[str, ...]
    if entry.type == "file" and entry.source is not None and entry.source.startswith("/"):
        script = 'cat >"$1" && chown "$2" "$1" && chmod "$3" "$1"'
        words = ("sh", "-c", script, "sh", entry.path, owner, f"{entry.mode:04o}")
        told = mending.inside(machine.virt, tree.domain, *words, writable=True)
        is_needed = name in {"sh", "bash", "dash", "cat", "chown", "chmod"}
        return (
            mending.again(machine.virt, tree.domain, tree.layers)
            if is_needed
            else f"{told} <{mending.quoted(entry.source)}"
        )
    if entry.type == "symlink" and entry.target is not None and entry.path.count("/") > 1:
        words = ("ln", "-s", entry.target, entry.path)
    elif entry.type == "directory":
        numbers = ("-o", str(entry.uid), "-g", str(entry.gid))
        words = ("install", "-d", "-m", f"{entry.mode:04o}", *numbers, entry.path)
    else:
        return mending.again(machine.virt, tree.domain, tree.layers)
    return mending.inside(machine.virt, tree.domain, *words, writable=True)


def _holds(tree: Tree, folder: str) -> bool:
    return any(entry.path.startswith(f"{folder}/") for entry in tree.entries)


def set_id(machine: Machine, tree: Tree) -> Iterator[Fault]:
    for entry, mode in _files(tree):
        if entry.mode & _SET_ID & ~mode:
            yield Fault(
                f"{entry.path} has lost its set-id bit: mode {mode:04o}, not {entry.mode:04o}",
                "chown(2), a copy or a restore drops it; users can then not do what the program is for",
                _as_made(machine, tree, entry),
            )


def set_id_made(machine: Machine, tree: Tree) -> Iterator[Fault]:
    """Root inside may make a program of root's, which then is one for every account of the machine."""
    if not machine.is_open or (machine.mount is not None and "nosuid" in machine.mount[1]):
        return
    ours = {entry.path for entry in tree.entries if entry.mode & _SET_ID}
    for path, status in tree.walked.set_id:
        if path not in ours:
            yield Fault(
                f"{path} has set-id bits that no build gave it: mode {status.mode:04o},"
                f" {status.uid}:{status.gid}",
                f"{machine.root} is open to all: who starts it from outside, by its path, has those ids on"
                " this machine. Look who made it; nothing of ours needs the folder open, but who logs to a"
                " shared log in it",
                f"chmod 0700 {mending.quoted(machine.root)}",
            )


def unexecutable(machine: Machine, tree: Tree) -> Iterator[Fault]:
    for entry, mode in _files(tree):
        if entry.mode & _EXECUTE and not mode & _EXECUTE:
            name = entry.path.rpartition("/")[2]
            is_needed = ".so" in name or name in {"sh", "bash", "dash", "chown", "chmod"}
            yield Fault(
                f"{entry.path} cannot be run any more: mode {mode:04o}, not {entry.mode:04o}",
                "chmod(1), a copy or a restore took it away; whoever starts it is told `Permission denied`",
                mending.again(machine.virt, tree.domain, tree.layers)
                if is_needed
                else _as_made(machine, tree, entry),
            )


def _files(tree: Tree) -> Iterator[tuple[Entry, int]]:
    """Files that were made and still are, with the mode of now."""
    for entry in tree.entries:
        found = tree.walked.statuses.get(entry.path)
        if entry.type == "file" and found is not None and found.type == "file":
            yield entry, found.mode


def _as_made(machine: Machine, tree: Tree, entry: Entry) -> str:
    """Owner and mode that the record has."""
    return mending.inside(
        machine.virt,
        tree.domain,
        *("sh", "-c", 'chown "$1" "$3" && chmod "$2" "$3"', "sh"),
        *(f"{entry.uid}:{entry.gid}", f"{entry.mode:04o}", entry.path),
        writable=True,
    )


def hard_links(machine: Machine, tree: Tree) -> Iterator[Fault]:
    for one in tree.walked.names:
        outside = [path for path in one.inside if not _may_be_shared(path)]
        leads_out = one.count > len(one.inside)
        if not leads_out or (one.is_stored and not outside):
            continue
        path = (outside or one.inside)[0]
        where = "the store, which other trees share" if one.is_stored else "a file outside the tree"
        yield Fault(
            f"{path} is one file with {where}",
            "a hard link leads there: who changes it here changes it for others"
            + (
                ""
                if not one.is_stored
                else f"; only below /{', /'.join(shared.FOLDERS)} may that be"
            ),
            _broken(machine, tree, path),
        )


def _may_be_shared(path: str) -> bool:
    return path.split("/")[1] in shared.FOLDERS


def _broken(machine: Machine, tree: Tree, path: str) -> str:
    script = 'cp -p -- "$1" "$1.own" && mv -f -- "$1.own" "$1"'
    words = ("sh", "-c", script, "sh", path)
    return mending.inside(machine.virt, tree.domain, *words, writable=True)


def writable(machine: Machine, tree: Tree) -> Iterator[Fault]:
    for path, status in tree.walked.writable:
        yield Fault(
            f"{path} can be written by everybody: mode {status.mode:04o}",
            "every user inside, and every service that was broken into, may change or replace it",
            mending.inside(machine.virt, tree.domain, "chmod", "o-w", path, writable=True),
        )


def owner(_: Machine, tree: Tree) -> Iterator[Fault]:
    """What keeps virtuald and exec from entering."""
    top = tree.walked.top
    path = mending.quoted(tree.path)
    if top.uid != 0 or top.mode & 0o022:
        yield Fault(
            f"the tree's own folder belongs to user {top.uid} and has mode {top.mode:04o}",
            "others than root could replace what is in it: neither virtuald nor virt exec enters it",
            f"chown root:root {path} && chmod go-w {path}",
        )


def mounts(_: Machine, tree: Tree) -> Iterator[Fault]:
    for point in tree.mounts:
        if point not in (f"{tree.path}/dev/log", tree.path):
            yield Fault(
                f"something is mounted at {point}",
                "it was left there, or is meant so: `virt remove` refuses while it is, and a /proc of"
                " the host's shows what runs outside",
                f"umount {mending.quoted(point)}",
            )


def apart(machine: Machine, tree: Tree) -> Iterator[Fault]:
    if tree.is_apart:
        yield Fault(
            f"{tree.path} lies on another file system than {machine.root}",
            "nothing can be shared with it by hard link, and /dev/log must be mounted there"
            f" (virt log relink --bind {tree.domain})",
            f"umount {mending.quoted(tree.path)}",
        )


def pam_other(machine: Machine, tree: Tree) -> Iterator[Fault]:
    if tree.has_pam and not tree.has_pam_other:
        script = (
            "for t in auth account password session; do echo $t required pam_deny.so; done"
            " >/etc/pam.d/other"
        )
        yield Fault(
            "PAM has no file `other`",
            "every service without a file of its own in /etc/pam.d then fails, and logs an error each time",
            mending.inside(
                machine.virt, tree.domain, "sh", "-c", f"mkdir -p /etc/pam.d && {script}"
            ),
        )


def resolvers(machine: Machine, tree: Tree) -> Iterator[Fault]:
    local = [address for address in tree.resolvers if address.startswith("127.")]
    if local and not set(machine.resolvers) & set(local):
        known = [one for one in machine.resolvers if not one.startswith("127.")] or ["ADDRESS"]
        script = 'for a; do echo "nameserver $a"; done >/etc/resolv.conf'
        yield Fault(
            f"/etc/resolv.conf names {', '.join(local)}",
            "that is a resolver of one host: it answers nowhere but where it runs, and not in an image",
            mending.inside(machine.virt, tree.domain, "sh", "-c", script, "sh", *known),
        )


def libraries(machine: Machine, tree: Tree) -> Iterator[Fault]:
    if tree.old:
        told = list(dict.fromkeys(map(_told, tree.old)))
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        yield Fault(
            f"{len(tree.old)} libraries or set-id programs are not the host's of today: {', '.join(told[:3])}{more}",
            "the host was updated since the domain was made; what was mended there is not mended here."
            " Until there is an update, the domain must be made anew; its data is kept, see `remove` in virt(1)",
            mending.again(machine.virt, tree.domain, tree.layers),
        )


def _told(one: OldFile) -> str:
    if one.package is None:
        return one.path
    if one.now is None or one.now == one.version:
        return f"{one.path} ({one.package})"
    return f"{one.package} {one.version}, the host has {one.now}"


def sendmail(machine: Machine, tree: Tree) -> Iterator[Fault]:
    for service in tree.manifest.services:
        if tree.has_submit_cf and is_bare_sendmail((service.program, *service.args)):
            file, number = service.origin.file, service.origin.line
            yield Fault(
                f"{service.name} runs sendmail without -Am",
                _SENDMAIL,
                f"{mending.line(number, _AM_TOML, file)} && "
                + mending.again(machine.virt, tree.domain, tree.layers),
            )


_SENDMAIL = (
    "-bs alone makes it a submission program: it reads submit.cf, gives up root and cannot write its"
    " queue"
)
_AM_TOML = r"""s/"\(-b[sd]\)"/"\1", "-Am"/"""


def sendmail_inetd(machine: Machine, residents: Sequence[Resident]) -> Iterator[Fault]:
    inetd = machine.inetd
    if inetd is None or not any(one.has_submit_cf for one in residents):
        return
    for one in inetd.lines:
        if is_bare_sendmail(one.argv):
            yield Fault(
                f"{one.label} of {inetd.path}, line {one.line}, runs sendmail without -Am",
                _SENDMAIL,
                mending.line(one.line, r"s/ \(-b[sd]\)/ \1 -Am/", inetd.path),
            )


def is_bare_sendmail(argv: Sequence[str]) -> bool:
    is_sendmail = argv[0].rpartition("/")[2] == "sendmail"
    return is_sendmail and bool({"-bs", "-bd"} & set(argv[1:])) and "-Am" not in argv
