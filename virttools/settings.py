"""Where things are: options, VIRT_ROOT and virt.toml. Fast way: tomllib only if there is one."""

import os

from virttools.errors import ConfigError, Problem

# typing costs start-up time; a name in quotes is enough for the type checker
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FILE = "/etc/virttools/virt.toml"
ROOT = "/virtual"
_LARGEST = 1 << 20
_KEYS = ("root", "bindir", "picker", "profiles", "allow_host", "interface", "services")


class Settings:
    """What holds for every command.

    root: str, absolute, the folder of all trees. bindir: str or None, where `virt link` makes its
    links. picker: str or None, how a domain is chosen. profiles: tuple of str, the profiles of a
    domain for which nothing else is said. allow_host: bool, whether routes may lead to the host
    itself. interface: str or None, where `virt ip` puts addresses.
    file: str or None, the virt.toml that was read; it may have services, for the server.
    """

    __slots__ = ("allow_host", "bindir", "file", "interface", "picker", "profiles", "root")

    def __init__(
        self,
        root: str,
        *,
        bindir: "str | None" = None,
        picker: "str | None" = None,
        profiles: "tuple[str, ...]" = ("base",),
        allow_host: bool = False,
        interface: "str | None" = None,
        file: "str | None" = None,
    ) -> None:
        self.root = root
        self.bindir = bindir
        self.picker = picker
        self.profiles = profiles
        self.allow_host = allow_host
        self.interface = interface
        self.file = file


def load(environ: "Mapping[str, str]", *, root: "str | None" = None, file: str = FILE) -> Settings:
    """Settings by DESIGN 4: the option, then VIRT_ROOT, then virt.toml, then the default.

    An ordinary user has a root of their own (DESIGN 7.11): the file's is root's.

    Raises ConfigError with every problem of the file.
    """
    text = _text(file)
    said = {} if text is None else _checked(file, text)
    profiles = tuple(said.get("profiles", ("base",)))
    is_root = os.geteuid() == 0
    usual = (said.get("root") or ROOT) if is_root else _own_root(environ)
    chosen = root or environ.get("VIRT_ROOT") or usual
    return Settings(
        _absolute(chosen),
        bindir=said.get("bindir"),
        picker=said.get("picker"),
        profiles=profiles,
        allow_host=said.get("allow_host", False),
        interface=said.get("interface"),
        file=None if text is None else file,
    )


def _absolute(path: str) -> str:
    whole = path if path.startswith("/") else f"{os.getcwd().rstrip('/')}/{path}"
    return whole.rstrip("/") or "/"


def _own_root(environ: "Mapping[str, str]") -> str:
    data = environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):  # the XDG specification: relative ones are invalid, ignore them
        data = (environ.get("HOME") or os.path.expanduser("~")) + "/.local/share"
    return f"{data}/virttools"


def _text(file: str) -> "str | None":
    """The file's text, or None where there is none."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(file, _cause(error)) from error
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            raise _unreadable(file, "it is not a file")
        with open(fd, "rb", closefd=False) as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise _unreadable(file, _cause(error)) from error
    finally:
        os.close(fd)
    if len(content) > _LARGEST:
        raise _unreadable(file, "it is larger than 1 MB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(file, "it is not UTF-8") from error


def _unreadable(file: str, cause: str) -> ConfigError:
    return ConfigError(f"cannot read {file}: {cause}")


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _checked(file: str, text: str) -> "dict[str, Any]":
    import tomllib

    try:
        said = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(file, [_syntax(file, str(error))]) from error
    problems = [(key, _fault(key, value)) for key, value in said.items()]
    if any(fault for _, fault in problems):
        from virttools.manifest import positions

        lines = positions.lines(text)
        raise _wrong(
            file, [Problem(file, lines[(key,)], fault) for key, fault in problems if fault]
        )
    return said


def _wrong(file: str, problems: "list[Problem]") -> ConfigError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return ConfigError(f"cannot use {file}: {count}", problems=tuple(problems))


def _syntax(file: str, message: str) -> Problem:
    """The parser says where at the end of its sentence: `… (at line 3, column 5)`."""
    cause, _, place = message.rpartition(" (at line ")
    if not cause:
        return Problem(file, 0, message[:1].lower() + message[1:])
    line, _, column = place.rstrip(")").partition(", column ")
    return Problem(file, int(line), f"{cause[:1].lower()}{cause[1:]} (column {column})")


def _fault(key: str, value: object) -> str:
    """What is wrong with one key, or ""."""
    if key in {"root", "bindir"}:
        return "" if _is_path(value) else f"{key} is no path, allowed: an absolute path without .."
    if key in {"picker", "interface"}:
        return "" if isinstance(value, str) and value else f"{key} is no text, allowed: a word"
    if key == "profiles":
        words = value if isinstance(value, list) else [None]
        good = all(isinstance(word, str) and word for word in words)
        return "" if good else 'profiles is no list of names, allowed: as in ["base", "login"]'
    if key == "allow_host":
        return "" if isinstance(value, bool) else "allow_host is no flag, allowed: true or false"
    if key == "services":  # read by who runs them
        return "" if isinstance(value, list) else "services is no list, allowed: [[services]]"
    return _unknown(key)


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        return False
    return ".." not in value.split("/")


def _unknown(key: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, _KEYS, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"unknown key {key!r}, allowed: {', '.join(_KEYS)}{hint}"
