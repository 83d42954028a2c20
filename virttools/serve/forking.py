"""Doer: a Python of a domain that has loaded a service's script and its imports, and forks for each connection.

It runs as the service's user, in the domain, by the tree's own interpreter, which is handed this file as
text: nothing of virttools is there, and any Python from 3.7 on must understand it.
"""

import _signal  # type: ignore[import-not-found]  # each fork would copy the pages of signal's enums
import ast
import atexit
import errno
import gc
import io
import marshal
import os
import select
import socket
import sys
from array import array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import TextIO

LONGEST = 1 << 16
NOT_STARTED = -1000
LIBRARY = os.path.dirname(os.__file__) + "/"
SPACE = socket.CMSG_SPACE(array("i", [0]).itemsize)
BEFORE = []  # type: list[TextIO | None]  # streams that a module which was loaded may have kept


def load(script: str) -> "CodeType":
    """Compile the script, and import what its first level imports; what cannot be is left to it."""
    with open(script, "rb") as file:
        tree = ast.parse(file.read(), script)
    for node in statements(tree.body):
        try:  # noqa: SIM105  contextlib is not always there already
            preload(node)
        except Exception:  # noqa: BLE001, S110  the script will say so itself, to its client
            pass
    return compile(tree, script, "exec", dont_inherit=True)


def statements(body: "list[ast.stmt]") -> "list[ast.stmt]":
    found = []
    for node in body:
        found += statements(node.body) if isinstance(node, ast.Try) else [node]
    return found


def preload(node: "ast.stmt") -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            __import__(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        __import__(node.module, fromlist=[alias.name for alias in node.names])


def state(script: str) -> "dict[str, object]":
    """What tells whether a file that was loaded is another one now; the standard library is not looked at."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    ours = sorted(file for file in files if file and not file.startswith(LIBRARY))
    return {file: stamp(file) for file in (script, *ours)}


def stamp(path: str) -> "object":
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Zygote:
    """live: by pid, the number by which the spawner knows a connection; start: what started this program."""

    def __init__(self, channel: socket.socket, script: str, live: "dict[int, int]") -> None:
        self.channel = channel
        self.script = script
        self.live = live
        self.start = (sys.argv, dict(os.environ))
        sys.argv = [script]  # a module may change the list
        self.null_fd = os.dup(0)
        self.wake_fd, self.wake_write_fd = os.pipe()
        os.set_blocking(self.wake_write_fd, False)
        _signal.set_wakeup_fd(self.wake_write_fd)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        self.code = None
        before = dict(os.environb)
        self.seen = {script: stamp(script)}
        try:
            self.code = load(script)
            self.seen = state(script)
        except (OSError, SyntaxError, ValueError):
            pass  # it is run as it is, and says what is wrong
        self.changes = changes(before)
        self.prepare()
        gc.collect()
        gc.freeze()

    def prepare(self) -> None:
        """Make ready what each fork would have to write to memory that is shared until then."""
        BEFORE.extend(file for file in (sys.stdout, sys.stderr) if flushed(file))
        ends = socket.socketpair()
        for fd in range(3):
            os.dup2(
                ends[0].fileno(), fd
            )  # as no /dev/null does, it tells the streams that it cannot seek
        for end in ends:
            end.close()
        for fd, word in enumerate(("stdin", "stdout", "stderr")):
            old = getattr(sys, word)
            if old is None or old is not getattr(sys, f"__{word}__") or old.closed:
                continue  # a module has put its own there, or closed it
            new = stream(fd, old)
            setattr(sys, word, new)
            setattr(sys, f"__{word}__", new)

    def run(self) -> None:
        """Until the spawner closes its end, and all that was forked has ended."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(self.wake_fd, select.POLLIN)
        self.reap()
        is_open = True
        while is_open or self.live:
            for fd, _ in poll.poll():
                if fd == self.wake_fd:
                    os.read(fd, 4096)
                    self.reap()
                elif not self.serve():
                    is_open = False
                    poll.unregister(fd)

    def serve(self) -> bool:
        message, rights, _, _ = self.channel.recvmsg(LONGEST, SPACE, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return False
        told = marshal.loads(message)  # noqa: S302  the spawner's
        if not rights:
            self.end(*told)
            return True
        number, path, argv, env = told
        fd = array("i", rights[0][2])[0]
        adopt(argv, {**env, **self.changes}, self.script)
        is_new = any(stamp(file) != seen for file, seen in self.seen.items())
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(number, NOT_STARTED - (error.errno or errno.EAGAIN))
            os.close(fd)
            return True
        if pid == 0:
            become(self, None if is_new else self.code, fd, (path, argv, env))
        os.close(fd)
        self.live[pid] = number
        if is_new:
            self.begin_anew()
        return True

    def begin_anew(self) -> None:
        """Load what is there now: in the same process, whose children stay its own."""
        known = ",".join(f"{pid}:{number}" for pid, number in self.live.items())
        os.set_inheritable(self.channel.fileno(), True)
        for fd in range(3):
            os.dup2(self.null_fd, fd)
        argv, env = self.start
        text, script, _, stub, *interpreter = argv[1:]  # there may be no /proc to ask
        words = [*interpreter, "-c", stub, text, script, known, stub, *interpreter]
        os.execve(words[0], words, env)

    def end(self, number: int, signal: int) -> None:
        """Its time is over; it may not have come to lead its process group yet."""
        for pid, known in self.live.items():
            if known == number:
                try:
                    os.killpg(pid, signal)
                except ProcessLookupError:
                    os.kill(pid, signal)

    def reap(self) -> None:
        while self.live:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self.live.pop(pid, None)
            if number is not None:
                self.tell(number, -(status & 127) if status & 127 else status >> 8)

    def tell(self, number: int, status: int) -> None:
        try:
            self.channel.send(number.to_bytes(8, "big") + status.to_bytes(8, "big", signed=True))
        except OSError:
            return  # the spawner is gone


def become(
    zygote: Zygote,
    code: "CodeType | None",
    fd: int,
    wanted: "tuple[bytes, tuple[bytes, ...], dict[bytes, bytes]]",
) -> None:
    """In a fork: be the script, as if its interpreter had been started for this connection."""
    status = 1
    try:
        path, argv, env = wanted
        os.setpgid(0, 0)
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        for number in range(3):
            os.dup2(fd, number)
        own = (zygote.channel.detach(), zygote.null_fd, zygote.wake_fd, zygote.wake_write_fd)
        for number in (fd, *own):
            os.close(number)
        if code is None:
            _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
            os.execve(path, argv, env)
        status = execute(code, zygote.script)
    finally:
        os._exit(status)


def changes(before: "dict[bytes, bytes]") -> "dict[bytes, bytes | None]":
    """What the modules that were loaded have made of the environment; None: it is gone."""
    now = os.environb
    found = {name: value for name, value in now.items() if before.get(name) != value}
    return {**dict.fromkeys(name for name in before if name not in now), **found}


def adopt(argv: "tuple[bytes, ...]", env: "dict[bytes, bytes | None]", script: str) -> None:
    """Have the words and the environment of a connection before the fork: little differs from the last one's."""
    now = os.environb
    for name in [name for name in now if name not in env and name != b"LC_CTYPE"]:
        del now[name]  # that one is the interpreter's, of its start (PEP 538)
    for name, value in env.items():
        if value is None:
            now.pop(name, None)
        elif now.get(name) != value:
            now[name] = value
    sys.argv = [script, *map(os.fsdecode, argv[1:])]


def stream(fd: int, old: io.TextIOWrapper) -> io.TextIOWrapper:
    """A standard stream anew: the old one believes that it can seek, as /dev/null does."""
    raw = io.FileIO(fd, "r" if fd == 0 else "w", closefd=False)
    buffered = io.BufferedReader(raw) if fd == 0 else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffered,
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=fd == 2,
        write_through=old.write_through,
    )


def execute(code: "CodeType", script: str) -> int:
    """Run it as __main__, and all that a Python does at its end; the status."""
    main = type(sys)("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None)
    if "__annotations__" in globals():
        main.__annotations__ = {}  # as this Python has it
    sys.modules["__main__"] = main
    status = 0
    try:
        exec(code, main.__dict__)  # noqa: S102  the user of the service runs its own script
    except SystemExit as error:
        status = meant(error.code)
    except BaseException as error:  # noqa: BLE001  what ends a Python is shown by its hook
        status = 1
        trace = error.__traceback__
        error.__traceback__ = trace and trace.tb_next  # our own frame is nobody's business
        sys.excepthook(type(error), error, error.__traceback__)
    return end(status)


def meant(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 255
    sys.stderr.write(f"{code}\n")
    return 1


def end(status: int) -> int:
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()  # noqa: SLF001  joins the threads, as at every end
    atexit._run_exitfuncs()  # noqa: SLF001
    for file in (sys.stdout, sys.stderr, *BEFORE):
        if not flushed(file):
            status = status or 120  # as Python says it
    return status


def flushed(file: "TextIO | None") -> bool:
    """Whether all of it is written; one that is closed, or none, has nothing left."""
    try:
        if file is not None and not getattr(file, "closed", False):
            file.flush()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def main() -> None:
    script, told = sys.argv[2:4]
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.path.dirname(script)
    live = {}
    for pair in filter(None, told.split(",")):
        pid, number = pair.split(":")
        live[int(pid)] = int(number)
    os.set_inheritable(3, False)
    Zygote(socket.socket(fileno=3), script, live).run()


if __name__ == "__main__":
    main()
