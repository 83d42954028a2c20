"""Reader: what a build put into a tree and is no longer there, and what supplied it."""

import os

from virttools.probe.outcome import Missing
from virttools.tree import beneath
from virttools.tree.record import Entry, Record


def found(tree_fd: int, record: Record) -> tuple[Missing, ...]:
    """Every path of the record that is gone, but for what lay in a folder that is gone itself."""
    gone: dict[str, Missing] = {}
    for entry in record.entries:
        above = entry.path.rpartition("/")[0]
        if above in gone:
            gone[entry.path] = gone[above]
        elif not _is_there(tree_fd, entry):
            gone[entry.path] = Missing(entry.path, supplied(entry), entry.source)
    return tuple({one.path: one for one in gone.values()}.values())


def _is_there(tree_fd: int, entry: Entry) -> bool:
    path = entry.path.lstrip("/")
    if not path:
        return True
    try:
        os.close(beneath.open_beneath(tree_fd, path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True


def supplied(entry: Entry) -> str:
    """Whose it is in the manifest: its line, and the rule where it was drawn in by one."""
    rule = entry.rule if entry.by is None else f"{entry.rule}, for {entry.by}"
    return f"{entry.origin} ({rule})"
