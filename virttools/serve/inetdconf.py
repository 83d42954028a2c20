"""Reads /etc/inetd.conf as openbsd-inetd does (inetd(8)), and what it guesses at or skips, refuses by file and line."""

import os
import socket
from dataclasses import dataclass
from enum import StrEnum

from virttools.errors import ConfigError, Problem
from virttools.serve import conffile
from virttools.serve.routes import pack

SERVICES = "/etc/services"
HOST_RULES = ("/etc/hosts.allow", "/etc/hosts.deny")
INTERNAL = ("echo", "discard", "daytime", "time", "chargen")
DEFAULT_MAX = 256
"""Starts a minute before openbsd-inetd stops a service, where its line says no `.max`."""

_LONGEST_LINE = 1023  # what inetd's fgets(3) takes at once
_FAMILIES = {
    "": (socket.AF_INET, socket.AF_INET6),
    "4": (socket.AF_INET,),
    "6": (socket.AF_INET6,),
    "46": (socket.AF_INET6,),
}
_PROTOCOLS = {
    "stream": ("tcp", "tcp4", "tcp6", "tcp46", "unix"),
    "dgram": ("udp", "udp4", "udp6", "udp46", "unix"),
}
_HIGHEST_PORT = 65535


class Kind(StrEnum):
    STREAM = "stream"
    DGRAM = "dgram"


@dataclass(frozen=True, slots=True)
class Virtuald:
    """What a line that runs virtuald asks for: its routes file, and the program with its arguments.

    user: of the tree, or None for the line's own.
    """

    conf: str
    argv: tuple[str, ...]
    is_verbose: bool
    user: str | None = None
    is_chroot: bool = False


@dataclass(frozen=True, slots=True)
class Bind:
    """A socket to listen on. is_mapped: IPv6 that takes IPv4 clients too (`tcp46`)."""

    family: int
    address: str
    is_mapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One service of inetd.conf. port is None for `unix`, whose name is the socket's path.

    hosts: where it listens, `*` for everywhere. max: starts a minute, then ten minutes of rest.
    virtuald: what the line asks of it, or None where it runs another program.
    """

    file: str
    line: int
    name: str
    port: int | None
    kind: Kind
    protocol: str
    hosts: tuple[str, ...]
    is_wait: bool
    max: int
    user: str
    group: str | None
    program: str
    argv: tuple[str, ...]
    sndbuf: int | None = None
    rcvbuf: int | None = None
    is_tcpd: bool = False
    virtuald: Virtuald | None = None

    @property
    def is_internal(self) -> bool:
        return self.program == "internal"

    @property
    def label(self) -> str:
        """What tells it from the other lines: `ftp`, `echo/udp`, `127.0.0.1:ftp`, `ftp/tcp6`."""
        told = self.name if self.protocol == "tcp" else f"{self.name}/{self.protocol}"
        return told if self.hosts == ("*",) else f"{','.join(self.hosts)}:{told}"


Ports = dict[tuple[str, str], int]
"""The ports of services(5), by (name or alias, protocol)."""


def load(path: str, *, services: str = SERVICES) -> tuple[Entry, ...]:
    """The services of an inetd.conf. Raises ConfigError, with every wrong line."""
    text, numbers = (_decode(conffile.read(name)[0]) for name in (path, services))
    entries, problems = parse(text, path, read_services(numbers))
    if problems:
        raise ConfigError(
            f"cannot use {path} as it is",
            problems=problems,
            hint="inetd would skip these lines or guess; # at their beginning leaves them out",
        )
    return entries


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def read_services(text: str) -> Ports:
    """The ports of services(5); of two lines for a name, the first counts, as in getservbyname(3)."""
    ports: Ports = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        number, _, protocol = words[1].partition("/")
        if number.isascii() and number.isdigit() and int(number) <= _HIGHEST_PORT:
            for name in (words[0], *words[2:]):
                ports.setdefault((name, protocol), int(number))
    return ports


def parse(text: str, file: str, ports: Ports) -> tuple[tuple[Entry, ...], tuple[Problem, ...]]:
    """The services of text, and every fault in it with its line."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    hosts = "*"
    for number, words in _entries(text, file, problems):
        host, is_given, rest = _split_host(words[0])
        if is_given and not rest and len(words) == 1:
            hosts = host
            continue
        try:
            fields = [rest, *words[1:]] if rest else words[1:]
            entries.append(_entry(fields, host if is_given else hosts, file, number, ports))
        except ValueError as error:
            problems.append(Problem(file, number, str(error)))
    problems.extend(_repeated(entries))
    return tuple(entries), tuple(sorted(problems, key=lambda problem: problem.line))


def _entries(text: str, file: str, problems: list[Problem]) -> list[tuple[int, list[str]]]:
    """The words of each entry: a line, and the lines after it that begin with a blank."""
    found: list[tuple[int, list[str]]] = []
    is_open = False
    for number, line in enumerate(text.split("\n"), 1):
        if len(line.encode("utf-8", "surrogateescape")) > _LONGEST_LINE:
            problems.append(Problem(file, number, f"a line of more than {_LONGEST_LINE} bytes"))
            is_open = False
            continue
        words = line.replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if is_open and line[:1] in (" ", "\t"):
            found[-1][1].extend(words)
            continue
        is_open = not line.startswith("#")
        if is_open:
            found.append((number, words))
    return [(number, words) for number, words in found if words]


def _split_host(word: str) -> tuple[str, bool, str]:
    """`host:service`: the host, whether one is given, the service; `[::1]:ftp` for IPv6."""
    host, colon, service = word.rpartition(":")
    if not colon:
        return "", False, word
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host or "*", True, service


def _entry(words: list[str], hosts: str, file: str, line: int, ports: Ports) -> Entry:
    if "\\" in words:
        raise ValueError(
            "`\\` joins no lines here: a line that begins with a blank goes on by itself"
        )
    if len(words) < 6:
        raise ValueError(
            "not `SERVICE stream|dgram PROTOCOL wait|nowait USER PROGRAM [ARGUMENT]...`"
        )
    name, kind, protocol, wait, owner, program = words[:6]
    protocol, sizes = _protocol(kind, protocol)
    is_wait, most = _wait(wait)
    user, group = _owner(owner)
    argv = tuple(words[6:]) or (program.rpartition("/")[2],)
    if program == "internal":
        is_wait = _internal(name, kind, protocol, argv)
    elif not program.startswith("/"):
        raise ValueError(f"not an absolute path: {program!r}")
    return Entry(
        file=file,
        line=line,
        name=name,
        port=None if protocol == "unix" else _port(name, protocol, ports),
        kind=Kind(kind),
        protocol=protocol,
        hosts=_hosts(hosts),
        is_wait=is_wait,
        max=most,
        user=user,
        group=group,
        program=program,
        argv=argv,
        sndbuf=sizes.get("sndbuf"),
        rcvbuf=sizes.get("rcvbuf"),
        is_tcpd=_base(program) == "tcpd",
        virtuald=_virtuald(program, argv),
    )


def _protocol(kind: str, text: str) -> tuple[str, dict[str, int]]:
    protocol, *options = text.split(",")
    allowed = _PROTOCOLS.get(kind)
    if allowed is None:
        raise ValueError(f"neither `stream` nor `dgram`: {kind!r}")
    if protocol.startswith("rpc/"):
        raise ValueError("rpc services are not served")
    if protocol not in allowed:
        raise ValueError(f"not a protocol of a {kind} service: {protocol!r}; {', '.join(allowed)}")
    sizes: dict[str, int] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in ("sndbuf", "rcvbuf") or key in sizes:
            raise ValueError(f"neither sndbuf=SIZE nor rcvbuf=SIZE: {option!r}")
        sizes[key] = _size(value)
    return protocol, sizes


def _size(text: str) -> int:
    digits, factor = text, 1
    if text[-1:] in ("k", "m"):
        digits, factor = text[:-1], {"k": 1024, "m": 1024 * 1024}[text[-1]]
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) * factor < 2**31:
        raise ValueError(f"not a buffer size: {text!r}")
    return int(digits) * factor


def _wait(text: str) -> tuple[bool, int]:
    word, dot, most = text.partition(".")
    if word not in ("wait", "nowait"):
        raise ValueError(f"neither `wait` nor `nowait`: {text!r}")
    if not dot:
        return word == "wait", DEFAULT_MAX
    if not (most.isascii() and most.isdigit()) or int(most) < 1:
        raise ValueError(f"not a number of starts a minute: {text!r}")
    return word == "wait", int(most)


def _owner(text: str) -> tuple[str, str | None]:
    mark = "." if "." in text else ":"
    user, found, group = text.partition(mark)
    if not user or (found and not group):
        raise ValueError(f"not USER or USER.GROUP: {text!r}")
    return user, group or None


def _internal(name: str, kind: str, protocol: str, argv: tuple[str, ...]) -> bool:
    if name not in INTERNAL:
        raise ValueError(f"no internal service: {name!r}; there are {', '.join(INTERNAL)}")
    if protocol == "unix":
        raise ValueError("an internal service is no `unix` one")
    if argv != ("internal",):
        raise ValueError(
            "an internal service with arguments; does a line after it begin with a blank?"
        )
    return kind == Kind.DGRAM


def _port(name: str, protocol: str, ports: Ports) -> int:
    if name.isascii() and name.isdigit():
        number = int(name)
        if not 1 <= number <= _HIGHEST_PORT:
            raise ValueError(f"not a port: {name}")
        return number
    found = ports.get((name, protocol[:3]))
    if not found:
        raise ValueError(f"unknown service: {name}/{protocol[:3]} is not in {SERVICES}")
    return found


def _hosts(text: str) -> tuple[str, ...]:
    found = tuple(host for host in text.split(",") if host)
    if not found:
        raise ValueError(f"no address before the service: {text!r}")
    return found


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _virtuald(program: str, argv: tuple[str, ...]) -> Virtuald | None:
    """What virtuald is asked, started by itself, as `virt virtuald`, or by tcpd, which runs its argv[0]."""
    words = list(argv[1:])
    name = _base(program)
    if name == "tcpd":
        name = _base(argv[0])
    if name == "virt" and words[:1] == ["virtuald"]:
        name = words.pop(0)
    if name != "virtuald":
        return None
    is_verbose = is_chroot = False
    user = None
    while words[:1] and words[0] in {"-v", "--verbose", "--chroot", "-u", "--user"}:
        word = words.pop(0)
        is_verbose |= word in {"-v", "--verbose"}
        is_chroot |= word == "--chroot"
        if word in {"-u", "--user"} and words:
            user = words.pop(0)
    if len(words) < 2 or words[0].startswith("-"):
        raise ValueError("virtuald without CONF PROGRAM [ARGUMENT]...")
    return Virtuald(words[0], tuple(words[1:]), is_verbose, user, is_chroot)


def _repeated(entries: list[Entry]) -> list[Problem]:
    """Of two lines for one service inetd takes the later, which nobody who reads the first will see."""
    seen: dict[tuple[str, str, str], Entry] = {}
    problems = []
    for entry in entries:
        for host in entry.hosts:
            first = seen.setdefault((entry.name, entry.protocol, host), entry)
            if first is not entry:
                again = f"{entry.name}/{entry.protocol} again: line {first.line} has it"
                problems.append(Problem(entry.file, entry.line, again))
    return problems


def binds(entry: Entry) -> tuple[Bind, ...]:
    """The sockets an entry listens on; names are looked up. Raises ConfigError where one has no address.

    `tcp` listens on IPv4 and IPv6, each for itself; `tcp46` on IPv6 for both.
    """
    families = _FAMILIES[entry.protocol[3:]]
    found = []
    for host in entry.hosts:
        if host == "*":
            everywhere = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104  what `*` asks for
            addresses = [(int(family), everywhere[family]) for family in families]
        else:
            addresses = _look_up(entry, host, families)
        found += [
            Bind(family, address, entry.protocol.endswith("46")) for family, address in addresses
        ]
    return tuple(dict.fromkeys(found))


def socket_options(entry: Entry, bind: Bind) -> tuple[tuple[int, int, int], ...]:
    """What setsockopt(2) is told before the socket listens."""
    options = [(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)] if bind.is_mapped else []
    if entry.sndbuf:
        options.append((socket.SOL_SOCKET, socket.SO_SNDBUF, entry.sndbuf))
    if entry.rcvbuf:
        options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, entry.rcvbuf))
    return tuple(options)


def has_host_rules(files: tuple[str, ...] = HOST_RULES) -> bool:
    """Whether tcpd would ask anything: a file of hosts_access(5) has a line, or cannot be read."""
    for file in files:
        try:
            text = _decode(conffile.read(file, patience=0)[0])
        except ConfigError:
            if os.path.lexists(file):
                return True
            continue
        if any(line.strip() and not line.startswith("#") for line in text.splitlines()):
            return True
    return False


def _look_up(
    entry: Entry, host: str, families: tuple[socket.AddressFamily, ...]
) -> list[tuple[int, str]]:
    packed = pack(host) if ":" not in host else None
    try:
        told = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST if packed else 0)
    except OSError as error:
        told = []
        cause = error.strerror
    else:
        cause = f"it has no address that {entry.protocol} listens on"
    found = [(int(family), str(name[0])) for family, _, _, _, name in told if family in families]
    if not found:
        raise ConfigError(f"cannot listen on {host} ({entry.file}:{entry.line}): {cause}")
    return list(dict.fromkeys(found))
