"""`virt scrub` of a domain that people use: what goes is shown before it goes, and the keys of services stay."""

from pathlib import Path

import pytest

from tests.system import terminal
from tests.system.calls import VIRT, Virt
from tests.system.certificates import certificate

MANIFEST = """
directories = ["/etc"]
[scrub]
own = ["/etc/service.key"]
"""


@pytest.fixture
def living(virt: Virt, tmp_path: Path) -> Virt:
    """A domain whose administrator has put two keys there: of its service, and one that was forgotten."""
    manifest = tmp_path / "m.toml"
    manifest.write_text(MANIFEST)
    virt.create("domain1.com", "-m", str(manifest))
    for name in ("service.key", "forgotten.key"):
        (virt.tree("domain1.com") / "etc" / name).write_text(certificate("domain1.com")[0])
    return virt


def keys(virt: Virt) -> list[str]:
    return sorted(path.name for path in (virt.tree("domain1.com") / "etc").glob("*.key"))


def test_what_would_go_is_shown_before_it_is_asked(living: Virt) -> None:
    """A no leaves all; then a yes takes what was shown, and the service keeps its key."""
    words = [str(VIRT), "scrub", "domain1.com"]
    for answer, status, left in (("n", 2, 2), ("y", 0, 1)):
        with terminal.running(words, living.environment({"LANG": "C.UTF-8"})) as asked:
            before = asked.expect("Really scrub domain1.com?")
            assert "would scrub /etc/forgotten.key" in before
            assert "service.key" not in before
            asked.type(answer)
            assert asked.end() == status
        assert len(keys(living)) == left
    assert keys(living) == ["service.key"]


def test_a_key_of_a_service_is_in_no_image(living: Virt, tmp_path: Path) -> None:
    """Nor in a tree that is built: only a living one may hold it."""
    living.good("scrub", "--yes", "domain1.com")
    done = living("image", "domain1.com", "-o", str(tmp_path / "o.tar"), "--format", "tar")
    assert (done.status, "/etc/service.key" in done.err) == (65, True)
    manifest = tmp_path / "built.toml"
    (tmp_path / "service.key").write_text(certificate("domain2.com")[0])
    file = f'{{ from = "{tmp_path}/service.key", to = "/etc/service.key" }}'
    manifest.write_text(f"files = [{file}]\n{MANIFEST}")
    done = living("create", "domain2.com", "-m", str(manifest))
    built = living.tree("domain2.com") / "etc/service.key"
    assert (done.status in (0, 65), built.exists()) == (True, False)
