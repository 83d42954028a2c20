"""When periodic commands run: in step, one at a time in a domain, and once however late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.serve.schedule import Job, Schedule


def job(domain: str, name: str = "queue", every: float = 100, last: float | None = 0) -> Job:
    return Job(domain, name, every, last=last)


def names(jobs: list[Job]) -> list[str]:
    return [f"{one.domain}/{one.name}" for one in jobs]


def schedule(*jobs: Job, now: float = 0) -> Schedule:
    made = Schedule()
    made.replace(jobs, now)
    return made


def test_a_command_runs_every_so_often() -> None:
    """Not before it is due; the next time is one period after the last, not after its end."""
    one = job("a")
    made = schedule(one)
    assert (made.next_due(), made.start(99)) == (100, [])
    assert made.start(100) == [one]
    assert made.next_due() is None
    assert made.ended(one, 150) == []
    assert made.next_due() == 200


def test_with_nothing_declared_there_is_nothing_to_wake_up_for() -> None:
    """An idle server sleeps."""
    assert (schedule().next_due(), schedule().start(1e9)) == (None, [])


@pytest.mark.parametrize(("woken", "next_due"), [(100, 200), (250, 300), (1_000_030, 1_000_100)])
def test_what_was_missed_in_a_sleep_is_made_up_for_once(woken: float, next_due: float) -> None:
    """A machine that slept for a week runs the mail queue once, and then in step."""
    one = job("a")
    made = schedule(one)
    assert made.start(woken) == [one]
    made.ended(one, woken)
    assert made.next_due() == next_due


def test_a_command_that_takes_longer_than_its_period_does_not_pile_up() -> None:
    """It never runs twice at once; when it ends, the next time lies ahead."""
    one = job("a")
    made = schedule(one)
    made.start(100)
    assert made.start(550) == []
    assert made.ended(one, 550) == []
    assert made.next_due() == 600


def test_in_a_domain_one_runs_at_a_time() -> None:
    """Others of the domain wait for its end, in the order they were due; other domains don't."""
    made = schedule(job("a", "x"), job("a", "y", last=1), job("a", "z", last=2), job("b"))
    started = made.start(200)
    assert names(started) == ["a/x", "b/queue"]
    following = made.ended(started[0], 210)
    assert names(following) == ["a/y"]
    assert names(made.ended(following[0], 215)) == ["a/z"]


def test_domains_do_not_start_all_at_once() -> None:
    """A thousand domains with the same period are spread over it, the same way each time."""
    jobs = [job(f"domain{number}.com", every=3600, last=None) for number in range(1000)]
    busiest = max(
        sum(minute * 60 <= one.phase() < minute * 60 + 60 for one in jobs) for minute in range(60)
    )
    assert busiest < 50
    assert [one.phase() for one in jobs] == [job(one.domain, every=3600).phase() for one in jobs]


def test_a_reload_keeps_the_time_of_what_stays() -> None:
    """Reloading every minute must not put off an hourly command for ever; a new period counts anew."""
    made = schedule(job("a"), job("b"), now=0)
    made.replace([job("a", last=None), job("b", every=50, last=60), job("c", last=70)], 90)
    assert names(made.start(100)) == ["a/queue"]
    assert names(made.start(170)) == ["b/queue", "c/queue"]


def test_a_reload_leaves_alone_what_runs() -> None:
    """What runs is not started twice, what waited still waits, what is gone does not come back."""
    x, y, z = job("a", "x"), job("a", "y", last=1), job("a", "z", last=2)
    made = schedule(x, y, z)
    made.start(200)
    made.replace([job("a", "x", last=None), job("a", "z", last=None)], 210)
    assert (made.start(220), made.next_due()) == ([], None)
    following = made.ended(x, 230)
    assert names(following) == ["a/z"]
    assert made.next_due() == 300
    made.replace([], 240)
    assert (made.ended(following[0], 250), made.next_due()) == ([], None)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 50)), max_size=8),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 7)), max_size=60),
)
def test_whatever_happens_nothing_is_lost_or_doubled(
    declared: list[tuple[int, int, int]], steps: list[tuple[int, int]]
) -> None:
    """At every moment each job is due, waiting or running; at most one of a domain runs."""
    jobs = {(f"d{d}", f"n{n}"): Job(f"d{d}", f"n{n}", every) for d, n, every in declared}
    made = schedule(*jobs.values())
    running: list[Job] = []
    now = 0
    for wait, which in steps:
        now += wait
        if running and which % 2:
            running += made.ended(running.pop(which % len(running)), now)
        else:
            running += made.start(now)
        if which == 7:
            made.replace(jobs.values(), now)
        assert len({one.domain for one in running}) == len(running)
    for _ in range(20):
        while running:
            running += made.ended(running.pop(), now)
        now += 50
        running = made.start(now)
    counted = len(made._heap) + len(running) + sum(map(len, made._waiting.values()))
    assert counted == len(jobs)
