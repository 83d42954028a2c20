"""Doer: a client of IMAP: logs in, by TLS where the server has it, opens the inbox and fetches a message.

It only looks: no message of a user counts as read afterwards.
"""

import contextlib
import imaplib
from collections.abc import Sequence

from virttools.probe import encryption
from virttools.probe.outcome import Call, Login, Refused

_MOST_OCTETS = 1 << 22


def ask(call: Call) -> str:
    """What worked. Raises Refused, OSError."""
    try:
        client = imaplib.IMAP4(call.address, call.port, timeout=call.seconds / 2)
    except imaplib.IMAP4.error as error:
        raise Refused(f"greeting: {_said(error)}") from error
    try:
        return "greeting" if call.login is None else _fetch(client, call.login)
    finally:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            client.logout()


def _fetch(client: imaplib.IMAP4, login: Login) -> str:
    step = "encryption"
    try:
        told = "login by TLS" if _encrypt(client) else "login"
        step = "login"
        _log_in(client, login)
        step = "mailbox"
        count = int(_good(step, *client.select("INBOX", readonly=True)))
        if login.is_ours and count != 1:
            raise Refused(f"mailbox: {count} messages, where one was put")
        if not count:
            return f"{told}, 0 messages"
        step = "fetching"
        text = _good(step, *client.fetch("1", f"(BODY.PEEK[]<0.{_MOST_OCTETS}>)"))
    except imaplib.IMAP4.error as error:
        raise Refused(f"{step}: {_said(error)}") from error
    if login.is_ours and b"Subject: virt test" not in text:
        raise Refused("fetching: not the message that was put there")
    return f"{told}, {count} messages, fetched one"


def _encrypt(client: imaplib.IMAP4) -> bool:
    """Whether TLS is offered, and then works. Raises IMAP4.error, OSError."""
    if "STARTTLS" not in client.capabilities:
        return False
    client.starttls(encryption.context())
    return True


def _log_in(client: imaplib.IMAP4, login: Login) -> None:
    """By PLAIN where it can be, since LOGIN takes no letters but those of ASCII."""
    if "AUTH=PLAIN" in client.capabilities:
        words = f"\0{login.name}\0{login.password}".encode()
        client.authenticate("PLAIN", lambda _: words)
        return
    try:
        client.login(login.name, login.password)
    except UnicodeEncodeError:  # would tell the letter
        raise Refused("login: without AUTH=PLAIN it takes ASCII only") from None


def _good(step: str, status: str, data: Sequence[object]) -> bytes:
    """The first answer; what belongs to a message is its second part."""
    found = data[0] if data else None
    found = found[1] if isinstance(found, tuple) else found
    if status != "OK" or not isinstance(found, bytes):
        raise Refused(f"{step}: {_said(found) or status}")
    return found


def _said(found: object) -> str:
    """What an error says, or an answer."""
    first = next(iter(found.args), "") if isinstance(found, Exception) else found
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first or "")
