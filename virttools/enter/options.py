"""Values: what `virt exec` and `virtNAME` are asked to run, and how."""

from virttools.errors import EnterError

HELP = """\
Usage: virt exec [--domain DOMAIN] [--user USER] [--cwd DIR] [--env NAME=VALUE]... [--] COMMAND...

Run COMMAND inside a domain's tree, entered by chroot(2), with a clean environment.

  --domain DOMAIN   the domain; else VIRT_DOMAIN, else the only one there is
  --user USER       a user of the domain's own /etc/passwd, by name or number; else root
  --cwd DIR         the working directory inside; else /
  --env NAME=VALUE  one more variable; may be repeated
  --help            this text

The exit status is the command's own. 125: virt failed, 126: the command cannot be run,
127: it is not there, 2: a domain must be chosen.

Example: virt exec --domain domain1.com --user bob -- ls -l
"""


class Options:
    """argv: the command, not empty unless `is_help`; domain and user None where not said."""

    __slots__ = ("argv", "cwd", "domain", "env", "is_help", "user")

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.domain: str | None = None
        self.user: str | None = None
        self.cwd = "/"
        self.env: list[tuple[str, str]] = []
        self.is_help = False


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
        name, has_value, value = word.partition("=")
        if name not in ("--domain", "--user", "--cwd", "--env"):
            raise _wrong(f"cannot read the option {word}: there is none of that name")
        if not has_value:
            if not rest:
                raise _wrong(f"cannot read the option {name}: it needs a value")
            value = rest.pop(0)
        _set(options, name, value)
    if not rest:
        raise _wrong("cannot run a command: none is given")
    options.argv = rest
    return options


def _set(options: Options, name: str, value: str) -> None:
    if name == "--domain":
        options.domain = value
    elif name == "--user":
        options.user = value
    elif name == "--cwd":
        options.cwd = "/" + value.lstrip("/")
    else:
        key, has_value, text = value.partition("=")
        if not key or not has_value:
            raise _wrong(f"cannot read --env {value}: it must be NAME=VALUE")
        options.env.append((key, text))


def _wrong(message: str) -> EnterError:
    return EnterError(message, hint="`virt exec --help` shows the usage")
