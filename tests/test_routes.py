"""Routes files: what a line may be, and which folder an address gets."""

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import ConfigError
from virttools.serve import routes

HOWTO = """\
# This is a comment and so are blank lines
# Format IP dir

10.10.10.129 /virtual/foo.bar.com
10.10.10.130\t /virtual/bar.foo.com \t
  # indented
10.10.10.157 /virtual/boo.la.com
default /virtual/rest
2001:DB8::1 /virtual/six
10.10.10.129 /virtual/late"""

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def folder(text: str, address: str) -> str | None:
    packed = routes.pack(address)
    assert packed is not None
    return routes.parse(text, "conf").find(packed)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.10.10.129", "/virtual/foo.bar.com"),
        ("10.10.10.130", "/virtual/bar.foo.com"),
        ("::ffff:10.10.10.157", "/virtual/boo.la.com"),
        ("2001:db8:0:0:0:0:0:1", "/virtual/six"),
        ("10.10.10.1", "/virtual/rest"),
        ("::1", "/virtual/rest"),
    ],
)
def test_the_files_of_the_howto_are_read(address: str, expected: str) -> None:
    """Comments, blanks, tabs, a missing last newline; the first match counts, `default` comes last."""
    assert folder(HOWTO, address) == expected


def test_without_default_others_have_no_folder() -> None:
    """Unknown addresses are refused."""
    assert folder("10.0.0.1 /virtual/a", "10.0.0.2") is None


def test_every_wrong_line_is_named() -> None:
    """All faults at once, with file and line."""
    text = "10.0.0.1\n10.0.0.256 /x\n\n10.0.0.2 virtual\nfoo.com /virtual/foo\n10.0.0.3 /a\0b\n"
    with pytest.raises(ConfigError) as told:
        routes.parse(text, "conf.ftp")
    assert [str(problem) for problem in told.value.problems] == [
        "conf.ftp:1: no folder after '10.0.0.1'",
        "conf.ftp:2: not an address: '10.0.0.256'",
        "conf.ftp:4: not an absolute path: 'virtual'",
        "conf.ftp:5: not an address: 'foo.com'",
        "conf.ftp:6: not an absolute path: '/a\\x00b'",
    ]


def test_lines_that_can_never_match_are_known() -> None:
    """A second line for an address, or a second default, is kept for --check."""
    found = routes.parse("1.1.1.1 /a\n::ffff:1.1.1.1 /b\ndefault /c\ndefault /d\n", "conf")
    assert [problem.line for problem in found.hidden()] == [2, 4]
    text = (
        "10.0.0.0/8 /a\n10.1.0.0/16 /b\n10.1.1.1:80 /c\n11.0.0.1:80 /d\n11.0.0.1 /e\n11.0.0.1:80 /f"
    )
    assert [str(problem) for problem in routes.parse(text, "conf").hidden()] == [
        "conf:2: never reached: line 1 serves it",
        "conf:3: never reached: line 1 serves it",
        "conf:6: never reached: line 4 serves it",
    ]


LATER = """\
10.1.2.3:21 /ftp
[2001:db8::1]:80 /six-www
[2001:db8::1] /six
10.1.0.0/16 /net
10.1.2.3 /late
10.1.2.4:25 /later
192.0.2.0/24:80 /www
2001:db8::/32 /sixes
::ffff:172.16.0.0/108 /mapped
"""


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("10.1.2.3", 21, "/ftp"),
        ("10.1.2.3", 80, "/net"),
        ("10.1.2.4", 25, "/net"),
        ("10.2.0.0", 25, None),
        ("192.0.2.200", 80, "/www"),
        ("192.0.2.200", 81, None),
        ("2001:db8::1", 80, "/six-www"),
        ("2001:db8::1", 81, "/six"),
        ("::ffff:172.31.0.1", 1, "/mapped"),
        ("172.32.0.1", 1, None),
    ],
)
def test_ports_and_networks_are_looked_up_line_by_line(
    address: str, port: int, expected: str | None
) -> None:
    """The first line that fits counts, be it an address, an address with a port, or a network."""
    packed = routes.pack(address)
    assert packed is not None
    assert routes.parse(LATER, "conf").find(packed, port) == expected


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("10.0.0.1:0", "not a port"),
        ("10.0.0.1:65536", "not a port"),
        ("10.0.0.1:ftp", "not a port"),
        ("10.0.0.1:", "not an address"),
        ("[::1]:", "not an address"),
        ("[::1]80", "not an address"),
        ("[10.0.0.1", "not an address"),
        ("::1%lo", "not an address"),
        ("010.0.0.1", "not an address"),
        ("10.0.0.0/33", "not a mask of 0 to 32 bits"),
        ("10.0.0.0/", "not a mask of 0 to 32 bits"),
        ("10.0.0.0/-1", "not a mask of 0 to 32 bits"),
        ("::ffff:10.0.0.0/95", "not a mask of 0 to 32 bits"),
        ("::/129", "not a mask of 0 to 128 bits"),
        ("10.0.0.1/8", "it has bits beyond its mask"),
        ("DEFAULT", "not an address"),
    ],
)
def test_a_mistyped_place_is_named(place: str, fault: str) -> None:
    """What looks like an address, a port or a network and is none refuses the file."""
    with pytest.raises(ConfigError) as told:
        routes.parse(f"default /all\n{place} /a\n", "conf")
    assert [str(problem) for problem in told.value.problems] == [f"conf:2: {fault}: {place!r}"]


LINES = st.tuples(
    st.one_of(st.sampled_from(["10.0.0.0", "10.0.0.1", "10.0.0.129", "10.128.0.0"]).map(
        ipaddress.ip_address), st.sampled_from(["::1", "2001:db8::"]).map(ipaddress.ip_address)),
    st.sampled_from([0, 1, 8, 9, 25, 31, 32]),
    st.sampled_from([0, 21, 80]),
)  # fmt: skip


def line(head: ipaddress.IPv4Address | ipaddress.IPv6Address, mask: int, port: int, n: int) -> str:
    network = ipaddress.ip_network(f"{head}/{mask}", strict=False)
    if network.num_addresses > 1:
        place = f"[{network}]" if port and network.version == 6 else str(network)
    else:
        place = f"[{head}]" if port and network.version == 6 else str(head)
    return f"{place}:{port} /{n}" if port else f"{place} /{n}"


@given(st.lists(LINES, max_size=12), LINES)
def test_the_first_line_that_fits_counts(
    table: list[tuple[ipaddress.IPv4Address, int, int]],
    asked: tuple[ipaddress.IPv4Address, int, int],
) -> None:
    """Quick look-up and a plain walk down the lines, by ipaddress, find the same; hidden lines never win."""
    text = "\n".join(line(*one, number) for number, one in enumerate(table, 1))
    address, _, port = asked
    expected = next(
        (
            f"/{number}"
            for number, (head, mask, of) in enumerate(table, 1)
            if of in (0, port) and address in ipaddress.ip_network(f"{head}/{mask}", strict=False)
        ),
        None,
    )
    found = routes.parse(text, "conf")
    assert found.find(address.packed, port) == expected
    assert expected not in {f"/{problem.line}" for problem in found.hidden()}


@given(addresses)
def test_pack_agrees_with_ipaddress(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Every spelling of an address packs to the same bytes, mapped ones to IPv4."""
    mapped = getattr(address, "ipv4_mapped", None)
    expected = (mapped or address).packed
    assert {routes.pack(text) for text in (str(address), address.exploded)} == {expected}


@given(st.text())
def test_any_text_gives_routes_or_problems_with_lines(text: str) -> None:
    """The parser ends in one of two ways, and each problem names a line of the file."""
    with contextlib.suppress(ConfigError):
        routes.parse(text, "conf")
        return
    with pytest.raises(ConfigError) as told:
        routes.parse(text, "conf")
    lines = [problem.line for problem in told.value.problems]
    assert lines
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)


@given(
    st.dictionaries(addresses, st.from_regex(r"/[a-z][a-z .]*[a-z]", fullmatch=True), min_size=1)
)
def test_what_is_written_is_found(
    table: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, str],
) -> None:
    """A file written from a table leads each address to its folder."""
    text = "\n".join(f"{address} {path}" for address, path in table.items())
    found = routes.parse(text, "conf")
    for address, path in table.items():
        packed = routes.pack(str(address))
        assert packed is not None
        if getattr(address, "ipv4_mapped", None) is None:
            assert found.find(packed) == path or len(packed) == 4
