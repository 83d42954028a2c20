"""What a spawner does about a worker that was ended and has not been heard of yet."""

import os
import select

import pytest

from virttools.serve import worker
from virttools.serve.board import Place, Target
from virttools.serve.journal import Journal
from virttools.serve.live import Connection
from virttools.serve.spawner import _Spawner
from virttools.serve.worker import Handle

WEB = Target("web", Place("one.test", "/one"), path=b"/web", argv=(b"web",), env={}, nice=1)


class Starting(_Spawner):
    """Starts workers that only have ends of sockets, and begins with one whose own end is closed."""

    def __init__(self) -> None:
        self._numbers, self._handed, self._live = 0, {}, {}
        self._workers, self.started = {}, 0
        self._poll, self._journal = select.poll(), Journal(to_stderr=True)
        self._worker(0).live.clear()
        self.theirs.close()

    def _worker(self, position: int) -> Handle:  # noqa: ARG002  that of the only target
        if WEB.name not in self._workers:
            self.started += 1
            ours, self.theirs = worker.pair()
            self._poll.register(ours.fileno(), select.POLLIN)
            self._workers[WEB.name] = Handle(WEB.name, 0, ours)
        return self._workers[WEB.name]


def test_a_connection_is_handed_to_another_worker(capfd: pytest.CaptureFixture[str]) -> None:
    """It is not closed for want of the one that was there; that one is told of, once."""
    spawner, one = Starting(), Connection(WEB, 0, "192.0.2.1", 0.0)
    spawner._hand_over(one, {}, 0)
    message, rights, _, _ = spawner.theirs.recvmsg(1 << 16, 64)
    for fd in (int.from_bytes(data[:4], "little") for _, _, data in rights):
        os.close(fd)
    assert (spawner.started, bool(message), len(rights)) == (2, True, 1)
    assert spawner._handed == {one.number: one}
    assert capfd.readouterr().err == "virt serve: web one.test: its worker was ended\n"
    for end in (spawner.theirs, spawner._worker(0).socket):
        end.close()
