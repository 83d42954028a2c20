"""How much a domain may log: a rate, a burst, and what is dropped told once."""

from hypothesis import given
from hypothesis import strategies as st

from virttools.devlog.limits import Limit


def test_no_rate_is_no_limit() -> None:
    """0 lets everything pass, and counts nothing."""
    limit = Limit(0, 1)
    assert limit.take(1 << 20, 0.0) == 1 << 20
    assert not limit.has_dropped


def test_a_burst_passes_and_the_rest_is_dropped() -> None:
    """First the burst, then as many as the rate brings back."""
    limit = Limit(10, 100)
    assert [limit.take(64, 0.0), limit.take(64, 0.0), limit.take(64, 1.0)] == [64, 36, 10]
    assert limit.has_dropped


def test_what_is_dropped_is_told_once_when_it_is_over() -> None:
    """One sentence for a flood, not one for each message."""
    limit = Limit(10, 10)
    limit.take(110, 0.0)
    assert limit.told(0.5) == 0
    assert limit.told(1.5) == 100
    assert (limit.told(3.0), limit.has_dropped) == (0, False)


def test_a_flood_that_goes_on_is_told_meanwhile() -> None:
    """Who floods for hours does not hide it for hours."""
    limit = Limit(1, 1)
    told = []
    for second in range(31):
        limit.take(100, float(second))
        told.append(limit.told(second + 0.5))
    assert sum(one > 0 for one in told) == 2


def test_who_is_let_go_is_told_at_once() -> None:
    """The count of a domain that goes is not lost with it."""
    limit = Limit(1, 1)
    limit.take(5, 0.0)
    assert limit.told(0.0, at_once=True) == 4


@given(
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 100), st.floats(0, 10)), max_size=50),
)
def test_never_more_than_burst_and_rate(
    rate: int, burst: int, calls: list[tuple[int, float]]
) -> None:
    """Over any time, what passes is at most the burst and the rate's share; the rest is counted."""
    limit = Limit(rate, burst)
    now, passed, asked = 0.0, 0, 0
    for count, pause in calls:
        now += pause
        passed += limit.take(count, now)
        asked += count
    assert passed <= burst + rate * now + 1
    assert limit.told(now, at_once=True) == asked - passed
