"""What a zygote tells its spawner where the fork ahead dies with a connection."""

import marshal
import os
import socket
import sys
from array import array
from pathlib import Path

from virttools.serve import forking
from virttools.serve.worker import _STUB

SCRIPT = "import deadly\nprint('served', flush=True)\n"
DEADLY = """import os
zygote, stat = os.getpid(), os.stat
def deadly(path):  # called for a connection that was taken, which nobody knows yet
    if os.getpid() != zygote:
        os.kill(os.getpid(), 9)
    return stat(path)
os.stat = deadly
"""


def ask(channel: socket.socket, number: int, script: str) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message = marshal.dumps((number, script.encode(), (script.encode(),), {}), 4)
        rights = array("i", [theirs.fileno()]).tobytes()
        channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        theirs.close()
        return ours.recv(100)


def test_a_connection_that_died_with_the_fork_ahead_is_not_live_for_ever(tmp_path: Path) -> None:
    """The zygote ends: the spawner counts what was its own as ended, and starts another."""
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    (tmp_path / "deadly.py").write_text(DEADLY)
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs.fileno(), 3)
        os.set_inheritable(3, True)
        null_fd = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null_fd, fd)
        os.closerange(4, 1024)
        stub, text = _STUB.decode(), Path(forking.__file__).read_text()
        words = [sys.executable, "-c", stub, text, str(script), "", stub, sys.executable]
        os.execv(sys.executable, words)
    theirs.close()
    with channel:
        channel.settimeout(60)
        assert ask(channel, 1, str(script)) == b"served\n"
        assert channel.recv(16) == (1).to_bytes(8) + bytes(8)
        assert ask(channel, 2, str(script)) == b""
        assert channel.recv(16) == b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
