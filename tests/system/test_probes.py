"""`virt test` with the real programs: green where all is there, red with the piece that is not."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.calls import Virt

pytestmark = pytest.mark.usefixtures("as_root")

DOMAIN = "d1.example"
PROFILES = ("ftp", "pop", "www", "poppass")
GREEN = {
    "ftp": "login, upload, download, anonymous",
    "pop3": "login, 1 messages, fetched one",
    "http": "GET /: 200, 204 bytes",
    "poppassd": "password changed, and changed again with the new one",
}


def state(tree: Path) -> str:
    """Names, modes, owners and times of all that is in a tree."""
    seen = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        at = path.lstat()
        seen.update(f"{path} {at.st_mode} {at.st_uid} {at.st_size} {at.st_mtime_ns}\n".encode())
    return seen.hexdigest()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """A root with a domain of all profiles."""
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    virt = Virt(folder)
    profiles = [word for name in PROFILES for word in ("-p", name)]
    virt.create(DOMAIN, *profiles, "--ip", "192.0.2.1", "--ip", "2001:db8::1")
    yield virt
    virt.good("remove", "--yes", DOMAIN)


def test_a_fresh_domain_is_green_and_left_as_it_was(served: Virt) -> None:
    """Every service works for a real client, and nothing of the trial is in the tree afterwards."""
    before = state(served.tree(DOMAIN))
    found = served.json("test", DOMAIN)
    assert {one["service"]: one["told"] for one in found["services"] if one["ok"]} == GREEN
    assert found["missing"] == found["untried"] == []
    assert not any(one["live"] for one in found["services"])  # 192.0.2.1 is on no interface
    assert state(served.tree(DOMAIN)) == before
    assert list((served.root / ".virt/staging").iterdir()) == []


@pytest.mark.parametrize(
    ("service", "pattern", "said"),
    [
        ("ftp", "usr/lib/*/libwrap.so.0", "libwrap.so.0: cannot open shared object file"),
        ("pop3", "usr/lib/*/security/pam_unix.so", "PAM unable to dlopen(pam_unix.so)"),
        ("http", "var/www/html/index.html", "GET /: 404"),
        ("pop3", "usr/sbin/popa3d", "cannot run /usr/sbin/popa3d: No such file or directory"),
    ],
)
def test_what_is_gone_is_named_with_what_supplied_it(
    served: Virt, service: str, pattern: str, said: str
) -> None:
    """The path, the manifest's line and rule; and what the program itself said about it."""
    (path,) = served.tree(DOMAIN).glob(pattern)
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        done = served("test", DOMAIN, service)
    finally:
        aside.rename(path)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert done.status == 1
    assert [row[2] for row in rows] == ["failed", "missing"]
    assert rows[1][3].startswith(f"/{path.relative_to(served.tree(DOMAIN))}: comes by profiles/")
    assert said in done.out + done.err


def test_what_no_client_misses_is_named_too(served: Virt) -> None:
    """Every service is as it should be; the answer is no, all the same."""
    path = served.tree(DOMAIN) / "usr/bin/passwd"
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        done = served("test", DOMAIN, "http")
    finally:
        aside.rename(path)
    assert done.status == 1
    assert [line.split("\t")[2] for line in done.out.splitlines()] == ["ok", "missing"]
    assert "/usr/bin/passwd: comes by profiles/login.toml:" in done.out


def test_a_wrong_password_is_refused(served: Virt) -> None:
    """Who is named with --user logs in with the tree's own password, and no other."""
    done = served("test", DOMAIN, "ftp", "--user", "nobody", env={"VIRT_TEST_PASSWORD": "wrong"})
    assert done.status == 1
    assert "\tfailed\tlogin: 530 Login incorrect." in done.out
    assert "\tcause\tnobody of d1.example has no password, or a locked one; mend: " in done.out
    assert served("test", DOMAIN, "--user", "nobody").status == 2  # nobody to ask
    done = served("test", DOMAIN, "http", "--live")
    assert done.status == 1
    assert "\tcause\tno interface has the address 192.0.2.1; mend: virt ip sync\n" in done.out
    assert "did you mean" in served("test", DOMAIN, "fpt").err


def test_a_hostile_tree_does_no_harm(served: Virt, tmp_path: Path) -> None:
    """A service that never stops talking, files that are links out of the tree: red, and nothing else."""
    tree = served.tree(DOMAIN)
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    program, shadow, box = tree / "usr/sbin/popa3d", tree / "etc/shadow", tree / "var/mail"
    for path in (program, shadow, box):
        path.rename(f"{path}.aside")
    program.write_text("#!/bin/sh\nprintf '+OK \\033[2J'\nexec yes\n")
    program.chmod(0o755)
    shadow.symlink_to(outside)
    box.symlink_to(tmp_path)
    try:
        done = served("test", DOMAIN, "pop3")
    finally:
        for path in (program, shadow, box):
            path.unlink()
            Path(f"{path}.aside").rename(path)
    assert done.status == 1
    assert done.out == "pop3\t110\tfailed\tlogin: y\n"
    assert done.err.endswith("doctor d1.example` looks for the cause\n")
    assert "\x1b" not in done.out + done.err
    assert outside.read_text() == "mine\n"
    assert list(tmp_path.iterdir()) == [outside]


def test_who_lacks_the_program_is_told_the_package(served: Virt, tmp_path: Path) -> None:
    """The hint names what Debian calls it."""
    site = tmp_path / "m.toml"
    site.write_text(
        'profiles = []\nbinaries = [{ name = "/usr/sbin/nosuchd", packages = ["nosuch", "libno1"] }]\n'
    )
    done = served("create", "d2.example", "-m", str(site))
    assert done.status == 69
    assert done.err.endswith("hint: on Debian: apt-get install libno1 nosuch\n")
