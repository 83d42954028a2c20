"""Who serves a call: decided by the name it came by and its first word, before much is loaded."""

import os
import sys

from virttools.errors import ApplyError, EnterError, HostLacks, UsageError, VirtError

# typing costs start-up time; a name in quotes is enough for the type checker
TYPE_CHECKING = False
if TYPE_CHECKING:
    from virttools.enter.options import Options


_CUT_OFF = (5, 9, 27, 28, 122)  # EIO, EBADF, EFBIG, ENOSPC, EDQUOT


class Call:
    """One call as it came: the options before the command, and the words from the command on."""

    __slots__ = ("called", "command", "is_json", "root", "words")

    def __init__(self, command: str, words: list[str]) -> None:
        self.called = "virt"
        self.command = command
        self.words = words
        self.root: str | None = None
        self.is_json = False


def read_call(argv: list[str]) -> Call:
    """Tell what is asked, by argv[0] and the first word; all later words are left as they are."""
    name = argv[0].rpartition("/")[2]
    if name == "virtfs":
        return Call("cli", ["create", *argv[1:]])
    if name in ("virtuald", "virtexec"):
        return Call(name[4:] if name == "virtexec" else name, argv[1:])
    if name.startswith("virt") and len(name) > 4:
        return Call("named", [name[4:], *argv[1:]])
    return _read_words(argv[1:])


def _read_words(words: list[str]) -> Call:
    call = Call("cli", words)
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--root" and position + 1 < len(words):
            position += 1
            call.root = words[position]
        elif word.startswith("--root="):
            call.root = word[len("--root=") :]
        elif word == "--json":
            call.is_json = True
        elif word not in ("-v", "--verbose", "-q", "--quiet", "--no-color", "--events"):
            break
        position += 1
    if words[position : position + 1] in (["exec"], ["shell"], ["virtuald"], ["serve"]):
        call.command = words[position]
        call.words = words[position + 1 :]
    return call


def main(argv: list[str]) -> int:
    """Serve one call and return its exit status; argv[0] is the name it was called by.

    Whatever goes wrong, a user reads a sentence and no traceback (VIRT_DEBUG=1 shows it).
    """
    _open_standard()
    call = read_call(argv)
    call.called = argv[0]
    try:
        status = _serve(call)
        sys.stdout.flush()
    except VirtError as error:
        return _tell(call, error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  the last line of defence: a bug becomes a sentence
        cause = _unwritten() or error
        if isinstance(cause, BrokenPipeError):
            return 128 + 13
        found = _failure(cause)
        call.is_json = call.is_json and not isinstance(found, ApplyError)  # stdout takes none
        return _tell(call, found)
    return status


def _open_standard() -> None:
    """Have something at 0, 1 and 2, so that no file of ours takes their places.

    A result can't be written where stdout was closed: that is said, as of a full disk.
    """
    if sys.stdin is None:
        os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _unwritten() -> OSError | None:
    """Why stdout or stderr takes no more; what is still buffered then fails no more at the end."""
    found = None
    for fd, stream in ((2, sys.stderr), (1, sys.stdout)):
        try:
            stream.flush()
        except OSError as error:
            found = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
    return found


def _failure(error: Exception) -> VirtError:
    found: VirtError
    if isinstance(error, OSError) and error.errno in _CUT_OFF and error.filename is None:
        found = ApplyError(
            f"cannot write: {error.strerror}", hint="look at where the output goes: it was cut off"
        )
    else:
        found = VirtError(
            f"internal error: {type(error).__name__}: {error}", hint="VIRT_DEBUG=1 shows where"
        )
    found.__cause__ = error
    return found


def _serve(call: Call) -> int:
    if call.command == "virtuald":
        from virttools.serve import wrapper

        return wrapper.main(call.words)
    if call.command == "serve":
        from virttools.cli import serve

        return serve.main(call.words, root=call.root, as_json=call.is_json)
    if call.command == "cli":
        return _serve_cli(call)
    from virttools.enter import options

    if call.command == "named":
        asked = options.Options([_program(call.called, call.words[0]), *call.words[1:]])
    elif call.command == "shell":
        asked = options.read_shell(call.words)
    else:
        asked = options.read(call.words)
    if asked.is_help:
        sys.stdout.write(options.SHELL_HELP if asked.is_login else options.HELP)
        return 0
    return _enter(call, asked)


def _program(called: str, name: str) -> str:
    """What virtNAME runs: NAME, unless the link says otherwise: `virtnewuser -> .virt/useradd`."""
    try:
        folder, _, program = os.readlink(called).rpartition("/")
    except OSError:
        return name  # no link
    return program if folder.rpartition("/")[2] == ".virt" else name


def _enter(call: Call, asked: "Options") -> int:
    from virttools import settings
    from virttools.enter import choose, execute

    here = settings.load(os.environ, root=call.root)
    if asked.is_all:
        from virttools.enter import many

        return many.run(here.root, asked, as_json=call.is_json or asked.is_json)
    asked.domain = choose.domain(here, asked.domain, asked.argv[0] if asked.argv else "shell")
    return execute.run(here.root, asked)


def _serve_cli(call: Call) -> int:
    try:
        from virttools.cli import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("virttools"):
            raise
        raise HostLacks(
            f"cannot start: {sys.executable} has no module {error.name}",
            hint="`pip install .` in a venv installs what virt needs; in a checkout: `make .venv`",
        ) from error
    return app.main(call.words, called=call.called)


def _tell(call: Call, error: VirtError) -> int:
    """Say the error; whoever waits for a command of a domain never takes ours for its status."""
    if call.command == "virtuald" and _is_client(2):
        return error.exit_code
    from virttools.cli import output

    if os.environ.get("VIRT_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    status = output.failure(error, call.command, as_json=call.is_json)
    if call.command in ("exec", "shell", "named") and not isinstance(
        error, (EnterError, UsageError)
    ):
        return EnterError.exit_code
    return status


def _is_client(fd: int) -> bool:
    """Whether what is written there goes over a network, to somebody who asked for something else."""
    try:
        return os.fstat(fd).st_mode & 0o170000 == 0o140000
    except OSError:
        return True
