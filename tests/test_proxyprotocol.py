"""PROXY headers: what is taken, what is refused, and that nothing behind one is ever read."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virttools.serve import proxyprotocol
from virttools.serve.proxyprotocol import LONGEST_V1, LONGEST_V2, V2_SIGNATURE, ProxyError

ports = st.integers(0, 65535)


def v1(words: str) -> bytes:
    return words.encode() + b"\r\n"


def v2(first: int, family: int, body: bytes) -> bytes:
    return V2_SIGNATURE + bytes([first, family]) + len(body).to_bytes(2) + body


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, tuple[str, int] | None, tuple[str, int] | None]:
    """A good header, with what it says."""
    six = draw(st.booleans())
    kind = st.ip_addresses(v=6 if six else 4)
    source, target = draw(kind), draw(kind)
    here, there = draw(ports), draw(ports)
    form = draw(st.sampled_from(["v1", "unknown", "v2", "local", "unspecified", "unix"]))
    said = (_text(source), here), (_text(target), there)
    if form == "v1":
        words = f"PROXY TCP{'6' if six else '4'} {source} {target} {here} {there}"
        return v1(words), *said
    if form == "unknown":
        return (
            v1(f"PROXY UNKNOWN{draw(st.sampled_from(['', ' ', ' ff:: :: 1 2 more']))}"),
            None,
            None,
        )
    extra = draw(st.binary(max_size=300))
    body = source.packed + target.packed + here.to_bytes(2) + there.to_bytes(2) + extra
    transport = draw(st.integers(0, 2))
    if form == "v2":
        return v2(0x21, (2 if six else 1) << 4 | transport, body), *said
    if form == "local":
        return v2(0x20, draw(st.sampled_from([0, 0x11, 0x21])), extra), None, None
    if form == "unix":
        return v2(0x21, 0x31, bytes(216) + extra), None, None
    return v2(0x21, transport, extra), None, None


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    from _socket import AF_INET, AF_INET6, inet_ntop

    return inet_ntop(AF_INET6 if address.version == 6 else AF_INET, address.packed)


@given(headers(), st.binary(max_size=40))
def test_what_a_header_says_is_read(
    made: tuple[bytes, tuple[str, int] | None, tuple[str, int] | None], rest: bytes
) -> None:
    """Addresses, ports and size, whatever follows the header."""
    data, source, destination = made
    found = proxyprotocol.parse(data + rest)
    assert found is not None
    assert (found.size, found.source, found.destination) == (len(data), source, destination)


@given(headers(), st.binary(max_size=40))
def test_nothing_behind_a_header_is_ever_read(
    made: tuple[bytes, tuple[str, int] | None, tuple[str, int] | None], rest: bytes
) -> None:
    """Reading what `more` allows, one ends exactly with the header; the rest is the program's."""
    data, stream = b"", made[0] + rest
    steps = 0
    while wanted := proxyprotocol.more(data):
        data += stream[len(data) : len(data) + wanted]
        steps += 1
    assert data == made[0]
    assert steps <= 1 + LONGEST_V1


@given(headers(), st.data())
def test_a_piece_of_a_header_waits_for_more(
    made: tuple[bytes, tuple[str, int] | None, tuple[str, int] | None], data: st.DataObject
) -> None:
    """Every true beginning is neither an answer nor a fault."""
    cut = data.draw(st.integers(0, len(made[0]) - 1))
    assert proxyprotocol.parse(made[0][:cut]) is None


@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"PROXY " + tail))
)
@example(b"")
@example(V2_SIGNATURE)
def test_any_bytes_end_in_one_of_three_ways(data: bytes) -> None:
    """A header, a wish for more that ends, or ProxyError: nothing else."""
    try:
        found = proxyprotocol.parse(data)
    except ProxyError:
        with pytest.raises(ProxyError):
            proxyprotocol.more(data)
        return
    if found is None:
        assert 0 < proxyprotocol.more(data) <= LONGEST_V2
        assert len(data) < LONGEST_V2
    else:
        assert proxyprotocol.more(data) == 0
        assert found.size <= min(len(data), LONGEST_V2)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n",
        b"P\r",
        v1("PROXY TCP4 10.0.0.1 10.0.0.2 1"),
        v1("PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3"),
        v1("PROXY  TCP4 10.0.0.1 10.0.0.2 1 2"),
        v1("PROXY TCP4 10.0.0.1 10.0.0.2 1 2 "),
        v1("PROXY TCP4 10.0.0.1 10.0.0.2 01 2"),
        v1("PROXY TCP4 10.0.0.1 10.0.0.2 1 65536"),
        v1("PROXY TCP4 10.0.0.1 10.0.0.2 +1 2"),
        v1("PROXY TCP4 10.0.0.1 10.0.0.2 1 ٣"),
        v1("PROXY TCP4 10.0.0.256 10.0.0.2 1 2"),
        v1("PROXY TCP4 010.0.0.1 10.0.0.2 1 2"),
        v1("PROXY TCP4 ::1 ::1 1 2"),
        v1("PROXY TCP6 10.0.0.1 10.0.0.2 1 2"),
        v1("PROXY TCP6 fe80::1%eth0 ::1 1 2"),
        v1("PROXY UDP4 10.0.0.1 10.0.0.2 1 2"),
        v1("proxy tcp4 10.0.0.1 10.0.0.2 1 2"),
        v1("PROXY UNKNOWNX"),
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n",
        b"PROXY UNKNOWN\rx\r\n",
        b"PROXY UNKNOWN " + b"x" * LONGEST_V1,
        v2(0x11, 0x11, bytes(12)),
        v2(0x22, 0x11, bytes(12)),
        v2(0x21, 0x41, bytes(12)),
        v2(0x21, 0x13, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x31, bytes(215)),
        v2(0x21, 0x11, bytes(LONGEST_V2 - 15)),
        V2_SIGNATURE + b"\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\r",
    ],
)
def test_what_is_not_strictly_a_header_is_refused(data: bytes) -> None:
    """What two readers could read differently lets a client forge its address."""
    with pytest.raises(ProxyError):
        proxyprotocol.parse(data)
