"""Who may come, from where and when; and how a flood of refusals becomes two lines."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.manifest import model
from virttools.serve import admission
from virttools.serve.admission import Bursts, Gate, Limits, Networks
from virttools.serve.routes import pack

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def packed(text: str) -> bytes:
    found = pack(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("10.0.0", "not an address or network"),
        ("10.0.0.0/33", "not a prefix length between 0 and 32"),
        ("2001:db8::/129", "not a prefix length between 0 and 128"),
        ("10.0.0.1/24", "address bits to the right of the prefix"),
        ("10.0.0.0/", "not a prefix length"),
        ("10.0.0.0/٣", "not a prefix length"),
        ("", "not an address or network"),
    ],
)
def test_what_is_no_network_is_refused(text: str, cause: str) -> None:
    """A network that reads otherwise than it was meant would let strangers in."""
    with pytest.raises(ValueError, match=cause):
        Networks([text])


@given(st.lists(st.tuples(addresses, st.integers(0, 128)), max_size=8), addresses)
def test_the_closest_network_is_found(
    made: list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]],
    asked: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """match() is the longest prefix that ipaddress says holds the address."""
    nets = [
        ipaddress.ip_network((address, bits % (address.max_prefixlen + 1)), strict=False)
        for address, bits in made
    ]
    nets = [net for net in nets if getattr(net.network_address, "ipv4_mapped", None) is None]
    if getattr(asked, "ipv4_mapped", None) is not None:
        return
    lengths = [net.prefixlen for net in nets if net.version == asked.version and asked in net]
    assert Networks(map(str, nets)).match(asked.packed) == max(lengths, default=-1)


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("10.1.9.1", "address"),
        ("10.1.9.9", None),
        ("192.0.2.1", "address"),
        ("2001:db8::1", None),
        ("fe80::1%eth0", "address"),
        ("no address", "address"),
    ],
)
def test_of_two_networks_the_closest_decides(source: str, refused: str | None) -> None:
    """A hole in what is allowed, and an exception in the hole."""
    gate = Gate(
        Limits(
            only_from=("10.0.0.0/8", "10.1.9.9", "2001:db8::/32", "192.0.2.1"),
            no_access=("10.1.9.0/24", "192.0.2.1"),
        )
    )
    assert gate.refusal(source) == refused


def test_without_only_from_all_others_may_come() -> None:
    """no_access alone keeps out what it names; nothing declared keeps out nobody."""
    gate = Gate(Limits(no_access=("0.0.0.0/0",)))
    assert (gate.refusal("10.0.0.1"), gate.refusal("2001:db8::1")) == ("address", None)
    assert (gate.is_open, Gate(Limits()).is_open, Gate(Limits()).refusal("x")) == (
        False,
        True,
        None,
    )


@pytest.mark.parametrize(
    ("spans", "minute", "refused"),
    [
        (((480, 1080),), 480, None),
        (((480, 1080),), 1079, None),
        (((480, 1080),), 1080, "time"),
        (((480, 1080),), 479, "time"),
        (((1320, 360),), 1439, None),
        (((1320, 360),), 0, None),
        (((1320, 360),), 360, "time"),
        (((0, 60), (120, 1440)), 1439, None),
        (((0, 60), (120, 1440)), 60, "time"),
    ],
)
def test_hours_begin_and_end(
    spans: tuple[tuple[int, int], ...], minute: int, refused: str | None
) -> None:
    """The first minute is in, the last is not; a span may go over midnight."""
    assert Gate(Limits(access_times=spans), clock=lambda: minute).refusal("10.0.0.1") == refused


def test_the_clock_is_asked_only_where_hours_are_declared() -> None:
    """Local time costs a system call, and libc may read files for it."""

    def clock() -> int:
        raise AssertionError

    gate = Gate(Limits(only_from=("10.0.0.0/8",), access_times=((0, 1),)), clock=clock)
    assert gate.refusal("192.0.2.1") == "address"
    assert Gate(Limits(), clock=clock).refusal("192.0.2.1") is None


def test_limits_are_those_of_the_manifest() -> None:
    """Every limit that a service declares arrives; what it does not declare is none."""
    service = model.Service(
        "ftp",
        21,
        "tcp",
        "root",
        "/bin/ftpd",
        (),
        model.Isolation.NAMESPACE,
        None,
        model.Origin("m", 1),
        instances=9,
        per_source=3,
        cps=model.Rate(50, 10),
        only_from=("10.0.0.0/8",),
        no_access=("10.1.0.0/16",),
        access_times=(model.TimeSpan(480, 1080),),
    )
    found = admission.declared(service)
    assert found.cps is not None
    assert (found.cps.count, found.cps.seconds, found.cps.pause) == (50, 1, 10)
    assert (found.instances, found.per_source) == (9, 3)
    assert (found.only_from, found.no_access) == (("10.0.0.0/8",), ("10.1.0.0/16",))
    assert found.access_times == ((480, 1080),)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(one: str, other: str, is_same: bool) -> None:  # noqa: FBT001
    """A client has a whole /64, so counting its addresses would limit nobody."""
    assert (admission.counted_as(one) == admission.counted_as(other)) is is_same


def test_a_burst_is_told_at_its_begin_and_its_end() -> None:
    """10 000 refusals are two lines, and those that come later a burst of their own."""
    bursts = Bursts(quiet=2, most=60)
    told = [bursts.add("per_source", 100 + number / 10_000) for number in range(10_000)]
    assert told == [True, *[False] * 9_999]
    assert bursts.ended(102) == []
    assert bursts.due() == pytest.approx(102.9999)
    [(reason, more, seconds)] = bursts.ended(103)
    assert (reason, more, round(seconds, 4)) == ("per_source", 9_999, 0.9999)
    assert (bursts.due(), bursts.ended(200)) == (None, [])
    assert bursts.add("per_source", 200) is True
    assert bursts.ended(203) == []


def test_a_burst_that_does_not_end_is_told_now_and_then() -> None:
    """After a minute the line comes all the same, and a new burst begins."""
    bursts = Bursts(quiet=2, most=60)
    lines = 0
    for second in range(600):
        lines += bursts.add("cps", second)
        lines += len(bursts.ended(second + 0.5))
    lines += len(bursts.ended(1000))
    assert lines == 20


def test_each_reason_has_bursts_of_its_own() -> None:
    """A flood of one kind does not hide the first refusal of another."""
    bursts = Bursts()
    assert [bursts.add(reason, 1) for reason in ("cps", "cps", "address", "cps")] == [
        True,
        False,
        True,
        False,
    ]


def test_refusals_need_no_memory_by_source() -> None:
    """Nothing that refuses remembers who came: what is kept after 10 000 sources is one burst a reason."""
    gate, bursts = Gate(Limits(no_access=("10.0.0.0/8",))), Bursts()
    for number in range(10_000):
        reason = gate.refusal(f"10.0.{number >> 8}.{number & 255}")
        assert reason == "address"
        bursts.add(reason, float(number) / 1e6)
    assert len(bursts._burst) == 1
