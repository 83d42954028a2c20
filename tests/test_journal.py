"""The server's log where who reads it is slow, hangs, or has left."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.waiting import PATIENCE
from virttools.serve.journal import INFO, Journal

MORE = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 100
"""Lines than a socket of datagrams has room for."""


@pytest.fixture
def syslogd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "log"))
        yield found


@pytest.fixture
def journal(syslogd: socket.socket) -> Iterator[Journal]:
    """One that is connected to it."""
    made = Journal(to_stderr=True)
    made._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made._socket.connect(syslogd.getsockname())
    yield made
    made._socket.close()


def taken(syslogd: socket.socket) -> list[bytes]:
    """What lies there, without the prefix."""
    found = []
    syslogd.setblocking(False)
    try:
        while True:
            found.append(syslogd.recv(4096).partition(b": ")[2])
    except BlockingIOError:
        return found


def test_who_hangs_hangs_nobody_and_gets_all_later(
    syslogd: socket.socket, journal: Journal
) -> None:
    """The server serves on; each line comes once, in order."""
    for number in range(MORE):
        journal.write(INFO, str(number))
    thread = threading.Thread(target=journal.flush, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert journal.is_behind()
    found: list[bytes] = []
    while journal.is_behind():
        found += taken(syslogd)
        journal.flush()
    found += taken(syslogd)
    assert found == [b"%d" % number for number in range(MORE)]
    assert journal.losses() == 0


def test_what_finds_no_room_is_counted(
    syslogd: socket.socket, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And told when there is room again."""
    monkeypatch.setattr("virttools.serve.journal._MOST_KEPT", 5)
    for number in range(MORE):
        journal.write(INFO, str(number))
    lost = journal.losses()
    assert lost > 0
    assert journal.losses() == 0
    found: list[bytes] = []
    while journal.is_behind():
        found += taken(syslogd)
        journal.flush()
    found += taken(syslogd)
    assert found[-1] == b"%d lines of the log were lost" % lost
    assert len(found) == MORE - lost + 1


@contextmanager
def broken_stderr() -> Iterator[None]:
    kept = os.dup(2)
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    os.dup2(write_fd, 2)
    os.close(write_fd)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_who_reads_standard_error_may_leave() -> None:
    """That ends no server."""
    journal = Journal(to_stderr=True)
    with broken_stderr():
        journal.write(INFO, "said")
        journal.flush()
    assert (journal.losses(), journal.is_behind()) == (1, False)
