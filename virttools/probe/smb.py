"""Doer: a client of SMB, which is smbclient: a connection, and for who logs in, a file."""

import secrets

from virttools.errors import HostLacks
from virttools.host import program
from virttools.probe.outcome import Call, Refused

_OPTIONS = ("--configfile", "/dev/null", "--option", "client min protocol=SMB2")


def ask(call: Call) -> str:
    """What it saw. Raises Refused."""
    share = call.probe.expect
    if call.login is None or call.login.is_ours or not share:  # samba has passwords of its own
        _run(call, f"//{call.address}/IPC$", "--command", "exit")
        return "connection"
    name = f"virt-test-{secrets.token_hex(4)}"
    _run(call, f"//{call.address}/{share}", "--command", f"put /etc/hostname {name}; rm {name}")
    return f"login, upload to {share}, removal"


def _run(call: Call, *words: str) -> None:
    seconds = str(max(1, int(call.seconds / 2)))
    login = call.login
    if login is None or login.is_ours:
        who: tuple[str, ...] = ("--no-pass",)
        env = {}
    else:
        who, env = ("--user", login.name), {"PASSWD": login.password}  # not for ps(1) to see
    port = ("--port", str(call.port), "--timeout", seconds)
    try:
        done = program.call(("smbclient", *words, *_OPTIONS, *port, *who), env=env)
    except HostLacks as error:
        raise Refused(f"{error.message}; it needs smbclient (Debian: smbclient)") from error
    if done.status:
        text = (done.stdout + done.stderr).decode(errors="replace").strip()
        last = text.splitlines()[-1] if text else f"smbclient: status {done.status}"
        raise Refused(f"login: {last}" if "LOGON_FAILURE" in last else last)
