"""What all tests share: root where it is needed, and skips that CI does not forgive."""

import os
from collections.abc import Generator

import pytest

MUST_WORK = os.environ.get("VIRT_MUST_WORK") == "1"


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
