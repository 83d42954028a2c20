"""Doer: the client for each kind of probe."""

from typing import assert_never

from virttools.manifest.model import ProbeKind
from virttools.probe.outcome import Call


def ask(call: Call) -> str:
    """Be the client; what it saw, for a person. Raises Refused, and what the libraries raise."""
    match call.probe.kind:
        case ProbeKind.FTP:
            from virttools.probe.ftp import ask as client
        case ProbeKind.HTTP:
            from virttools.probe.http import ask as client
        case ProbeKind.IMAP:
            from virttools.probe.imap import ask as client
        case ProbeKind.POP:
            from virttools.probe.pop import ask as client
        case ProbeKind.POPPASS:
            from virttools.probe.poppass import ask as client
        case ProbeKind.SMB:
            from virttools.probe.smb import ask as client
        case ProbeKind.SMTP:
            from virttools.probe.smtp import ask as client
        case unknown:
            assert_never(unknown)
    return client(call)
