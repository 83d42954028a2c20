"""Doer: the client for each kind of probe."""

from virttools.manifest.model import ProbeKind
from virttools.probe.outcome import Call


def ask(call: Call) -> str:
    """Be the client; what it saw, for a person. Raises Refused, and what the libraries raise."""
    match call.probe.kind:
        case ProbeKind.FTP:
            from virttools.probe import ftp

            return ftp.ask(call)
        case ProbeKind.HTTP:
            from virttools.probe import http

            return http.ask(call)
        case ProbeKind.POP:
            from virttools.probe import pop

            return pop.ask(call)
        case ProbeKind.POPPASS:
            from virttools.probe import poppass

            return poppass.ask(call)
        case ProbeKind.SMB:
            from virttools.probe import smb

            return smb.ask(call)
        case ProbeKind.SMTP:
            from virttools.probe import smtp

            return smtp.ask(call)
