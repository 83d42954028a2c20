"""`virt doctor`: each check sees real damage, and what it says to type mends it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.calls import VIRT, Virt

Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """A root with one domain that people log in to."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    manifest = folder.parent / "domain1.com.toml"
    manifest.write_text(
        'profiles = ["login"]\nusers = [{ name = "bob" }]\n'
        'services = [{ name = "echo", port = 7777, program = "/bin/cat", user = "bob" }]\n'
        'addresses = ["127.0.0.1"]\n'
    )
    virt = Virt(folder)
    virt.good("create", "domain1.com", "-m", str(manifest))
    yield virt
    for name in virt("list").out.splitlines():
        virt("remove", "--yes", name.split("\t")[0])


def listed(virt: Virt, *words: str) -> list[dict[str, str]]:
    """The findings, but for what no test machine has: servers."""
    done = virt("--json", "doctor", *words)
    found: list[dict[str, str]] = json.loads(done.out)["data"]["findings"]
    assert done.status == any(one["severity"] != "note" for one in found), done.err
    return [one for one in found if one["check"] not in SERVERS]


SERVERS = {"log-server", "serve-not-running", "user-namespaces"}


def mend(virt: Virt, command: str) -> None:
    """Type what a finding says, and answer yes."""
    path = f"{VIRT.parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", command.replace("virt remove ", "virt remove --yes ")],
        env=virt.environment({"PATH": path}),
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def test_nothing_is_wrong_with_a_new_domain(here: Virt) -> None:
    """A fresh domain has no finding, and looking leaves everything as it was."""
    before = snapshot(here.root)
    assert listed(here) == []
    assert snapshot(here.root) == before


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    files = (Path(folder) / name for folder, some, more in os.walk(root) for name in some + more)
    found = [(str(file), file.lstat()) for file in files]
    return {name: (one.st_ino, one.st_mtime_ns, one.st_ctime_ns) for name, one in found}


DAMAGES: list[tuple[str, Break]] = [
    ("set-id-lost", lambda tree: (tree / "usr/bin/passwd").chmod(0o755)),
    ("pam-other", lambda tree: (tree / "etc/pam.d/other").unlink()),
    ("world-writable", lambda tree: (tree / "etc").chmod(0o777)),
    ("world-writable", lambda tree: (tree / "etc/passwd").chmod(0o666)),
    ("path-missing", lambda tree: (tree / "usr/bin/awk").unlink()),
    ("path-missing", lambda tree: (tree / "usr/bin/sort").unlink()),
    ("path-missing", lambda tree: (tree / "opt").rmdir()),
    ("etc-missing", lambda tree: (tree / "etc/pam.d/passwd").unlink()),
    ("home-missing", lambda tree: (tree / "home/bob").rename(tree / "home/was-bob")),
    ("service-user", lambda tree: without(tree / "etc/passwd", "bob:")),
    ("resolver-local", lambda tree: (tree / "etc/resolv.conf").write_text("nameserver 127.0.0.53")),
    ("mount-left", lambda tree: mounted("-t", "tmpfs", "left", tree / "srv")),
    ("hard-link", lambda tree: linked(tree.parent.parent / "outside", tree / "etc/outside")),
    ("hard-link", lambda tree: os.link(tree / "usr/bin/tsort", tree / "etc/tsort")),
]


def linked(outside: Path, inside: Path) -> None:
    outside.write_text("the host's\n")
    os.link(outside, inside)


def without(file: Path, begin: str) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(begin)))


def mounted(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, timeout=10)


def test_damage_in_a_tree_is_seen_and_mended(here: Virt) -> None:
    """All that was broken is found, and the commands that are told make it whole."""
    tree = here.root / "domain1.com"
    for _, damage in DAMAGES:
        damage(tree)
    found = listed(here)
    # bob has no line in passwd, and so no home to miss, until that is mended.
    expected = sorted(check for check, _ in DAMAGES if check != "home-missing")
    assert sorted(one["check"] for one in found) == expected
    assert {one["domain"] for one in found} == {"domain1.com"}
    for one in found:
        mend(here, one["mend"])
    (left,) = listed(here)
    assert left["check"] == "home-missing"
    mend(here, left["mend"])
    assert listed(here) == []
    assert (tree / "home/bob").stat().st_uid == 1000
    assert (here.root.parent / "outside").stat().st_nlink == 1


def test_a_tree_without_passwd_gets_one(here: Virt) -> None:
    """The least that makes root a user again; the tree's own is in a backup."""
    passwd = here.root / "domain1.com" / "etc/passwd"
    passwd.rename(passwd.with_name("passwd.old"))
    os.mkfifo(passwd)
    (found,) = listed(here)
    assert found["check"] == "passwd-missing"
    mend(here, found["mend"])
    assert "passwd-missing" not in {one["check"] for one in listed(here)}
    passwd.with_name("passwd.old").rename(passwd)


def test_a_tree_that_others_may_swap_is_told(here: Virt) -> None:
    """Neither virtuald nor virt exec enters it: what mends it is for the host's shell."""
    tree = here.root / "domain1.com"
    tree.chmod(0o775)
    (found,) = listed(here)
    assert found["check"] == "tree-owner"
    mend(here, found["mend"])
    assert listed(here) == []


def test_the_answer_is_tab_separated_or_json(here: Virt) -> None:
    """In a pipe: severity, domain, check, what, cause, mend; the status is 1 but for notes."""
    tree = here.root / "domain1.com"
    strange = tree / "etc" / "a\n\x1b[31m"
    strange.touch()
    strange.chmod(0o666)
    done = here("doctor", "domain1.com")
    (line,) = done.out.splitlines()
    fields = line.split("\t")
    assert done.status == 1
    assert fields[:3] == ["error", "domain1.com", "world-writable"]
    assert done.out[:-1].replace("\t", "").isprintable()
    mend(here, fields[5])
    assert here("doctor", "domain1.com").status == 0
    strange.unlink()


def test_a_domain_that_is_not_there_is_named(here: Virt) -> None:
    """As everywhere: 68."""
    assert here("doctor", "nowhere.com").status == 68
