"""What a plan says is what its staging tree holds: attributes, holes, links, nodes; or nothing is left."""

import hashlib
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.system import ground, people
from tests.system.ground import WHY, copy, folder, plan, symlink, text
from virttools.errors import ApplyError, HostLacks, NeedsPrivilege
from virttools.tree import apply
from virttools.tree.actions import LinkFile, LinkSocket, MakeNode, Plan
from virttools.tree.apply import Built
from virttools.tree.root import Root, open_root

pytestmark = pytest.mark.usefixtures("as_root")

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
"""security.capability version 2: cap_net_raw, effective (linux/capability.h)."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    ground.leave_mounts()
    tmp_path.chmod(0o755)
    with open_root(str(tmp_path / "root"), make=True) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_text("content")
    os.utime(path, ns=(1_000_000_007, 1_000_000_007))
    return path


def link(path: str, existing: str) -> LinkFile:
    return LinkFile(path=path, existing=existing, why=WHY, package=None)


def node(path: str, major: int, minor: int) -> MakeNode:
    return MakeNode(
        path=path, type="c", major=major, minor=minor, mode=0o666, uid=0, gid=0, why=WHY
    )


def tree(built: Built) -> Path:
    return Path(built.path)


def everything(source: Path) -> Plan:
    return plan(
        "all.com",
        folder("dev"),
        folder("etc"),
        folder("home", mode=0o2771, gid=8),
        folder("home/bob", mode=0o700, uid=1000, gid=1000),
        folder("tmp", mode=0o1777),
        folder("usr"),
        copy("etc/conf", source, mode=0o640, gid=42),
        copy("usr/prog", source, share=True, mode=0o755),
        copy("usr/su", source, mode=0o4755),
        link("usr/again", "usr/prog"),
        text("home/bob/.profile", b"umask 027\n", mode=0o600),
        symlink("bin", "usr/bin"),
        node("dev/null", 1, 3),
    )


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a_tree_is_what_its_plan_says_whatever_the_umask(
    root: Root, source: Path, umask: int
) -> None:
    """Types, modes, owners and contents, under a set-group-id folder too; and the top is 0755."""
    before = os.umask(umask)
    try:
        with apply.building(root, [everything(source)]) as (built,):
            assert os.umask(umask) == umask
            found = ground.describe(tree(built))
            top = os.fstat(built.tree_fd)
    finally:
        os.umask(before)
    assert stat.filemode(top.st_mode) == "drwxr-xr-x"
    assert found == {
        "/bin": "lrwxrwxrwx 0:0 usr/bin",
        "/dev": "drwxr-xr-x 0:0",
        "/dev/null": "crw-rw-rw- 0:0 1,3",
        "/etc": "drwxr-xr-x 0:0",
        "/etc/conf": "-rw-r----- 0:42 b'content'",
        "/home": "drwxrws--x 0:8",
        "/home/bob": "drwx------ 1000:1000",
        "/home/bob/.profile": "-rw------- 0:0 b'umask 027\\n'",
        "/tmp": "drwxrwxrwt 0:0",
        "/usr": "drwxr-xr-x 0:0",
        "/usr/again": "-rwxr-xr-x 0:0 b'content'",
        "/usr/prog": "-rwxr-xr-x 0:0 b'content'",
        "/usr/su": "-rwsr-xr-x 0:0 b'content'",
    }


def test_entries_say_what_the_tree_holds(root: Root, source: Path) -> None:
    """One entry for each thing, sorted, with digests, links and sharing."""
    with apply.building(root, [everything(source)]) as (built,):
        entries = {entry.path: entry for entry in built.entries}
        assert list(entries) == sorted(ground.describe(tree(built)))
    digest = hashlib.sha256(b"content").hexdigest()
    prog, again = entries["/usr/prog"], entries["/usr/again"]
    assert (prog.sha256, prog.size, prog.shared, prog.link) == (digest, 7, True, None)
    assert (again.sha256, again.shared, again.link) == (digest, True, "/usr/prog")
    assert (entries["/etc/conf"].sha256, entries["/etc/conf"].shared) == (digest, False)
    assert entries["/dev/null"].device == ("c", 1, 3)
    assert entries["/bin"].target == "usr/bin"
    assert entries["/home/bob/.profile"].source == "test.j2"
    assert [stat.filemode(entry.mode)[1:] for entry in (entries["/usr/su"], entries["/home"])] == [
        "rwsr-xr-x",
        "rwxrws--x",
    ]


def test_times_and_sharing_are_as_planned(root: Root, source: Path) -> None:
    """A copy is an inode of its own, a shared file the store's; neither is the host's; mtimes stay."""
    actions = (copy("copied", source), copy("shared", source, share=True))
    with apply.building(root, [plan("a.com", *actions), plan("b.com", *actions)]) as (a, b):
        found = {
            (where, name): (tree(built) / name).stat()
            for where, built in (("a", a), ("b", b))
            for name in ("copied", "shared")
        }
    assert {one.st_mtime_ns for one in found.values()} == {1_000_000_007}
    assert found["a", "shared"].st_ino == found["b", "shared"].st_ino
    inodes = {one.st_ino for one in found.values()} | {source.stat().st_ino}
    assert len(inodes) == 4


def test_capabilities_survive(root: Root, source: Path) -> None:
    """They are set after the owner and the mode, which would drop them."""
    action = copy("ping", source, mode=0o755, gid=7, xattrs=(("security.capability", CAPABILITY),))
    with apply.building(root, [plan("a.com", action)]) as (built,):
        path = tree(built) / "ping"
        assert os.getxattr(path, "security.capability") == CAPABILITY
        assert (path.stat().st_gid, path.stat().st_mtime_ns) == (7, 1_000_000_007)
    assert built.entries[0].xattrs == (("security.capability", CAPABILITY.hex()),)


@pytest.mark.parametrize("share", [False, True])
def test_holes_stay_holes(root: Root, tmp_path: Path, *, share: bool) -> None:
    """A sparse file of 1 GB takes no more disk in the tree, and its digest is that of its content."""
    source = tmp_path / "sparse"
    with open(source, "wb") as file:
        file.seek(3 << 20)
        file.write(b"island")
        file.seek(64 << 20)
        file.write(b"other")
        file.truncate(256 << 20)
    with apply.building(root, [plan("a.com", copy("sparse", source, share=share))]) as (built,):
        made = tree(built) / "sparse"
        subprocess.run(["cmp", source, made], check=True)
        assert made.stat().st_blocks * 512 < 1 << 20
    with open(source, "rb") as file:
        assert built.entries[0].sha256 == hashlib.file_digest(file, "sha256").hexdigest()


def test_large_copies_on_threads_are_exact(root: Root, tmp_path: Path) -> None:
    """Many big files, spread over the cores, come out as they are, and progress adds up."""
    actions = []
    for number in range(12):
        source = tmp_path / f"big{number}"
        source.write_bytes(os.urandom((1 << 20) + number))
        actions.append(copy(f"dir/{source.name}", source, share=number % 2 == 0))
    told: list[int] = []
    wanted = [plan("a.com", folder("dir"), *actions), plan("b.com", folder("dir"), *actions)]
    with apply.building(root, wanted, progress=told.append) as builts:
        for built in builts:
            for entry in built.entries[1:]:
                content = (tree(built) / entry.path[1:]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == entry.sha256
    assert sum(told) == sum(len(one.actions) for one in wanted)


def test_pristine_names_what_a_package_ships(root: Root, source: Path) -> None:
    right = hashlib.md5(b"content").hexdigest()
    actions = (
        copy("changed", source, md5="0" * 32),
        copy("copied", source, md5=right),
        copy("shared", source, md5=right, share=True),
        copy("unknown", source),
        link("linked", "copied"),
    )
    with apply.building(root, [plan("a.com", *actions)]) as (built,):
        assert built.pristine == {"/copied", "/shared", "/linked"}


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("swap", ["content", "link", "fifo", "gone"])
def test_a_source_swapped_after_the_survey_is_refused(
    root: Root, source: Path, tmp_path: Path, *, share: bool, swap: str
) -> None:
    """Neither is the new content taken, nor a link followed, nor a fifo waited for; nothing is left."""
    action = copy("file", source, share=share)
    if swap == "content":
        source.write_text("another")
    else:
        source.unlink()
        if swap == "link":
            (tmp_path / "shadow").write_text("secret")
            source.symlink_to(tmp_path / "shadow")
        elif swap == "fifo":
            os.mkfifo(source)
    with pytest.raises(ApplyError, match=f"cannot copy {source} to /file: ") as caught:
        apply.build(root, [plan("a.com", folder("x"), action)])
    assert (caught.value.exit_code, caught.value.hint is not None) == (74, True)
    assert ground.leftovers(root) == []


def test_a_plan_that_contradicts_itself_follows_no_link(root: Root, source: Path) -> None:
    """Even a faulty plan with a link at a file's path does not write through it."""
    victim = Path(root.path).parent / "victim"
    victim.write_text("host")
    for action in (copy("out", source), text("out"), folder("out"), node("out", 1, 3)):
        with pytest.raises(ApplyError, match=r"/out: File exists"):
            apply.build(root, [plan("a.com", symlink("out", str(victim)), action)])
    assert (victim.read_text(), ground.leftovers(root)) == ("host", [])


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    """ENOSPC names the file and what to do; every tree of the batch is swept, domains stay whole."""
    ground.leave_mounts()
    tmp_path.chmod(0o755)
    big = tmp_path / "big"
    big.write_bytes(bytes(3 << 20))
    with (
        ground.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=8m,mode=0755", "none"),
        open_root(str(tmp_path / "small/root"), make=True) as root,
    ):
        ground.create(root, plan("a.com", copy("big", big)))
        plans = [plan(f"{name}.com", copy("big", big)) for name in ("b", "c")]
        with pytest.raises(ApplyError, match="No space left on device") as caught:
            apply.build(root, plans)
        assert f"cannot copy {big} to /big" in caught.value.message
        assert "free some space" in (caught.value.hint or "")
        assert (ground.leftovers(root), root.domains()) == ([], ("a.com",))


def test_a_socket_is_linked_from_the_root(root: Root) -> None:
    """dev/log is a name of a socket bound outside; what is no socket, or not there, is refused."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(f"{root.path}/log")
        action = LinkSocket(path="dev/log", source="log", why=WHY)
        with apply.building(root, [plan("a.com", folder("dev"), action)]) as (built,):
            assert (tree(built) / "dev/log").stat().st_ino == os.stat(f"{root.path}/log").st_ino
            assert built.entries[1].type == "socket"
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as client:
                client.sendto(b"hello", f"/proc/self/fd/{built.tree_fd}/dev/log")
            assert server.recv(10) == b"hello"
    os.unlink(f"{root.path}/log")
    os.symlink("/dev/log", f"{root.path}/log")
    with pytest.raises(HostLacks, match="it is not a socket"):
        apply.build(root, [plan("a.com", folder("dev"), action)])
    os.unlink(f"{root.path}/log")
    with pytest.raises(HostLacks, match="it is not there"):
        apply.build(root, [plan("a.com", folder("dev"), action)])
    assert ground.leftovers(root) == []


def test_a_socket_on_another_file_system_is_explained(root: Root) -> None:
    """/dev/log of a host lies on a tmpfs: link(2) can't reach it."""
    (Path(root.path) / "other").mkdir()
    with (
        ground.mounted(Path(root.path) / "other", "-t", "tmpfs", "none"),
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server,
    ):
        server.bind(f"{root.path}/other/log")
        action = LinkSocket(path="log", source="other/log", why=WHY)
        with pytest.raises(HostLacks, match="another file system"):
            apply.build(root, [plan("a.com", action)])


def test_default_acls_of_the_root_do_not_reach_a_tree(tmp_path: Path) -> None:
    """An administrator's default ACL on the folder of all trees would else narrow every mode."""
    tmp_path.chmod(0o755)
    here = tmp_path / "root"
    here.mkdir()
    default = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry)
        for entry in ((1, 7, 0xFFFFFFFF), (4, 0, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    )
    os.setxattr(here, "system.posix_acl_default", default)
    wanted = plan("a.com", folder("etc"), text("etc/motd"))
    with open_root(str(here), make=True) as root, apply.building(root, [wanted]) as (built,):
        assert ground.describe(tree(built)) == {
            "/etc": "drwxr-xr-x 0:0",
            "/etc/motd": "-rw-r--r-- 0:0 b'text\\n'",
        }
        assert os.listxattr(tree(built) / "etc") == []


def test_without_the_capability_device_nodes_are_asked_for_plainly(tmp_path: Path) -> None:
    """Root in a container often lacks CAP_MKNOD: status 77, the node's name, and nothing left."""
    tmp_path.chmod(0o755)
    script = (
        "from tests.system import ground\nfrom tests.system.test_apply import node\n"
        "from virttools.errors import NeedsPrivilege\nfrom virttools.tree import apply\n"
        "from virttools.tree.root import open_root\n"
        f"with open_root({str(tmp_path / 'root')!r}, make=True) as root:\n"
        "    try: apply.build(root, [ground.plan('a.com', node('null', 1, 3))])\n"
        "    except NeedsPrivilege as error: print(error.message, ground.leftovers(root))\n"
    )
    done = in_python(script, "setpriv", "--bounding-set", "-mknod", "--inh-caps", "-mknod")
    assert done == ("cannot make device node /null: root lacks CAP_MKNOD here (a container?) []\n")
    assert NeedsPrivilege.exit_code == 77


ROOTS = ("/ping", "/shared", "/shut", "/shut/file")


def test_an_ordinary_user_gets_a_tree_and_is_told_what_it_lacks(tmp_path: Path) -> None:
    """What root owns is the user's own; nodes, other owners and capabilities are missing, by name, and recorded."""
    home = tmp_path / "home"
    home.mkdir()
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(0o755)
    os.chown(home, 1234, 1234)
    script = (
        "from tests.system import ground\nfrom tests.system.ground import *\n"
        "from tests.system.test_apply import node, CAPABILITY\n"
        "from virttools.tree.root import open_root\n"
        f"with open_root({str(home / 'virttools')!r}, make=True) as root:\n"
        "    source = Path('/etc/passwd')\n"
        "    wanted = plan('a.com', folder('mail', mode=0o2775, gid=8), folder('shut', mode=0o555),\n"
        "        copy('shared', source, share=True), text('shut/file'),\n"
        "        copy('ping', source, xattrs=(('security.capability', CAPABILITY),)),\n"
        "        node('null', 1, 3))\n"
        "    with apply.building(root, [wanted]) as (built,):\n"
        "        print(*built.missing, sep='\\n')\n"
        "        publish.publish(root, [(built, record(built))])\n"
        "    print({entry.path: (entry.uid, entry.gid) for entry in root.read_record('a.com').entries})\n"
        "    from virttools.tree.remove import remove\n"
        "    remove(root, 'a.com')\n"
        "    print(root.domains(), leftovers(root))\n"
    )
    said = in_python(script, "setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups")
    assert said.splitlines() == [
        "these are no device nodes but empty files, where `virt exec` mounts the host's: /null",
        "these are yours in the tree; the record and images have the owners meant: /mail",
        "these are without some of their capabilities and ACLs: /ping",
        str({"/mail": (0, 8), "/null": (0, 0)} | dict.fromkeys(ROOTS, (0, 0))),
        "() []",
    ]


def in_python(script: str, *before: str) -> str:
    """What a python run by these words says."""
    done = subprocess.run(
        [*before, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        preexec_fn=people.lay_open,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
