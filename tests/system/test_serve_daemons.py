"""Daemons of domains under the real server: started, watched, started anew, ended, kept over an upgrade."""

import contextlib
import os
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import processes
from tests.system.calls import Virt
from tests.system.server import Server, serving
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("as_root")

DAEMON = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
static void end(int number) { _exit(number == SIGTERM ? 0 : 7); }
static void save(int number) {
    usleep(200000);
    fclose(fopen("/ticks/saved", "w"));
    _exit(0);
}
int main(int argc, char **argv) {
    char host[256] = "", name[64];
    const char *what = argv[1];
    struct rlimit files;
    FILE *out;
    if (!strcmp(what, "die")) {
        fprintf(stderr, "no configuration\n");
        return 3;
    }
    if (!strcmp(what, "background") && fork()) return 0;
    signal(SIGTERM, strcmp(what, "deaf") ? end : SIG_IGN);
    signal(SIGQUIT, end);
    if (!strcmp(what, "orphan") && !fork()) {
        if (!fork()) _exit(0);  /* whose parent ends first */
        _exit(0);
    }
    if (!strcmp(what, "pair") && !fork()) {
        signal(SIGTERM, save);
        for (;;) pause();
    }
    gethostname(host, sizeof host);
    getrlimit(RLIMIT_NOFILE, &files);
    snprintf(name, sizeof name, "/ticks/%s", what);
    out = fopen(name, "a");
    fprintf(out, "%s %s pid=%d sid=%d uid=%d nice=%d files=%ld env=%s\n", what, host, (int)getpid(),
            (int)getsid(0), (int)getuid(), getpriority(PRIO_PROCESS, 0), (long)files.rlim_cur,
            getenv("SECRET") ? "leaks" : "clean");
    fclose(out);
    printf("here I am\n");
    fflush(stdout);
    for (;;) pause();
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("daemon") / "daemon"
    subprocess.run(
        ["gcc", "-static", "-O1", "-w", "-x", "c", "-o", str(target), "-"],
        input=DAEMON,
        text=True,
        check=True,
    )
    return target


@pytest.fixture
def virt(tmp_path: Path) -> Iterator[Virt]:
    root = tmp_path / "virtual"
    root.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    found = Virt(root)
    yield found
    for name in found("list").out.splitlines():
        found("remove", "--yes", name.split("\t")[0])
    shutil.rmtree(root, ignore_errors=True)


def daemon(name: str, word: str, *more: str) -> str:
    return "\n".join(["[[daemons]]", f'name = "{name}"', f'args = ["{word}"]', *more])


def domain(virt: Virt, name: str, program: Path, *tables: str) -> None:
    manifest = virt.root.parent / f"{name}.toml"
    text = "".join(f'{table}\nprogram = "/bin/daemon"\n' for table in tables)
    manifest.write_text(
        "profiles = []\n"
        f'files = [{{ from = "{program}", to = "/bin/daemon", mode = 0o755 }}]\n'
        'users = [{ name = "bob", uid = 1234 }]\n'
        'directories = [{ path = "/ticks", mode = 0o777 }]\n'
        '[etc]\nskeleton = ["passwd", "group"]\n' + text
    )
    virt.create(name, "-m", str(manifest))


def declare(virt: Virt, name: str, *tables: str) -> None:
    """Have a record say other daemons than it was built with, as a later build would."""
    import json

    file = virt.root / ".virt/records" / f"{name}.json"
    head, _, rest = file.read_text().partition("\n")
    whole = json.loads(head + "]}")
    text = whole["layers"][-1]["text"]
    kept = text.partition("[[daemons]]")[0]
    more = "".join(f'{table}\nprogram = "/bin/daemon"\n' for table in tables)
    whole["layers"][-1]["text"] = kept + more
    written = json.dumps(whole)
    assert written.endswith("]}")
    file.write_text(written[:-2] + "\n" + rest)


def fleet(server: Server) -> dict[str, Any]:
    return {f"{one['domain']} {one['daemon']}": one for one in server.status()["daemons"]}


def running(server: Server, *names: str) -> dict[str, int]:
    """The pids of these, once all of them run."""
    found: dict[str, Any] = {}

    def are_there() -> bool:
        found.update(fleet(server))
        return all(
            found.get(name, {}).get("state") == "running" and found[name]["pid"] for name in names
        )

    try:
        until(are_there, f"{names} run")
    except AssertionError as error:
        raise AssertionError(f"{error}: {found}\n{server.log.read_text()}") from error
    return {name: found[name]["pid"] for name in names}


def said(virt: Virt, name: str) -> list[str]:
    files = sorted((virt.tree(name) / "ticks").iterdir())
    return [line for file in files for line in file.read_text().splitlines()]


def kinds(pid: int) -> list[str]:
    """What its descriptors are; the file that it writes is one until it is closed."""
    return sorted(link.partition(":")[0] for link in processes.open_files(pid))


def test_a_daemon_runs_inside_as_declared(virt: Virt, program: Path, tmp_path: Path) -> None:
    """Contained, with its user, limits and a clean environment; TERM ends it; what it says is not the server's."""
    limits = ('user = "bob"', "nice = 3", 'rlimits = ["files=77"]')
    domain(virt, "one.test", program, daemon("web", "stay", *limits), daemon("pile", "orphan"))
    with serving(virt.root, tmp_path, env={"SECRET": "1"}) as server:
        pids = running(server, "one.test web", "one.test pile")
        until(lambda: len(said(virt, "one.test")) == 2, "both have written")
        orphan, stay = sorted(said(virt, "one.test"))
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        assert orphan.startswith(f"orphan one.test pid=2 sid=2 uid=0 nice={nice} files=")
        assert stay == "stay one.test pid=2 sid=2 uid=1234 nice=3 files=77 env=clean"
        web, pile = pids["one.test web"], pids["one.test pile"]
        until(lambda: kinds(web) == ["/null", "pipe", "pipe"], lambda: str(kinds(web)))
        for kind in ("mnt", "uts", "pid", "ipc"):
            assert os.readlink(f"/proc/{web}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        allowed = Path(f"/proc/{pile}/status").read_text().partition("CapEff:\t")[2].split()[0]
        assert not int(allowed, 16) & (1 << 21 | 1 << 19 | 1 << 27)  # sys_admin, sys_ptrace, mknod
        keeper = int(Path(f"/proc/{pile}/status").read_text().partition("PPid:\t")[2].split()[0])
        until(lambda: processes.children(keeper) == [pile], "orphans are reaped")
        refused = virt("remove", "--yes", "one.test")
        assert (refused.status, "`virt serve --leave one.test` ends" in refused.err) == (75, True)
        server.signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
        assert not any(processes.is_there(pid) for pid in (web, pile, keeper))
    assert "\nhere I am" not in server.log.read_text()
    assert server.log.read_text().count("ended with status 0 (here I am), as it was told to") == 2
    check_its_unit(virt, tmp_path)


def check_its_unit(virt: Virt, folder: Path) -> None:
    """Systemd finds no fault with it; what it starts is confined as under the server, and ends by its signal."""
    written = virt.good("render", "systemd", "--output", str(folder)).split()[1::2]
    assert written == ["virt-web-one.test.service", "virt-pile-one.test.service"]
    units = [str(folder / name) for name in written]
    env = {"PATH": os.environ["PATH"], "SYSTEMD_LOG_LEVEL": "warning"}
    verify = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(
        verify, capture_output=True, text=True, check=False, env=env, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    text = Path(units[0]).read_text()
    assert {"Nice=3", "LimitNOFILE=77"} <= set(text.splitlines())
    command = shlex.split(text.partition("ExecStart=")[2].partition("\n")[0])
    with subprocess.Popen(command, env={**env, "SECRET": "1"}) as process:
        try:
            until(lambda: len(said(virt, "one.test")) == 3, "it has written")
        finally:
            process.terminate()
    assert process.returncode == 0
    line = said(virt, "one.test")[-1]
    assert line.startswith("stay one.test pid=2 sid=1 uid=1234 ")
    assert line.endswith(" env=clean")


def test_daemons_are_listed(virt: Virt, program: Path) -> None:
    """Beside the services, with the ports that they say they answer on."""
    domain(virt, "one.test", program, daemon("web", "stay", "ports = [80, 443]"))
    assert virt.good("services") == "web\t80 443\tone.test\troot\t/bin/daemon\n"
    assert virt.json("services")["daemons"] == [
        {
            "daemon": "web",
            "domain": "one.test",
            "ports": [80, 443],
            "user": "root",
            "program": "/bin/daemon",
        }
    ]


def test_one_that_is_killed_is_started_anew(virt: Virt, program: Path, tmp_path: Path) -> None:
    """Another domain's is not touched; the status and the metrics say how it ended.

    Where the server is told to leave a domain, its daemons end, and it can be removed and made anew.
    """
    domain(virt, "one.test", program, daemon("web", "stay"))
    domain(virt, "two.test", program, daemon("web", "stay"))
    with serving(virt.root, tmp_path) as server:
        before = running(server, "one.test web", "two.test web")
        os.kill(before["one.test web"], signal.SIGKILL)
        until(lambda: len(said(virt, "one.test")) == 2, "started anew")
        after = running(server, "one.test web", "two.test web")
        told = fleet(server)
        prom = tmp_path / "virt.prom"
        virt.good("serve", "--metrics", str(prom))
        words = ("serve", "--leave", "one.test")
        assert virt.good(*words) == "one.test is served no more, until `virt serve --reload`\n"
        assert set(fleet(server)) == {"two.test web"}
        virt.good("serve", "--reload")
        running(server, "one.test web", "two.test web")
        virt.good(*words)
        virt.good("remove", "--yes", "one.test")
        domain(virt, "one.test", program, daemon("web", "stay"))
        until(lambda: set(fleet(server)) == set(before), "one of that name is served again")
        assert virt("serve", "--leave", "none.test").status == 68
    assert after["one.test web"] != before["one.test web"]
    assert after["two.test web"] == before["two.test web"]
    assert [told[f"{name}.test web"]["restarts"] for name in ("one", "two")] == [1, 0]
    assert told["one.test web"]["last"].startswith("was killed by signal 9")
    of = 'daemon="web",domain="one.test"'
    assert f"virt_serve_daemon_up{{{of}}} 1\n" in prom.read_text()
    assert f"virt_serve_daemon_restarts_total{{{of}}} 1\n" in prom.read_text()


def test_those_that_cannot_run_are_said_once(virt: Virt, program: Path, tmp_path: Path) -> None:
    """One that dies at once is tried less and less often; so is one that goes away, or is not there.

    At the end, what a daemon has started has the time to end, too.
    """
    domain(
        virt,
        "one.test",
        program,
        daemon("bad", "die", 'backoff = "1s"'),
        daemon("fork", "background"),
        daemon("once", "die", 'restart = "no"'),
        daemon("late", "stay"),
        daemon("pair", "pair"),
    )
    (virt.tree("one.test") / "bin/daemon").rename(virt.tree("one.test") / "bin/other")
    with serving(virt.root, tmp_path) as server:
        server.wait_for("cannot run /bin/daemon: it, or its loader, is not in the tree")
        (virt.tree("one.test") / "bin/other").rename(virt.tree("one.test") / "bin/daemon")
        server.reload()
        until(lambda: fleet(server)["one.test bad"]["restarts"] >= 4, "tried again and again")
        told = fleet(server)
        text = server.log.read_text()
    assert text.count("bad one.test: ended with status 3 (no configuration): starting anew") == 1
    assert text.count("fork one.test: went into the background") == 1
    assert told["one.test fork"]["state"] == "waiting"
    assert told["one.test once"]["state"] == "ended"
    assert told["one.test late"]["state"] == "running"
    assert (
        "pair one.test: ended with status 0 (here I am), as it was told to"
        in server.log.read_text()
    )
    assert (virt.tree("one.test") / "ticks/saved").exists()


def test_a_reload_starts_the_new_and_ends_the_gone(
    virt: Virt, program: Path, tmp_path: Path
) -> None:
    """What is as it was runs on; what is declared otherwise is started anew; SIGKILL ends the deaf."""
    deaf = daemon("deaf", "deaf", 'stop_timeout = "1s"')
    domain(virt, "one.test", program, daemon("web", "stay"), daemon("mail", "stay"), deaf)
    with serving(virt.root, tmp_path) as server:
        before = running(server, *(f"one.test {name}" for name in ("web", "mail", "deaf")))
        until(lambda: len(said(virt, "one.test")) == 3, "all have begun")
        quit_ = daemon("mail", "stay", 'stop_signal = "SIGQUIT"')
        declare(virt, "one.test", daemon("web", "stay"), quit_, daemon("more", "stay"))
        server.reload()
        server.wait_for("deaf one.test: was killed by signal 9 (here I am), as it was told to")
        after = running(server, *(f"one.test {name}" for name in ("web", "mail", "more")))
        assert "one.test deaf" not in fleet(server)
        assert not processes.is_there(before["one.test deaf"])
        assert after["one.test web"] == before["one.test web"]
        assert after["one.test mail"] != before["one.test mail"]
        declare(virt, "one.test", daemon("web", "stay"), daemon("more", "stay"))
        server.reload()
        server.wait_for("mail one.test: ended with status 7 (here I am), as it was told to")


def test_an_upgrade_keeps_them_running(virt: Virt, program: Path, tmp_path: Path) -> None:
    """The successor watches what its predecessor started, and ends it when told to.

    What it starts itself has the limit of descriptors that the first one was started with.
    """
    domain(virt, "one.test", program, daemon("web", "stay"), daemon("bad", "die"))
    with serving(virt.root, tmp_path, wrapper=["prlimit", "--nofile=200:"]) as server:
        before = running(server, "one.test web")
        server.signal(signal.SIGUSR2)
        server.wait_for("ready: ", 2)
        assert running(server, "one.test web") == before
        until(lambda: fleet(server)["one.test bad"]["restarts"] >= 1, "it has died")
        os.kill(before["one.test web"], signal.SIGKILL)
        server.wait_for("web one.test: was killed by signal 9")
        after = running(server, "one.test web")
        assert after != before
        limits = resource.prlimit(after["one.test web"], resource.RLIMIT_NOFILE)
        assert limits[0] == 200 < limits[1]
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] == limits[1]
    assert not processes.is_there(after["one.test web"])


def test_no_daemon_outlives_a_server_that_is_killed(
    virt: Virt, program: Path, tmp_path: Path
) -> None:
    """Another server could not start it beside the old one, whose port it holds."""
    domain(virt, "one.test", program, daemon("web", "stay"))
    with serving(virt.root, tmp_path) as server:
        (pid,) = running(server, "one.test web").values()
        server.process.kill()
        until(lambda: not processes.is_there(pid), "ended with its server")
        with contextlib.suppress(FileNotFoundError):
            (virt.root / ".virt/serve.sock").unlink()
