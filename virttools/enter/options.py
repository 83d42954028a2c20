"""Values: what `virt exec` and `virtNAME` are asked to run, and how."""

from virttools.errors import EnterError

HELP = """\
Usage: virt exec [--domain DOMAIN] [options] [--] COMMAND...
       virt exec --all [--match GLOB] [--parallel N] [--json] [options] [--] COMMAND...

Run COMMAND inside a domain's tree: contained (private mount, pid, ipc and uts
namespaces, few capabilities, shared program folders read-only), with a clean environment.

  --domain DOMAIN   the domain; else VIRT_DOMAIN, else what .virt-domain says, a file of root's
                    here or further up (not under sudo), else the only one there is, else you pick
  --all             every domain, each line of output after its name; stdin is empty
  --match GLOB      with --all: only domains whose name matches, as in '*.org'
  --parallel N      with --all: so many at once; else as many as there are cores
  --json            with --all: a JSON object for each line of output, and one for the whole
  --user USER[:GROUP]
                    a user of the domain's own /etc/passwd, by name or number; else root
  --cwd DIR         the working directory inside; else /
  --env NAME=VALUE  one more variable; may be repeated
  --bind SRC:DST[:ro]
                    have SRC of the host at DST, which is there; may be repeated
  --keep-fd N       let the command have descriptor N too; may be repeated
  --writable        let root write where domains share files: usr, bin, sbin, lib*, opt
  --allow-setid     let set-id bits count for all that COMMAND starts (they do for COMMAND itself)
  --no-tty, --stdin no terminal of its own: descriptors 0 to 2 are the caller's, as they are
  --chroot          enter by chroot(2) and nothing else: it does not hold root
  --proc            with --chroot: mount /proc, for the command only
  --help            this text

The exit status is the command's own. 125: virt failed, 126: the command cannot be run,
127: it is not there, 2: a domain must be chosen and there is no terminal, 130: not chosen.
With --all it is the highest of all.

Example: virt exec --domain domain1.com --user bob -- ls -l
"""

SHELL_HELP = """\
Usage: virt shell [DOMAIN] [options]

Log in to a domain: the login shell of root, or of another user of the domain's own /etc/passwd,
at home, contained, with a prompt that names the domain.

The options are those of `virt exec` for one domain: its --help lists them.

Example: virt shell domain1.com
"""

_MOST_AT_ONCE = 1000
_FLAGS = {
    "--all": ("is_all", True),
    "--json": ("is_json", True),
    "--allow-setid": ("allows_set_id", True),
    "--chroot": ("is_chroot", True),
    "--no-tty": ("has_terminal", False),
    "--proc": ("has_proc", True),
    "--stdin": ("has_terminal", False),
    "--writable": ("is_writable", True),
}
_VALUES = (
    "--bind", "--cwd", "--domain", "--env", "--keep-fd", "--match", "--parallel", "--user",
)  # fmt: skip


class Bind:
    """source: a path of the host; place: where it is to be inside, absolute."""

    __slots__ = ("is_read_only", "place", "source")

    def __init__(self, source: str, place: str, *, is_read_only: bool) -> None:
        self.source = source
        self.place = place
        self.is_read_only = is_read_only


class Options:
    """argv: the command, not empty unless `is_help` or `is_login`; what is not said is None.

    allows_set_id, has_proc, has_terminal (where the caller has one), is_chroot, is_writable: how
    the command is entered; binds and kept_fds are what it gets from the host.
    """

    __slots__ = (
        "allows_set_id", "argv", "binds", "cwd", "domain", "env", "has_proc", "has_terminal",
        "is_all", "is_chroot", "is_help", "is_json", "is_login", "is_writable", "kept_fds", "match",
        "parallel", "user",
    )  # fmt: skip

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.domain: str | None = None
        self.user: str | None = None
        self.cwd: str | None = None
        self.env: list[tuple[str, str]] = []
        self.binds: list[Bind] = []
        self.kept_fds: list[int] = []
        self.allows_set_id = False
        self.has_proc = False
        self.has_terminal = True
        self.is_chroot = False
        self.is_login = False
        self.is_writable = False
        self.is_all = False
        self.is_help = False
        self.is_json = False
        self.match: str | None = None
        self.parallel: int | None = None


def read(words: list[str]) -> Options:
    """Read the words after `virt exec`. The first that is no option, or `--`, begins the command.

    Raises EnterError for a wrong option, and where no command is given.
    """
    options = Options([])
    options.argv = _take(options, list(words))
    if options.is_help:
        return options
    if not options.argv:
        raise _wrong("cannot run a command: none is given")
    _check_all(options)
    _check_chroot(options)
    return options


def read_shell(words: list[str]) -> Options:
    """Read the words after `virt shell`: a domain, and options before or after it.

    Raises EnterError for a wrong option, and for more words.
    """
    options = Options([])
    options.is_login = True
    rest = _take(options, list(words))
    if rest and options.domain is None and not options.is_help:
        options.domain = rest.pop(0)
        rest = _take(options, rest)
    if options.is_help:
        return options
    if rest:
        raise _wrong(f"cannot start a shell: {rest[0]} is a word too many")
    if options.is_all:
        raise _wrong("cannot start a shell: --all is for commands")
    _check_all(options)
    _check_chroot(options)
    return options


def _take(options: Options, rest: list[str]) -> list[str]:
    """Take the options from the beginning; what is left."""
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("--help", "-h"):
            options.is_help = True
            return []
        if word in _FLAGS:
            name, value = _FLAGS[word]
            setattr(options, name, value)
            continue
        name, has_value, text = word.partition("=")
        if name not in _VALUES:
            raise _wrong(f"cannot read the option {word}: there is none of that name")
        if not has_value:
            if not rest:
                raise _wrong(f"cannot read the option {name}: it needs a value")
            text = rest.pop(0)
        _set(options, name, text)
    return rest


def _check_chroot(options: Options) -> None:
    if options.is_chroot and (options.binds or options.is_writable):
        raise _wrong("cannot enter by --chroot: --bind and --writable need namespaces")


def _check_all(options: Options) -> None:
    if options.is_all and options.domain is not None:
        raise _wrong("cannot choose a domain: --domain and --all exclude each other")
    if not options.is_all and (options.is_json or options.match or options.parallel):
        raise _wrong("cannot run a command: --match, --parallel and --json need --all")


def _set(options: Options, name: str, value: str) -> None:
    if name == "--domain":
        options.domain = value
    elif name == "--user":
        options.user = value
    elif name == "--cwd":
        options.cwd = "/" + value.lstrip("/")
    elif name == "--bind":
        options.binds.append(_bind(value))
    elif name == "--keep-fd":
        options.kept_fds.append(_kept_fd(value))
    elif name == "--match":
        options.match = value
    elif name == "--parallel":
        if not (
            value.isascii()
            and value.isdigit()
            and len(value) < 9
            and 0 < int(value) <= _MOST_AT_ONCE
        ):
            raise _wrong(f"cannot read --parallel {value}: it must be a number from 1 to 1000")
        options.parallel = int(value)
    else:
        key, has_value, text = value.partition("=")
        if not key or not has_value:
            raise _wrong(f"cannot read --env {value}: it must be NAME=VALUE")
        options.env.append((key, text))


def _bind(value: str) -> Bind:
    words = value.split(":")
    is_read_only = words[2:] == ["ro"]
    if (
        len(words) not in (2, 3)
        or not words[0]
        or not words[1].startswith("/")
        or (len(words) == 3 and not is_read_only)
    ):
        raise _wrong(f"cannot read --bind {value}: it must be SRC:/DST or SRC:/DST:ro")
    return Bind(words[0], words[1], is_read_only=is_read_only)


def _kept_fd(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 8 and int(value) > 2):
        raise _wrong(f"cannot read --keep-fd {value}: it must be a descriptor from 3 on")
    return int(value)


def _wrong(message: str) -> EnterError:
    return EnterError(message, hint="`virt exec --help` shows the usage")
