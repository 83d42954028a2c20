"""What frames of ARP say of who has an address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.net import arp

OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ADDRESS, OTHER, NOBODY = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 9]), bytes(4)


def reply(station: bytes, sender: bytes) -> bytes:
    return arp.question(station, sender, OTHER).replace(b"\0\1\x02\0", b"\0\2\x02\0", 1)


@pytest.mark.parametrize(
    ("frame", "who"),
    [
        (reply(THEIRS, ADDRESS), ADDRESS),
        (arp.question(THEIRS, ADDRESS, OTHER), ADDRESS),
        (arp.question(THEIRS, ADDRESS, ADDRESS), ADDRESS),
        (arp.question(THEIRS, NOBODY, ADDRESS) + bytes(18), ADDRESS),
        (reply(THEIRS, NOBODY), None),
        (arp.question(OURS, NOBODY, ADDRESS), None),
        (arp.question(OURS, ADDRESS, ADDRESS), None),
        (arp.question(THEIRS, ADDRESS, OTHER)[:27], None),
        (b"\0\6" + arp.question(THEIRS, ADDRESS, OTHER)[2:], None),
    ],
)
def test_a_frame_says_who_has_an_address_or_is_about_to(frame: bytes, who: bytes | None) -> None:
    """By its sender; by its target, if another asks for itself too; our own frames say nothing."""
    assert arp.claimed(frame, OURS) == who


@given(st.binary(max_size=64))
def test_no_frame_is_too_strange(frame: bytes) -> None:
    """Anybody on the network writes them."""
    assert arp.claimed(frame, OURS) is None or len(frame) >= 28
