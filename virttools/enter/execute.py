"""Runs a command in a tree: contained, or by chroot(2); then only system calls run before execve."""

import os

from virttools import linux
from virttools.enter import accounts, environment, inside, program, signals
from virttools.enter.accounts import Account
from virttools.enter.entrance import Entrance, cause
from virttools.enter.options import Options
from virttools.errors import EnterError

_LARGEST_FILE = 16 * 2**20
"""Bytes of a tree's passwd or group that we are willing to read."""

_MOST_GROUPS = 65536
"""NGROUPS_MAX of <linux/limits.h>."""

_NULL = os.makedev(1, 3)

_SHARED = b"virt: root can change files here that other domains share (docs: virt.1, --chroot)\n"


def run(root: str, options: Options) -> int:
    """Run the command that options ask for, in the domain they name: contained, or by `is_chroot`.

    This process ends as the command does; it comes back only where chroot(2) succeeded and the
    rest did not. Raises EnterError (125, 126, 127).
    """
    _open_standard()
    domain = options.domain or ""
    if os.geteuid() != 0:
        entrance = _enter_without_root(root, domain, options)
    else:
        tree_fd = inside.open_tree(root, domain)
        _belong(root, domain)
        entrance = _entrance(tree_fd, domain, options)
    if options.is_chroot:
        return _enter_plainly(root, entrance, options)
    from virttools.enter import contain

    if options.is_writable:
        _warn(entrance)
    return contain.enter(entrance, options)


def _enter_without_root(root: str, domain: str, options: Options) -> Entrance:
    """The same, from inside a user namespace of an ordinary user's own."""
    from virttools.enter import rootless

    rootless.begin(root)
    entrance = _entrance(inside.open_tree(root, domain), domain, options)
    entrance.is_rootless = True
    rootless.restrict(entrance)
    return entrance


def _open_standard() -> None:
    """Have something at 0, 1 and 2: what we open next must not become the command's input.

    Nor may the host's /dev/null be there, which cron(8) gives: its mode is in the hands of who has it.
    """
    hosts = []
    for fd in range(3):
        try:
            found = os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            found = os.fstat(fd)
        if found.st_rdev == _NULL and found.st_mode & 0o170000 == 0o020000:
            hosts.append(fd)
    if hosts:
        _cover(hosts)


def _cover(fds: list[int]) -> None:
    """Let them be a null device that root of the tree may do with as it likes."""
    from virttools.enter import nothing  # seldom needed

    null_fd = nothing.open_null()
    for fd in fds:
        os.dup2(null_fd, fd)
    os.close(null_fd)


def _entrance(tree_fd: int, domain: str, options: Options) -> Entrance:
    account = _account(tree_fd, domain, options.user)
    env = environment.build(_environment(), account, options.env)
    argv, cwd = options.argv, options.cwd
    if options.is_login:
        shell = os.fsdecode(account.shell)
        argv = [shell]
        cwd = _home(tree_fd, account) if cwd is None else cwd
        env.setdefault(b"PS1", environment.prompt(account, domain))
    cwd = cwd or "/"
    if not inside.is_folder(tree_fd, cwd):
        raise EnterError(f"cannot start in {program.shown(cwd)}: {domain} has no such folder")
    path = program.find(tree_fd, argv[0], os.fsdecode(env[b"PATH"]), cwd)
    if options.is_login:
        argv = ["-" + argv[0].rpartition("/")[2]]
    entrance = Entrance(tree_fd, path, argv, env=env, account=account, cwd=cwd)
    entrance.kept_fds = _kept(options.kept_fds)
    return entrance


def _home(tree_fd: int, account: Account) -> str:
    """A login goes home, or to / where there is no such folder, as login(1) does."""
    home = os.fsdecode(account.home)
    return home if home.startswith("/") and inside.is_folder(tree_fd, home) else "/"


def _kept(fds: list[int]) -> list[int]:
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError as error:
            raise EnterError(f"cannot keep descriptor {fd}: it is not open") from error
    return fds


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


def _account(tree_fd: int, domain: str, user: str | None) -> Account:
    passwd = inside.read(tree_fd, "/etc/passwd", _LARGEST_FILE) or b""
    group = inside.read(tree_fd, "/etc/group", _LARGEST_FILE) or b""
    if user is None:
        return accounts.root(passwd, group)
    name, has_group, wanted = user.partition(":")
    account = accounts.find(passwd, group, os.fsencode(name))
    if account is None or len(account.groups) > _MOST_GROUPS:
        raise EnterError(
            f"cannot become {program.shown(name)}: {domain} has no such user in its /etc/passwd",
            hint=f"`virt exec --domain {domain} -- cat /etc/passwd` shows its users",
        )
    if has_group:
        gid = accounts.find_group(group, os.fsencode(wanted))
        if gid is None:
            raise EnterError(
                f"cannot join {program.shown(wanted)}: {domain} has no such group in its /etc/group"
            )
        account.gid = gid
        account.groups = sorted({*account.groups, gid})
    return account


def _enter_plainly(root: str, entrance: Entrance, options: Options) -> int:
    _warn(entrance)
    if options.has_proc:
        from virttools.enter import contain

        entrance.tree_fd = contain.add_proc(root, options.domain or "")
    return enter(entrance)


def _warn(entrance: Entrance) -> None:
    """Say that root can change the files that trees share, where this tree shares some."""
    found = inside.status(entrance.tree_fd, os.fsdecode(entrance.path))
    is_root = entrance.account is not None and entrance.account.uid == 0
    if is_root and found is not None and found.st_nlink > 1:
        os.write(2, _SHARED)


def enter(entrance: Entrance) -> int:
    """Become the program, by chroot(2). Comes back, with an exit status, only where that failed.

    Descriptors from 3 on close, signals are as at birth, umask is 022 (DESIGN 7.5).
    Raises EnterError where the tree could not be entered at all.
    """
    os.umask(0o022)
    signals.reset()
    linux.leave_session_keyring()
    try:
        linux.close_range_cloexec(3)
        for fd in entrance.kept_fds:
            os.set_inheritable(fd, True)
        # Found beforehand: a link to /proc/self/fd would lead back to a descriptor of ours.
        cwd_fd = inside.open_folder(entrance.tree_fd, entrance.cwd)
        linux.chroot_fd(entrance.tree_fd)
    except OSError as error:
        raise EnterError(
            f"cannot enter the tree: {error.strerror}", hint="chroot(2) needs CAP_SYS_CHROOT"
        ) from error
    # From here on the tree is "/". An import, a codec, a traceback or a look-up by name would read
    # its files as root (DESIGN 7.4): whatever happens, this process does not come back.
    status = 125
    try:
        os.fchdir(cwd_fd)
        if entrance.account is not None:
            if entrance.may_set_groups:
                os.setgroups(entrance.account.groups)
            os.setgid(entrance.account.gid)
            os.setuid(entrance.account.uid)
        status = 126
        os.execve(entrance.path, entrance.argv, entrance.env)
    except OSError as error:
        _fail(entrance, status, error.errno or 0)
    finally:
        os._exit(status)


def _fail(entrance: Entrance, status: int, number: int) -> None:
    """Say what failed inside."""
    why = cause(number) if status == 126 else os.strerror(number).encode()
    message = entrance.prefix + b"cannot run " + entrance.path + b": " + why + b"\n"
    try:  # noqa: SIM105  contextlib would be loaded before every command
        os.write(entrance.fail_fd, message)
    except OSError:
        pass  # no one listens; the exit status still tells
