"""Doer: a client of FTP: logs in, puts a file, fetches it again, removes it; and comes as nobody.

Who logs in does so by TLS where the server has it.
"""

import contextlib
import ftplib
import io
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator

from virttools.probe import encryption
from virttools.probe.outcome import Call, Refused

_LARGEST = 1 << 20


def ask(call: Call) -> str:
    """What worked. Raises Refused, OSError, EOFError."""
    done = []
    with _connected(call) as ftp:
        if call.login is not None:
            is_encrypted = _encrypt(ftp)
            with _step("login"):
                ftp.login(call.login.name, call.login.password, secure=False)
            if is_encrypted:
                with _step("encryption of data"):
                    ftp.prot_p()
            _put_and_fetch(ftp)
            done.append(f"login{' by TLS' * is_encrypted}, upload, download")
        if not done and not call.probe.anonymous:
            done.append("greeting")
    if call.probe.anonymous:
        with _connected(call) as ftp:
            with _step("anonymous login"):
                ftp.login(secure=False)
            with _step("anonymous listing"):
                ftp.retrlines("LIST", _limited())
            done.append("anonymous")
    return ", ".join(done)


class _Client(ftplib.FTP_TLS):
    """Data connections go on with the session of the first, by which servers know whose they are (RFC 4217, 10)."""

    def ntransfercmd(
        self, cmd: str, rest: int | str | None = None
    ) -> tuple[socket.socket, int | None]:
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321
        if isinstance(self.sock, ssl.SSLSocket):
            session = self.sock.session
            connection = self.context.wrap_socket(connection, session=session)
        return connection, size


@contextlib.contextmanager
def _connected(call: Call) -> Iterator[_Client]:
    ftp = _Client(context=encryption.context())
    try:
        with _step("greeting"):
            ftp.connect(call.address, call.port, timeout=call.seconds / 2)
        yield ftp
        with contextlib.suppress(*ftplib.all_errors):
            ftp.quit()
    finally:
        ftp.close()


def _encrypt(ftp: _Client) -> bool:
    """Whether TLS is offered, and then works."""
    with _step("features"):
        try:
            offered = ftp.sendcmd("FEAT")
        except ftplib.Error:
            return False
    if "AUTH TLS" not in offered.upper():
        return False
    with _step("encryption"):
        ftp.auth()
    return True


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Name what was tried when it fails."""
    try:
        yield
    except TimeoutError:
        raise
    except EOFError as error:
        raise Refused(f"{name}: the connection ended") from error
    except (OSError, ftplib.Error) as error:
        raise Refused(f"{name}: {error}") from error


def _put_and_fetch(ftp: _Client) -> None:
    name, content = f"virt-test-{secrets.token_hex(8)}", secrets.token_bytes(4096)
    with _step("upload"):
        ftp.storbinary(f"STOR {name}", io.BytesIO(content))
    fetched = io.BytesIO()
    room = _limited()

    def keep(part: bytes) -> None:
        room(part)
        fetched.write(part)

    try:
        with _step("download"):
            ftp.retrbinary(f"RETR {name}", keep)
    finally:
        with contextlib.suppress(*ftplib.all_errors):
            ftp.delete(name)
    if fetched.getvalue() != content:
        raise Refused("download: not what was uploaded")


def _limited() -> Callable[[bytes | str], None]:
    """What counts the parts of an answer and puts up with so many bytes."""
    seen = 0

    def count(part: bytes | str) -> None:
        nonlocal seen
        seen += len(part)
        if seen > _LARGEST:
            raise Refused(f"its answer is longer than {_LARGEST} bytes")

    return count
