"""Reads templates: a site's own in /etc/virttools/templates win over the shipped ones."""

import importlib.resources
import os

from virttools.errors import HostLacks

SITE = "/etc/virttools/templates"


def text(name: str, *, site: str = SITE) -> str:
    """The template of that name, or at that absolute host path.

    Raises HostLacks where there is none, or it is not readable UTF-8 text.
    """
    try:
        if name.startswith("/"):
            return _file(name)
        own = os.path.join(site, name)
        if os.path.exists(own):
            return _file(own)
        shipped = importlib.resources.files("virttools") / "templates" / name
        return shipped.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise HostLacks(
            f"cannot read template {name}: {cause}",
            hint=f"put it into {site}, or give its absolute path",
        ) from error


def _file(path: str) -> str:
    # O_NONBLOCK: a fifo in its place must not hang us.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8") as file:
        return file.read()
