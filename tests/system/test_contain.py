"""A contained command: what it sees, what it may, what it gets, how it ends and what is left."""

import os
import signal
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.handmade import VIRT, probe, tree, virt
from tests.system.waiting import PATIENCE, until
from virttools.enter import contain
from virttools.enter.entrance import Entrance

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with one domain, laid out as a build does: programs below usr, a folder proc."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("root")
    domain = root / "domain1.com"
    for name in ("usr/bin", "proc", "dev/pts", "mnt", "opt", "data"):
        (domain / name).mkdir(parents=True)
    (domain / "bin").symlink_to("usr/bin")
    tree(
        domain,
        "sh",
        "cat",
        "id",
        "env",
        "true",
        "sleep",
        "ls",
        "hostname",
        "ps",
        "kill",
        "su",
        "chmod",
    )
    probe(domain)
    os.mknod(domain / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (domain / "dev/null").chmod(0o666)
    (domain / "mnt/file").touch()
    return root


def inside(root: Path, *words: str) -> str:
    """What a command prints that must succeed and complain of nothing."""
    done = virt("exec", *words, root=root)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_a_command_is_alone_in_namespaces_of_its_own(root: Path) -> None:
    """Process 2 below an init of ours; the domain for a host name; no other mount, ipc or uts."""
    said = inside(root, "sh", "-c", "hostname; echo $$; ps -eo pid=,comm= --sort=pid")
    assert [" ".join(line.split()) for line in said.splitlines()] == [
        "domain1.com",
        "2",
        "1 virt-init",
        "2 sh",
        "4 ps",
    ]
    script = "for kind in mnt pid ipc uts; do ls -l /proc/self/ns/$kind; done"
    theirs = {line.rpartition(" ")[2] for line in inside(root, "sh", "-c", script).splitlines()}
    ours = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "ipc", "uts")}
    assert len(theirs) == 4
    assert theirs & ours == set()


def test_a_long_name_is_shortened_to_its_first_label(tmp_path: Path) -> None:
    """A host name holds 64 bytes, a domain name 253."""
    name = ".".join(["a" * 63, "b" * 63, "com"])
    tree(tmp_path / name, "hostname")
    assert inside(tmp_path, "hostname") == "a" * 63 + "\n"


def test_the_init_tells_nothing(root: Path) -> None:
    """Neither our command line nor environment, memory, program or root are for those inside."""
    script = "cat /proc/1/cmdline; cat /proc/1/environ /proc/1/maps; ls -l /proc/1/exe /proc/1/root"
    done = virt("exec", "--env", "A=secret", "--", "sh", "-c", script, root=root, SECRET="secret")
    assert done.stdout.startswith("virt-init\0")
    assert done.stdout.strip("\0").count("\n") <= 2
    assert "secret" not in done.stdout.partition("lrwx")[0]
    assert done.stderr.count("Permission denied") == 4


def test_shared_folders_are_read_only_and_the_rest_is_not(root: Path) -> None:
    """What may hold links into the store cannot be written; --writable lifts it."""
    script = "for d in usr/bin opt etc data tmp home/bob; do touch=/$d/x; : 2>&- >$touch && echo $d; done"
    quiet = f"exec 2>/dev/null; {script.replace('touch=/$d/x; : 2>&- >$touch', '(: >/$d/x)')}"
    writable = virt("exec", "sh", "-c", quiet, root=root).stdout.split()
    all_of_them = virt("exec", "--writable", "sh", "-c", quiet, root=root).stdout.split()
    assert writable == ["etc", "data", "tmp", "home/bob"]
    assert all_of_them == ["usr/bin", "opt", *writable]
    for folder in all_of_them:
        (root / "domain1.com" / folder / "x").unlink()


def test_root_keeps_the_privileges_that_administration_needs(root: Path) -> None:
    """An allow-list in all sets but the ambient and inheritable ones, which are empty."""
    script = "cat /proc/self/status"
    lines = inside(root, "sh", "-c", script).splitlines()
    told = dict(line.split(":\t") for line in lines if line.startswith(("Cap", "NoNew")))
    allowed = f"{0xA00405FB:016x}"
    none = "0" * 16
    assert told == {
        "CapInh": none,
        "CapPrm": allowed,
        "CapEff": allowed,
        "CapBnd": allowed,
        "CapAmb": none,
        "NoNewPrivs": "1",
    }
    users = inside(root, "--user", "bob", "--", "sh", "-c", script)
    assert f"CapEff:\t{none}\n" in users


def test_set_id_bits_count_where_the_manifest_left_them(root: Path) -> None:
    """For a program that has them itself, and with --allow-setid for all; for nobody else."""
    cat = root / "domain1.com/usr/bin/cat"
    other = cat.with_name("idcat")
    other.write_bytes(cat.read_bytes())
    other.chmod(0o4755)
    script = ["sh", "-c", "idcat /proc/self/status"]
    assert "Uid:\t1234\t0\t0\t0" in inside(root, "--user", "bob", "idcat", "/proc/self/status")
    assert "Uid:\t1234\t1234\t" in inside(root, "--user", "bob", *script)
    assert "Uid:\t1234\t0\t0\t0" in inside(root, "--user", "bob", "--allow-setid", *script)


def test_proc_hides_what_is_the_hosts(root: Path) -> None:
    """Read-only or covered, as OCI runtimes have it."""
    mounts = inside(root, "cat", "/proc/self/mountinfo").splitlines()
    options = {line.split()[4]: line.split()[5].split(",") for line in mounts}
    assert {"nosuid", "nodev", "noexec", "rw"} <= set(options["/proc"])
    for name in ("bus", "fs", "irq", "sys", "sysrq-trigger"):
        if os.path.exists(f"/proc/{name}"):
            assert "ro" in options[f"/proc/{name}"]
    for name in ("kcore", "keys", "timer_list", "sched_debug", "latency_stats", "interrupts"):
        if os.path.exists(f"/proc/{name}"):
            assert inside(root, "sh", "-c", f"cat /proc/{name}") == ""
    for name in ("acpi", "scsi", "asound"):
        if os.path.exists(f"/proc/{name}"):
            assert inside(root, "ls", f"/proc/{name}") == ""
    others = {path for path in options if not path.startswith("/proc")}
    assert others - {"/lib", "/lib64"} == {"/", "/usr", "/opt"}


def test_a_group_may_be_named_too(root: Path) -> None:
    """--user U:G: the tree's own group, or a number, becomes the first one."""
    said = inside(root, "--user", "bob:ftp", "id")
    assert said == "uid=1234(bob) gid=2050(ftp) groups=2050(ftp),1234(bob),2033(www)\n"
    assert inside(root, "--user", "1234:77", "id", "-g") == "77\n"
    assert virt("exec", "--user", "bob:none", "id", root=root).returncode == 125


def test_what_is_bound_is_there(root: Path, tmp_path: Path) -> None:
    """Folders on folders, files on files; read-only if so said, below it too."""
    (tmp_path / "here").write_text("bound\n")
    folder, file = f"{tmp_path}:/mnt", f"{tmp_path}/here:/mnt/file"
    assert inside(root, "--bind", folder, "cat", "/mnt/here") == "bound\n"
    assert inside(root, "--bind", file, "cat", "/mnt/file") == "bound\n"
    for options, status in ((["--bind", folder], 0), (["--bind", f"{folder}:ro"], 2)):
        done = virt("exec", *options, "sh", "-c", ": >/mnt/made", root=root)
        assert done.returncode == status
    assert (tmp_path / "made").exists()


def test_what_is_bound_stays_inside(root: Path, tmp_path: Path) -> None:
    """A link at the place leads to where it points from inside, or nowhere: never to the host's."""
    (root / "domain1.com/data/link").symlink_to("/etc/link-target")
    (root / "domain1.com/data/out").symlink_to(f"../../../../../../..{tmp_path}")
    (root / "domain1.com/etc/link-target").mkdir()
    (tmp_path / "here").write_text("bound\n")
    bound = inside(root, "--bind", f"{tmp_path}:/data/link", "cat", "/etc/link-target/here")
    assert bound == "bound\n"
    for place in ("/data/out", "/none", "/mnt/file"):
        done = virt("exec", "--bind", f"{tmp_path}:{place}", "true", root=root)
        assert (done.returncode, done.stdout) == (125, "")
    done = virt("exec", "--bind", f"{tmp_path}/none:/mnt", "true", root=root)
    assert done.stderr.startswith(f"virt: cannot mount {tmp_path}/none inside: No such file")


def test_descriptors_come_along_only_by_name(root: Path, tmp_path: Path) -> None:
    """--keep-fd N, contained and plain; one that is not open is said."""
    (tmp_path / "text").write_text("kept\n")
    kept_fd = os.open(tmp_path / "text", os.O_RDONLY)
    other_fd = os.open("/", os.O_RDONLY)
    for way in ([], ["--chroot"]):
        done = subprocess.run(
            [VIRT, "exec", *way, "--keep-fd", str(kept_fd), "--", "probe"],
            env={"VIRT_ROOT": str(root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=[kept_fd, other_fd],
            check=False,
        )
        assert f"\nfds 0 1 2 {kept_fd}\n" in done.stdout
    os.close(kept_fd)
    os.close(other_fd)
    done = virt("exec", "--keep-fd", "99", "true", root=root)
    assert (done.returncode, done.stderr) == (
        125,
        "virt: cannot keep descriptor 99: it is not open\n",
    )


@pytest.mark.parametrize("change", ["os.close(0)", "os.dup2(os.open('/dev/null', 0), 0)"])
def test_the_hosts_null_device_is_out_of_reach(root: Path, change: str) -> None:
    """Neither by what covers files of /proc nor by a descriptor can root of a tree change its mode."""
    script = "chmod 0 /proc/self/fd/0; chmod 0 /proc/keys /proc/timer_list /proc/interrupts; :"
    code = f"import os; {change}; os.execv({str(VIRT)!r}, {['virt', 'exec', '--', 'sh', '-c', script]!r})"
    before = os.stat("/dev/null")
    try:
        done = subprocess.run(
            ["python3", "-c", code],
            env={"VIRT_ROOT": str(root), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "'/proc/keys': Read-only file system" in done.stderr
        assert "'/proc/self/fd/0'" not in done.stderr
        assert os.stat("/dev/null").st_mode == before.st_mode
    finally:
        os.chmod("/dev/null", stat.S_IMODE(before.st_mode))


@pytest.mark.parametrize("way", [[], ["--chroot"]], ids=["contained", "plain"])
@pytest.mark.parametrize("closed", [(0,), (0, 1, 2)])
def test_closed_standard_descriptors_are_nobodys(
    root: Path, tmp_path: Path, way: list[str], closed: tuple[int, ...]
) -> None:
    """What we open ourselves never takes their place: the command finds a null device there."""
    script = "ls -l /proc/self/fd >/tmp/seen" if not way else "test -d /proc/self/fd/0; :"
    argv = [str(VIRT), "exec", *way, "--", "sh", "-c", script]
    code = f"import os; [os.close(fd) for fd in {closed}]; os.execv({argv[0]!r}, {argv!r})"
    done = subprocess.run(
        ["python3", "-c", code],
        env={"VIRT_ROOT": str(root), "PATH": os.environ["PATH"]},
        check=False,
    )
    assert done.returncode == 0
    if not way:
        seen = (root / "domain1.com/tmp/seen").read_text()
        assert " 0 -> /null\n" in seen


@pytest.mark.parametrize("way", [[], ["--chroot"]], ids=["contained", "plain"])
@pytest.mark.parametrize("status", [0, 1, 42, 125, 126, 127, 255])
def test_every_status_comes_through(root: Path, way: list[str], status: int) -> None:
    """The command's own, whatever it may mean to us."""
    assert virt("exec", *way, "sh", "-c", f"exit {status}", root=root).returncode == status


@pytest.mark.parametrize("way", [[], ["--chroot"]], ids=["contained", "plain"])
@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "PIPE", "ABRT"])
def test_who_is_killed_is_seen_killed(root: Path, way: list[str], name: str) -> None:
    """Our caller sees the very signal, which is 128+n to a shell; no core of ours is left."""
    done = virt("exec", *way, "sh", "-c", f"kill -{name} $$", root=root)
    assert done.returncode == -getattr(signal, f"SIG{name}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_us_is_one_to_the_command(root: Path, number: signal.Signals) -> None:
    """Whoever kills virt means the command, which may have a handler for it."""
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo caught; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    with _started(root, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE)[0] == b"caught\n"
        assert process.returncode == 9


def test_who_stops_and_goes_on_takes_us_along(root: Path) -> None:
    """SIGTSTP to us stops the command and then us; SIGCONT lets both go on."""
    # A shell that waits for its vfork(2) could not be stopped: hence exec.
    with _started(root, "sh", "-c", "echo ready; exec cat", stdin=True, process_group=0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        until(lambda: "cat" in _names(process.pid), "cat runs")
        process.send_signal(signal.SIGTSTP)
        until(lambda: processes.state(process.pid) == "T", "it stops")
        below = processes.below(process.pid)
        # The init that has told it may not have gone to sleep again yet.
        until(lambda: [processes.state(pid) for pid in below] == ["S", "T"], "cat stops")
        process.send_signal(signal.SIGCONT)
        assert process.communicate(b"gone on\n", timeout=PATIENCE)[0] == b"gone on\n"
        assert process.returncode == 0


def test_pipes_work_both_ways(root: Path) -> None:
    """Into the command, out of it, and away from it before it has ended."""
    big = b"line\n" * 100_000
    done = subprocess.run(
        [VIRT, "exec", "cat"],
        env={"VIRT_ROOT": str(root)},
        input=big,
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (big, b"")
    script = 'set -o pipefail; "$0" exec sh -c "while :; do echo y; done" | head -n 1'
    head = subprocess.run(
        ["bash", "-c", script, VIRT],
        env={"VIRT_ROOT": str(root), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (head.stdout, head.returncode) == (b"y\n", 128 + signal.SIGPIPE)


def _mounts(root: Path) -> list[str]:
    """What is mounted below a folder; other tests mount elsewhere meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(root) in line]


@pytest.mark.parametrize("victim", ["outside", "init", "command"])
def test_whoever_is_killed_nothing_is_left(root: Path, victim: str) -> None:
    """SIGKILL of either side: no process, no zombie, no mount; the status is that of a kill."""
    before = _mounts(root)
    script = "sleep 600 & (sleep 601 &) ; echo ready; sleep 602"
    with _started(root, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        until(lambda: _names(process.pid).count("sleep") == 3, "all sleep")
        everybody = processes.below(process.pid)
        init = everybody[0]
        command = processes.children(init)[0]
        target = {"outside": process.pid, "init": init, "command": command}[victim]
        os.kill(target, signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        _are_gone(everybody)
    assert _mounts(root) == before


def test_what_a_command_leaves_behind_ends_with_it(root: Path) -> None:
    """Daemons too: a cell has no life without its command."""
    with _started(root, "sh", "-c", "sleep 600 & echo ready; read line", stdin=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        everybody = processes.below(process.pid)
        process.communicate(b"\n", timeout=PATIENCE)
        assert process.returncode == 0
        _are_gone(everybody)


def test_only_system_calls_run_before_the_program(root: Path, tmp_path: Path) -> None:
    """From the first step inside: no file of the tree is opened but folders, as places to stand."""
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "-o", trace, VIRT, "exec", "--user", "bob", "--", "true"],
        env={"VIRT_ROOT": str(root), "LANG": "de_DE.ISO-8859-1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    rows = [line.split(None, 1) for line in trace.read_text().splitlines()]
    outside = rows[0][0]
    begin = next(at for at, (_, call) in enumerate(rows) if call.startswith("pivot_root"))
    end = next(at for at, (_, call) in enumerate(rows) if call.startswith("execveat"))
    calls = [call for pid, call in rows[begin + 1 : end] if pid != outside]
    names = {call.partition("(")[0] for call in calls if call[0] not in "<+-"}
    assert names - {"brk", "mmap", "munmap", "madvise", "clone"} <= {
        "umount2", "openat2", "close_range", "close", "prctl", "capset", "setpgid", "getpid", "gettid",
        "set_robust_list", "rt_sigaction", "rt_sigprocmask", "rt_sigtimedwait", "fchdir", "fcntl",
        "setgroups", "setgid", "setuid", "ioctl", "rseq", "wait4", "exit_group", "write",
    }  # fmt: skip
    opened = [call for call in calls if call.startswith("openat2")]
    assert all("O_PATH|O_DIRECTORY" in call and "RESOLVE_NO_MAGICLINKS" in call for call in opened)


def test_an_evil_tree_runs_nothing_of_its_own(root: Path, tmp_path: Path) -> None:
    """Name service, codecs, locale, loader and python of the tree, each a trap: nothing of it is read."""
    domain = tree(tmp_path / "evil.com", "true")
    probe(domain)
    traps = [
        "etc/nsswitch.conf", "etc/ld.so.preload", "lib/libnss_evil.so.2", "etc/group-",
        "usr/lib/locale/locale-archive", "usr/lib/python3.11/encodings/__init__.py", "encodings/idna.py",
        "os.py", "virttools/__init__.py", "etc/localtime", "usr/lib/gconv/gconv-modules",
    ]  # fmt: skip
    for name in traps:
        (domain / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(domain / name)  # whoever opens one waits for ever
    for way in ([], ["--chroot"]):
        done = subprocess.run(
            [VIRT, "exec", *way, "--user", "bob", "--", "probe"],
            env={"VIRT_ROOT": str(tmp_path), "LANG": "de_DE.ISO-8859-1", "LC_ALL": "tr_TR.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 7


def test_a_huge_passwd_is_not_read_to_its_end(root: Path, tmp_path: Path) -> None:
    """One of a gigabyte, sparse: users after the first 16 MB are unknown, and nothing hangs."""
    domain = tree(tmp_path / "huge.com", "true")
    with open(domain / "etc/passwd", "r+b") as passwd:
        passwd.truncate(1 << 30)
    assert virt("exec", "true", root=tmp_path).returncode == 0
    assert virt("exec", "--user", "nobody", "true", root=tmp_path).returncode == 125


def test_a_tree_without_proc_has_none(root: Path, tmp_path: Path) -> None:
    """A missing or planted /proc is no place to mount at, and no reason to fail."""
    domain = tree(tmp_path / "bare.com", "true", "ls")
    assert virt("exec", "true", root=tmp_path).returncode == 0
    (domain / "proc").symlink_to("etc")
    assert "passwd" in virt("exec", "ls", "/proc/", root=tmp_path).stdout
    told = virt("exec", "--chroot", "--proc", "true", root=tmp_path)
    assert (told.returncode, told.stderr.splitlines()[0]) == (
        125,
        "virt: cannot mount /proc in bare.com: it has no such folder",
    )


def test_a_working_directory_is_found_as_from_inside(root: Path) -> None:
    """A link out of the tree, or into our own descriptors, is no folder."""
    domain = root / "domain1.com"
    for name, target in (
        ("out", "../../../../../../.."),
        ("fd", "/proc/self/fd/3"),
        ("gone", "none"),
    ):
        (domain / "data" / f"cwd-{name}").symlink_to(target)
    assert inside(root, "--cwd", "/data/cwd-out", "sh", "-c", "pwd -P") == "/\n"
    for way in ([], ["--chroot", "--proc"]):
        for name in ("cwd-fd", "cwd-gone", "none", "../etc/passwd"):
            done = virt("exec", *way, "--cwd", f"/data/{name}", "true", root=root)
            assert (done.returncode, done.stdout) == (125, "")


def test_without_namespaces_nothing_runs(root: Path) -> None:
    """Without CAP_SYS_ADMIN: a sentence that names --chroot, and never a quieter way in."""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", VIRT, "exec", "--", "probe"],
        env={"VIRT_ROOT": str(root), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert "Operation not permitted\nhint: " in done.stderr
    assert "--chroot" in done.stderr


def test_proc_can_be_had_in_a_plain_chroot(root: Path) -> None:
    """Mounted for the command alone: nobody else sees it, and it goes with the command."""
    before = _mounts(root)
    said = virt("exec", "--chroot", "--proc", "sh", "-c", "cat /proc/self/comm", root=root)
    assert (said.stdout, said.stderr) == ("cat\n", "")
    assert virt("exec", "--chroot", "ls", "/proc", root=root).stdout == ""
    assert _mounts(root) == before


def test_sharing_is_said_where_root_may_write(root: Path, tmp_path: Path) -> None:
    """--chroot and --writable say that the file is shared, where it is, and to root only."""
    domain = tree(tmp_path / "shared.com", "true")
    os.link(domain / "bin/true", tmp_path / "store")
    for way, user, is_said in (
        (["--chroot"], "root", True),
        (["--writable"], "root", True),
        ([], "root", False),
        (["--chroot"], "bob", False),
    ):
        done = virt("exec", *way, "--user", user, "true", root=tmp_path)
        assert done.returncode == 0
        assert ("other domains share" in done.stderr) == is_said


def test_a_domain_in_use_is_not_removed(root: Path, tmp_path: Path) -> None:
    """Contained commands run inside too: `virt remove` names them and leaves all as it is."""
    manifest = tmp_path / "small.toml"
    manifest.write_text('binaries = ["sh", "sleep"]\n')
    here = tmp_path / "virtual"
    made = virt("create", "used.com", "-m", str(manifest), root=here, PATH=os.environ["PATH"])
    assert made.returncode == 0, made
    with _started(here, "sh", "-c", "echo ready; sleep 600") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        until(lambda: "sleep" in _names(process.pid), "it sleeps")
        refused = virt("remove", "--yes", "used.com", root=here, PATH=os.environ["PATH"])
        assert refused.returncode == 75
        assert "(virt-init)" in refused.stderr
        assert "(sleep)" in refused.stderr
        everybody = processes.below(process.pid)
        process.kill()
    _are_gone(everybody)
    done = virt("remove", "--yes", "used.com", root=here, PATH=os.environ["PATH"])
    assert (done.returncode, (here / "used.com").exists()) == (0, False)


def test_sockets_of_the_tree_are_reached(root: Path) -> None:
    """What listens in the tree from outside, as dev/log does, is there for a contained command."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(root / "domain1.com/dev/log"))
        assert inside(root, "sh", "-c", "[ -S /dev/log ] && echo there") == "there\n"


class _Started:
    """A contained command that is ended, whatever happens, and leaves no pipe open."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self.process.wait()


def _started(
    root: Path, *words: str, stdin: bool = False, process_group: int | None = None
) -> _Started:
    return _Started(
        subprocess.Popen(
            [VIRT, "exec", *words],
            env={"VIRT_ROOT": str(root)},
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=process_group,
        )
    )


def _names(pid: int) -> list[str]:
    return [processes.name(found) for found in processes.below(pid)]


def _are_gone(pids: list[int]) -> None:
    until(lambda: not any(map(processes.is_there, pids)), f"the ends of {pids}")


def test_a_signal_after_the_end_is_sent_to_nobody() -> None:
    """Who is told to end while the last words go to a slow terminal: the number may be another's by then."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            program = os.fork()
            if program == 0:
                os._exit(3)
            os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT)
            read_fd, write_fd = os.pipe()
            os.close(write_fd)
            entrance = Entrance(-1, "/bin/true", ["true"], env={})
            outside = contain._Outside(entrance, program, read_fd, None)
            found = outside.wait()
            for number in (signal.SIGTERM, signal.SIGCONT):
                os.kill(os.getpid(), number)
            status = found
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
