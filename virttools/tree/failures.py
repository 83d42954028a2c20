"""Values: what failed, in words: the verb phrase of each action, and what mends an errno."""

import os
from errno import EDQUOT, EINVAL, EIO, ELOOP, EMFILE, ENOENT, ENOSPC, EOPNOTSUPP, EPERM, EROFS

from virttools.errors import ApplyError
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

_HINTS = {
    ENOSPC: "free some space (or inodes: `df -i`) on the file system of the trees, then try again",
    EDQUOT: "a disk quota is used up: raise it, then try again",
    EIO: "the disk fails: see the kernel's log",
    EROFS: "the file system is mounted read-only",
    EMFILE: "create fewer domains at once, or raise `ulimit -n`",
    ENOENT: "it was there when it was surveyed: run this again",
    ELOOP: "it was a file when it was surveyed: run this again",
    EPERM: "this needs a capability that root lacks here (a container?), or an immutable file",
    EINVAL: "the file system or user namespace does not know that owner, mode or attribute",
    EOPNOTSUPP: "the file system of the trees does not keep that attribute",
}


def failure(action: Action, error: OSError) -> ApplyError:
    """The error for an action whose system call failed."""
    cause = os.strerror(error.errno) if error.errno else str(error)
    return ApplyError(f"cannot {phrase(action)}: {cause}", hint=_HINTS.get(error.errno or 0))


def phrase(action: Action) -> str:  # noqa: PLR0911  one return for each kind of action
    """What the action does, as it stands after `cannot`."""
    match action:
        case MakeDir():
            return f"make folder /{action.path}"
        case CopyFile():
            return f"copy {action.source} to /{action.path}"
        case LinkFile():
            return f"link /{action.existing} to /{action.path}"
        case WriteFile():
            return f"write /{action.path}"
        case MakeSymlink():
            return f"make symlink /{action.path}"
        case MakeNode():
            return f"make device node /{action.path}"
        case LinkSocket():
            return f"link {action.source} to /{action.path}"
