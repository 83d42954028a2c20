"""`virt doctor`: each check sees real damage, and what it says to type mends it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import documents
from tests.system import ground, people
from tests.system.calls import VIRT, Virt
from tests.system.waiting import PATIENCE, until
from virttools.tree import chosen
from virttools.tree.root import open_root

Break = Callable[[Path], object]
BASE = 1900 << 16


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """A root with one domain that people log in to."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    ground.leave_mounts()
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    manifest = folder.parent / "domain1.com.toml"
    manifest.write_text(
        'profiles = ["login"]\nusers = [{ name = "bob" }]\n'
        'services = [{ name = "echo", port = 7777, program = "/bin/cat", user = "bob" }]\n'
        'addresses = ["127.0.0.1"]\n'
    )
    virt = Virt(folder)
    virt.create("domain1.com", "-m", str(manifest))
    yield virt
    virt.sweep()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """A root with two domains that hold a shell."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    ground.leave_mounts()
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    (folder.parent / "plain.toml").write_text('binaries = ["/bin/sh"]\n')
    virt = Virt(folder)
    virt.create("domain1.com", "domain2.com", "-m", str(folder.parent / "plain.toml"))
    yield virt
    virt("remove", "--yes", "domain1.com", "domain2.com")


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
        timeout=PATIENCE,
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
    ("set-id-made", lambda tree: set_id(tree / "home/x")),
    ("not-executable", lambda tree: (tree / "usr/bin/tac").chmod(0o644)),
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


def set_id(file: Path) -> None:
    file.write_text("")
    file.chmod(0o4755)


def linked(outside: Path, inside: Path) -> None:
    outside.write_text("the host's\n")
    os.link(outside, inside)


def without(file: Path, begin: str) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(begin)))


def mounted(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, timeout=PATIENCE)


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


def test_who_has_ids_of_a_domain_outside_of_it_is_told(virt: Virt, tmp_path: Path) -> None:
    """As a domain of another root has; who is inside has them by right."""
    (tmp_path / "m.toml").write_text(f'binaries = ["/bin/sh"]\nuid_base = {BASE}\n')
    virt.create("domain1.com", "-m", str(tmp_path / "m.toml"))
    sleep = ["/bin/sleep", "1000"]
    with (
        subprocess.Popen(sleep, user=BASE + 7) as outside,
        subprocess.Popen(sleep, user=BASE + 7, cwd=virt.tree("domain1.com")) as inside,
    ):
        try:
            found = [one for one in listed(virt) if one["check"] == "uid-outside"]
            inside.kill()
            inside.wait()
            mend(virt, found[0]["mend"])
            assert "uid-outside" not in {one["check"] for one in listed(virt)}
        finally:
            outside.kill()
            inside.kill()
    told = f"process {outside.pid} (sleep) has ids of domain1.com and runs outside of it"
    assert [one["what"] for one in found] == [told]


def test_what_is_planted_holds_nobody_up(virt: Virt, tmp_path: Path) -> None:
    """Fifos, devices, links to the host, a thousand folders deep: all is told, and nothing of the host's."""
    (tmp_path / "m.toml").write_text(
        'binaries = ["/bin/sh"]\netc = { skeleton = ["passwd", "group", "resolv.conf"] }\n'
    )
    (tmp_path / "passwd").write_text("spy:x:4242:4242::/:/bin/sh\n")
    for name in ("domain1.com", "domain2.com"):
        virt.create(name, "-m", str(tmp_path / "m.toml"))
    first, second = (virt.root / name for name in ("domain1.com", "domain2.com"))
    (first / "etc").rename(first / "etc.was")
    (first / "etc").symlink_to(tmp_path)
    for name in ("passwd", "group", "resolv.conf"):
        (second / "etc" / name).unlink()
    os.mkfifo(second / "etc/passwd")
    os.mknod(second / "etc/group", 0o600 | 0o020000, os.makedev(1, 5))
    (second / "etc/resolv.conf").symlink_to("resolv.conf")
    deep = second / "deep"
    deep.mkdir()
    here_fd = os.open(deep, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=here_fd)
        below_fd = os.open("d", os.O_RDONLY, dir_fd=here_fd)
        os.close(here_fd)
        here_fd = below_fd
    os.close(here_fd)
    found = listed(virt)
    assert seen(found) == [
        ("passwd-missing", "domain1.com"),
        ("passwd-missing", "domain2.com"),
        ("path-replaced", "domain1.com"),
    ]
    assert "spy" not in json.dumps(found)


def test_an_ordinary_user_has_a_doctor_too() -> None:
    """Of trees of their own: nothing is wrong with a new one, and what they break is told."""
    with people.person("virtdoc", ranges=[(7_000_000, 65536)]) as someone:
        manifest = someone.home / "m.toml"
        manifest.write_text('binaries = ["/bin/sh", "chmod"]\n')
        someone.good("create", "domain1.com", "-m", str(manifest))
        before = someone("doctor", "domain1.com")
        assert (before.status, before.out) == (0, "")
        (someone.data / "domain1.com/usr").chmod(0o777)
        after = someone("doctor", "domain1.com")
        assert after.out.split("\t")[:3] == ["error", "domain1.com", "world-writable"], after.err
        told = someone.good("remove", "--yes", "--keep", "domain1.com")
        kept = someone.data / ".virt/kept/domain1.com"
        assert told == f"removed domain1.com; its tree is {kept} now\n"
        assert (kept / "usr").is_dir()
        someone.good("create", "domain1.com", "-m", str(manifest))
        someone.good("remove", "--yes", "domain1.com")


def test_a_domain_that_is_not_there_is_named(here: Virt) -> None:
    """As everywhere: 68."""
    assert here("doctor", "nowhere.com").status == 68


@pytest.fixture
def site(tmp_path: Path, virt: Virt) -> Virt:
    """Two domains with little in them, of manifests that lie beside the root."""
    (tmp_path / "libdoctor.so.1").write_text("old")
    for number in (1, 2):
        (tmp_path / f"domain{number}.com.toml").write_text(
            'binaries = ["/bin/sh", "cat", "tar"]\nlink = "copy"\n'
            f'files = [{{ from = "{tmp_path}/libdoctor.so.1", to = "/usr/lib/libdoctor.so.1" }}]\n'
            f'addresses = ["127.0.0.{number}"]\n'
            'users = [{ name = "bob" }]\netc = { skeleton = ["passwd", "group"] }\n'
            'services = [{ name = "echo", port = 7777, program = "/bin/cat" }]\n'
        )
    (tmp_path / "domain2.com.toml").write_text(
        f"uid_base = {BASE + 65536}\n" + (tmp_path / "domain2.com.toml").read_text()
    )
    make(virt, tmp_path, 1, 2)
    return virt


def make(virt: Virt, folder: Path, *numbers: int) -> None:
    for number in numbers:
        name = f"domain{number}.com"
        virt.create(name, "-m", str(folder / f"{name}.toml"))


def seen(found: list[dict[str, str]]) -> list[tuple[str, str | None]]:
    return sorted((one["check"], one["domain"] or "") for one in found)


def test_damage_on_the_way_to_a_tree_is_seen_and_mended(site: Virt, tmp_path: Path) -> None:
    """Routes, inetd.conf, links, and what crashes leave: found by line, and mended by what is told."""
    root, inetd, links = site.root, tmp_path / "inetd.conf", tmp_path / "bin"
    options = ("--inetd", str(inetd), "--bindir", str(links))
    links.mkdir()
    assert listed(site, *options) == []
    (root / "conf.hand").write_text(
        f"127.0.0.1 {root}/domain1.com\n"
        f"127.0.0.9 {root}/gone.com\n"
        f"127.0.0.1 {root}/domain1.com\n"
        f"127.0.0.2 {root}/domain1.com\n"
    )
    (root / "conf.bad").write_text("somewhere over the rainbow\n")
    (root / "conf.bad").chmod(0o666)
    os.mkfifo(root / "conf.fifo")
    (root / "domain1.com/etc/mail").mkdir()
    (root / "domain1.com/etc/mail/submit.cf").touch()
    through = f"root {VIRT.parent}/virtuald virtuald {root}"
    inetd.write_text(
        f"echo stream tcp nowait {through}/conf.hand /bin/cat\n"
        f"discard stream tcp wait {through}/conf.hand /bin/cat\n"
        f"daytime stream tcp nowait.999 {through}/conf.none /bin/cat\n"
        f"chargen stream tcp nowait.999 {through}/conf.echo /bin/cat\n"
        f"smtp stream tcp nowait.999 {through}/conf.hand sendmail -bs\n"
        "what is this\n"
    )
    (links / "virtvi").symlink_to("/nowhere/virt")
    (root / ".virt/staging/domain9.com.1.0123").mkdir()
    records = root / ".virt/records"
    (records / "gone.com.json").write_bytes((records / "domain1.com.json").read_bytes())
    found = listed(site, *options)
    assert seen(found) == [
        ("inetd-limit", ""),
        ("inetd-line", ""),
        ("inetd-wait", ""),
        ("link-broken", ""),
        ("record-without-tree", ""),
        ("route-contested", "domain2.com"),
        ("route-hidden", ""),
        ("route-no-tree", ""),
        ("routes-unreadable", ""),
        ("routes-unreadable", ""),
        ("routes-unreadable", ""),
        ("routes-untrusted", ""),
        ("sendmail-mode", ""),
        ("staging-leftover", ""),
    ]
    for one in found:
        mend(site, one["mend"])
    assert listed(site, *options) == []
    assert (links / "virtvi").resolve() == VIRT.resolve()
    assert "sendmail -bs -Am" in inetd.read_text()
    assert (root / "conf.echo").exists()


def test_what_only_a_new_domain_mends(site: Virt, tmp_path: Path) -> None:
    """An old library, a uid that two domains have, a library that is gone: made anew, each from its manifest.

    What people had is set aside, and comes back by the line of virt(1).
    """
    with open_root(str(site.root)) as root:  # `auto` is what processes of other tests have, too
        chosen.write(root, {"domain2.com": BASE + (2 << 16)})
    (tmp_path / "libdoctor.so.1").write_text("new")
    second = tmp_path / "domain2.com.toml"
    second.write_text(second.read_text().partition("\n")[2])
    site.good("remove", "--yes", "domain2.com")
    make(site, tmp_path, 2)
    next((site.root / "domain2.com").glob("lib64/ld-linux*")).unlink()
    for name in ("home", "srv", "var/mail"):
        (site.root / "domain1.com" / name).mkdir(parents=True, exist_ok=True)
    (site.root / "domain1.com/home/letter").write_text("mine")
    found = listed(site)
    assert seen(found) == [
        ("library-old", "domain1.com"),
        ("path-missing", "domain2.com"),
        ("uid-shared", "domain2.com"),
    ]
    for one in found:
        mend(site, one["mend"])
    assert json.loads(site.record("domain2.com"))["uid_base"] == BASE + (2 << 16)
    assert listed(site) == []
    assert site("exec", "--domain", "domain2.com", "--", "cat", "/etc/passwd").status == 0
    put_back = documents.section("virt.1", "remove").blocks()[0][1]
    assert not (site.root / "domain1.com/home/letter").exists()
    mend(site, put_back.removeprefix("# ").replace("/virtual/", f"{site.root}/"))
    assert (site.root / "domain1.com/home/letter").read_text() == "mine"


def test_a_service_without_an_address_is_told(virt: Virt, tmp_path: Path) -> None:
    """Made again with one, somebody is served."""
    manifest = tmp_path / "m.toml"
    manifest.write_text(
        'binaries = ["/bin/sh"]\nservices = [{ name = "x", port = 9, program = "/bin/sh" }]\n'
    )
    virt.create("domain1.com", "-m", str(manifest))
    (found,) = listed(virt)
    assert found["check"] == "service-no-address"
    mend(virt, found["mend"].replace("ADDRESS", "127.0.0.1"))
    assert listed(virt) == []


def test_an_address_without_an_alias_is_told(virt: Virt, tmp_path: Path) -> None:
    """In a network namespace of its own: the alias is put where the default route goes, or on lo."""
    (tmp_path / "m.toml").write_text('binaries = ["/bin/sh"]\naddresses = ["192.0.2.77"]\n')
    virt.create("domain1.com", "-m", str(tmp_path / "m.toml"))
    script = """
    ip link set lo up
    virt doctor domain1.com >before; echo $? >>before
    sh -c "$(cut -f6 before | head -1)"
    virt doctor domain1.com >after; echo $? >>after
    """
    subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        env=virt.environment({"PATH": f"{VIRT.parent}:{os.environ['PATH']}"}),
        cwd=tmp_path,
        check=True,
        timeout=PATIENCE,
        capture_output=True,
    )
    before = (tmp_path / "before").read_text()
    assert before.startswith("error\tdomain1.com\taddress-missing\t")
    assert before.endswith("\n1\n")
    assert (tmp_path / "after").read_text() == "0\n"


def test_the_log_link_is_told_and_relinked(plain: Virt) -> None:
    """Of a socket that was bound anew, of one that is gone, and of what was put in its place."""
    link = plain.root / "domain1.com/dev/log"
    damages: tuple[Callable[[], object], ...] = (link.unlink, lambda: put_file(link))
    for damage in damages:
        damage()
        (found,) = listed(plain)
        assert found["check"] == "log-link"
        mend(plain, found["mend"])
        assert listed(plain) == []


def put_file(path: Path) -> None:
    path.unlink()
    path.write_text("not a socket")


def test_a_file_system_that_harms_is_told(plain: Virt) -> None:
    """A root on nosuid, nodev, noexec; a tree on a file system of its own."""
    root = plain.root
    mounted("--bind", "-o", "bind,nosuid,nodev,noexec", root, root)
    try:
        mounted("-t", "tmpfs", "-o", "mode=755", "apart", root / "domain1.com")
        found = {one["check"]: one["mend"] for one in listed(plain)}
        assert {"root-mount", "tree-apart"} <= set(found)
        mend(plain, found["root-mount"])
        mend(plain, found["tree-apart"])
        assert listed(plain) == []
    finally:
        subprocess.run(["umount", root], check=True, timeout=PATIENCE)


def test_a_damaged_record_and_an_open_root_are_told(plain: Virt) -> None:
    """What keeps all other commands from working is a finding here, not a failure."""
    record = plain.root / ".virt/records/domain1.com.json"
    text = record.read_bytes()
    record.write_bytes(text[:40])
    assert seen(listed(plain)) == [("record-damaged", "domain1.com")]
    record.write_bytes(text)
    plain.root.chmod(0o777)
    (found,) = listed(plain)
    assert found["check"] == "root-unsafe"
    mend(plain, found["mend"])
    assert listed(plain) == []


def test_servers_that_do_not_run_are_told(site: Virt) -> None:
    """Until `virt log serve` and `virt serve` run: what is said to be typed."""
    done = site("--json", "doctor")
    found = json.loads(done.out)["data"]["findings"]
    mends = {one["check"]: one["mend"] for one in found}
    assert mends == {"log-server": "virt log serve", "serve-not-running": "virt serve"}
    running = [
        subprocess.Popen(
            [VIRT, *words, *more],
            env=site.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for words, more in ((["log", "serve"], []), (["serve"], ["--log", "stderr"]))
    ]
    try:
        until(lambda: site("--json", "doctor").status == 0, "all is well")
        assert json.loads(site("--json", "doctor").out)["data"]["findings"] == []
    finally:
        for one in running:
            one.terminate()
            one.wait(PATIENCE)
