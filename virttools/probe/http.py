"""Doer: a client of HTTP: one page."""

import http.client

from virttools.probe.outcome import Call, Refused

_LARGEST = 1 << 22


def ask(call: Call) -> str:
    """What came. Raises Refused, OSError, HTTPException."""
    client = http.client.HTTPConnection(call.address, call.port, timeout=call.seconds / 2)
    try:
        client.request("GET", call.probe.path, headers={"Host": call.domain, "Connection": "close"})
        answer = client.getresponse()
        body = answer.read(_LARGEST)
    except http.client.HTTPException as error:
        raise Refused(f"no answer of HTTP: {type(error).__name__} {error}") from error
    finally:
        client.close()
    if answer.status != 200:
        raise Refused(f"GET {call.probe.path}: {answer.status} {answer.reason}")
    if call.probe.expect.encode() not in body:
        raise Refused(f"GET {call.probe.path}: {call.probe.expect!r} is not in it")
    return f"GET {call.probe.path}: {answer.status}, {len(body)} bytes"
