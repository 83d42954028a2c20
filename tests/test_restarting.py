"""When daemons are started again, and what is said of their ends."""

import pytest

from virttools.serve.restarting import SETTLED, Course


def waits(course: Course, *lives: float) -> list[float | None]:
    """How long is waited after lives of so many seconds, each ended by status 1."""
    found, now = [], 100.0
    for life in lives:
        course.begin(now)
        now += life
        wait = course.ended("status 1", now, is_failure=True)
        found.append(wait)
        now += wait or 0.0
    return found


def test_waits_double_up_to_the_longest() -> None:
    """One that dies at once is tried at 1, 2, 4 … seconds, and never less often than said."""
    assert waits(Course("always", 7), *[0.1] * 6) == [1, 2, 4, 7, 7, 7]
    assert waits(Course("always", 86400), *[0.1] * 30)[-1] == 2**15


def test_who_ran_well_is_started_at_once() -> None:
    """And its next short life begins a new series."""
    assert waits(Course("always", 60), 0.1, 0.1, SETTLED, 0.1) == [1, 2, 0, 1]


@pytest.mark.parametrize(
    ("restart", "is_failure", "expected"),
    [
        ("always", False, 1.0),
        ("always", True, 1.0),
        ("on-failure", False, None),
        ("on-failure", True, 1.0),
        ("no", False, None),
        ("no", True, None),
    ],
)
def test_restart_says_whether(restart: str, is_failure: bool, expected: float | None) -> None:  # noqa: FBT001
    """An end by status 0 is no failure."""
    course = Course(restart, 60)
    course.begin(0.0)
    assert course.ended("it", 0.5, is_failure=is_failure) == expected
    assert course.restarts == (0 if expected is None else 1)


def test_a_burst_of_equal_ends_is_said_once() -> None:
    """Another cause is said, and the same one again after it has run well."""
    course, now, said = Course("always", 60), 0.0, []
    for how, life in [("a", 0), ("a", 0), ("b", 0), ("b", 0), ("b", SETTLED), ("b", 0)]:
        course.begin(now)
        now += life
        course.ended(how, now, is_failure=True)
        said.append(course.is_news())
    assert said == [True, False, True, False, True, False]


def test_a_burst_is_over_when_it_runs_for_a_while() -> None:
    """Then the number of ends is told, and all begins anew."""
    course = Course("always", 60)
    assert course.settles_at() is None
    waits(course, 0.1, 0.1, 0.1)
    course.begin(200.0)
    assert course.settles_at() == 200.0 + SETTLED
    assert course.settled() == 3
    assert course.settles_at() is None


def test_a_successor_goes_on_where_it_was() -> None:
    """What an upgrade hands over is all there is."""
    course = Course("always", 60)
    waits(course, 0.1, 0.1)
    course.is_news()
    again = Course.of(course.state())
    assert again.state() == course.state()
    assert waits(again, 0.1) == waits(course, 0.1) == [4]
    assert not again.is_news()
