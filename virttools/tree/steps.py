"""Doer: each action of a plan made ready once, then done in as many staging trees as have it.

A step holds what its system call takes; the tree is private to us (0700) until it is published.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from errno import EXDEV
from hashlib import sha256

from virttools.errors import HostLacks
from virttools.tree import content
from virttools.tree.actions import (
    Action,
    CopyFile,
    LinkFile,
    LinkSocket,
    MakeDir,
    MakeNode,
    MakeSymlink,
    WriteFile,
)
from virttools.tree.content import Copier, Digest, Dress
from virttools.tree.ids import STAND_IN, Ids
from virttools.tree.record import Entry
from virttools.tree.root import Root
from virttools.tree.store import Object, Store

_NAMED = 6
"""How many paths are named to a user."""

_NODE_TYPES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom files go to. Root gives them away; who has but some ids keeps the rest, and misses what root can.

    What a tree cannot hold is in its record all the same: entries tell what is meant.
    """

    can: Ids
    uid: int
    gid: int

    def ids(self, action: MakeDir | CopyFile | WriteFile | MakeNode) -> tuple[int, int]:
        return self.can.held(action.uid, action.gid)

    def lacks(self, actions: Iterable[Action]) -> tuple[str, ...]:
        """What a tree will miss that only root of the machine could give it, in words."""
        if self.can.is_whole:
            return ()
        nodes, foreign, poorer = [], [], []
        for action in actions:
            if isinstance(action, MakeNode):
                nodes.append(action)
            elif isinstance(action, MakeDir | CopyFile | WriteFile):
                wanted = (action.uid, action.gid)
                if wanted != (0, 0) and self.ids(action) != wanted:
                    foreign.append(action)
                if isinstance(action, CopyFile) and len(self.xattrs(action)) < len(action.xattrs):
                    poorer.append(action)
        return (
            *_said(nodes, "no device nodes but empty files, where `virt exec` mounts the host's"),
            *_said(foreign, "yours in the tree; the record and images have the owners meant"),
            *_said(poorer, "without some of their capabilities and ACLs"),
        )

    def xattrs(self, action: CopyFile) -> tuple[tuple[str, bytes], ...]:
        """What may be given: capabilities inside a namespace too, ACLs name ids that it may not have."""
        if self.can.is_whole or not action.xattrs:
            return action.xattrs
        kept = ("user.", "security.capability") if self.uid == 0 else ("user.",)
        return tuple(pair for pair in action.xattrs if pair[0].startswith(kept))


def _said(actions: Sequence[Action], what: str) -> Iterator[str]:
    if actions:
        names = ", ".join(f"/{action.path}" for action in actions[:_NAMED])
        more = f" and {len(actions) - _NAMED} more" if len(actions) > _NAMED else ""
        yield f"these are {what}: {names}{more}"


class DirectoryStep:
    """A folder is plain at first, its own mode and owner come last: a set-group-id would spread."""

    __slots__ = ("_dress", "_mode", "_path", "entry", "is_special")

    def __init__(self, action: MakeDir, owner: Owner) -> None:
        uid, gid = owner.ids(action)
        self._path = os.fsencode(action.path)
        is_plain = action.mode & 0o7700 == 0o700 and (uid, gid) == (owner.uid, owner.gid)
        self.is_special = not is_plain
        self._mode = action.mode if is_plain else 0o700
        self._dress = (action.mode, uid, gid)
        self.entry = _entry(action, "directory", action.mode, action.uid, action.gid)

    def perform(self, tree_fd: int) -> None:
        os.mkdir(self._path, self._mode, dir_fd=tree_fd)

    def finish(self, tree_fd: int) -> None:
        mode, uid, gid = self._dress
        os.chown(self._path, uid, gid, dir_fd=tree_fd)
        os.chmod(self._path, mode, dir_fd=tree_fd)


class ShareStep:
    """A file that is one inode in many trees."""

    __slots__ = ("_action", "_dress", "_object", "_path", "_store", "entry", "is_pristine", "size")

    def __init__(self, action: CopyFile, owner: Owner, store: Store) -> None:
        self._action = action
        self.size = action.size
        self._dress = _dress(action, owner)
        self._store = store
        self._path = os.fsencode(action.path)
        self._object: Object | None = None

    def is_stored(self) -> bool:
        """Whether the object is in the store already. Raises OSError."""
        return self._is_had(self._store.find(self._action, self._dress))

    def copy(self) -> None:
        """Take the host file into the store. Raises ApplyError, OSError."""
        self._is_had(self._store.take_in(self._action, self._dress))

    def _is_had(self, found: Object | None) -> bool:
        if found is None:
            return False
        self._object = found
        self.is_pristine = found.digest.is_pristine(self._action)
        self.entry = _copied(self._action, found.digest)
        return True

    def perform(self, tree_fd: int) -> None:
        assert self._object is not None, "is_stored() or copy() comes first"
        self._store.link(self._object, self._path, tree_fd)


class CopyStep:
    """A file of the domain's own, by the host file's content."""

    __slots__ = (
        "_action",
        "_copier",
        "_digest",
        "_dress",
        "_path",
        "_store",
        "entry",
        "is_pristine",
        "size",
    )

    def __init__(self, action: CopyFile, owner: Owner, store: Store, copier: Copier) -> None:
        self._action = action
        self.size = action.size
        self._store = store
        self._copier = copier
        self._path = os.fsencode(action.path)
        self._dress = _dress(action, owner)
        self._digest: Digest | None = store.known(action)
        if self._digest is not None:
            self._tell(self._digest)

    def perform(self, tree_fd: int) -> None:
        fd = content.create(self._path, tree_fd)
        try:
            digest = self._copier.copy(self._action, fd, self._digest)
            self._dress.put_on(fd)
        finally:
            os.close(fd)
        if self._digest is None:
            self._store.learn(self._action, digest)
            self._digest = digest
            self._tell(digest)

    def _tell(self, digest: Digest) -> None:
        self.is_pristine = digest.is_pristine(self._action)
        self.entry = _copied(self._action, digest)


class WriteStep:
    __slots__ = ("_content", "_dress", "_path", "entry")

    def __init__(self, action: WriteFile, owner: Owner) -> None:
        uid, gid = owner.ids(action)
        self._path = os.fsencode(action.path)
        self._content = action.content
        self._dress = Dress(action.mode, uid, gid, (), None)
        why = action.why
        self.entry = Entry(
            path=f"/{action.path}",
            type="file",
            mode=action.mode,
            uid=action.uid,
            gid=action.gid,
            size=len(action.content),
            sha256=sha256(action.content).hexdigest(),
            source=action.source,
            rule=why.rule,
            by=None if why.by is None else str(why.by),
            origin=str(why.origin),
        )

    def perform(self, tree_fd: int) -> None:
        fd = content.create(self._path, tree_fd)
        try:
            content.write(fd, memoryview(self._content))
            self._dress.put_on(fd)
        finally:
            os.close(fd)


class SymlinkStep:
    __slots__ = ("_path", "_target", "entry")

    def __init__(self, action: MakeSymlink, owner: Owner) -> None:
        self._path = os.fsencode(action.path)
        self._target = os.fsencode(action.target)
        package, version = action.package or (None, None)
        self.entry = replace(
            _entry(action, "symlink", 0o777, owner.uid, owner.gid),
            target=action.target,
            package=package,
            version=version,
        )

    def perform(self, tree_fd: int) -> None:
        os.symlink(self._target, self._path, dir_fd=tree_fd)


class NodeStep:
    __slots__ = ("_action", "_device", "_ids", "_path", "entry")

    def __init__(self, action: MakeNode, owner: Owner) -> None:
        self._action = action
        self._path = os.fsencode(action.path)
        self._device = os.makedev(action.major, action.minor)
        self._ids = owner.ids(action)
        self.entry = _device(action)

    def perform(self, tree_fd: int) -> None:
        action = self._action
        os.mknod(self._path, _NODE_TYPES[action.type] | 0o600, self._device, dir_fd=tree_fd)
        os.chown(self._path, *self._ids, dir_fd=tree_fd, follow_symlinks=False)
        os.chmod(self._path, action.mode, dir_fd=tree_fd)


class SocketStep:
    __slots__ = ("_action", "_path", "_root", "entry")

    def __init__(self, action: LinkSocket, root: Root) -> None:
        self._action = action
        self._root = root
        self._path = os.fsencode(action.path)
        try:
            found = os.stat(action.source, dir_fd=root.fd, follow_symlinks=False)
        except FileNotFoundError as error:
            raise self._refusal("it is not there") from error
        if not stat.S_ISSOCK(found.st_mode):
            raise self._refusal("it is not a socket")
        mode = stat.S_IMODE(found.st_mode)
        self.entry = _entry(action, "socket", mode, found.st_uid, found.st_gid)

    def perform(self, tree_fd: int) -> None:
        try:
            os.link(
                self._action.source,
                self._path,
                src_dir_fd=self._root.fd,
                dst_dir_fd=tree_fd,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno != EXDEV:
                raise
            raise self._refusal("it lies on another file system") from error

    def _refusal(self, cause: str) -> HostLacks:
        return HostLacks(
            f"cannot link {self._root.path}/{self._action.source} to /{self._action.path}: {cause}",
            hint="the log daemon must listen on a socket in the folder of the trees",
        )


class LinkStep:
    """A second name of a file that the same tree has already."""

    __slots__ = ("_action", "_existing", "_path")

    def __init__(self, action: LinkFile) -> None:
        self._action = action
        self._path = os.fsencode(action.path)
        self._existing = os.fsencode(action.existing)

    def perform(self, tree_fd: int) -> None:
        os.link(
            self._existing,
            self._path,
            src_dir_fd=tree_fd,
            dst_dir_fd=tree_fd,
            follow_symlinks=False,
        )

    def entry_of(self, existing: Entry) -> Entry:
        why = self._action.why
        package, version = self._action.package or (None, None)
        return replace(
            existing,
            path=f"/{self._action.path}",
            link=existing.link or existing.path,
            rule=why.rule,
            by=None if why.by is None else str(why.by),
            origin=str(why.origin),
            package=package,
            version=version,
        )


class StandInStep:
    """An empty file in place of a device node: `virt exec` mounts the host's there, images have the node."""

    __slots__ = ("_path", "entry")

    def __init__(self, action: MakeNode) -> None:
        self._path = os.fsencode(action.path)
        self.entry = _device(action)

    def perform(self, tree_fd: int) -> None:
        fd = content.create(self._path, tree_fd)
        try:
            os.fchmod(fd, STAND_IN)
        finally:
            os.close(fd)


Step = (
    DirectoryStep
    | ShareStep
    | CopyStep
    | WriteStep
    | SymlinkStep
    | NodeStep
    | SocketStep
    | LinkStep
    | StandInStep
)


def ready(  # noqa: PLR0911  one return for each kind of action
    action: Action, owner: Owner, store: Store, copier: Copier, root: Root
) -> Step:
    """The step of an action. Raises HostLacks where a socket to link is not there."""
    match action:
        case MakeDir():
            return DirectoryStep(action, owner)
        case CopyFile(share=True):
            return ShareStep(action, owner, store)
        case CopyFile():
            return CopyStep(action, owner, store, copier)
        case LinkFile():
            return LinkStep(action)
        case WriteFile():
            return WriteStep(action, owner)
        case MakeSymlink():
            return SymlinkStep(action, owner)
        case MakeNode():
            return NodeStep(action, owner) if owner.can.is_whole else StandInStep(action)
        case LinkSocket():
            return SocketStep(action, root)


def _dress(action: CopyFile, owner: Owner) -> Dress:
    uid, gid = owner.ids(action)
    return Dress(action.mode, uid, gid, owner.xattrs(action), action.mtime_ns)


def _entry(action: Action, type_: str, mode: int, uid: int, gid: int) -> Entry:
    why = action.why
    return Entry(
        path=f"/{action.path}",
        type=type_,
        mode=mode,
        uid=uid,
        gid=gid,
        rule=why.rule,
        by=None if why.by is None else str(why.by),
        origin=str(why.origin),
    )


def _device(action: MakeNode) -> Entry:
    return replace(
        _entry(action, "device", action.mode, action.uid, action.gid),
        device=(action.type, action.major, action.minor),
    )


def _copied(action: CopyFile, digest: Digest) -> Entry:
    package, version = action.package or (None, None)
    why = action.why
    return Entry(
        path=f"/{action.path}",
        type="file",
        mode=action.mode,
        uid=action.uid,
        gid=action.gid,
        size=action.size,
        sha256=digest.sha256,
        xattrs=tuple((name, value.hex()) for name, value in action.xattrs),
        source=str(action.source),
        shared=action.share,
        package=package,
        version=version,
        rule=why.rule,
        by=None if why.by is None else str(why.by),
        origin=str(why.origin),
    )
