"""`virt test` with the real programs: green where all is there, red with the piece that is not."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.calls import Virt

DOMAIN = "d1.example"


def state(tree: Path) -> str:
    """Names, modes, owners and times of all that is in a tree."""
    seen = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        at = path.lstat()
        seen.update(f"{path} {at.st_mode} {at.st_uid} {at.st_size} {at.st_mtime_ns}\n".encode())
    return seen.hexdigest()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """A root with a domain for all that is tried."""
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    virt = Virt(folder)
    virt.good("create", DOMAIN, "-p", "ftp", "--ip", "192.0.2.1")
    yield virt
    virt.good("remove", "--yes", DOMAIN)


def test_a_fresh_domain_is_green_and_left_as_it_was(as_root: None, served: Virt) -> None:
    """Every service works for a real client, and nothing of the trial is in the tree afterwards."""
    before = state(served.tree(DOMAIN))
    found = served.json("test", DOMAIN)
    assert [(one["service"], one["ok"]) for one in found["services"]] == [("ftp", True)]
    assert found["services"][0]["told"] == "login, upload, download, anonymous"
    assert found["missing"] == found["untried"] == []
    assert state(served.tree(DOMAIN)) == before


def test_what_is_gone_is_named_with_what_supplied_it(as_root: None, served: Virt) -> None:
    """A library that was drawn in, a module of PAM, a template: path, manifest line, rule."""
    library = next(served.tree(DOMAIN).glob("usr/lib/*/libwrap.so.0"))
    module = next(served.tree(DOMAIN).glob("usr/lib/*/security/pam_unix.so"))
    config = served.tree(DOMAIN) / "etc/vsftpd.conf"
    for path, supplied in ((library, "vsftpd"), (module, "files"), (config, "template")):
        aside = path.with_name(f"{path.name}.aside")
        path.rename(aside)
        try:
            done = served("test", DOMAIN)
        finally:
            aside.rename(path)
        rows = [line.split("\t") for line in done.out.splitlines()]
        place = f"/{path.relative_to(served.tree(DOMAIN))}"
        assert done.status == 1
        assert [row[2] for row in rows] == ["failed", "missing"]
        assert rows[1][3].startswith(f"{place}: comes by profiles/ftp.toml:")
        assert supplied in rows[1][3]
    assert served("test", DOMAIN).status == 0


def test_a_wrong_password_is_refused(as_root: None, served: Virt) -> None:
    """Who is named with --user logs in with the tree's own password, and no other."""
    done = served("test", DOMAIN, "ftp", "--user", "nobody", env={"VIRT_TEST_PASSWORD": "wrong"})
    assert done.status == 1
    assert "\tfailed\tlogin: 530 Login incorrect." in done.out
    assert served("test", DOMAIN, "--user", "nobody").status == 2  # nobody to ask
