"""Values: the command lines that mend, in the words of sh(1)."""

import shlex
import tomllib
from collections.abc import Sequence

from virttools.manifest.model import Layer
from virttools.manifest.parse import CHOSEN, COMMAND_LINE, DEFAULT
from virttools.tree.record import Entry

SITE = "/etc/virttools"


def quoted(text: str) -> str:
    """A word of a command line; what a terminal would obey is written as bash and zsh read it."""
    if text.isprintable():
        return shlex.quote(text)
    # By its bytes, quotes too: what is in a tree may have been named to end the word, and go on.
    named = text.encode("utf-8", "surrogateescape")
    return "$'" + "".join(map(_escaped, named)) + "'"


def _escaped(byte: int) -> str:
    letter = chr(byte)
    is_plain = letter.isascii() and letter.isprintable() and letter not in "\\'"
    return letter if is_plain else f"\\x{byte:02x}"


def inside(virt: str, domain: str, *words: str, writable: bool = False) -> str:
    """A command run in a domain, contained: nothing that was planted there leads out."""
    options = " --writable" if writable else ""
    return f"{virt} exec --domain {domain}{options} -- {' '.join(map(quoted, words))}"


def home(virt: str, domain: str, path: str, uid: int, gid: int) -> str:
    """Make a user's home, empty."""
    owner = ("-o", str(uid), "-g", str(gid))
    return inside(virt, domain, "install", "-d", "-m", "0750", *owner, path)


def line(number: int, script: str, file: str) -> str:
    """Change one line of a file of the host by sed(1)."""
    return f"sed -i {quoted(f'{number}{script}')} {quoted(file)}"


def again(
    virt: str, domain: str, layers: Sequence[Layer], more: str = "", *, uid_base: str = ""
) -> str:
    """Set a domain's tree aside, which asks, and make it as it was made, or with another `uid_base`.

    more: further options.
    """
    options = _options(domain, layers, uid_base)
    return f"{virt} remove --keep {domain} && {virt} create {domain}{options}{more}"


def _own_file(layers: Sequence[Layer]) -> str | None:
    """The manifest that is the domain's own: the last layer but for what options said."""
    ours = (COMMAND_LINE, DEFAULT, CHOSEN)
    files = [layer.file for layer in layers if layer.file not in ours]
    is_own = files and not files[-1].startswith(("profiles/", f"{SITE}/profiles/"))
    return files[-1] if is_own else None


def _options(domain: str, layers: Sequence[Layer], uid_base: str) -> str:
    own = _own_file(layers)
    said = _said(layers, COMMAND_LINE)
    bases = [uid_base] if uid_base else said.get("uid_base", [])
    words = [] if own in (None, f"{SITE}/manifests/{domain}.toml") else ["-m", own or ""]
    words += [word for name in said.get("profiles", ()) for word in ("-p", name)]
    words += [word for address in said.get("addresses", ()) for word in ("--ip", address)]
    words += [word for mode in said.get("link", ()) for word in ("--link", mode)]
    words += [word for base in bases for word in ("--uid-base", base)]
    return "".join(f" {quoted(word)}" for word in words)


def _said(layers: Sequence[Layer], file: str) -> dict[str, list[str]]:
    """The keys of the layers that we wrote ourselves for options: `virt ip add` and `del` put theirs last."""
    found: dict[str, list[str]] = {}
    for text in (layer.text for layer in layers if layer.file == file):
        found |= {k: v if isinstance(v, list) else [str(v)] for k, v in tomllib.loads(text).items()}
    return found


def programs(entries: Sequence[Entry]) -> frozenset[str]:
    """The names of programs that a tree was built with."""
    folders = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
    split = (entry.path.rpartition("/") for entry in entries if entry.type in ("file", "symlink"))
    return frozenset(name for folder, _, name in split if folder in folders)
