"""Finds and reads manifest files: profiles by name, a site's own first, and others by path."""

import os
import stat

from virttools.errors import ManifestError
from virttools.manifest import forms
from virttools.manifest.model import Layer
from virttools.manifest.names import UnfitError, quoted

SITE = "/etc/virttools/profiles"
LARGEST = 1 << 20
_SHIPPED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "profiles")
_SUFFIX = ".toml"


def find(name: str, *, site: str = SITE) -> Layer:
    """The profile of that name. Raises ManifestError where there is none, or it can't be read.

    A shipped one is called profiles/NAME.toml, wherever it is installed.
    """
    try:
        forms.PROFILE.check(name)
    except UnfitError as error:
        raise ManifestError(
            f"cannot use {quoted(name)} as a profile: allowed is {forms.PROFILE.allowed}"
        ) from error
    own, shipped = f"{site}/{name}{_SUFFIX}", f"{_SHIPPED}/{name}{_SUFFIX}"
    if os.path.lexists(own):
        return read(own)
    if os.path.lexists(shipped):
        return read(shipped, called=f"profiles/{name}{_SUFFIX}")
    known = names(site=site)
    raise ManifestError(
        f"cannot find the profile {quoted(name)}: there are {', '.join(known) or 'none'}",
        hint=forms.nearest(name, known) or "virt profile list shows them all",
    )


def names(*, site: str = SITE) -> tuple[str, ...]:
    """All profiles, sorted. Raises ManifestError where the site's folder cannot be read."""
    found = set(_listed(_SHIPPED)) | set(_listed(site))
    return tuple(sorted(found))


def _listed(folder: str) -> list[str]:
    try:
        files = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ManifestError(f"cannot read {folder}: {_cause(error)}") from error
    stems = [file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX)]
    return [stem for stem in stems if _is_name(stem)]


def _is_name(text: str) -> bool:
    try:
        forms.PROFILE.check(text)
    except UnfitError:
        return False
    return True


def read(path: str, *, called: str | None = None) -> Layer:
    """One manifest file; `called` is its name in messages and records, else the path as given.

    Raises ManifestError for what is not a readable regular file of UTF-8 text, up to 1 MB.
    """
    try:
        content = _content(path)
        text = content.decode("utf-8-sig")  # editors of Windows put a mark in front
    except OSError as error:
        raise ManifestError(f"cannot read {called or path}: {_cause(error)}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"cannot read {called or path}: line {line} is not UTF-8", hint="save it as UTF-8"
        ) from error
    return Layer(called or path, text)


def _content(path: str) -> bytes:
    """Raises OSError. Opened so that a fifo cannot hold us up."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(None, f"it is a {_kind(mode)}, not a file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(None, "it is larger than 1 MB")
    return content


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFIFO: "fifo"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _cause(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
