"""What all tests share: root where it is needed, and skips that CI does not forgive."""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

MUST_WORK = os.environ.get("VIRT_MUST_WORK") == "1"

# No machine is too slow. CI tries the same examples each time: what is new is found by who looks for it.
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=MUST_WORK,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any machine")


# Started in the background, or by nohup(1), these are ignored, and would be so in all that the tests start;
# what has a handler is at its default there.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


@pytest.fixture
def as_root() -> None:
    """Real trees need a real root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With VIRT_MUST_WORK=1 a skip is a failure: what could not run did not prove anything."""
    report = yield
    if MUST_WORK and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first: a short one at the end keeps no other process waiting."""
    items.sort(key=lambda item: "/system/" not in item.nodeid)
