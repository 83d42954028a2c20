"""Names of domains and addresses come back in one form, or are refused in one sentence."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import BadName
from virttools.manifest import names

LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)


@given(st.lists(LABELS, min_size=1, max_size=5), st.sampled_from(["", "."]))
def test_every_rfc_1123_name_is_taken_in_lower_case(labels: list[str], dot: str) -> None:
    """Letters, digits and inner hyphens are a name; case and one dot at the end mean nothing."""
    text = ".".join(labels)
    if text.lower() == "log" or text.lower().startswith("conf.") or re.fullmatch(r"[0-9.]+", text):
        return
    assert names.domain(text + dot) == text.lower()


@given(st.text(max_size=40))
def test_whatever_is_taken_is_a_safe_name_of_one_folder(text: str) -> None:
    """No text becomes a name that is a path, an option, hidden, or a file of our own; and none crashes."""
    try:
        name = names.domain(text)
    except BadName as error:
        sentence = error.message
    else:
        sentence = ""
        taken(name)
    assert sentence.isprintable()


def taken(name: str) -> None:
    """What holds for every name that is taken."""
    assert len(name) <= 253
    assert all(
        re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label) for label in name.split(".")
    )
    assert name != "log"
    assert not name.startswith("conf.")
    assert names.domain(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Domain1.COM.", "domain1.com"),
        ("1-2.example", "1-2.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("日本。jp", "xn--wgv71a.jp"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("conf", "conf"),
        ("log.example", "log.example"),
    ],
)
def test_names_have_one_form(text: str, name: str) -> None:
    """Upper case, the root dot and international letters lead to the same A-labels."""
    assert names.domain(text) == name


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "empty"),
        (".", "a folder itself"),
        ("..", "a folder itself"),
        (".virt", "begin with a dot"),
        (".hidden", "begin with a dot"),
        ("-x", "begins with -"),
        ("a/b", "holds a /"),
        ("/virtual/domain1.com", "holds a /"),
        ("../etc", "begin with a dot"),
        ("lost+found", "belongs to the file system"),
        ("a\0b", "control character"),
        ("domain1.com\n", "control character"),
        (" domain1.com", "a space"),
        ("my_shop.com", "no underscore"),
        ("a..b", "a label is empty"),
        ("a.com..", "a label is empty"),
        ("a-.com", "not made of letters"),
        ("a b.com", "not made of letters"),
        ("a" * 64, "64 characters"),
        (".".join(["a" * 60] * 5), "304 characters"),
        ("x" * 100_000, "100000 characters"),
        ("LOG", "syslog socket"),
        ("log.", "syslog socket"),
        ("\uff4c\uff4f\uff47", "syslog socket"),
        ("conf.ftp", "files of routes"),
        ("CONF.pop", "files of routes"),
        ("192.0.2.1", "an address"),
        ("ü_x.com", "no underscore"),
        ("℀.com", "no international name"),
        ("\udcff.com", "no international name"),
        ("\xad", "no international name"),
    ],
)
def test_what_is_no_domain_is_refused_with_its_cause(text: str, cause: str) -> None:
    """One sentence says what is wrong, printable whatever the name holds."""
    with pytest.raises(BadName) as caught:
        names.domain(text)
    assert cause in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
    assert caught.value.exit_code == 65


def test_an_underscore_gets_a_hint() -> None:
    """The hint is the name that was probably meant."""
    with pytest.raises(BadName) as caught:
        names.domain("my_shop.com")
    assert caught.value.hint == 'did you mean "my-shop.com"?'


@given(st.ip_addresses())
def test_addresses_have_one_form(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Any way to write an address leads to the same text, which is taken again."""
    long = address.exploded.upper()
    try:
        canonical = names.address(long)
    except BadName:
        mapped = getattr(address, "ipv4_mapped", None) or address
        assert mapped.is_unspecified or mapped.is_multicast or str(mapped) == "255.255.255.255"
        return
    assert names.address(canonical) == names.address(str(address)) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_an_address_is_known_under_all_its_texts(text: str, canonical: str) -> None:
    """A domain's address can't be claimed again by writing it in another way."""
    assert names.address(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", "1.2.3", "1.2.3.256", "01.2.3.4", " 1.2.3.4", "1.2.3.4/24", "fe80::1%eth0"),
        *("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"),
        *("domain1.com", "1.2.3.4\n", "1\ud800"),
    ],
)
def test_what_is_no_single_address_is_refused(text: str) -> None:
    """Networks, scopes, groups and names are no address of a domain."""
    with pytest.raises(BadName, match=r"cannot use .* as an address"):
        names.address(text)
