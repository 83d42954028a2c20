"""Enters a tree by chroot(2) and becomes a program; between the two run system calls only."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import os

from virttools import linux
from virttools.enter import accounts, environment, inside, program
from virttools.enter.accounts import Account
from virttools.enter.options import Options
from virttools.errors import EnterError, UsageError

_LARGEST_FILE = 16 * 2**20
"""Bytes of a tree's passwd or group that we are willing to read."""


_MOST_GROUPS = 65536
"""NGROUPS_MAX of <linux/limits.h>."""


class Entrance:
    """All that entering needs, made ready beforehand; paths are as seen inside, text is encoded.

    account None leaves the ids as they are. What fails after chroot is written to fail_fd, after
    prefix.
    """

    __slots__ = ("account", "argv", "cwd", "env", "fail_fd", "path", "prefix", "tree_fd")

    def __init__(
        self,
        tree_fd: int,
        path: str,
        argv: list[str],
        *,
        env: dict[bytes, bytes],
        account: Account | None = None,
        cwd: str = "/",
    ) -> None:
        self.tree_fd = tree_fd
        self.path = os.fsencode(path)
        self.argv = [os.fsencode(word) for word in argv]
        self.env = env
        self.account = account
        self.cwd = os.fsencode(cwd)
        self.fail_fd = 2
        self.prefix = b"virt: "


def run(root: str, options: Options) -> int:
    """Become the command that options ask for, in a domain of root; comes back only by an error.

    Raises EnterError (125, 126, 127), or UsageError where a domain must be chosen.
    """
    if os.geteuid() != 0:
        raise EnterError(
            "cannot enter a domain: only root may call chroot(2)", hint="use sudo, or become root"
        )
    environ = _environment()
    domain = _choose(root, options.domain, environ)
    tree_fd = inside.open_tree(root, domain)
    _belong(root, domain)
    account = _account(tree_fd, domain, options.user)
    env = environment.build(environ, account, options.env)
    cwd = options.cwd
    if not inside.is_folder(tree_fd, cwd):
        raise EnterError(f"cannot start in {program.shown(cwd)}: {domain} has no such folder")
    search = os.fsdecode(env[b"PATH"])
    path = program.find(tree_fd, options.argv[0], search, cwd)
    return enter(Entrance(tree_fd, path, options.argv, env=env, account=account, cwd=cwd))


def _environment() -> dict[bytes, bytes]:
    environ = dict(os.environb)
    if not environment.is_coerced(environ):
        return environ
    try:
        with open("/proc/self/environ", "rb", buffering=0) as file:
            return environment.given(environ, file.read())
    except OSError:
        return environ


def _belong(root: str, domain: str) -> None:
    """Where domains share a log socket, be known for the domain's (DESIGN 8)."""
    if os.path.lexists(f"{root}/log"):
        from virttools.devlog import belonging

        belonging.join(domain)


def _choose(root: str, asked: str | None, environ: dict[bytes, bytes]) -> str:
    name = asked if asked is not None else os.fsdecode(environ.get(b"VIRT_DOMAIN", b""))
    if name or asked is not None:
        return _normal(name)
    there = inside.domains(root)
    if not there:
        raise EnterError(
            f"cannot choose a domain: {root} holds none", hint="`virt create DOMAIN` makes one"
        )
    if len(there) > 1:
        raise UsageError(
            "cannot choose a domain: there are several:\n" + "\n".join(there),
            hint="name one by --domain or VIRT_DOMAIN",
        )
    return there[0]


def _normal(name: str) -> str:
    plain = name.lower().removesuffix(".")
    if not plain.isascii():
        import site

        site.main()  # the fast way starts without (-S); idna is no part of the standard library
        from virttools.manifest import names

        return names.domain(name)
    if not inside.is_domain(plain):
        raise EnterError(
            f"cannot enter {program.shown(name)!r}: it is no domain name",
            hint="`virt list` names the domains",
        )
    return plain


def _account(tree_fd: int, domain: str, user: str | None) -> Account:
    passwd = inside.read(tree_fd, "/etc/passwd", _LARGEST_FILE) or b""
    group = inside.read(tree_fd, "/etc/group", _LARGEST_FILE) or b""
    if user is None:
        return accounts.root(passwd, group)
    account = accounts.find(passwd, group, os.fsencode(user))
    if account is None or len(account.groups) > _MOST_GROUPS:
        raise EnterError(
            f"cannot become {program.shown(user)}: {domain} has no such user in its /etc/passwd",
            hint=f"`virt exec --domain {domain} -- cat /etc/passwd` shows its users",
        )
    return account


def enter(entrance: Entrance) -> int:
    """Become the program. Comes back, with the exit status for this process, only where it failed.

    Descriptors from 3 on close, signals are as at birth, umask is 022 (DESIGN 7.5).
    Raises EnterError where the tree could not be entered at all.
    """
    os.umask(0o022)
    _reset_signals()
    try:
        linux.close_range_cloexec(3)
        linux.chroot_fd(entrance.tree_fd)
    except OSError as error:
        raise EnterError(
            f"cannot enter the tree: {error.strerror}", hint="chroot(2) needs CAP_SYS_CHROOT"
        ) from error
    # From here on the tree is "/". An import, a codec, a traceback or a look-up by name would read
    # its files as root (DESIGN 7.4): whatever happens, this process does not come back.
    status = 125
    try:
        os.chdir(entrance.cwd)
        if entrance.account is not None:
            os.setgroups(entrance.account.groups)
            os.setgid(entrance.account.gid)
            os.setuid(entrance.account.uid)
        status = 126
        os.execve(entrance.path, entrance.argv, entrance.env)
    except OSError as error:
        _fail(entrance, status, error.errno or 0)
    finally:
        os._exit(status)


def _reset_signals() -> None:
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _fail(entrance: Entrance, status: int, number: int) -> None:
    """Say what failed inside. ENOENT, of a program that was found before, is about its loader."""
    cause = os.strerror(number).encode()
    if status == 126 and number == 2:
        cause = b"its loader (see `readelf -l`) is not in the tree"
    elif status == 126 and number == 8:
        cause = b"it is neither for this machine nor a script that begins with #!"
    message = entrance.prefix + b"cannot run " + entrance.path + b": " + cause + b"\n"
    try:  # noqa: SIM105  contextlib would be loaded before every command
        os.write(entrance.fail_fd, message)
    except OSError:
        pass  # no one listens; the exit status still tells
