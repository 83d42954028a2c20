"""Doer: a client of POP3: logs in, by TLS where the server has it, and fetches a message."""

import contextlib
import poplib

from virttools.probe import encryption
from virttools.probe.outcome import Call, Refused

_MOST_OCTETS = 1 << 22


def ask(call: Call) -> str:
    """What worked. Raises Refused, OSError."""
    try:
        client = poplib.POP3(call.address, call.port, timeout=call.seconds / 2)
    except poplib.error_proto as error:
        raise Refused(f"greeting: {_said(error)}") from error
    try:
        if call.login is None:
            return "greeting"
        return _fetch(call, client)
    finally:
        with contextlib.suppress(OSError, poplib.error_proto):
            client.quit()


def _fetch(call: Call, client: poplib.POP3) -> str:
    assert call.login is not None
    step = "encryption"
    try:
        login = "login by TLS" if _encrypt(client) else "login"
        step = "login"
        client.user(call.login.name)
        client.pass_(call.login.password)
        step = "mailbox"
        count, octets = client.stat()
        if call.login.is_ours and count != 1:
            raise Refused(f"mailbox: {count} messages, where one was put")
        if not count or octets > _MOST_OCTETS:
            return f"{login}, {count} messages"
        step = "fetching"
        lines = client.retr(1)[1]
    except poplib.error_proto as error:
        raise Refused(f"{step}: {_said(error)}") from error
    if call.login.is_ours and b"Subject: virt test" not in lines:
        raise Refused("fetching: not the message that was put there")
    return f"{login}, {count} messages, fetched one"


def _encrypt(client: poplib.POP3) -> bool:
    """Whether TLS is offered, and then works. Raises error_proto, OSError."""
    try:
        offered = client.capa()
    except poplib.error_proto:
        return False
    if "STLS" not in offered:
        return False
    client.stls(encryption.context())
    return True


def _said(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
