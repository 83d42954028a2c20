"""Decides which domain a command is for: said, found in a file, the only one there is, or picked."""

import os

from virttools.enter import history, inside
from virttools.errors import EnterError, UsageError
from virttools.settings import Settings


def domain(settings: Settings, asked: "str | None", command: str) -> str:
    """The domain: asked, else VIRT_DOMAIN, else `.virt-domain`, else the only one, else picked.

    Remembers it for the command. Raises UsageError where a question is needed and there is no
    terminal, EnterError where there is no domain at all, KeyboardInterrupt where it was cancelled.
    """
    said = asked if asked is not None else os.environ.get("VIRT_DOMAIN") or None
    found = _marked(settings.root) if said is None else normal(said)
    found = found or _pick(settings, command)
    history.remember(settings.root, command, found)
    return found


def normal(name: str) -> str:
    """A domain's name as its folder has it. Raises EnterError, BadName where it can be none."""
    plain = name.lower().removesuffix(".")
    if not plain.isascii():
        import site

        site.main()  # the fast way starts without (-S); idna is no part of the standard library
        from virttools.manifest import names

        return names.domain(name)
    if not inside.is_domain(plain):
        shown = name if name.isprintable() else ascii(name)
        raise EnterError(
            f"cannot enter {shown!r}: it is no domain name", hint="`virt list` names the domains"
        )
    return plain


def _marked(root: str) -> "str | None":
    from virttools.enter import marker

    found = marker.find(root, os.environ)
    if found is None:
        return None
    name = normal(found.domain)
    if not os.path.isdir(f"{root}/{name}"):
        raise EnterError(
            f"cannot enter {name}, which {found.path} names: there is no such domain in {root}",
            hint="change that file, or say --domain",
        )
    return name


def _pick(settings: Settings, command: str) -> str:
    there = tuple(inside.domains(settings.root))
    if command in there and "." in command:  # `virt exec domain1.com id`
        raise EnterError(
            f"cannot run {command}: it is a domain",
            hint=f"virt exec --domain {command} -- COMMAND",
        )
    if not there:
        raise EnterError(
            f"cannot choose a domain: {settings.root} holds none",
            hint="`virt create DOMAIN` makes one",
        )
    if len(there) == 1:
        return there[0]
    try:
        tty_fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _no_terminal(there) from error
    try:
        from virttools.enter import picker

        return picker.pick(tty_fd, settings, there, command)
    finally:
        os.close(tty_fd)


def _no_terminal(there: "tuple[str, ...]") -> UsageError:
    return UsageError(
        "cannot choose a domain: there are several:\n" + "\n".join(there),
        hint="name one by --domain or VIRT_DOMAIN",
    )
