"""Records: what is written is what is read, and a damaged one is said to be damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import ApplyError
from virttools.manifest.model import Layer
from virttools.tree.record import Entry, Head, Record, decode, encode, head

names = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
entries = st.builds(
    Entry,
    path=names,
    type=st.sampled_from(["file", "directory", "symlink"]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    sha256=st.none() | names,
    target=st.none() | names,
    device=st.none() | st.tuples(st.sampled_from("bc"), st.integers(0, 255), st.integers(0, 255)),
    xattrs=st.lists(st.tuples(names, names), unique_by=lambda pair: pair[0]).map(tuple),
    package=st.none() | names,
    shared=st.booleans(),
    rule=names,
    by=st.none() | names,
    origin=names,
)
records = st.builds(
    Record,
    domain=names,
    layers=st.lists(st.builds(Layer, names, names), max_size=3).map(tuple),
    addresses=st.lists(names, max_size=3).map(tuple),
    profiles=st.lists(names, max_size=3).map(tuple),
    uid_base=st.integers(0, 2**31),
    entries=st.lists(entries, max_size=4).map(tuple),
)


@given(records)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    """Every field survives the way to disk and back."""
    assert decode(encode(record), "a record") == record


@given(records)
def test_the_first_line_of_a_record_is_its_head(record: Record) -> None:
    """A list of a thousand domains reads one line of each record."""
    first = encode(record).partition(b"\n")[0]
    assert head(first, "a record") == Head(
        record.domain, record.addresses, record.profiles, record.uid_base
    )


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"schema": 1}', b"\xff"])
def test_a_damaged_record_is_said_to_be_damaged(text: bytes) -> None:
    """No traceback: one sentence that names the record."""
    with pytest.raises(ApplyError, match=r"cannot read the record of domain1\.com: it is damaged"):
        decode(text, "the record of domain1.com")


def test_a_record_of_a_later_version_is_refused() -> None:
    """A newer schema is not guessed at."""
    with pytest.raises(ApplyError, match="its schema is 99"):
        decode(b'{"schema": 99}', "a record")
