"""Values: what the server writes to syslog, in xinetd's forms, so that what reads those reads ours."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO = 3, 4, 5, 6
_DAEMON = 3 << 3  # LOG_DAEMON of <syslog.h>

_XINETD = {
    "instances": "service_limit",
    "per_source": "per_source_limit",
    "cps": "cps_limit",
    "address": "address",
    "time": "time",
    "proxy": "proxy_header",
}


def counted(count: int, noun: str) -> str:
    """`1 domain`, `3 domains`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def lasting(seconds: int) -> str:
    """`45s`, `15m`, `1h 30m`, `2d 4h`: the two largest units that say something."""
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def prefix(level: int, pid: int) -> bytes:
    """What goes before a message in a datagram to /dev/log."""
    return b"<%d>virt-serve[%d]: " % (_DAEMON | level, pid)


def start(
    service: str, domain: str, pid: int, source: str, wanted: "Collection[str]" = ("PID", "HOST")
) -> str:
    """`START: ftp domain=domain1.com pid=4711 from=192.0.2.9`; wanted: log_on_success."""
    words = [f"START: {service} domain={domain}"]
    if "PID" in wanted:
        words.append(f"pid={pid}")
    if "HOST" in wanted:
        words.append(f"from={source}")
    return " ".join(words)


def end(
    service: str,
    domain: str,
    pid: int,
    status: int,
    duration: float,
    *,
    wanted: "Collection[str]" = ("EXIT", "DURATION"),
) -> str:
    """`EXIT: ftp domain=domain1.com status=0 pid=4711 duration=3(sec)`; status: as of wait(2), -n by signal n."""
    words = [f"EXIT: {service} domain={domain}"]
    if "EXIT" in wanted:
        words.append(f"status={status}" if status >= 0 else f"signal={-status}")
    words.append(f"pid={pid}")
    if "DURATION" in wanted:
        words.append(f"duration={duration:.0f}(sec)")
    return " ".join(words)


def refused(
    service: str, domain: str, reason: str, source: str, wanted: "Collection[str]" = ("HOST",)
) -> str:
    """`FAIL: ftp per_source_limit domain=domain1.com from=192.0.2.9`: the first of a burst."""
    words = [f"FAIL: {service} {_XINETD.get(reason, reason)} domain={domain}"]
    if "HOST" in wanted:
        words.append(f"from={source}")
    return " ".join(words)


def burst(service: str, domain: str, reason: str, more: int, seconds: float) -> str:
    """`FAIL: ftp per_source_limit domain=domain1.com refused=812 more in 7(sec)`: the rest of a burst."""
    name = _XINETD.get(reason, reason)
    return f"FAIL: {service} {name} domain={domain} refused={more} more in {seconds:.0f}(sec)"
