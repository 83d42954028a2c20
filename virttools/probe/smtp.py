"""Doer: a client of SMTP: hands in a message, and finds it in the recipient's mailbox."""

import contextlib
import secrets
import smtplib
import time

from virttools.enter import inside
from virttools.probe.outcome import Call, Refused

_MOST_OCTETS = 1 << 24
_PAUSE = 0.05
_OK = 250


def ask(call: Call) -> str:
    """What worked. Raises Refused, OSError."""
    name = call.login.name if call.login else "postmaster"
    mark = secrets.token_hex(12)
    step = "greeting"
    try:
        client = smtplib.SMTP(call.address, call.port, "localhost", call.seconds / 2)
        step = "message"
        with contextlib.closing(client):
            client.ehlo_or_helo_if_needed()
            _submit(call, client, name, mark)
            with contextlib.suppress(smtplib.SMTPException):
                client.quit()
    except smtplib.SMTPServerDisconnected as error:
        raise Refused(f"{step}: the connection ended") from error
    except smtplib.SMTPResponseException as error:
        raise Refused(f"{step}: {error.smtp_code} {_said(error.smtp_error)}") from error
    if call.login is None:
        return "greeting, postmaster"
    _await(call, name, mark)
    return "message taken, and found in the mailbox"


def _submit(call: Call, client: smtplib.SMTP, name: str, mark: str) -> None:
    """Hand in a message for a person; of nobody in particular it is only asked who would take it."""
    address = f"{name}@{call.domain}"
    sender = f"virt@{call.domain}"
    for who, say in ((sender, client.mail), (address, client.rcpt)):
        code, said = say(who)
        if code != _OK:
            raise Refused(f"{who}: {code} {_said(said)}")
    if call.login is None:
        client.rset()
        return
    text = f"From: virt@{call.domain}\r\nTo: {address}\r\nSubject: virt test {mark}\r\n\r\nA trial.\r\n"
    code, said = client.data(text)
    if code != _OK:
        raise Refused(f"message: {code} {_said(said)}")


def _await(call: Call, name: str, mark: str) -> None:
    """Until it is delivered, in /var/mail as seen from inside. Raises Refused."""
    deadline = time.monotonic() + call.seconds / 2
    while time.monotonic() < deadline:
        if mark.encode() in (inside.read(call.tree_fd, f"/var/mail/{name}", _MOST_OCTETS) or b""):
            return
        time.sleep(_PAUSE)
    raise Refused(f"taken, but after {call.seconds / 2:g} s not in /var/mail/{name}")


def _said(text: bytes | str) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text
