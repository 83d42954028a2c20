"""Doer: starts a program with a connection as descriptors 0, 1 and 2, and nothing else of the server's."""

import os

SIGNALS = tuple(number for number in range(1, 65) if number not in (9, 19, 32, 33))
"""All that can be set; 32 and 33 are libc's own. All, because glibc then asks for none first."""


def launch(path: bytes, argv: tuple[bytes, ...], env: dict[bytes, bytes], fd: int) -> int:
    """Start it with default signals, none blocked, as leader of a process group; its pid.

    Of a group, in a session that has no terminal: a session each would be a scheduling group each
    (sched(7), autogroup), and those cost more than the program. Raises OSError.
    """
    return os.posix_spawn(
        path,
        argv,
        env,
        file_actions=(
            (os.POSIX_SPAWN_DUP2, fd, 0),
            (os.POSIX_SPAWN_DUP2, fd, 1),
            (os.POSIX_SPAWN_DUP2, fd, 2),
        ),
        setpgroup=0,
        setsigdef=SIGNALS,
        setsigmask=(),
    )


def end(pid: int, number: int) -> None:
    """Send a signal to what `launch` started and nobody has reaped yet, and to its process group.

    It is a tenant's: it may have left that group, empty or not.
    """
    for send in (os.killpg, _send_to_stray):
        try:
            send(pid, number)
        except OSError:
            continue  # it is not ours to signal any more


def _send_to_stray(pid: int, number: int) -> None:
    if os.getpgid(pid) != pid:
        os.kill(pid, number)
