"""Doer: gives a contained program a terminal of its own, and carries keys and text between the two.

The caller's terminal never goes inside: not even TIOCSTI (ioctl_tty(2)) reaches it.
"""

import os
import select
import termios
from fcntl import ioctl

from virttools import linux

Error = termios.error
_PIECE = 65536
_SIZE = bytes(8)
_EINTR = 4
TTY_GROUP = 5
"""As glibc's grantpt(3) and all distributions have it."""


class Terminal:
    """The caller's terminal, and the outer side of the program's.

    pts_fd: the program's devpts, a mount; tty_fd: its terminal there; std_fds: which of 0, 1 and 2
    that replaces. is_waiting: nothing is read from the caller's terminal until the program wants it,
    because others use it too: a pager at the end of our pipe, or the shell we are in the background of.
    """

    __slots__ = (
        "_given", "_in_fd", "_is_raw", "_master_fd", "_out_fd", "_pending", "_saved", "_shares_output",
        "is_waiting", "pts_fd", "std_fds", "tty_fd",
    )  # fmt: skip

    def __init__(self, std_fds: list[int], user: int, group: int) -> None:
        """std_fds: those of 0, 1 and 2 that are terminals, at least one. user, group: whose it is. Raises OSError."""
        self.std_fds = std_fds
        self._in_fd = std_fds[0]
        self._out_fd = 1 if 1 in std_fds else std_fds[-1]
        self._shares_output = 1 not in std_fds
        self._pending = b""
        self._is_raw = False
        self._saved = termios.tcgetattr(self._in_fd)
        self.is_waiting = not (std_fds[:2] == [0, 1] and self._is_foreground())
        options = ((b"mode", b"620"), (b"ptmxmode", b"666"), (b"gid", b"%d" % group))
        quiet = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC
        self.pts_fd = linux.make_mount(b"devpts", quiet, *options)
        flags = os.O_RDWR | os.O_NOCTTY
        self._master_fd = os.open("ptmx", flags, dir_fd=self.pts_fd)
        linux.unlockpt(self._master_fd)
        self.tty_fd = os.open("0", flags, dir_fd=self.pts_fd)  # a devpts of its own counts from 0
        os.fchown(self.tty_fd, user, group)
        termios.tcsetattr(self.tty_fd, termios.TCSANOW, self._saved)
        self._given = termios.tcgetattr(self.tty_fd)
        self.resize()
        os.set_blocking(self._master_fd, False)

    def begin(self) -> None:
        """Carry from now on."""
        if not self.is_waiting:
            self.take()

    def resize(self, *_: object) -> None:
        """Have the program's terminal be as large as the caller's; the kernel tells the program."""
        try:
            size = ioctl(self._in_fd, termios.TIOCGWINSZ, _SIZE)
            ioctl(self._master_fd, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # one of the two is gone

    def take(self) -> None:
        """Read the caller's terminal, key by key. In the background this stops us, as any program."""
        self.is_waiting = False
        if not self._is_raw:
            self._show_all()  # what the program said before it wanted a key, or we may stop with it
            self._look_again()
        if self._set(_raw(self._saved, keeps_output=self._shares_output)):
            self._is_raw = True
        else:
            self._hang_up()  # whoever waits for a key here would wait for ever

    def _look_again(self) -> None:
        """Be as the caller's terminal is now: while we were in the background, a shell had it in its own mode."""
        try:
            self._saved = termios.tcgetattr(self._in_fd)
            if termios.tcgetattr(self._master_fd) == self._given:
                termios.tcsetattr(self._master_fd, termios.TCSANOW, self._saved)
                self._given = termios.tcgetattr(self._master_fd)
        except termios.error:
            pass  # one of the two is gone, which `_set` will find

    def take_again(self) -> bool:
        """After a stop: go on as before, unless we are in the background now; whether we do."""
        if self.is_waiting or not self._is_foreground():
            return False
        self.resize()
        self.take()
        return True

    def give_back(self) -> bool:
        """Leave the caller's terminal as it was found; whether it was ours."""
        was_raw = self._is_raw
        if was_raw and self._is_foreground():
            self._set(self._saved)
        self._is_raw = False
        return was_raw

    def relay(self, until_fd: int) -> None:
        """Carry until there is something to read at until_fd."""
        while True:
            poll = select.poll()
            poll.register(until_fd, select.POLLIN)
            if self._master_fd >= 0:
                wanted = select.POLLIN | (select.POLLOUT if self._pending else 0)
                poll.register(self._master_fd, wanted)
                if self._is_raw and not self._pending:
                    poll.register(self._in_fd, select.POLLIN)
            for fd, events in poll.poll():
                if fd == until_fd:
                    return
                if fd == self._in_fd:
                    self._read_keys()
                elif events & select.POLLIN:
                    self._show()
                elif events & select.POLLOUT:
                    self._type()
                else:
                    self._hang_up()

    def end(self) -> bool:
        """Show what is still to be shown, and give the caller's terminal back; whether it was ours."""
        self._show_all()
        was_raw = self.give_back()
        self._hang_up()
        return was_raw

    def _show_all(self) -> None:
        poll = select.poll()
        if self._master_fd >= 0:
            poll.register(self._master_fd, select.POLLIN)
        while self._master_fd >= 0 and any(event & select.POLLIN for _, event in poll.poll(0)):
            self._show()

    def _show(self) -> None:
        try:
            text = os.read(self._master_fd, _PIECE)
            if not self._is_raw or self._shares_output:
                text = text.replace(b"\r\n", b"\n")  # the caller's terminal adds one itself
            while text:
                text = text[os.write(self._out_fd, text) :]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up()

    def _read_keys(self) -> None:
        try:
            self._pending = os.read(self._in_fd, _PIECE)
        except OSError:
            self._pending = b""
        if self._pending:
            self._type()
        else:
            self._hang_up()

    def _type(self) -> None:
        try:
            self._pending = self._pending[os.write(self._master_fd, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close our side: the program's terminal hangs up, as the caller's did."""
        if self._master_fd >= 0:
            os.close(self._master_fd)
        self._master_fd = -1

    def _is_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._in_fd) == os.getpgrp()
        except OSError:
            return False

    def _set(self, attributes: "list[int | list[bytes | int]]") -> bool:
        while True:
            try:
                termios.tcsetattr(self._in_fd, termios.TCSADRAIN, attributes)
            except termios.error as error:
                if error.args[0] != _EINTR:
                    return False  # it is gone, or we are orphans in its background
            else:
                return True


def _raw(
    attributes: "list[int | list[bytes | int]]", *, keeps_output: bool
) -> "list[int | list[bytes | int]]":
    """As cfmakeraw(3); keeps_output: others print lines to the same terminal."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, keys = attributes
    assert isinstance(iflag, int)
    assert isinstance(oflag, int)
    assert isinstance(cflag, int)
    assert isinstance(lflag, int)
    assert isinstance(keys, list)
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    if not keeps_output:
        oflag &= ~termios.OPOST
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    keys = list(keys)
    keys[termios.VMIN], keys[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, keys]
