"""`virt log serve` with real senders: each line in its domain's file, whatever a domain says or does."""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.log import SENDER
from tests.system import processes
from tests.system.calls import VIRT, Virt
from tests.system.waiting import PATIENCE, until
from virttools.devlog import cgroups, handover, lines
from virttools.devlog.lines import Line

DOMAINS = ("logs1.example", "logs2.example")

SYSLOG = r"""
#include <syslog.h>
int main(int argc, char **argv) {
    openlog(argv[1], LOG_PID, LOG_MAIL);
    syslog(LOG_ERR, "%s", argv[2]);
    return 0;
}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; its log folder."""

    process: subprocess.Popen[bytes]
    logs: Path
    err: Path

    @property
    def receiver(self) -> int:
        """The pid of the one that reads, while there is one."""
        return next(iter(processes.children(self.process.pid)), 0)

    def lines(self, file: str) -> list[Line]:
        """Those that are whole: the last one may be being written."""
        path = self.logs / file
        whole = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
        found = [lines.read(line) for line in whole]
        assert None not in found, whole
        return [line for line in found if line]

    def own(self, domain: str) -> list[Line]:
        return self.lines(f"domains/{domain}.log")

    def await_lines(self, file: str, count: int) -> list[Line]:
        until(lambda: len(self.lines(file)) >= count, lambda: str(self.lines(file)))
        return self.lines(file)


@contextmanager
def serving(virt: Virt, folder: Path, *options: str, program: Path = VIRT) -> Iterator[Server]:
    """Start a server, and wait until it takes sockets."""
    logs, err = folder / "logs", folder / "serve.err"
    with err.open("wb") as said:
        process = subprocess.Popen(
            [str(program), "log", "serve", "--logs", str(logs), *options],
            env=virt.environment(),
            stdin=subprocess.DEVNULL,
            stderr=said,
        )
    try:
        until(lambda: answers(virt) or process.poll() is not None, err.read_text)
        assert process.poll() is None, err.read_text()
        yield Server(process, logs, err)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def answers(virt: Virt) -> bool:
    with suppress(OSError), folder_fd(virt.root / ".virt/log") as log_fd:
        return handover.drop(log_fd, ["nobody.example"])
    return False


@contextmanager
def folder_fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def compiled(source: str, target: Path) -> Path:
    subprocess.run(
        ["gcc", "-static", "-O1", "-w", "-x", "c", "-o", str(target), "-"],
        input=source,
        text=True,
        check=True,
    )
    return target


def create(virt: Virt, folder: Path, *domains: str, devlog: str = "own") -> None:
    program = (
        compiled(SYSLOG, folder / "said") if not (folder / "said").exists() else folder / "said"
    )
    manifest = folder / "manifest.toml"
    manifest.write_text(
        f'binaries = ["logger"]\ndevices = ["null"]\ndevlog = "{devlog}"\n'
        f'files = [{{ from = "{program}", to = "/bin/said", mode = 0o755 }}]\n'
    )
    virt.create("-m", str(manifest), *domains)


def inside(virt: Virt, domain: str, *argv: str, user: str = "0:0") -> int:
    """Run a program chrooted into a tree; its pid."""
    process = subprocess.Popen(["chroot", f"--userspec={user}", str(virt.tree(domain)), *argv])
    assert process.wait() == 0
    return process.pid


@contextmanager
def connected(virt: Virt, domain: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(str(virt.tree(domain) / "dev/log"))
        yield sender


def test_each_line_is_filed_under_its_true_domain(virt: Virt, tmp_path: Path) -> None:
    """From a chroot, logger and syslog(3) claim another domain's name, pid and tag; nothing of it is believed."""
    create(virt, tmp_path, *DOMAINS)
    with serving(virt, tmp_path) as server:
        # Root of the host may name another pid in SCM_CREDENTIALS, as `logger --id` does; users may not.
        words = ("/usr/bin/logger", "-t", "a", "--id=1", "said by one")
        first = inside(virt, "logs1.example", *words, user="1234:1234")
        text = "said by two\nNov 20 15:13:49 logs1.example sshd[1]: let in"
        second = inside(virt, "logs2.example", "/bin/said", "logs1.example", text)
        with connected(virt, "logs2.example") as sender:
            sender.send(b"<86>Nov 20 15:13:49 logs1.example sshd[1]: \x1b[2Jforged\n")
        (one,) = server.await_lines("domains/logs1.example.log", 1)
        two, forged = server.await_lines("domains/logs2.example.log", 2)
        server.await_lines("all.log", 3)
        combined = (server.logs / "all.log").read_text().splitlines()
    assert (one.domain, one.pid, one.uid, one.tag) == ("logs1.example", first, 1234, "a")
    assert one.text == "said by one"
    assert (two.domain, two.pid, two.facility, two.severity) == (
        "logs2.example",
        second,
        "mail",
        "err",
    )
    assert two.text == r"said by two\nNov 20 15:13:49 logs1.example sshd[1]: let in"
    assert (forged.domain, forged.pid) == ("logs2.example", os.getpid())
    assert forged.text == r"logs1.example sshd[1]: \x1b[2Jforged"
    files = sorted((tmp_path / "logs" / "domains").iterdir())
    assert sorted(combined) == sorted("".join(file.read_text() for file in files).splitlines())


def test_one_domain_cannot_cut_off_another(virt: Virt, tmp_path: Path) -> None:
    """Root in one takes away its socket's mode and floods; the other's user logs as ever."""
    create(virt, tmp_path, *DOMAINS)
    with serving(virt, tmp_path, "--rate", "50", "--burst", "50") as server, ExitStack() as held:
        sender = compiled(SENDER, tmp_path / "sender")
        flood = [str(sender), "200000", str(virt.tree("logs1.example") / "dev/log")]
        held.callback(subprocess.Popen(flood).wait)
        (virt.tree("logs1.example") / "dev/log").chmod(0)
        for _ in range(20):
            inside(virt, "logs2.example", "/usr/bin/logger", "here I am", user="1234:1234")
        found = server.await_lines("domains/logs2.example.log", 20)
        assert [(line.text, line.uid) for line in found] == [("here I am", 1234)] * 20
        held.close()
        # What the flood lost is told, by us: its pid is the receiver's, its uid not root's.
        until(lambda: any(line.tag == "virt-log" for line in server.own("logs1.example")))
        own = [line for line in server.own("logs1.example") if line.tag == "virt-log"]
        assert {line.pid for line in own} == {server.receiver}
        assert all(re.fullmatch(r"\d+ messages dropped: .*", line.text) for line in own)
    told = sum(
        int(line.text.split()[0]) for line in server.own("logs1.example") if line.tag == "virt-log"
    )
    kept = sum(line.tag == "sender" for line in server.own("logs1.example"))
    assert kept + told == 200_000


def test_no_message_is_lost_across_restarts(virt: Virt, tmp_path: Path) -> None:
    """300 000 messages by four senders that wait, and fifteen restarts: all there, the socket the same."""
    create(virt, tmp_path, *DOMAINS)
    sender = compiled(SENDER, tmp_path / "sender")
    links = [str(virt.tree(domain) / "dev/log") for domain in DOMAINS]
    with serving(virt, tmp_path, "--rate", "0") as server:
        before = [os.stat(link).st_ino for link in links]
        file = server.logs / "all.log"
        pids = {server.receiver}
        senders = [subprocess.Popen([str(sender), "75000", *links]) for _ in range(4)]
        for restart in range(1, 16):
            reached = restart * 1_000_000  # of some 45 MB: the senders are at work all the time
            until(lambda reached=reached: file.exists() and file.stat().st_size > reached)  # type: ignore[misc]
            server.process.send_signal(signal.SIGHUP)
            until(lambda: server.receiver not in {0, *pids})
            pids.add(server.receiver)
        busy = [one.poll() is None for one in senders]
        assert [one.wait() for one in senders] == [0] * 4
        assert any(busy)
        assert len(pids) == 16
        until(lambda: file.read_bytes().count(b": message ") >= 300_000)
        assert [os.stat(link).st_ino for link in links] == before
    for files in ([file], [*(server.logs / "domains").iterdir()]):
        text = b"".join(one.read_bytes() for one in files)
        said = re.findall(rb" sender\[(\d+)\]: message (\d+) of", text)
        assert len(said) == len({*said}) == 300_000


def test_a_receiver_that_dies_is_started_again(virt: Virt, tmp_path: Path) -> None:
    """Its holder keeps the sockets: what is sent meanwhile waits in them, and no relink is needed."""
    create(virt, tmp_path, "logs1.example")
    with serving(virt, tmp_path) as server, connected(virt, "logs1.example") as sender:
        sender.send(b"<13>a: before")
        server.await_lines("domains/logs1.example.log", 1)
        died = server.receiver
        os.kill(died, signal.SIGKILL)
        sender.send(b"<13>a: after")
        found = server.await_lines("domains/logs1.example.log", 2)
        assert server.receiver not in {0, died}
    assert [line.text for line in found] == ["before", "after"]
    assert "the receiver ended (signal 9)" in server.err.read_text()


def test_a_broken_upgrade_is_not_started(virt: Virt, tmp_path: Path) -> None:
    """HUP for a package that cannot be loaded: it is said, and the sockets stay served."""
    create(virt, tmp_path, "logs1.example")
    for name in ("bin", "virttools"):
        shutil.copytree(VIRT.parents[1] / name, tmp_path / "copy" / name)
    (tmp_path / "copy" / ".venv").symlink_to(VIRT.parents[1] / ".venv")
    program = tmp_path / "copy" / "bin" / "virt"
    with (
        serving(virt, tmp_path, program=program) as server,
        connected(virt, "logs1.example") as sender,
    ):
        sender.send(b"<13>a: here")
        server.await_lines("domains/logs1.example.log", 1)
        before = server.receiver
        (tmp_path / "copy/virttools/devlog/receiver.py").write_text("half a wri")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "going on as before" in server.err.read_text())
        sender.send(b"<13>a: still here")
        _, line = server.await_lines("domains/logs1.example.log", 2)
        assert (line.text, server.receiver) == ("still here", before)


def test_who_reads_is_not_root(virt: Virt, tmp_path: Path) -> None:
    """The receiver has no capability left, and cannot get any by execve(2)."""
    create(virt, tmp_path, "logs1.example")
    with serving(virt, tmp_path) as server, connected(virt, "logs1.example") as sender:
        sender.send(b"<13>a: b")
        server.await_lines("domains/logs1.example.log", 1)
        told = Path(f"/proc/{server.receiver}/status").read_text()
        status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
        found = (server.logs / "domains/logs1.example.log").stat()
    assert 0 not in {*map(int, status["Uid"].split())}
    assert (status["CapEff"], status["CapPrm"]) == ("0" * 16, "0" * 16)
    assert (status["NoNewPrivs"], status["Groups"].strip()) == ("1", "")
    assert (stat.filemode(found.st_mode), found.st_uid) == (
        "-rw-r-----",
        int(status["Uid"].split()[0]),
    )


def test_domains_come_and_go(virt: Virt, tmp_path: Path) -> None:
    """A domain that is created logs at once; one that is removed is let go, by the receiver too."""
    with serving(virt, tmp_path) as server:
        create(virt, tmp_path, *DOMAINS)
        for domain in DOMAINS:
            inside(virt, domain, "/usr/bin/logger", "hello")
            server.await_lines(f"domains/{domain}.log", 1)
        assert virt("log", "status").status == 0
        before = sockets(server.receiver)
        virt.good("remove", "--yes", "logs1.example")
        until(lambda: sockets(server.receiver) < before)
        inside(virt, "logs2.example", "/usr/bin/logger", "hello")
        assert len(server.await_lines("domains/logs2.example.log", 2)) == 2


def sockets(pid: int) -> int:
    return sum(link.startswith("socket:") for link in processes.open_files(pid))


def test_files_are_opened_anew_on_usr1(virt: Virt, tmp_path: Path) -> None:
    """As logrotate asks for: what comes later is in a new file of the name."""
    create(virt, tmp_path, "logs1.example")
    with serving(virt, tmp_path) as server, connected(virt, "logs1.example") as sender:
        sender.send(b"<13>a: first")
        server.await_lines("domains/logs1.example.log", 1)
        rotated = server.logs / "rotated"
        (server.logs / "domains/logs1.example.log").rename(rotated)
        pid = (virt.root / ".virt/log/.server").read_text()
        assert int(pid) == server.process.pid
        server.process.send_signal(signal.SIGUSR1)
        receiver = server.receiver
        until(lambda: str(rotated) not in processes.open_files(receiver))
        sender.send(b"<13>a: second")
        (line,) = server.await_lines("domains/logs1.example.log", 1)
    assert line.text == "second"
    assert rotated.read_text().endswith(": first\n")


def test_what_lies_in_place_of_a_file_is_not_followed(virt: Virt, tmp_path: Path) -> None:
    """A link, a fifo, a second name: nothing is written through it, it is said, the rest goes on."""
    create(virt, tmp_path, *DOMAINS)
    with serving(virt, tmp_path) as server:
        victim = tmp_path / "victim"
        victim.touch()
        victim.chmod(0o666)
        (server.logs / "domains/logs1.example.log").symlink_to(victim)
        for domain in DOMAINS:
            with connected(virt, domain) as sender:
                sender.send(b"<13>a: b")
        server.await_lines("domains/logs2.example.log", 1)
        server.await_lines("all.log", 2)
        until(lambda: "cannot write domains/logs1.example.log" in server.err.read_text())
        (server.logs / "domains/logs1.example.log").unlink()
        with connected(virt, "logs1.example") as sender:
            sender.send(b"<13>a: c")
        found = server.await_lines("domains/logs1.example.log", 2)
    assert victim.read_bytes() == b""
    assert [line.text for line in found] == [
        "c",
        "1 lines lost: domains/logs1.example.log could not be written",
    ]


def test_log_files_do_not_lie_in_trees(virt: Virt, tmp_path: Path) -> None:
    """A tenant could plant links there; a second server is refused too."""
    create(virt, tmp_path, "logs1.example")
    logs = virt.tree("logs1.example") / "var-log"
    done = virt("log", "serve", "--logs", str(logs))
    assert (done.status, "among the trees" in done.err) == (2, True)
    with serving(virt, tmp_path):
        done = virt("log", "serve", "--logs", str(tmp_path / "others"))
    assert (done.status, "serves it" in done.err) == (75, True)


def test_messages_are_passed_on(virt: Virt, tmp_path: Path) -> None:
    """To the host's syslog: the domain before the tag. What it does not take at once waits for it."""
    create(virt, tmp_path, "logs1.example")
    host = tmp_path / "host.log"
    options = ("--no-files", "--no-combined", "--user", "root", "--forward", str(host))
    with serving(virt, tmp_path, *options), connected(virt, "logs1.example") as sender:
        sender.send(b"<30>sshd: while nobody listens")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(str(host))
            daemon.settimeout(PATIENCE)
            sender.send(b"<30>sshd: and now\n")
            first, second = daemon.recv(4096), daemon.recv(4096)
            # Many more than the host's queue holds: they come as it reads them.
            for number in range(2000):
                sender.send(b"<30>sshd: %d" % number)
            told = [daemon.recv(4096).rpartition(b" ")[2] for _ in range(2000)]
    assert told == [b"%d" % number for number in range(2000)]
    tail = f" logs1.example sshd[{os.getpid()}]: ".encode()
    assert first.endswith(tail + b"while nobody listens")
    assert (second[:4], second.endswith(tail + b"and now")) == (b"<30>", True)


def test_senders_on_the_shared_socket_are_known_by_their_cgroups(
    virt: Virt, tmp_path: Path
) -> None:
    """Short programs of two domains at once, ended before they are asked for: none is taken for the other's."""
    mount = cgroups.mount_point()
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("needs a cgroup v2 hierarchy to write to")
    create_shared(virt, tmp_path)
    with serving(virt, tmp_path, "--shared", "--rate", "0") as server, ExitStack() as held:
        folders = [held.enter_context(cgroup(mount, domain)) for domain in DOMAINS]
        argv = [
            ["chroot", str(virt.tree(domain)), "/usr/bin/logger", f"by {domain}"]
            for domain in DOMAINS
        ]
        for _ in range(50):
            pair = [started(*one) for one in zip(folders, argv, strict=True)]
            assert [one.wait() for one in pair] == [0, 0]
        inside(virt, "logs1.example", "/usr/bin/logger", "by nobody known")
        server.await_lines("all.log", 101)
        for domain in DOMAINS:
            assert {line.text for line in server.own(domain)} <= {f"by {domain}"}
        if kernel() >= (6, 16):
            assert [len(server.own(domain)) for domain in DOMAINS] == [50, 50]
            (unknown,) = server.lines("unknown.log")
            assert (unknown.domain, unknown.text) == ("-", "by nobody known")


def test_exec_puts_a_command_into_its_domains_cgroup(virt: Virt, tmp_path: Path) -> None:
    """Where domains share a socket, `virt exec` says whose a command is, before it runs."""
    mount = cgroups.mount_point()
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("needs a cgroup v2 hierarchy to write to")
    create_shared(virt, tmp_path)
    compiled(WAITING, virt.tree("logs1.example") / "waiting")
    argv = [str(VIRT), "exec", "--domain", "logs1.example", "--", "/waiting"]
    process = subprocess.Popen(argv, env=virt.environment(), stdin=subprocess.PIPE)
    path = Path(f"/proc/{process.pid}/cgroup")
    until(lambda: "0::/virt/logs1.example\n" in path.read_text(), path.read_text)
    process.communicate()
    virt.good("remove", "--yes", "logs1.example")
    assert not Path(mount, cgroups.FOLDER, "logs1.example").exists()


def test_virtuald_puts_a_service_into_its_domains_cgroup(virt: Virt, tmp_path: Path) -> None:
    """What answers a connection is known for its domain's on the shared socket, too."""
    mount = cgroups.mount_point()
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("needs a cgroup v2 hierarchy to write to")
    create_shared(virt, tmp_path)
    compiled(WAITING, virt.tree("logs1.example") / "waiting")
    conf = virt.root / "conf.wait"
    conf.write_text(f"127.0.10.1 {virt.tree('logs1.example')}\n")
    with socket.create_server(("127.0.10.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    argv = [str(VIRT.with_name("virtuald")), str(conf), "/waiting"]
    with client, served:
        process = subprocess.Popen(
            argv, env=virt.environment(), stdin=served.fileno(), stdout=served.fileno()
        )
        path = Path(f"/proc/{process.pid}/cgroup")
        until(lambda: "0::/virt/logs1.example\n" in path.read_text(), path.read_text)
        client.shutdown(socket.SHUT_WR)
        process.wait()


def create_shared(virt: Virt, folder: Path) -> None:
    """Domains linked to a socket that is there, which the server then replaces and relinks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(virt.root / "log"))
        create(virt, folder, *DOMAINS, devlog="shared")


def started(folder: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    script = 'echo 0 > "$0/cgroup.procs"; exec "$@"'
    return subprocess.Popen(["sh", "-c", script, str(folder), *argv])


@contextmanager
def cgroup(mount: str, domain: str) -> Iterator[Path]:
    top = Path(mount, cgroups.FOLDER)
    folder = top / domain
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        for one in (folder, top):
            with suppress(OSError):  # another test of the machine is in it
                one.rmdir()


def kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def test_a_sender_with_a_root_of_its_own_is_known_while_it_lives(
    virt: Virt, tmp_path: Path
) -> None:
    """Without a cgroup, and where the server may look: by the root of the process that waits."""
    create_shared(virt, tmp_path)
    with serving(virt, tmp_path, "--shared", "--user", "root") as server:
        sender = compiled(WAITING, virt.tree("logs2.example") / "waiting")
        process = subprocess.Popen(
            ["chroot", str(virt.tree("logs2.example")), f"/{sender.name}"], stdin=subprocess.PIPE
        )
        (line,) = server.await_lines("domains/logs2.example.log", 1)
        process.communicate()
    assert (line.domain, line.text, line.pid) == ("logs2.example", "I wait", process.pid)


WAITING = r"""
#include <stdio.h>
#include <syslog.h>
int main(void) { syslog(LOG_INFO, "I wait"); return getchar() != EOF; }
"""
