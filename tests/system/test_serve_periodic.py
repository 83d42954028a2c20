"""Commands that a domain has run every so often, by the real server."""

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.calls import Virt
from tests.system.server import Server, serving
from tests.system.serving import domain, lines, small_root
from tests.system.waiting import until

pytestmark = pytest.mark.usefixtures("as_root")


def every(name: str, word: str, seconds: str, *more: str, status: int = 0) -> str:
    args = f'args = ["tick", "{word}", "{status}"]'
    return "\n".join([f'name = "{name}"', f'every = "{seconds}"', args, *more])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Virt, Path]]:
    with small_root(tmp_path) as found:
        yield found


def ticks(virt: Virt, name: str) -> list[str]:
    file = virt.tree(name) / "ticks/all"
    return file.read_text().splitlines() if file.exists() else []


def periodic(server: Server) -> dict[str, Any]:
    return {f"{one['domain']} {one['command']}": one for one in server.status()["periodic"]}


def test_commands_run_inside_their_domain_and_never_two_at_once(
    place: tuple[Virt, Path], tmp_path: Path
) -> None:
    """Each comes round; those of a domain wait for each other; as the user declared."""
    virt, service = place
    bob = 'user = "bob"'
    domain(
        virt,
        "one.test",
        "127.0.88.1",
        service,
        every("queue", "queue", "1s"),
        every("sweep", "sweep", "1s", bob),
        every("later", "later", "1h"),
    )
    domain(virt, "two.test", "127.0.88.2", service, every("broken", "broken", "1s", status=3))
    with serving(virt.root, tmp_path) as server:
        until(lambda: min(counted(virt, "one.test", "queue 0", "sweep 1234")) >= 3, "three rounds")
        until(lambda: min(counted(virt, "two.test", "broken 0")) >= 2, "two rounds")
        until(
            lambda: periodic(server)["two.test broken"]["failed"] >= 2, "failures were not counted"
        )
        told = periodic(server)
    assert set(ticks(virt, "one.test")) == {"queue 0", "sweep 1234"}
    assert Path("/dev/null").stat().st_mode & 0o777 == 0o666  # what they hold is not the host's
    assert set(ticks(virt, "two.test")) == {"broken 0"}
    assert told["one.test queue"]["runs"] >= 3
    assert (told["one.test queue"]["failed"], told["one.test later"]["runs"]) == (0, 0)


def counted(virt: Virt, name: str, *words: str) -> list[int]:
    found = collections.Counter(ticks(virt, name))
    return [found[word] for word in words]


def test_a_reload_does_not_put_off_what_is_due(place: tuple[Virt, Path], tmp_path: Path) -> None:
    """A server that is told to reload again and again runs its commands all the same."""
    virt, service = place
    domain(virt, "one.test", "127.0.88.1", service, every("queue", "queue", "3s"))
    with serving(virt.root, tmp_path) as server:
        until(lambda: len(ticks(virt, "one.test")) > 0, "the first round")
        for _ in range(6):
            server.reload()
        before = len(ticks(virt, "one.test"))

        def reload_and_look() -> bool:
            server.reload()
            return len(ticks(virt, "one.test")) > before

        until(reload_and_look, "a further round between reloads")
    assert "twice" not in ticks(virt, "one.test")


def test_a_command_that_is_not_there_is_told_and_harms_nobody(
    place: tuple[Virt, Path], tmp_path: Path
) -> None:
    """The others of the domain go on, and the log has the reason."""
    virt, service = place
    domain(
        virt,
        "one.test",
        "127.0.88.1",
        service,
        every("queue", "queue", "1s"),
        every("gone", "x", "1s"),
    )
    with serving(virt.root, tmp_path) as server:
        until(lambda: min(counted(virt, "one.test", "queue 0", "x 0")) >= 1, "a round")
        (virt.tree("one.test") / "bin/service").unlink()
        until(lambda: lines(server, "one.test: cannot run /bin/service") != [], "no reason told")
        until(lambda: periodic(server)["one.test gone"]["failed"] >= 1, "not counted")
    assert "twice" not in ticks(virt, "one.test")


def test_without_anything_due_the_server_sleeps(place: tuple[Virt, Path], tmp_path: Path) -> None:
    """No process of it runs on a processor while a whole round of another server's commands goes by."""
    virt, service = place
    domain(virt, "one.test", "127.0.88.1", service, every("queue", "queue", "12h"))
    other = tmp_path / "other"
    other.mkdir()
    with small_root(other) as (busy, _), serving(virt.root, tmp_path) as idle:
        domain(busy, "two.test", "127.0.88.2", service, every("clock", "clock", "1s"))
        with serving(busy.root, other):

            def sleeps() -> bool:
                """What has just been started may have something to do still, in the first rounds."""
                before, begun = switches(idle), len(ticks(busy, "two.test"))
                until(lambda: len(ticks(busy, "two.test")) >= begun + 2, "the clock ticks")
                return switches(idle) == before

            until(sleeps, "a whole round without a switch")


def switches(server: Server) -> dict[str, int]:
    """How often each thread of the server has run (proc(5))."""
    found = {}
    for pid in (server.process.pid, *server.children()):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    key, _, count = line.partition(":")
                    found[f"{task.name} {key}"] = int(count)
    return found
