"""Ranges of ids: the lowest free one, and what a host says is somebody's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.domains.ids import _Choice
from virttools.errors import HostLacks
from virttools.host import idranges
from virttools.host.sysroot import Sysroot
from virttools.tree import ranges
from virttools.tree.ranges import POOLS, SPAN, Held

_SPANS = 12
_ids = st.tuples(st.integers(0, _SPANS * SPAN), st.integers(0, 3 * SPAN)).map(
    lambda one: range(one[0], one[0] + one[1])
)
_near = st.tuples(st.integers(0, _SPANS), st.integers(-1, 1), st.integers(0, 2 * SPAN)).map(
    lambda one: range(max(0, one[0] * SPAN + one[1]), max(0, one[0] * SPAN + one[1]) + one[2])
)
_several = st.lists(_ids | _near, max_size=8)


def is_free(base: int, held: list[range], pool: range) -> bool:
    is_inside = pool.start <= base and base + SPAN <= pool.stop
    return is_inside and not any(one.start < base + SPAN and base < one.stop for one in held if one)


@given(_several, st.lists(_ids, max_size=3))
def test_the_range_picked_is_the_lowest_that_is_free(held: list[range], pools: list[range]) -> None:
    """Of all multiples of SPAN, pool by pool, tried one by one; None where there is none."""
    every = [SPAN * number for number in range(2 * _SPANS)]
    free = (base for pool in pools for base in every if is_free(base, held, pool))
    assert ranges.pick(held, pools) == next(free, None)


@given(_several, st.integers(1, 20))
def test_ranges_picked_one_after_the_other_have_no_id_in_common(
    held: list[range], count: int
) -> None:
    """Each is held by the next choice; none has an id of the machine, and all are 31 bits."""
    found: list[range] = []
    for _ in range(count):
        base = ranges.pick((*held, *found))
        assert base is not None
        found.append(ranges.of(base))
    assert all(not ranges.common(one, other) for one in found for other in (*held, POOLS[1]))
    assert (
        sum(map(len, found))
        == len(set().union(*(range(one.start, one.stop, 4096) for one in found))) * 4096
    )
    assert max(one.stop for one in found) <= 1 << 31


@given(
    st.lists(st.integers(1, 8), max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 8)),
    st.frozensets(st.integers(1, 8)),
    st.frozensets(st.integers(1, 8), max_size=2),
)
def test_who_is_made_again_gets_the_same_and_others_get_it_last(
    held: list[int], remembered: dict[str, int], busy: frozenset[int], aside: frozenset[int]
) -> None:
    """Of eight ranges; busy: those that another process has taken. Nobody is refused while one is left.

    aside: of trees that were kept, which only their domain may have again: here a.
    """
    choice = _Choice(
        [ranges.of(number * SPAN) for number in held],
        [("a", ranges.of(number * SPAN)) for number in aside],
        {name: number * SPAN for name, number in remembered.items()},
        [range(SPAN, 9 * SPAN)],
        lambda ids: ids.start // SPAN not in busy,
    )
    unheld = set(range(1, 9)) - set(held) - busy
    for name in "abcdef":
        free = unheld - (aside if name != "a" else frozenset())
        if not free:
            with pytest.raises(HostLacks, match=f"cannot choose ids for {name}: "):
                choice.base(name)
            continue
        fresh = free - set(remembered.values())
        own = remembered.get(name)
        expected = own if own in free else min(fresh or free)
        assert choice.base(name) == expected * SPAN
        unheld.discard(expected)


@given(st.lists(_several, min_size=1, max_size=3), st.integers(0, _SPANS * SPAN))
def test_what_ranges_have_in_common_is_in_all(several: list[list[range]], number: int) -> None:
    """An id is in the result if each of the lists has it."""
    both = ranges.common_to_all(*several)
    assert any(number in one for one in both) == all(
        any(number in one for one in it) for it in several
    )


@pytest.fixture
def host(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0:::\nalice:x:1000:1000:::\nfar:x:2000000:2000000:::\n")
    (etc / "group").write_text("root:x:0:\nfarther:x:3000000:\n")
    (etc / "subuid").write_text("alice:100000:65536\nvirttools:2097152:655360\nbad:x:1\n:\n7:1:\n")
    (etc / "subgid").write_text("alice:200000:65536\nvirttools:2162688:1000000\n")
    return tmp_path


def test_accounts_and_subordinate_ranges_of_a_host_are_held(host: Path) -> None:
    """Lines of no meaning are passed over; what is reserved for us, in both files, is not held."""
    known = idranges.read(Sysroot(str(host)))
    assert known.held[-2:] == (
        Held(range(100000, 165536), "alice's, by /etc/subuid"),
        Held(range(200000, 265536), "alice's, by /etc/subgid"),
    )
    assert Held(range(3000000, 3000001), "farther's, by /etc/group") in known.held
    assert [held.holder for held in known.held if 2000000 in held.ids] == ["far's, by /etc/passwd"]
    assert known.reserved == (range(2162688, 2752512),)


def test_a_host_without_those_files_holds_nothing(tmp_path: Path) -> None:
    """Not even root."""
    assert idranges.read(Sysroot(str(tmp_path))) == ranges.Known()


def test_ids_that_are_somebody_elses_are_told(host: Path) -> None:
    """By the first who has them; a domain that shares all ids by intent is not told so."""
    held = idranges.read(Sysroot(str(host))).held
    said = ranges.told("a.com", 131072, held)
    assert said == "ids of a.com (131072 to 196607) are alice's, by /etc/subuid, too"
    assert (
        ranges.told("a.com", 1966080, held).endswith("are far's, by /etc/passwd, and 0 more, too")
        is False
    )
    assert ranges.told("a.com", 0, held) == ranges.told("a.com", 1 << 20, held) == ""
