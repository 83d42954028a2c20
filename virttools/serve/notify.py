"""Doer: what a service manager says to a daemon and hears of it: LISTEN_FDS (sd_listen_fds(3)), sd_notify(3)."""

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

FIRST_FD = 3  # SD_LISTEN_FDS_START
_MOST = 4096


def listen_fds(environ: "MutableMapping[str, str]", pid: int) -> list[tuple[int, str]]:
    """The sockets passed to this process, each with its name; the variables are taken out of environ.

    Those meant for another pid are left alone, and so not ours. Raises ValueError where they contradict.
    """
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    told_pid, told_count, told_names = (environ.pop(name, "") for name in names)
    if told_pid != str(pid):
        return []
    if not (told_count.isascii() and told_count.isdigit()) or int(told_count) > _MOST:
        raise ValueError(f"not a number of descriptors in LISTEN_FDS: {told_count!r}")
    count = int(told_count)
    labels = told_names.split(":") if told_names else ["unknown"] * count
    if len(labels) != count:
        raise ValueError(f"LISTEN_FDNAMES has {len(labels)} names for {count} descriptors")
    return [(FIRST_FD + position, label) for position, label in enumerate(labels)]


class Notifier:
    """Tells the service manager how we are; without NOTIFY_SOCKET it tells nobody."""

    __slots__ = ("_address",)

    def __init__(self, environ: "MutableMapping[str, str]") -> None:
        path = environ.pop("NOTIFY_SOCKET", "")
        self._address = path
        if path.startswith("@"):
            self._address = "\0" + path[1:]  # the abstract namespace, unix(7)
        elif not path.startswith("/"):
            self._address = ""

    def environment(self) -> dict[str, str]:
        """What a successor in the same process must find again, after execve(2)."""
        path = self._address
        return {"NOTIFY_SOCKET": "@" + path[1:] if path.startswith("\0") else path} if path else {}

    def tell(self, *states: str) -> bool:
        """Send states such as `READY=1`; False where nobody listens. Never waits."""
        if not self._address:
            return False
        text = "\n".join(states).encode("utf-8", "replace")
        sender = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        try:
            sender.sendto(text, self._address)
        except OSError:
            return False
        finally:
            sender.close()
        return True

    def ready(self, status: str) -> bool:
        return self.tell("READY=1", f"STATUS={_line(status)}")

    def reloading(self, microseconds: int) -> bool:
        """Say that a reload begins, at that CLOCK_MONOTONIC time; `ready` says that it has ended."""
        return self.tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self, status: str) -> bool:
        return self.tell("STOPPING=1", f"STATUS={_line(status)}")


def _line(text: str) -> str:
    """One line: a state of its own must not be smuggled in by a name."""
    return " ".join(text.split())
