"""Values: one line of our log files, written and read back.

    2026-11-20T15:13:49.123456+00:00 domain1.com auth.info uid=1000 sshd[123]: text

pid and uid are the kernel's; everything but the text is without blanks and cannot be forged.
"""

import re
import time
from dataclasses import dataclass
from functools import lru_cache

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "ntp", "audit", "alert", "clock"),
    *(f"local{number}" for number in range(8)),
)
SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

UNKNOWN = "-"
"""Stands for a domain that is not known (of a sender on the shared socket), a tag that is none."""

_LINE = re.compile(
    r"(\S+) (\S+) (?:([a-z0-7]+)\.([a-z]+)) uid=(\d+) ([^\s:\[\]]+)\[(\d+)\]: (.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a line of a log file says; time as in the file, RFC 3339 with microseconds."""

    time: str
    domain: str
    facility: str
    severity: str
    uid: int
    tag: str
    pid: int
    text: str


def read(line: str) -> Line | None:
    """What a line says, or None where it is none of ours."""
    found = _LINE.fullmatch(line.rstrip("\n"))
    if found is None:
        return None
    when, domain, facility, severity, uid, tag, pid, text = found.groups()
    if facility not in FACILITIES or severity not in SEVERITIES:
        return None
    return Line(
        time=when,
        domain=domain,
        facility=facility,
        severity=severity,
        uid=int(uid),
        tag=tag,
        pid=int(pid),
        text=text,
    )


def stamp(now: float) -> bytes:
    """A moment as lines have it, in local time with its offset."""
    second = int(now)
    before, after = _second(second)
    return b"%s.%06d%s" % (before, (now - second) * 1e6, after)


@lru_cache(maxsize=2)
def _second(second: int) -> tuple[bytes, bytes]:
    local = time.localtime(second)
    offset = time.strftime("%z", local)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    return text.encode(), f"{offset[:3]}:{offset[3:5]}".encode()


def prefix(priority: int, tag: bytes, pid: int, uid: int) -> bytes:
    """What stands between the domain and the text."""
    facility = FACILITIES[priority >> 3]
    words = f"{facility}.{SEVERITIES[priority & 7]} uid={uid} "
    return b"%s%s[%d]: " % (words.encode(), tag, pid)
