"""Doer: a Python of a domain that has loaded a service's script and its imports, and forks for each connection.

It runs as the service's user, in the domain, by the tree's own interpreter, which is handed this file as
text: nothing of virttools is there, and any Python from 3.7 on must understand it.

One fork ahead, the spare, waits for the next connection. What costs is the memory that a fork and its
parent write to: each page is copied. Hence little is imported, and the parent does next to nothing.
"""

import _signal  # type: ignore[import-not-found]  # each fork would copy the pages of signal's enums
import _socket
import atexit
import errno
import gc
import io
import marshal
import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from types import CodeType, ModuleType
    from typing import NoReturn, TextIO

    Wanted = tuple[bytes, tuple[bytes, ...], dict[bytes, bytes]]

LONGEST = 1 << 16
NOT_STARTED = -1000
LIBRARY = os.path.dirname(os.__file__) + "/"
SPACE = _socket.CMSG_SPACE(4)
BEFORE = []  # type: list[TextIO | None]  # streams that a module which was loaded may have kept
EVENTS = (_signal.SIGCHLD, _signal.SIGUSR1)  # a fork has ended; the spare has told something
# What a spare tells with a number, beside a signal for it.
TAKEN, ANEW, OVER, TAKING = 0, -1, -2, -3
PAUSE = 100  # milliseconds


def load(script: str) -> "CodeType":
    """Compile the script, and import what its first level imports; what cannot be is left to it."""
    code, wanted = marshal.loads(compiled(script))  # noqa: S302  our own fork's
    for name, parts in wanted:
        try:  # noqa: SIM105  contextlib is not always there already
            __import__(name, fromlist=parts)
        except Exception:  # noqa: BLE001, S110  the script will say so itself, to its client
            pass
    return code  # type: ignore[no-any-return]


def compiled(script: str) -> bytes:
    """The code and the imports of a script, marshalled by a fork: what ast takes would be in each other one.

    Raises EOFError where it cannot be compiled.
    """
    read_fd, write_fd = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read_fd)
        os.close(write_fd)
        raise
    if pid == 0:
        status = 1
        try:
            with open(write_fd, "wb") as file:
                file.write(parse(script))
            status = 0
        finally:
            os._exit(status)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        found = file.read()
    os.waitpid(pid, 0)
    return found


def parse(script: str) -> bytes:
    import ast

    with open(script, "rb") as file:
        tree = ast.parse(file.read(), script)
    wanted = []  # type: list[tuple[str, list[str]]]
    for node in statements(tree.body):
        if isinstance(node, ast.Import):
            wanted += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted.append((node.module, [alias.name for alias in node.names]))
    return marshal.dumps((compile(tree, script, "exec", dont_inherit=True), wanted))


def statements(body: "list[ast.stmt]") -> "list[ast.stmt]":
    import ast

    found = []
    for node in body:
        found += statements(node.body) if isinstance(node, ast.Try) else [node]
    return found


def state(script: str) -> "dict[str, object]":
    """What tells whether a file that was loaded is another one now; the standard library is not looked at."""
    files = {file_of(module) for module in list(sys.modules.values())}
    ours = sorted(file for file in files if file and not file.startswith(LIBRARY))
    return {file: stamp(file) for file in (script, *ours)}


def file_of(module: object) -> str:
    """What it was loaded from; anything may stand among the modules, as one that is loaded when it is used."""
    try:
        file = getattr(module, "__file__", None)
    except Exception:  # noqa: BLE001  its own
        return ""
    return file if type(file) is str else ""


def stamp(path: str) -> "object":
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    except ValueError:  # no file has such a name
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Zygote:
    """live: by pid, the number by which the spawner knows a connection; start: what started this program."""

    def __init__(self, channel: _socket.socket, script: str, live: "dict[int, int]") -> None:
        self.channel = channel
        self.script = script
        self.live = live
        self.start = (sys.argv, dict(os.environ))
        sys.argv = [script]  # a module may change the list
        self.pid = os.getpid()
        self.spare = 0
        self.is_taking = False
        self.is_open = True
        self.has_served = False
        self.is_old = False
        self.null_fd = os.dup(0)
        self.told_fd, self.tell_fd = os.pipe()
        os.set_blocking(self.told_fd, False)
        # Before a module may start a thread: what that one does not block, it would take, or die of.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, EVENTS)
        self.code = None
        before = dict(os.environb)
        self.seen = {script: stamp(script)}
        try:
            self.code = load(script)
            self.seen = state(script)
        except (OSError, EOFError):
            pass  # it is run as it is, and says what is wrong
        self.changes = changes(before)
        self.prepare()
        gc.collect()
        gc.freeze()

    def prepare(self) -> None:
        """Make ready what each fork would have to write to memory that is shared until then."""
        BEFORE.extend(file for file in (sys.stdout, sys.stderr) if flushed(file))
        ends = _socket.socketpair()
        for fd in range(3):  # as no /dev/null does, it tells the streams that it cannot seek
            os.dup2(ends[0].fileno(), fd)
        for end in ends:
            end.close()
        for fd, word in enumerate(("stdin", "stdout", "stderr")):
            old = getattr(sys, word)
            if old is None or old is not getattr(sys, f"__{word}__") or old.closed:
                continue  # a module has put its own there, or closed it
            new = stream(fd, old)
            setattr(sys, word, new)
            setattr(sys, f"__{word}__", new)
        self.main = module(self.script)
        self.asked = select.poll()
        self.asked.register(self.channel.fileno(), select.POLLIN)
        self.lives = select.poll()
        self.lives.register(self.channel.fileno(), select.POLLIN)
        self.lives.register(self.tell_fd, 0)  # it has an error once nobody can hear it

    def run(self) -> None:
        """Until the spawner closes its end, and all that was forked has ended."""
        self.reap()
        self.has_served = bool(self.live)
        while self.is_open or self.live:
            if self.is_open and self.has_served and not self.spare:
                self.fork_ahead()
            if self.spare or not self.is_open:
                _signal.sigwait(EVENTS)
            elif self.asked.poll(PAUSE if self.live else None):
                self.serve()
            self.hear()
            self.reap()
            if self.is_old:
                self.begin_anew()

    def serve(self) -> None:
        """Hear the spawner where no spare does: the first time, for what all forks are to have of it."""
        message, fd = receive(self.channel)
        if not message:
            self.is_open = False
            return
        told = marshal.loads(message)  # noqa: S302  the spawner's
        if fd < 0:
            self.end(*told)
            return
        number, path, argv, env = told
        adopt(self, argv, env)
        self.has_served = True
        is_new = self.is_new()
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(number, NOT_STARTED - (error.errno or errno.EAGAIN))
            os.close(fd)
            return
        if pid == 0:
            os.setpgid(0, 0)
            os.close(self.told_fd)
            become(self, None if is_new else self.code, fd, (path, argv, env))
        os.close(fd)
        self.live[pid] = number
        self.is_old = is_new

    def is_new(self) -> bool:
        """Whether what was loaded is another one now."""
        return any(stamp(file) != seen for file, seen in self.seen.items())

    def fork_ahead(self) -> None:
        """Have a spare, if there may be another process."""
        try:
            self.spare = os.fork()
        except OSError:
            return
        if self.spare == 0:
            wait(self)

    def hear(self) -> None:
        """What the spare has told, of its own connection or of another that is to be ended."""
        while True:
            try:
                told = os.read(self.told_fd, 16)
            except BlockingIOError:
                return
            number = int.from_bytes(told[:8], "big")
            what = int.from_bytes(told[8:], "big", signed=True)
            self.is_taking = what == TAKING
            if what == OVER:
                self.is_open = False
            elif what == TAKING:
                continue
            elif what > TAKEN:
                self.end(number, what)
            else:
                self.live[self.spare] = number
                self.spare = 0
                self.is_old = what == ANEW

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
        while self.live or self.spare:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.spare:
                self.hear()
            if pid == self.spare:
                self.spare = 0  # there is no more to come, or it was killed
                if self.is_taking and status:
                    # With a connection, perhaps, whose end nobody could tell: let the spawner see.
                    os._exit(1)
            number = self.live.pop(pid, None)
            if number is not None:
                self.tell(number, -(status & 127) if status & 127 else status >> 8)

    def tell(self, number: int, status: int) -> None:
        try:
            self.channel.send(number.to_bytes(8, "big") + status.to_bytes(8, "big", signed=True))
        except OSError:
            return  # the spawner is gone


def receive(channel: _socket.socket) -> "tuple[bytes, int]":
    """A message of the spawner's, empty at the end, and the connection that came with it, or -1."""
    message, rights, _, _ = channel.recvmsg(LONGEST, SPACE, _socket.MSG_CMSG_CLOEXEC)
    return message, int.from_bytes(rights[0][2][:4], sys.byteorder) if rights else -1


def wait(zygote: Zygote) -> "NoReturn":
    """In a fork ahead: wait for a connection, and be the script for it."""
    status = 1
    try:
        os.setpgid(0, 0)
        os.close(zygote.told_fd)
        # Where the zygote was killed nobody can hear of our end: let the spawner see that it is gone.
        while zygote.lives.poll()[0][0] == zygote.channel.fileno():
            whisper(zygote, 0, TAKING)
            message, fd = receive(zygote.channel)
            if not message:
                whisper(zygote, 0, OVER)
                break
            told = marshal.loads(message)  # noqa: S302  the spawner's
            if fd < 0:
                whisper(zygote, *told)
                continue
            number, path, argv, env = told
            is_new = zygote.is_new()
            whisper(zygote, number, ANEW if is_new else TAKEN)
            adopt(zygote, argv, env)
            become(zygote, None if is_new else zygote.code, fd, (path, argv, env))
        status = 0
    finally:
        os._exit(status)


def whisper(zygote: Zygote, number: int, what: int) -> None:
    """Tell the zygote what the spawner said."""
    try:
        os.write(zygote.tell_fd, number.to_bytes(8, "big") + what.to_bytes(8, "big", signed=True))
        if what != TAKING:  # that is only heard with the next word, or where none comes
            os.kill(zygote.pid, _signal.SIGUSR1)
    except OSError:
        return  # it was killed just now: the spawner will see


def become(zygote: Zygote, code: "CodeType | None", fd: int, wanted: "Wanted") -> "NoReturn":
    """In a fork: be the script, as if its interpreter had been started for this connection."""
    status = 1
    try:
        path, argv, env = wanted
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, EVENTS)
        for number in range(3):
            os.dup2(fd, number)
        own = (zygote.channel.detach(), zygote.null_fd, zygote.tell_fd)
        for number in (fd, *own):
            os.close(number)
        if code is None:
            _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
            os.execve(path, argv, env)
        status = execute(code, zygote.main)
    finally:
        os._exit(status)


def changes(before: "dict[bytes, bytes]") -> "dict[bytes, bytes | None]":
    """What the modules that were loaded have made of the environment; None: it is gone."""
    now = os.environb
    found = {name: value for name, value in now.items() if before.get(name) != value}
    return {**dict.fromkeys(name for name in before if name not in now), **found}


def adopt(zygote: Zygote, argv: "tuple[bytes, ...]", env: "dict[bytes, bytes | None]") -> None:
    """Have the words and the environment of a connection: little differs from the last one's."""
    if zygote.changes:
        env = {**env, **zygote.changes}
    now = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001  of bytes; the mapping itself is slow
    for name in [name for name in now if name not in env and name != b"LC_CTYPE"]:
        del os.environb[name]  # that one is the interpreter's, of its start (PEP 538)
    for name, value in env.items():
        if value is None:
            os.environb.pop(name, None)
        elif now.get(name) != value:
            now[name] = value
            os.putenv(name, value)
    sys.argv = [zygote.script, *map(os.fsdecode, argv[1:])]


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


def module(script: str) -> "ModuleType":
    """A __main__ as a fresh one is, for the script."""
    main = type(sys)("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None)
    if "__annotations__" in globals():
        main.__annotations__ = {}  # as this Python has it
    sys.modules["__main__"] = main
    return main


def execute(code: "CodeType", main: "ModuleType") -> int:
    """Run it as __main__, and all that a Python does at its end; the status."""
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
    Zygote(_socket.socket(fileno=3), script, live).run()


if __name__ == "__main__":
    main()
