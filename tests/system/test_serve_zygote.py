"""Services written in Python: a zygote of the tree's own interpreter answers as a fresh one would."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.calls import Virt
from tests.system.server import Server, ask, connect, read, serving
from tests.system.serving import free_ports, lines, live
from tests.system.waiting import until

pytestmark = pytest.mark.usefixtures("as_root")
ADDRESS, OTHER = "127.0.86.1", "127.0.86.2"
NAMES = (
    "plain",
    "zygote",
    "ends",
    "shell",
    "few",
    "root",
    "threads",
    "late",
    "later",
    "latest",
    "flees",
    "fled",
)
PORTS = free_ports(NAMES)
SCRIPT = """#!/usr/bin/env python3
import json, os, signal, socket, sys
import beside
if __name__ == "__main__":
    line = sys.stdin.readline()
    print(json.dumps({
        "line": line, "argv": sys.argv, "file": __file__, "path": sys.path[0], "beside": beside.WORD,
        "ids": [os.getuid(), os.getgid(), os.getgroups()], "cwd": os.getcwd(), "root": os.listdir("/"),
        "env": dict(os.environ), "host": socket.gethostname(), "leads": os.getpgrp() == os.getpid(),
        "fds": sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else [],
        "open": [fd for fd in range(64) if is_open(fd)] if (is_open := lambda fd: not _closed(fd)) else [],
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE)],
        "seekable": sys.stdout.seekable(), "globals": sorted(globals()), "executable": sys.executable,
    }, sort_keys=True))
    getattr(beside, "OUT", sys.stdout).write("by the stream of before")
"""
CLOSED = """
def _closed(fd):
    try:
        os.fstat(fd)
    except OSError:
        return True
"""
BESIDE = """import os, sys
WORD, OUT = "first", sys.stdout
if "a b" not in sys.argv:  # only while it is loaded beforehand
    sys.argv.clear()
os.environ["BESIDE"] = "here"
class Late:  # as six has them: what it stands for is only imported when it is looked at
    def __getattr__(self, name):
        raise ImportError(name)
sys.modules["beside.late"] = Late()
os.environ.pop("SHELL", None)
"""
ENDS = """#!/usr/bin/python3 -I
import atexit, sys
what = sys.stdin.readline().strip()
atexit.register(print, "at exit")
if what == "seven":
    sys.exit(7)
if what == "text":
    sys.exit("no")
if what == "error":
    raise ValueError(what)
if what == "closed":
    atexit.unregister(print)
    sys.stdout.close()
    sys.exit()
if what == "none":
    atexit.unregister(print)
    sys.stdout = None
    sys.exit(4)
print(what)
"""
THREADS = """#!/usr/bin/python3
import os, threading, time
parent = os.getppid()
threading.Thread(target=lambda: (time.sleep(0.05), print("thread", parent, flush=True))).start()
"""
FLEE = """#!/usr/bin/python3
import os, sys
read_fd, write_fd = os.pipe()
child = os.fork()
if child == 0:
    os.closerange(0, 3)
    os.close(write_fd)
    os.read(read_fd, 1)
    os._exit(0)
os.setpgid(child, child)
os.setpgid(0, child)
print("held", flush=True)
sys.stdin.read()
"""
MANIFEST = """
profiles = []
binaries = ["python3", "env", "sh"]
users = [{ name = "web", uid = 4711 }]
directories = [{ path = "/srv" }]
"""
ETC = '\n[etc]\nskeleton = ["passwd", "group", "hostname"]\n'


def table(name: str, script: str, *more: str) -> str:
    words = [f'name = "{name}"', f"port = {PORTS[name]}", f'program = "/srv/{script}"', *more]
    return "\n[[services]]\n" + "\n".join(words) + "\n"


def write(tree: Path, name: str, text: str) -> None:
    (tree / "srv" / name).write_text(text)
    (tree / "srv" / name).chmod(0o755)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("zygote")
    folder.chmod(0o755)
    virt = Virt(folder / "virtual")
    virt.root.mkdir(mode=0o755)
    web, zygote = 'user = "web"', "zygote = true"
    manifest = folder / "one.toml"
    manifest.write_text(
        MANIFEST
        + ETC
        + table("plain", "tell", web, 'args = ["a b"]')
        + table("zygote", "tell", web, 'args = ["a b"]', zygote)
        + table("ends", "ends", web, zygote, 'log_on_success = ["EXIT"]')
        + table("shell", "shell", web, zygote)
        + table("few", "hold", web, zygote, "instances = 2", 'rlimits = ["files=64"]')
        + table("root", "threads", zygote)
        + table("flees", "flee", 'timeout = "1s"')
        + table("fled", "flee", web, 'timeout = "1s"')
        + table("late", "hold", 'timeout = "1s"')
        + table("later", "hold", web, 'timeout = "1s"')
        + table("latest", "hold", web, zygote, 'timeout = "1s"')
    )
    virt.create("one.test", "-m", str(manifest), "--ip", ADDRESS)
    found = virt.root / "one.test"
    head, _, rest = SCRIPT.partition("import beside\n")
    write(found, "tell", f"{head}import beside\n{CLOSED}{rest}")
    write(found, "beside.py", BESIDE)
    write(found, "ends", ENDS)
    write(found, "shell", "#!/bin/sh\necho no python\n")
    write(
        found,
        "hold",
        "#!/usr/bin/python3\nimport sys\nprint('held', flush=True)\nsys.stdin.read()\n",
    )
    write(found, "threads", THREADS)
    write(found, "flee", FLEE)
    yield found
    virt.good("remove", "--yes", "one.test")


@pytest.fixture(scope="module")
def running(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tree.parent, tmp_path_factory.mktemp("log")) as started:
        yield started


def test_a_script_sees_what_it_would_see_of_a_fresh_python(running: Server) -> None:
    """Arguments, environment, user, descriptors, signals, streams, globals: all is as without a zygote."""
    told = [ask(ADDRESS, PORTS[name], b"said\n") for name in ("plain", "zygote", "zygote")]
    same = [
        re.sub(r"\d+", "N", one.replace(str(PORTS["zygote"]), str(PORTS["plain"]))) for one in told
    ]
    assert '"line": "said' in told[0]
    assert '"open": [0, 1, 2],' in told[0]
    assert told[0].endswith("}\nby the stream of before")
    assert same[1] == same[2] == same[0]


def test_one_process_forks_for_all(running: Server) -> None:
    """A second connection has the same parent, which is no spawner; as root too, and threads end."""
    told = {ask(ADDRESS, PORTS["root"]) for _ in range(20)}
    assert 1 <= len(told) <= len(running.children())  # one of each spawner
    assert all(one.startswith("thread ") and one != "thread 1\n" for one in told)


@pytest.mark.parametrize("name", ["late", "later", "latest"])
def test_a_program_that_had_its_time_is_ended(running: Server, name: str) -> None:
    """Whoever started it: the spawner, the worker of a user, a zygote. The next one is served."""
    for _ in range(2):
        until(lambda: had_its_time(name), "one that was fast enough to say a word")


def had_its_time(name: str) -> bool:
    """Whether a program has said what it says at first; its connection ends with it."""
    with connect(ADDRESS, PORTS[name]) as held:
        said = read(held)
    assert said in ("held\n", "")
    return bool(said)


@pytest.mark.parametrize("name", ["flees", "fled"])
def test_who_left_its_process_group_is_ended_too(running: Server, name: str) -> None:
    """It is a tenant's program: nobody else is the worse for it."""
    before = running.children()
    until(lambda: had_its_time(name), "one that was fast enough to say a word")
    until(lambda: live(running, name, "one.test") == 0, "the end is told")
    assert running.children() == before
    assert not lines(running, "internal error")
    assert not lines(running, f"{name} one.test: its worker was ended")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"word\n", "word\nat exit\n"),
        (b"seven\n", "at exit\n"),
        (b"text\n", "no\nat exit\n"),
        (b"error\n", "ValueError: error\nat exit\n"),
    ],
)
def test_an_end_is_that_of_a_python(running: Server, said: bytes, answer: str) -> None:
    """Exits, texts, tracebacks with no line of ours; what was registered for the end is run."""
    told = ask(ADDRESS, PORTS["ends"], said)
    assert told.endswith(answer)
    assert "-c" not in told
    assert "<string>" not in told


@pytest.mark.parametrize(("said", "status"), [(b"closed\n", 0), (b"none\n", 4), (b"seven\n", 7)])
def test_a_status_is_that_of_a_python(running: Server, said: bytes, status: int) -> None:
    """A stream that the script closed, or took away, is not missed."""
    until(lambda: live(running, "ends", "one.test") == 0, "all ends before are told")
    before = len(lines(running, "EXIT: ends"))
    ask(ADDRESS, PORTS["ends"], said)
    until(lambda: len(lines(running, "EXIT: ends")) > before, "the end is told")
    assert f"status={status} " in lines(running, "EXIT: ends")[-1]


def test_what_changes_is_loaded_anew(running: Server, tree: Path) -> None:
    """A module or the script itself; one that cannot be compiled is run as it is, and says why."""
    assert '"beside": "first"' in ask(ADDRESS, PORTS["zygote"], b"said\n")
    (tree / "srv/beside.py").write_text('WORD = "another"\n')
    for _ in range(4):
        assert '"beside": "another"' in ask(ADDRESS, PORTS["zygote"], b"said\n")
    assert not lines(running, "zygote one.test: its worker was ended")
    write(tree, "ends", "#!/usr/bin/python3\nprint('new')\n")
    assert ask(ADDRESS, PORTS["ends"], b"x\n") == "new\n"
    write(tree, "ends", "#!/usr/bin/python3\nprint(\n")
    assert "SyntaxError" in ask(ADDRESS, PORTS["ends"], b"x\n")
    write(tree, "ends", ENDS)
    assert ask(ADDRESS, PORTS["ends"], b"x\n") == "x\nat exit\n"


def test_a_change_loses_no_connection_that_is_open(running: Server, tree: Path) -> None:
    """The zygote that begins anew is the same process: what it forked is still told of when it ends."""
    first = connect(ADDRESS, PORTS["few"])
    assert first.recv(5) == b"held\n"
    write(tree, "hold", (tree / "srv/hold").read_text() + "# another\n")
    second = connect(ADDRESS, PORTS["few"])
    assert second.recv(5) == b"held\n"
    assert live(running, "few", "one.test") == 2
    first.close()
    second.close()
    until(lambda: live(running, "few", "one.test") == 0, "the ends are not told")


def test_limits_count_what_a_zygote_forks(running: Server) -> None:
    """The third is refused, and counted."""
    inside = [connect(ADDRESS, PORTS["few"]) for _ in range(2)]
    assert [one.recv(5) for one in inside] == [b"held\n"] * 2
    assert ask(ADDRESS, PORTS["few"]) == ""
    assert running.service("few", "one.test")["refused"]["instances"] >= 1
    for one in inside:
        one.close()
    until(lambda: live(running, "few", "one.test") == 0, "the ends are not told")


def test_a_zygote_that_is_killed_is_started_again(running: Server) -> None:
    """By its own user, say; the next connection has another, and nothing stays counted as live.

    What it has forked ahead ends by itself: nobody would hear of a connection's end.
    """
    parent = int(ask(ADDRESS, PORTS["root"]).split()[1])
    before = {ask(ADDRESS, PORTS["root"]) for _ in range(20)}
    assert parent > 1
    await_spares(running)
    pids = zygotes("/srv/threads")
    for pid in set(pids) - set(spares("/srv/threads")):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not set(pids) & set(zygotes("/srv/threads")), "they are gone")
    after = {ask(ADDRESS, PORTS["root"]) for _ in range(20)}
    assert "" not in after
    assert not before & after
    until(lambda: bool(lines(running, "root one.test: its worker was ended")), "a line in the log")
    until(lambda: live(running, "root", "one.test") == 0, "nothing is counted")


def zygotes(script: str) -> list[int]:
    """Those that a script has below this process: other tests may run beside it."""
    there = {pid: processes.words(pid) for pid in processes.below(os.getpid())}
    return [
        pid
        for pid, words in there.items()
        if script in words and any("exec(compile(" in word for word in words)
    ]


def test_what_is_forked_ahead_may_be_killed(running: Server) -> None:
    """The zygote forks another, and serves on."""
    before = {ask(ADDRESS, PORTS["root"]) for _ in range(20)}
    await_spares(running)
    killed = set(spares("/srv/threads"))
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not killed & set(zygotes("/srv/threads")), "they are still there")
    until(lambda: has_spares("/srv/threads"), "no other is forked")
    assert {ask(ADDRESS, PORTS["root"]) for _ in range(20)} <= before


def await_spares(running: Server) -> None:
    """Wait until all that were asked have ended, and others are ready."""
    until(lambda: live(running, "root", "one.test") == 0, "all ends are told")
    until(lambda: has_spares("/srv/threads"), "one is forked ahead")


def has_spares(script: str) -> bool:
    """Whether each zygote has forked one ahead, and nothing else."""
    pids = zygotes(script)
    return len(pids) > 0 and 2 * len(spares(script)) == len(pids)


def spares(script: str) -> list[int]:
    """Those that another one has forked ahead."""
    pids = zygotes(script)
    return [child for pid in pids for child in processes.children(pid) if child in pids]


def test_only_a_python_script_has_a_zygote(running: Server) -> None:
    """Another program is not served, and the log says why."""
    assert lines(running, "shell of one.test is not served", "no Python script")
    assert ask_quietly(PORTS["shell"]) == ""


def ask_quietly(port: int) -> str:
    try:
        with connect(ADDRESS, port) as connection:
            return read(connection)
    except ConnectionRefusedError:
        return ""


def test_a_reload_ends_the_zygotes(running: Server) -> None:
    """Those of the old set go, with the set."""
    ask(ADDRESS, PORTS["root"])
    before = zygotes("/srv/threads")
    assert before
    running.reload()
    until(lambda: not set(before) & set(zygotes("/srv/threads")), "they are still there")
