"""Doer: the addresses that this root put on interfaces, or is about to: .virt/addresses.json.

Written before an address is added, and shortened after one is gone: a crash leaves a name too many,
which does no harm, since only an address that bears the kernel's mark too is taken away.
"""

import json
import os
from collections.abc import Iterable
from errno import ENOENT

from virttools.errors import ApplyError
from virttools.tree.rewrite import open_virt, rewrite
from virttools.tree.root import Root

FILE = "addresses.json"
_ADDRESSES = "addresses"


def read(root: Root) -> frozenset[str]:
    """Raises ApplyError where the list is damaged."""
    folder_fd = open_virt(root)
    try:
        fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
        with open(fd, "rb") as file:
            found = json.load(file)
        return frozenset(str(address) for address in found[_ADDRESSES])
    except OSError as error:
        if error.errno == ENOENT:
            return frozenset()
        raise ApplyError(f"cannot read .virt/{FILE}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ApplyError(
            f"cannot read .virt/{FILE}: it is damaged ({error!r})",
            hint="remove it: what virt put on an interface then stays there until `ip address del`",
        ) from error
    finally:
        os.close(folder_fd)


def write(root: Root, addresses: Iterable[str]) -> None:
    """Who calls holds `lock_all`. Raises ApplyError."""
    text = json.dumps({_ADDRESSES: sorted(addresses)}) + "\n"
    try:
        rewrite(root, FILE, text.encode())
    except OSError as error:
        raise ApplyError(f"cannot write .virt/{FILE}: {error.strerror}") from error
