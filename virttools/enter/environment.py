"""Values: the environment that a program gets inside a tree, and nothing else of the caller's."""

import os

from virttools.enter.accounts import Account

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build(
    environ: dict[bytes, bytes], account: Account, named: list[tuple[str, str]]
) -> dict[bytes, bytes]:
    """TERM, LANG and LC_* of environ, the account's own variables, PATH, and what the caller names.

    Encoded: between chroot and execve no codec may be looked up.
    """
    env = {
        name: value
        for name, value in environ.items()
        if name in (b"TERM", b"LANG") or name.startswith(b"LC_")
    }
    env[b"HOME"] = account.home
    env[b"USER"] = env[b"LOGNAME"] = account.name
    env[b"SHELL"] = account.shell
    env[b"PATH"] = PATH.encode()
    for name, value in named:
        env[os.fsencode(name)] = os.fsencode(value)
    return env


def prompt(account: Account, domain: str) -> bytes:
    """A prompt that names the domain, as sh and bash both read it; the tree's profile may say more."""
    mark = b"#" if account.uid == 0 else b"$"
    name = bytes(byte for byte in account.name if 32 < byte < 127 and byte not in b"$`\\")
    return name + b"@" + domain.encode() + b":$PWD" + mark + b" "


def is_coerced(environ: dict[bytes, bytes]) -> bool:
    """Whether LC_CTYPE may be the interpreter's addition to the caller's environment (PEP 538)."""
    return environ.get(b"LC_CTYPE") in (b"C.UTF-8", b"C.utf8", b"UTF-8")


def given(environ: dict[bytes, bytes], initial: bytes) -> dict[bytes, bytes]:
    """What the caller gave; initial: /proc/self/environ, which PEP 538 leaves alone."""
    if b"\0LC_CTYPE=" in b"\0" + initial:
        return environ
    return {name: value for name, value in environ.items() if name != b"LC_CTYPE"}
