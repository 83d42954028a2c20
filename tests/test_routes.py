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
    assert [problem.line for problem in found.repeated] == [2, 4]


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
