"""How fast trees are built, linked and copied, beside a C loop, cp -a and jailkit in the same run.

Each round has a fresh ext4 in a file: on one that is in use, what was deleted lately slows new inodes
down 4 to 10 times. Run as root: `python -m bench.tree`. Mounts are seen by this process only.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.disk import disk, leave_mounts, used
from virttools import linux
from virttools.host.facts import Why
from virttools.manifest.model import Origin
from virttools.tree import apply, publish
from virttools.tree.actions import Action, CopyFile, MakeDir, MakeSymlink, Plan
from virttools.tree.record import Record
from virttools.tree.root import Root, open_root

ROUNDS = 3
TREES = 1000
BATCH = 32
"""As `virt create` builds them."""

WHY = Why("bench", None, Origin("bench", 0))
JAIL = ("basicshell", "editors", "extendedshell", "netutils", "ssh", "sftp")
JAIL_WITH_PERL = (*JAIL, "scp", "jk_lsh", "perl")
HERE = Path(__file__).parent


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench/tree.py: needs root: it mounts loop devices")
    leave_mounts()
    rows: list[tuple[str, str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="virttools-bench.") as scratch:
        rows += linked(Path(scratch))
        rows += copied(Path(scratch))
        if shutil.which("jk_init"):
            rows += jailed(Path(scratch), JAIL)
            rows += jailed(Path(scratch), JAIL_WITH_PERL)
        else:
            print("jk_init is not installed: no comparison with jailkit", file=sys.stderr)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))


# --- what is built


def sample() -> tuple[Action, ...]:
    """Some 360 entries as a base tree has them: 259 files, 46 symlinks, about as many folders."""
    modules = drawn("/usr/lib/x86_64-linux-gnu/perl-base", share=True)
    programs = drawn("/usr/bin", share=True)
    files = [one for one in (*modules, *programs) if isinstance(one, CopyFile)]
    chosen: list[Action] = []
    chosen += [one for one in files if one.size < 1 << 20][:259]
    chosen += [one for one in programs if isinstance(one, MakeSymlink)][:46]
    paths = {one.path for one in chosen}
    folders = {str(parent) for path in paths for parent in Path(path).parents} - {"."}
    return (*map(folder, sorted(folders)), *chosen)


def drawn(top: str, inside: str = "", *, share: bool) -> tuple[Action, ...]:
    """Actions that make what lies below top at the same paths, less `inside`; folders first."""
    folders: list[Action] = []
    others: list[Action] = []
    pending = [top]
    while pending:
        here = pending.pop()
        if inner := here.removeprefix(inside).strip("/"):
            folders.append(folder(inner))
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif (action := drawn_one(entry, inside, share=share)) is not None:
                    others.append(action)
    return (*sorted(folders, key=lambda action: action.path), *others)


def drawn_one(entry: "os.DirEntry[str]", inside: str, *, share: bool) -> Action | None:
    inner = entry.path.removeprefix(inside).lstrip("/")
    at = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(at.st_mode):
        target = os.readlink(entry.path)
        return MakeSymlink(path=inner, target=target, package=None, why=WHY)
    if stat.S_ISREG(at.st_mode):
        return file(Path(entry.path), inner, at, share=share)
    return None


def perl() -> tuple[Action, ...]:
    modules = drawn("/usr/share/perl", share=True)
    return (folder("usr"), folder("usr/share"), *modules)


def folder(path: str) -> MakeDir:
    return MakeDir(path=path, mode=0o755, uid=0, gid=0, why=WHY)


def file(path: Path, inner: str, at: os.stat_result, *, share: bool) -> CopyFile:
    return CopyFile(
        path=inner,
        source=path,
        mode=stat.S_IMODE(at.st_mode),
        uid=at.st_uid,
        gid=at.st_gid,
        size=at.st_size,
        mtime_ns=at.st_mtime_ns,
        identity=(at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns),
        xattrs=(),
        share=share,
        reflink=False,
        package=None,
        md5=None,
        why=WHY,
    )


# --- linked trees beside the C loop


def linked(scratch: Path) -> list[tuple[str, str, str, str]]:
    actions = sample()
    loop = compiled(scratch)
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    whole: list[float] = []
    space: list[float] = []
    for number in range(ROUNDS):
        if number % 2:
            theirs.append(link_theirs(scratch, actions, loop))
        ours.append(link_ours(scratch, actions, space))
        if not number % 2:
            theirs.append(link_theirs(scratch, actions, loop))
        whole.append(create_ours(scratch, actions))
    mean = median(median(times) for times in ours)
    reference = median(median(times) for times in theirs)
    early = median(median(times[:96]) for times in ours)
    late = median(median(times[-96:]) for times in ours)
    return [
        (f"{len(actions)} entries, linked from a warm store, ms a tree", "", "", ""),
        ("  C loop of mkdirat/linkat/symlinkat", f"{reference * 1e3:.2f}", "1", ""),
        ("  ours", f"{mean * 1e3:.2f}", f"{mean / reference:.2f}", "target 1.2"),
        ("  ours, the first hundred", f"{early * 1e3:.2f}", "1", ""),
        ("  ours, the last hundred of 1000", f"{late * 1e3:.2f}", f"{late / early:.2f}", "1"),
        ("  published with a record, synced, one core", f"{median(whole) * 1e3:.2f}", "", "8 ms"),
        ("  disk for one more, MB", f"{median(space):.2f}", "", "target 1"),
    ]


def link_ours(scratch: Path, actions: tuple[Action, ...], space: list[float]) -> list[float]:
    times: list[float] = []
    with (
        disk(scratch) as top,
        open_root(f"{top}/root", make=True) as root,
        apply.building(root, [Plan(domain="warm.com", actions=actions)]),
    ):
        before = used(top)
        for plans in batches(actions):
            start = time.perf_counter()
            builts = apply.build(root, plans)
            times += [(time.perf_counter() - start) / len(plans)] * len(plans)
            keep(builts)
        linux.syncfs(root.fd)
        space.append((used(top) - before) / TREES / 1e6)
    return times


def batches(actions: tuple[Action, ...]) -> Iterator[list[Plan]]:
    for first in range(0, TREES, BATCH):
        numbers = range(first, min(first + BATCH, TREES))
        yield [Plan(domain=f"{number}.com", actions=actions) for number in numbers]


def keep(builts: Sequence[apply.Built]) -> None:
    """Let go of staging trees without deleting them, which would slow ext4 down."""
    for built in builts:
        os.close(built.tree_fd)
        built.batch.close()


def create_ours(scratch: Path, actions: tuple[Action, ...]) -> float:
    with disk(scratch) as top, open_root(f"{top}/root", make=True) as root:
        create(root, [Plan(domain="warm.com", actions=actions)])
        start = time.perf_counter()
        for plans in batches(actions):
            create(root, plans)
        return (time.perf_counter() - start) / TREES


def create(root: Root, plans: Sequence[Plan]) -> None:
    with apply.building(root, plans) as builts:
        publish.publish(root, [(built, record(built)) for built in builts])


def record(built: apply.Built) -> Record:
    return Record(
        domain=built.plan.domain, layers=(), addresses=(), profiles=(), entries=built.entries
    )


def link_theirs(scratch: Path, actions: tuple[Action, ...], loop: Path) -> list[float]:
    with disk(scratch) as top:
        os.mkdir(f"{top}/store")
        os.mkdir(f"{top}/trees")
        operations = scratch / "operations"
        operations.write_bytes(b"".join(operation(Path(top, "store"), one) for one in actions))
        done = subprocess.run(
            [loop, operations, f"{top}/store", f"{top}/trees", "0", str(TREES)],
            check=True,
            capture_output=True,
            text=True,
        )
        return [int(line) / 1e9 for line in done.stdout.splitlines()]


def operation(store: Path, action: Action) -> bytes:
    words = ("d", action.path, "")
    if isinstance(action, MakeSymlink):
        words = ("s", action.path, action.target)
    elif isinstance(action, CopyFile):
        # In folders by two letters and under long names, as our store has them.
        name = (
            f"{zlib.crc32(action.path.encode()) & 0xFF:02x}/{action.path.replace('/', '-'):_<110}"
        )
        (store / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(action.source, store / name)
        words = ("l", action.path, name)
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def compiled(scratch: Path) -> Path:
    program = scratch / "linkloop"
    subprocess.run(["gcc", "-O2", "-w", "-o", program, HERE / "linkloop.c"], check=True)
    return program


# --- copies beside cp -a


def copied(scratch: Path) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for title, actions in (
        ("the same content, copied", sample()),
        ("many small files (perl's modules), copied", perl()),
    ):
        with disk(scratch, "source") as top, open_root(f"{top}/root", make=True) as root:
            create(root, [Plan(domain="source.com", actions=actions)])
            source = Path(top, "root/source.com")
            rows += compare_copies(scratch, f"{title} ({len(actions)} entries), ms", source)
    return rows


def compare_copies(scratch: Path, title: str, source: Path) -> list[tuple[str, str, str, str]]:
    cp: dict[bool, list[float]] = {False: [], True: []}
    ours: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for synced in (False, True):
            cp[synced].append(copy_theirs(scratch, source, synced=synced))
            ours[synced].append(copy_ours(scratch, source, synced=synced))
    rows = [(title, "", "", "")]
    for synced, words in ((False, ""), (True, ", with syncfs")):
        one, other = median(cp[synced]), median(ours[synced])
        rows.append((f"  cp -a{words}", f"{one * 1e3:.0f}", "1", ""))
        rows.append((f"  ours{words}", f"{other * 1e3:.0f}", f"{other / one:.2f}", "target 1.3"))
    return rows


def copy_theirs(scratch: Path, source: Path, *, synced: bool) -> float:
    with disk(scratch) as top:
        start = time.perf_counter()
        subprocess.run(["cp", "-a", source, f"{top}/copy"], check=True)
        return finish(start, top, synced=synced)


def copy_ours(scratch: Path, source: Path, *, synced: bool) -> float:
    with disk(scratch) as top, open_root(f"{top}/root", make=True) as root:
        plan = Plan(domain="copy.com", actions=drawn(str(source), str(source), share=False))
        start = time.perf_counter()
        (built,) = apply.build(root, [plan])
        taken = finish(start, top, synced=synced)
        keep([built])
        return taken


def finish(start: float, top: str, *, synced: bool) -> float:
    if synced:
        fd = os.open(top, os.O_RDONLY)
        linux.syncfs(fd)
        os.close(fd)
    return time.perf_counter() - start


# --- jailkit's own content


def jailed(scratch: Path, sections: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    jailkit: list[float] = []
    cold: list[float] = []
    taken_in: list[float] = []
    warm: list[float] = []
    entries = 0
    for _ in range(ROUNDS):
        with disk(scratch, "source") as top:
            jail = Path(top, "jail")
            jail.mkdir()
            start = time.perf_counter()
            subprocess.run(
                ["jk_init", "-j", jail, *sections],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            jailkit.append(time.perf_counter() - start)
            entries = len(drawn(str(jail), str(jail), share=False))
            for share, times in ((False, [cold]), (True, [taken_in, warm])):
                build_jail(scratch, jail, times, share=share)
    base = median(jailkit)
    return [
        (f"jk_init's content ({entries} paths), planned and built, ms", "", "", ""),
        (f"  jk_init {' '.join(sections)}", f"{base * 1e3:.0f}", "1", ""),
        ("  ours, copied", *faster(base, cold), "target 10 x"),
        ("  ours, into a cold store and linked", *faster(base, taken_in), ""),
        ("  ours, linked from a warm store", *faster(base, warm), "target 25 x"),
    ]


def build_jail(scratch: Path, jail: Path, times: list[list[float]], *, share: bool) -> None:
    """Plan and build the jail's content once for each list of times, in one root."""
    with disk(scratch) as top, open_root(f"{top}/root", make=True) as root:
        for number, taken in enumerate(times):
            time.sleep(2.1)  # what was written just now is not remembered
            start = time.perf_counter()
            plan = Plan(domain=f"{number}.com", actions=drawn(str(jail), str(jail), share=share))
            (built,) = apply.build(root, [plan])
            taken.append(time.perf_counter() - start)
            keep([built])


def faster(base: float, times: list[float]) -> tuple[str, str]:
    return f"{median(times) * 1e3:.0f}", f"{base / median(times):.0f} x"


if __name__ == "__main__":
    main()
