"""What `virt serve --status` shows: the document, and the lines made of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.serve import status
from virttools.serve.messages import lasting
from virttools.serve.status import Periodic, Running, Served, Status

WHOLE = Status(
    version="0.1.0",
    pid=4711,
    uptime=86_400,
    spawners=2,
    reloads=3,
    failed_reloads=1,
    unrouted=5,
    served=(
        Served(
            service="ftp",
            domain="domain1.com",
            listens=("192.0.2.1:21", "[2001:db8::1]:21"),
            live=2,
            served=40,
            failed=1,
            refused=(("instances", 0), ("per_source", 12), ("cps", 3)),
        ),
        Served(service="pop3", domain="domain1.com", live=1, served=1),
        Served(service="pop3", domain="domain2.com"),
    ),
    periodic=(
        Periodic(command="queue", domain="domain1.com", every=3600, runs=7, is_running=True),
        Periodic(command="queue", domain="domain2.com", every=90, runs=2, failed=2),
    ),
    daemons=(
        Running(
            daemon="nginx",
            domain="domain1.com",
            state="running",
            pid=99,
            since=1000,
            restarts=2,
            last="was killed by signal 9",
        ),
        Running(daemon="nginx", domain="domain2.com", state="waiting"),
    ),
)

counts = st.integers(0, 2**53)
names = st.text(max_size=20)
statuses = st.builds(
    Status,
    version=names,
    pid=counts,
    uptime=counts,
    spawners=counts,
    served=st.lists(
        st.builds(
            Served,
            service=names,
            domain=names,
            listens=st.lists(names, max_size=2).map(tuple),
            live=counts,
            refused=st.dictionaries(names, counts, max_size=3).map(
                lambda found: tuple(found.items())
            ),
        ),
        max_size=4,
    ).map(tuple),
    periodic=st.lists(
        st.builds(Periodic, command=names, domain=names, every=counts, is_running=st.booleans()),
        max_size=2,
    ).map(tuple),
)


def test_lines_are_these() -> None:
    """One for each service of each domain, numbers as they are, refusals with their reasons."""
    assert status.rows(WHOLE) == [
        (
            "ftp", "domain1.com", "192.0.2.1:21 [2001:db8::1]:21", "2", "40", "1",
            "15 per_source=12 cps=3",
        ),
        ("pop3", "domain1.com", "-", "1", "1", "0", "0"),
        ("pop3", "domain2.com", "-", "0", "0", "0", "0"),
    ]  # fmt: skip
    assert status.periodic_rows(WHOLE) == [
        ("queue", "domain1.com", "1h", "7", "0", "running"),
        ("queue", "domain2.com", "1m 30s", "2", "2", "waiting"),
    ]
    assert status.daemon_rows(WHOLE, 1063.5) == [
        ("nginx", "domain1.com", "running", "99", "1m 3s", "2", "was killed by signal 9"),
        ("nginx", "domain2.com", "waiting", "-", "-", "0", "-"),
    ]
    assert {len(row) for row in status.daemon_rows(WHOLE, 0)} == {len(status.DAEMON_HEADING)}
    assert {len(row) for row in status.rows(WHOLE)} == {len(status.HEADING)}
    assert {len(row) for row in status.periodic_rows(WHOLE)} == {len(status.PERIODIC_HEADING)}


def test_the_server_is_told_in_a_line() -> None:
    """One of a thing is not many of it; a time is as long as it reads."""
    assert status.headline(WHOLE) == (
        "pid 4711, up 1d, 2 spawners, 3 reloads, 5 connections to no domain"
    )
    small = status.Status(version="0", pid=1, uptime=5400, spawners=1, reloads=1, unrouted=1)
    assert status.headline(small) == (
        "pid 1, up 1h 30m, 1 spawner, 1 reload, 1 connection to no domain"
    )
    times = (0, 59, 60, 3601, 7 * 86400 + 3 * 3600 + 5)
    assert [lasting(seconds) for seconds in times] == ["0s", "59s", "1m", "1h", "7d 3h"]


def test_connections_are_counted_by_domain() -> None:
    """Over all services of it."""
    assert WHOLE.live() == {"domain1.com": 3, "domain2.com": 0}


def test_the_keys_of_the_document_are_a_promise() -> None:
    """Scripts read these."""
    document = WHOLE.document()
    assert set(document) == {
        "version", "pid", "uptime", "spawners", "reloads", "failed_reloads", "unrouted", "lost",
        "is_reloading", "trouble", "served", "periodic", "daemons", "live",
    }  # fmt: skip
    assert document["served"][0] == {
        "service": "ftp",
        "domain": "domain1.com",
        "listens": ("192.0.2.1:21", "[2001:db8::1]:21"),
        "live": 2,
        "served": 40,
        "failed": 1,
        "refused": {"instances": 0, "per_source": 12, "cps": 3},
    }


@given(statuses)
def test_a_document_is_read_back_as_it_was(whole: Status) -> None:
    """Through JSON, as it comes from the server."""
    assert status.read(json.loads(json.dumps(whole.document()))) == whole


@pytest.mark.parametrize(
    "document", [{}, {**WHOLE.document(), "served": [{}]}, {**WHOLE.document(), "served": [None]}]
)
def test_the_document_of_another_version_is_told(document: dict[str, object]) -> None:
    """A server that runs on over an upgrade of the package may speak otherwise."""
    with pytest.raises(ValueError, match="not a status of this version"):
        status.read(document)
