"""Values: the files of a tree that are rendered from templates, and its homes.

Pure: the templates come in by `facts.templates`. templates/README.md lists what they may use.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import is_
from pathlib import PurePosixPath
from string import ascii_lowercase
from typing import Final

from virttools.errors import BadName, ManifestError, Problem
from virttools.host.facts import Facts, HostEntry, Kind
from virttools.manifest.model import HomeLayout, Manifest, Origin, Symlink, Template
from virttools.tree.accounts import Accounts, NumberedUser, number
from virttools.tree.rendering import Render, compiled

SKEL = PurePosixPath("/etc/skel")
"""What lies here goes into every new home, as useradd(8) does it."""

ZONES: Final = PurePosixPath("/usr/share/zoneinfo")

_SECRET: Final = frozenset({"shadow", "gshadow"})
_FROM_HOST: Final = frozenset({"localtime"})
"""Names of the skeleton that are no template: the survey brings the zone and the link to it."""

_KNOWN_SHELLS: Final = ("sh", "bash", "dash", "rbash", "zsh", "ksh", "mksh", "tcsh", "csh", "fish")
_BIN: Final = ("/bin", "/usr/bin")
_OWN_WORDS: Final = ("domain", "hostname", "fqdn", "addresses")
"""The words of the context that differ between domains of one manifest."""

_NUMBERED: Final = ("users", "groups", "uid_base")
"""Those that differ between domains whose ids do."""

_OF_THE_DOMAIN: Final = re.compile(rf"\b(?:{'|'.join(_OWN_WORDS)})\b")
_OF_NUMBERS: Final = re.compile(rf"\b(?:{'|'.join(_NUMBERED)})\b")

_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonFile:
    """A file with a text of ours. path: absolute, in the tree; source: the template's name."""

    path: str
    content: bytes
    mode: int
    owner: str
    group: str
    source: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeDirectory:
    """A home, a folder copied into one from /etc/skel, or a letter's folder in /home."""

    path: str
    mode: int
    uid: int
    gid: int
    origin: Origin


def files(
    domain: str, manifest: Manifest, facts: Facts, accounts: Accounts | None = None
) -> tuple[SkeletonFile, ...]:
    """Every file that templates fill: of `etc.skeleton`, of `templates`, and of /etc/skel in homes.

    domain: its A-labels, lower case. A template of the manifest takes the place of a skeleton file
    of the same path. What depends neither on the domain nor on its numbers is rendered once and kept.
    accounts: what `number` says of the manifest, where that is known.
    Raises BadName for what is no domain name; ManifestError with every template at fault.
    """
    if not _DOMAIN.fullmatch(domain):
        raise BadName(f"cannot write the files of {domain!r}: it is no domain name")
    common = _common(_Shared(manifest, facts))
    accounts = number(manifest) if accounts is None else accounts
    own = {**_own(domain, manifest), **_numbers(accounts)}
    is_moved = accounts.uid_base != common.uid_base
    return tuple(
        file if render is None else replace(file, content=render(own))
        for file, render in (common.moved if is_moved else common.files)
    )


def places(manifest: Manifest, facts: Facts) -> tuple[SkeletonFile, ...]:
    """The same files, but with no text where that depends on the domain."""
    return tuple(file for file, _ in _common(_Shared(manifest, facts)).files)


def links(manifest: Manifest, facts: Facts) -> tuple[Symlink, ...]:
    """The links of the skeleton: /etc/localtime to its zone, where the host has that (else UTC)."""
    zone = ZONES / _timezone(manifest, facts)
    if "localtime" not in manifest.etc.skeleton or all(zone != it.path for it in facts.entries):
        return ()
    key = f"etc.skeleton[{manifest.etc.skeleton.index('localtime')}]"
    origin = dict(manifest.origins).get(key, Origin(key, 0))
    return (Symlink(PurePosixPath("/etc/localtime"), str(zone), origin),)


def homes(manifest: Manifest, accounts: Accounts) -> tuple[HomeDirectory, ...]:
    """The homes of declared users that want one, with the folders of /etc/skel; parents first."""
    found = {home.path: home for home in _letters(manifest)}
    for user in _with_homes(accounts):
        wanted = [(user.home, manifest.home.mode)]
        wanted += [
            (f"{user.home}/{directory.path.relative_to(SKEL)}", directory.mode)
            for directory in manifest.directories
            if SKEL in directory.path.parents
        ]
        for path, mode in wanted:
            found[path] = HomeDirectory(
                path=path, mode=mode, uid=user.uid, gid=user.gid, origin=user.origin
            )
    return tuple(found[path] for path in sorted(found))


def copies(accounts: Accounts, facts: Facts) -> tuple[HostEntry, ...]:
    """What host files in /etc/skel bring into homes: the same entries, owned by each user."""
    skel = [entry for entry in facts.entries if SKEL in entry.path.parents]
    return tuple(
        replace(
            entry,
            path=PurePosixPath(user.home) / entry.path.relative_to(SKEL),
            owner=user.name,
            group=user.group,
            explicit=False,
            why=replace(entry.why, rule="skel", by=entry.path),
        )
        for user in _with_homes(accounts)
        for entry in skel
    )


def _with_homes(accounts: Accounts) -> Iterator[NumberedUser]:
    return (user for user in accounts.users if user.create_home and user.home != "/")


def _letters(manifest: Manifest) -> Iterator[HomeDirectory]:
    if manifest.home.layout is not HomeLayout.LETTERS:
        return
    origin = dict(manifest.origins).get("home.layout", Origin("home.layout", 0))
    for letter in ascii_lowercase:
        yield HomeDirectory(path=f"/home/{letter}", mode=0o755, uid=0, gid=0, origin=origin)


def _own(domain: str, manifest: Manifest) -> dict[str, object]:
    """The part of the context that is a domain's own."""
    asked = manifest.etc.hostname
    if asked is None:
        fqdn = domain
    elif "." in asked:
        fqdn = asked
    else:
        fqdn = f"{asked}.{domain}"
    values = (domain, fqdn.partition(".")[0], fqdn, manifest.addresses)
    return dict(zip(_OWN_WORDS, values, strict=True))


@dataclass(frozen=True, slots=True)
class _Common:
    """What the domains of one manifest share, with this `uid_base` and with others; None: the file is finished."""

    uid_base: int
    files: tuple[tuple[SkeletonFile, Render | None], ...]
    moved: tuple[tuple[SkeletonFile, Render | None], ...]


class _Shared:
    """What `_Common` depends on. Compared by identity: a thousand domains must not hash it all."""

    __slots__ = ("facts", "manifest", "parts")

    def __init__(self, manifest: Manifest, facts: Facts) -> None:
        self.manifest = manifest
        self.facts = facts
        self.parts = (
            manifest.users,
            manifest.groups,
            manifest.templates,
            manifest.etc,
            manifest.home,
            facts,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shared) and all(map(is_, self.parts, other.parts))

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.parts)))


@lru_cache(maxsize=4)
def _common(shared: _Shared) -> _Common:
    manifest, facts = shared.manifest, shared.facts
    accounts = number(manifest)
    context = _context(manifest, facts, accounts)
    texts = dict(facts.templates)
    found: dict[str, _Prepared] = {}
    problems: list[Problem] = []
    for file in _wanted(manifest, accounts):
        try:
            found[file.path] = _prepared(file, texts[file.source], context)
        except ManifestError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ManifestError(
            f"cannot write the files of a tree: {_count(problems)}", problems=tuple(problems)
        )
    made = [found[path] for path in sorted(found)]
    return _Common(
        accounts.uid_base,
        files=tuple((one.file, one.render if one.is_own else None) for one in made),
        moved=tuple((one.file, one.render) for one in made),
    )


def _count(problems: Sequence[Problem]) -> str:
    return "1 template is wrong" if len(problems) == 1 else f"{len(problems)} templates are wrong"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A file, with its text unless that is each domain's own; render: what writes it for a domain, or numbers."""

    file: SkeletonFile
    render: Render | None
    is_own: bool


def _prepared(file: SkeletonFile, text: str, context: Mapping[str, object]) -> _Prepared:
    written = compiled(file.source, text, (*_OWN_WORDS, *context))

    def render(own: Mapping[str, object]) -> bytes:
        return written({**context, **own})

    if _OF_THE_DOMAIN.search(text):
        return _Prepared(file, render, is_own=True)
    file = replace(file, content=written(context))
    return _Prepared(file, render if _OF_NUMBERS.search(text) else None, is_own=False)


def _wanted(manifest: Manifest, accounts: Accounts) -> Iterator[SkeletonFile]:
    """The files, still empty; of two at one path the later holds."""
    for user in _with_homes(accounts):
        yield from _from_skel(user, manifest.templates)
    yield from _of_etc(manifest, accounts)
    for template in manifest.templates:
        yield _empty(
            str(template.target),
            (template.mode, template.owner, template.group),
            template.source,
            template.origin,
        )


def _from_skel(user: NumberedUser, templates: Iterable[Template]) -> Iterator[SkeletonFile]:
    for template in templates:
        if SKEL in template.target.parents:
            path = f"{user.home}/{template.target.relative_to(SKEL)}"
            rights = (template.mode, user.name, user.group)
            yield _empty(path, rights, template.source, user.origin)


def _of_etc(manifest: Manifest, accounts: Accounts) -> Iterator[SkeletonFile]:
    origins = dict(manifest.origins)
    readers = "shadow" if accounts.gid_of("shadow", -1) >= 0 else "root"
    for index, name in enumerate(manifest.etc.skeleton):
        if name not in _FROM_HOST:
            key = f"etc.skeleton[{index}]"
            rights = (0o640, "root", readers) if name in _SECRET else (0o644, "root", "root")
            yield _empty(f"/etc/{name}", rights, f"etc/{name}.j2", origins.get(key, Origin(key, 0)))


def _empty(path: str, rights: tuple[int, str, str], source: str, origin: Origin) -> SkeletonFile:
    mode, owner, group = rights
    return SkeletonFile(
        path=path,
        content=b"",
        mode=mode,
        owner=owner,
        group=group,
        source=source,
        origin=origin,
    )


def _context(manifest: Manifest, facts: Facts, accounts: Accounts) -> dict[str, object]:
    """The part of the context that all domains of a manifest share."""
    etc = manifest.etc
    return {
        **_numbers(accounts),
        "home": manifest.home,
        "nameservers": etc.nameservers or facts.nameservers,
        "search": etc.search,
        "timezone": _timezone(manifest, facts),
        "motd": etc.motd or "",
        "shells": _shells(facts),
    }


def _numbers(accounts: Accounts) -> dict[str, object]:
    values = (accounts.users, accounts.groups, accounts.uid_base)
    return dict(zip(_NUMBERED, values, strict=True))


def _timezone(manifest: Manifest, facts: Facts) -> str:
    asked = manifest.etc.timezone
    return facts.timezone if asked == "host" else asked


def _shells(facts: Facts) -> tuple[str, ...]:
    """The login shells among the tree's programs, by both names that merged /usr gives them."""
    there = {
        entry.path.name
        for entry in facts.entries
        if entry.kind is not Kind.DIRECTORY and str(entry.path.parent) in _BIN
    }
    return tuple(
        f"{folder}/{shell}" for shell in _KNOWN_SHELLS if shell in there for folder in _BIN
    )
