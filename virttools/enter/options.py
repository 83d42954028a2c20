"""Values: what `virt exec` and `virtNAME` are asked to run, and how."""

from virttools.errors import EnterError

HELP = """\
Usage: virt exec [--domain DOMAIN] [--user USER] [--cwd DIR] [--env NAME=VALUE]... [--] COMMAND...
       virt exec --all [--match GLOB] [--parallel N] [--json] [options] [--] COMMAND...

Run COMMAND inside a domain's tree, entered by chroot(2), with a clean environment.

  --domain DOMAIN   the domain; else VIRT_DOMAIN, else what .virt-domain says, a file of root's
                    here or further up (not under sudo), else the only one there is, else you pick
  --all             every domain, each line of output after its name; stdin is empty
  --match GLOB      with --all: only domains whose name matches, as in '*.org'
  --parallel N      with --all: so many at once; else as many as there are cores
  --json            with --all: a JSON object for each line of output, and one for the whole
  --user USER       a user of the domain's own /etc/passwd, by name or number; else root
  --cwd DIR         the working directory inside; else /
  --env NAME=VALUE  one more variable; may be repeated
  --help            this text

The exit status is the command's own. 125: virt failed, 126: the command cannot be run,
127: it is not there, 2: a domain must be chosen and there is no terminal, 130: not chosen.
With --all it is the highest of all.

Example: virt exec --domain domain1.com --user bob -- ls -l
"""

_MOST_AT_ONCE = 1000


class Options:
    """argv: the command, not empty unless `is_help`; domain and user None where not said."""

    __slots__ = (
        "argv", "cwd", "domain", "env", "is_all", "is_help", "is_json", "match", "parallel", "user",
    )  # fmt: skip

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.domain: str | None = None
        self.user: str | None = None
        self.cwd = "/"
        self.env: list[tuple[str, str]] = []
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
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("--help", "-h"):
            options.is_help = True
            return options
        if word in ("--all", "--json"):
            options.is_all = options.is_all or word == "--all"
            options.is_json = options.is_json or word == "--json"
            continue
        name, has_value, value = word.partition("=")
        if name not in ("--domain", "--user", "--cwd", "--env", "--match", "--parallel"):
            raise _wrong(f"cannot read the option {word}: there is none of that name")
        if not has_value:
            if not rest:
                raise _wrong(f"cannot read the option {name}: it needs a value")
            value = rest.pop(0)
        _set(options, name, value)
    if not rest:
        raise _wrong("cannot run a command: none is given")
    options.argv = rest
    _check_all(options)
    return options


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


def _wrong(message: str) -> EnterError:
    return EnterError(message, hint="`virt exec --help` shows the usage")
