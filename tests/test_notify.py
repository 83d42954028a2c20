"""What a service manager passes and is told: sd_listen_fds(3) and sd_notify(3)."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.waiting import PATIENCE
from virttools.serve.notify import Notifier, listen_fds

REPOSITORY = Path(__file__).parents[1]


def variables(count: str, names: str | None = None, pid: str = "77") -> dict[str, str]:
    found = {"LISTEN_PID": pid, "LISTEN_FDS": count, "HOME": "/"}
    return found if names is None else {**found, "LISTEN_FDNAMES": names}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (variables("2", "ftp:pop"), [(3, "ftp"), (4, "pop")]),
        (variables("2"), [(3, "unknown"), (4, "unknown")]),
        (variables("0"), []),
        (variables("2", "ftp:pop", pid="78"), []),
        ({"LISTEN_FDS": "2", "HOME": "/"}, []),
        ({"HOME": "/"}, []),
    ],
)
def test_sockets_meant_for_this_process_are_taken(
    given: dict[str, str], expected: list[tuple[int, str]]
) -> None:
    """By number and name; the variables are gone afterwards, so no child takes them for its own."""
    assert listen_fds(given, 77) == expected
    assert given == {"HOME": "/"}


@pytest.mark.parametrize(
    "given", [variables("x"), variables("-1"), variables("99999"), variables("2", "ftp")]
)
def test_variables_that_contradict_are_refused(given: dict[str, str]) -> None:
    """Guessing would make a service of some other descriptor."""
    with pytest.raises(ValueError, match="LISTEN_FD"):
        listen_fds(given, 77)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_states_reach_the_manager(tmp_path: Path, is_abstract: bool) -> None:  # noqa: FBT001
    """One datagram, one state a line; a name with a line end cannot add a state."""
    path = f"@virt-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path.replace("@", "\0") if is_abstract else path)
        manager.settimeout(PATIENCE)
        environ = {"NOTIFY_SOCKET": path, "HOME": "/"}
        notifier = Notifier(environ)
        assert notifier.ready("serving 2\nMAINPID=1 domains")
        assert notifier.reloading(12)
        assert notifier.stopping("draining")
        told = [manager.recv(4096).decode() for _ in range(3)]
    assert told == [
        "READY=1\nSTATUS=serving 2 MAINPID=1 domains",
        "RELOADING=1\nMONOTONIC_USEC=12",
        "STOPPING=1\nSTATUS=draining",
    ]
    assert (environ, notifier.environment()) == ({"HOME": "/"}, {"NOTIFY_SOCKET": path})


def test_without_a_manager_nobody_is_told(tmp_path: Path) -> None:
    """No variable, one that is no socket's name, or nobody behind it: False, and no error."""
    absent = str(tmp_path / "absent")
    assert [Notifier(env).ready("x") for env in ({}, {"NOTIFY_SOCKET": "vsock:1:2"})] == [False] * 2
    assert Notifier({"NOTIFY_SOCKET": absent}).ready("x") is False


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    """Its queue is full: the state is dropped, the server goes on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert not all(notifier.ready("x") for _ in range(10_000))


def test_systemd_itself_passes_sockets_that_are_found() -> None:
    """systemd-socket-activate starts us as systemd would."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("no systemd-socket-activate")
    code = (
        "import os, socket, sys; sys.path.insert(0, sys.argv[1])\n"
        "from virttools.serve.notify import listen_fds\n"
        "found = listen_fds(os.environ, os.getpid())\n"
        "print([name for _, name in found], socket.socket(fileno=found[0][0]).getsockname()[0])\n"
        "socket.socket(fileno=found[1][0]).accept()[0].close()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    started = subprocess.Popen(
        [
            program, "-l", f"127.0.0.3:{port}", "-l", f"127.0.0.4:{port}", "--fdname=ftp:pop",
            sys.executable, "-c", code, str(REPOSITORY),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert started.stderr is not None
        listening = 0
        while listening < 2:
            line = started.stderr.readline()
            assert line, "systemd-socket-activate ended"
            listening += "Listening on" in line
        socket.create_connection(("127.0.0.4", port), timeout=PATIENCE).close()
        out, _ = started.communicate(timeout=PATIENCE)
    finally:
        started.kill()
        started.wait()
    assert out == "['ftp', 'pop'] 127.0.0.3\n"
