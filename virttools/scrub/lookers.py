"""Reads inside files for the operations that paths alone can't decide; each yields what it would mend."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from virttools.host.facts import Kind
from virttools.scrub import shapes
from virttools.scrub.findings import Context, Deed, Finding, line_digest, printable
from virttools.scrub.globs import translate
from virttools.scrub.inspection import Inspector
from virttools.scrub.neighbours import Neighbours, words, words_of_path
from virttools.scrub.view import View, ViewFile, read
from virttools.tree.paths import Links


@dataclass(frozen=True)
class Scene:
    """A tree as the lookers see it."""

    view: View
    context: Context
    inspector: Inspector
    neighbours: Neighbours

    @cached_property
    def files(self) -> dict[str, ViewFile]:
        return {file.path: file for file in self.view.entries()}

    def text(self, path: str) -> bytes:
        """What a regular file says; nothing where there is none."""
        file = self.files.get(path)
        return read(self.view, path) if file is not None and _has_content(file) else b""

    @cached_property
    def homes(self) -> frozenset[str]:
        """The homes of the tree's own passwd, through its own links."""
        links = Links()
        for file in self.view.entries():
            if file.target is not None:
                links.add(file.path, file.target)
        rows = self.text("etc/passwd").split(b"\n")
        named = {row[5] for line in rows if len(row := line.split(b":")) > 6}
        return frozenset(links.canonical(home.decode("utf-8", "surrogateescape")) for home in named)


def _has_content(file: ViewFile) -> bool:
    return file.kind is Kind.FILE and file.size > 0


def _line(operation: str, path: str, line: tuple[int, bytes], deed: Deed, what: str) -> Finding:
    number, text = line
    return Finding(operation, f"/{path}", number, deed, what, line_digest(text))


_ACCOUNTS = re.compile(
    r"(?:[\s\S]*/)?etc/(?:passwd|shadow|group|gshadow)|var/lib/extrausers/[a-z]+"
)
_OPEN = frozenset(("passwd", "shadow"))
"""Where an empty field lets everybody in; in group(5) and gshadow(5) it lets nobody."""


def password_hashes(scene: Scene) -> Iterator[Finding]:
    """Fields of the account files that hold a hash, locked or not, or nothing where that opens the door."""
    for path in _named(scene, _ACCOUNTS):
        yield from passwords(scene, path)


def is_accounts(path: str) -> bool:
    return _ACCOUNTS.fullmatch(path) is not None


def passwords(scene: Scene, path: str) -> Iterator[Finding]:
    """The lines of one account file that password_hashes means."""
    kind = path.rpartition("/")[2]
    for number, line in enumerate(scene.text(path).split(b"\n"), 1):
        what = _password(line, scene.context, may_be_empty=kind not in _OPEN)
        if what is not None:
            yield _line("password-hashes", path, (number, line), Deed.LOCK, what)


def _password(line: bytes, context: Context, *, may_be_empty: bool) -> str | None:
    """What is wrong with the password field of a line, if something is."""
    name, _, rest = line.partition(b":")
    if not rest or line.startswith((b"+", b"-", b"#")):  # NIS's additions, comments
        return None
    field = rest.partition(b":")[0]
    bare = shapes.locked_off(field)
    declared = {field.decode("latin-1"), bare.decode("latin-1")} & context.kept_hashes
    shown = printable(name.decode("utf-8", "surrogateescape"))
    if shapes.HASH_LIKE.fullmatch(bare) and not declared:
        return f"password hash of {shown}"
    if not field and not may_be_empty and "" not in context.kept_hashes:
        return f"empty password of {shown}"
    return None


_KEY_FILE = re.compile(
    r"[\s\S]*(?:\.(?:key|pem|priv|pk8|ppk)"
    r"|/(?:privkey[^/]*|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?|identity|[^/]*_rsa|[^/]*_ed25519))"
)
_KEY_OPERATIONS = frozenset((shapes.TLS, shapes.SSH))


def private_keys(scene: Scene) -> Iterator[Finding]:
    """Key files, wherever they are, that hold a private key which is not in a package for all to see."""
    for path in _named(scene, _KEY_FILE):
        file = scene.files[path]
        found = [
            secret.what
            for secret in scene.inspector.secrets(file)
            if secret.operation in _KEY_OPERATIONS
        ]
        if found and not scene.inspector.is_public(file):
            yield Finding("tls-private-keys", f"/{path}", None, Deed.REMOVE, found[0])


_CORE = re.compile(r"(?:[\s\S]*/)?(?:core(?:\.[0-9]+)?|[^/]*\.core)")
_ET_CORE = 4
_E_TYPE = slice(16, 18)


def core_files(scene: Scene) -> Iterator[Finding]:
    """Files that are called core, or something.core, and are one by their ELF header (elf(5))."""
    for path in _named(scene, _CORE):
        head = next(scene.view.windows(path), b"")[: _E_TYPE.stop]
        if head.startswith(b"\x7fELF") and _is_core(head):
            yield Finding("crash-data", f"/{path}", None, Deed.REMOVE, "core dump")


def _is_core(head: bytes) -> bool:
    """By e_type, which EI_DATA gives the byte order of."""
    return int.from_bytes(head[_E_TYPE], "big" if head[5:6] == b"\x02" else "little") == _ET_CORE


_LISTS = (
    *("etc/hosts", "etc/hosts.allow", "etc/hosts.deny", "etc/hosts.equiv", "etc/hosts.lpd"),
    *("etc/shosts.equiv", "etc/hostname", "etc/HOSTNAME", "etc/mailname", "etc/mailhostname"),
    *("etc/resolv.conf", "etc/networks", "etc/ethers", "etc/exports", "etc/ftphosts"),
    *("etc/sendmail.cw", "etc/mail/*", "etc/domainname", "etc/nodename", "etc/qmail/*"),
    *("etc/aliases", "etc/postfix/relay_domains", "etc/postfix/virtual*", "etc/postfix/vhosts"),
    *(
        "etc/postfix/transport",
        "etc/postfix/mydomains",
        "etc/postfix/canonical",
        "etc/localdomains",
    ),
    *("etc/postfix/relocated", "etc/postfix/generic", "etc/exim4/*hosts*", "etc/exim4/*domains*"),
    *("etc/ssh/ssh_known_hosts*", "var/qmail/control/*", "home/*/.rhosts", "home/*/*/.rhosts"),
    *("root/.rhosts", "root/.shosts", "home/*/.shosts", "etc/X0.hosts", "etc/ftpusers"),
)
_HOST_LIST = re.compile("|".join(translate(glob) for glob in _LISTS))
"""Files in which a line is about a host, and means nothing without it."""


def other_domains(scene: Scene) -> Iterator[Finding]:
    """Lines of host lists, file names and link targets that name another domain, its address, or the host."""
    for path in _named(scene, _HOST_LIST):
        if not scene.inspector.is_pristine(scene.files[path]):
            yield from _naming_lines(scene, path)
    for file in scene.view.entries():
        what = named_by(file, scene.neighbours)
        if what is not None and not scene.inspector.is_pristine(file):
            yield Finding("other-domains", f"/{file.path}", None, Deed.REMOVE, what)


def named_by(file: ViewFile, neighbours: Neighbours) -> str | None:
    """What the name of a file, or the target of a link, gives away."""
    base = file.path.rpartition("/")[2]
    named = neighbours.named(words_of_path(base)) if "." in base or ":" in base else None
    if named is not None:
        return f"its name is that of {named}"
    if file.target is None:
        return None
    named = neighbours.named(words_of_path(file.target))
    return None if named is None else f"it points to something of {named}"


def _naming_lines(scene: Scene, path: str) -> Iterator[Finding]:
    text = scene.text(path)
    if scene.neighbours.named(words(text, bare=True)) is None:
        return
    for number, line in enumerate(text.split(b"\n"), 1):
        name = scene.neighbours.named(words(line, bare=True))
        if name is not None:
            yield _line("other-domains", path, (number, line), Deed.DROP, f"names {name}")


_PEOPLE = range(1000, 60000)
"""login.defs(5): UID_MIN to UID_MAX, less those that Debian keeps for itself."""
_BY_NAME = ("etc/shadow", "etc/subuid", "etc/subgid")


def people(scene: Scene) -> Iterator[Finding]:
    """The lines of accounts and groups that are people's, and their homes."""
    rows = _rows(scene, "etc/passwd")
    names = {row[0] for _, row in rows}
    yield from _account_lines(rows, "etc/passwd")
    yield from _account_lines(_rows(scene, "etc/group"), "etc/group")
    for path in _BY_NAME:
        yield from _account_lines(_rows(scene, path, names), path)
    groups = {row[0] for _, row in _rows(scene, "etc/group")}
    yield from _account_lines(_rows(scene, "etc/gshadow", groups), "etc/gshadow")
    for home in sorted({_home(row) for _, row in rows}):
        if home.startswith("home/") and home in scene.files:
            yield Finding("user-account", f"/{home}", None, Deed.REMOVE, "home of an account")


_Row = tuple[tuple[int, bytes], list[bytes]]


def _rows(scene: Scene, path: str, names: set[bytes] | None = None) -> list[_Row]:
    """The numbered lines of an account file that are people's: by name, or else by number."""
    found: list[_Row] = []
    for number, line in enumerate(scene.text(path).split(b"\n"), 1):
        row = line.split(b":")
        theirs = row[0] in names if names is not None else _is_person(row)
        if len(row) > 2 and theirs:
            found.append(((number, line), row))
    return found


def _is_person(row: list[bytes]) -> bool:
    return len(row) > 2 and row[2].isdigit() and len(row[2]) < 11 and int(row[2]) in _PEOPLE


def _account_lines(rows: list[_Row], path: str) -> Iterator[Finding]:
    for line, row in rows:
        shown = printable(row[0].decode("utf-8", "surrogateescape"))
        yield _line("user-account", path, line, Deed.DROP, f"account {shown}")


def _home(row: list[bytes]) -> str:
    path = row[5].decode("utf-8", "surrogateescape") if len(row) > 5 else ""
    return path.strip("/")


def _named(scene: Scene, pattern: re.Pattern[str]) -> list[str]:
    """The regular files with content whose path matches."""
    return [
        file.path
        for file in scene.view.entries()
        if _has_content(file) and pattern.fullmatch(file.path)
    ]


LOOKERS: Mapping[str, Callable[[Scene], Iterator[Finding]]] = {
    "crash-data": core_files,
    "other-domains": other_domains,
    "password-hashes": password_hashes,
    "tls-private-keys": private_keys,
    "user-account": people,
}
"""One for each operation that looks inside."""
