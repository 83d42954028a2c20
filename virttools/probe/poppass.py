"""Doer: a client of the poppassd protocol: changes a password, and the changed one again.

Only of an account that is there for the trial; of another it only asks whether the password is right.
"""

import secrets
import socket
from io import BufferedRWPair

from virttools.probe.outcome import Call, Refused


def ask(call: Call) -> str:
    """What worked. Raises Refused, OSError."""
    login = call.login
    if login is None:
        with _connect(call) as connection, connection.makefile("rwb") as stream:
            _expect(stream, "greeting")
        return "greeting"
    if not login.is_ours:
        with _connect(call) as connection, connection.makefile("rwb") as stream:
            _enter(stream, login.name, login.password)
        return "login"
    new = secrets.token_urlsafe(15)
    for old, wanted in ((login.password, new), (new, login.password)):
        with _connect(call) as connection, connection.makefile("rwb") as stream:
            _enter(stream, login.name, old)
            _say(stream, f"newpass {wanted}", "new password")
    return "password changed, and changed again with the new one"


def _connect(call: Call) -> socket.socket:
    return socket.create_connection((call.address, call.port), call.seconds / 4)


def _enter(stream: BufferedRWPair, name: str, password: str) -> None:
    _expect(stream, "greeting")
    _say(stream, f"user {name}", "user")
    _say(stream, f"pass {password}", "login")


def _say(stream: BufferedRWPair, text: str, step: str) -> None:
    stream.write(text.encode() + b"\r\n")
    stream.flush()
    _expect(stream, step)


def _expect(stream: BufferedRWPair, step: str) -> None:
    line = stream.readline(1024)
    if not line.startswith(b"2") and not line.startswith(b"3"):
        said = line.decode(errors="replace") or "the connection ended"
        raise Refused(f"{step}: {said}")
