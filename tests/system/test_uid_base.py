"""`uid_base = "auto"`: ids of a domain's own, chosen by `virt create`, and kept."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system import people
from tests.system.calls import VIRT, Virt
from tests.system.waiting import PATIENCE, until
from virttools.tree.root import open_root

FIRST = 1 << 20
SPAN = 65536
BOB = (
    'binaries = ["/bin/sh"]\nusers = [{ name = "bob" }]\netc = { skeleton = ["passwd", "group"] }\n'
)


@pytest.fixture
def small(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(f'uid_base = "auto"\n{BOB}')
    return str(file)


def base(virt: Virt, domain: str) -> int:
    found: int = json.loads(virt.record(domain))["uid_base"]
    return found


def test_each_domain_gets_a_range_of_its_own_and_keeps_it(virt: Virt, small: str) -> None:
    """The lowest free ones, in the record and in the tree; who is made again gets the same."""
    with people.person("virtids", ranges=[(FIRST + 100, SPAN)]):
        virt.create("domain3.com", "-m", small, "--uid-base", str(FIRST + 4 * SPAN + 1))
        virt.good("create", "domain1.com", "domain2.com", "domain4.com", "-m", small)
    bases = [base(virt, f"domain{number}.com") for number in (1, 2, 3, 4)]
    assert bases == [FIRST + n for n in (2 * SPAN, 3 * SPAN, 4 * SPAN + 1, 6 * SPAN)]
    assert (virt.tree("domain1.com") / "home/bob").stat().st_uid == bases[0] + 1000
    assert f"bob:x:{bases[1] + 1000}:" in (virt.tree("domain2.com") / "etc/passwd").read_text()
    shown = virt.good("manifest", "show", "domain1.com")
    assert re.search(f"^uid_base = {bases[0]} +# chosen by virt create$", shown, re.MULTILINE)
    assert f"{bases[1]} to {bases[2] - 2}" in virt.good("show", "domain2.com")
    before = virt.record("domain2.com")
    virt.good("remove", "--yes", "domain1.com", "domain2.com")
    virt.create("domain5.com", "domain2.com", "-m", small)
    assert (virt.record("domain2.com"), base(virt, "domain5.com")) == (before, FIRST)


def test_the_ids_of_a_kept_tree_are_given_to_its_own_domain_only(virt: Virt, small: str) -> None:
    """Written by hand or chosen; whoever asks for them by hand is told, and a deleted tree has none."""
    virt.create("domain1.com", "-m", small, "--uid-base", str(FIRST))
    virt.good("remove", "--yes", "--keep", "domain1.com")
    virt.create("domain2.com", "-m", small)
    assert base(virt, "domain2.com") == FIRST + SPAN
    done = virt("create", "domain3.com", "-m", small, "--uid-base", str(FIRST + 1 - SPAN))
    said = f"are those of {virt.root}/.virt/kept/domain1.com, too"
    assert (done.status, said in done.err) == (0, True), done.err
    virt.good("remove", "--yes", "domain3.com")
    virt.create("domain1.com", "-m", small)
    assert base(virt, "domain1.com") == FIRST
    virt.good("remove", "--yes", "domain1.com", "domain2.com")
    shutil.rmtree(virt.root / ".virt/kept/domain1.com")
    virt.create("domain4.com", "-m", small, "--uid-base", str(FIRST))


def test_a_fifo_in_the_place_of_the_memory_is_not_waited_for(virt: Virt, small: str) -> None:
    """That would be with the lock of all domains held."""
    with open_root(str(virt.root), make=True):
        os.mkfifo(virt.root / ".virt/uids.json")
    done = virt("create", "domain1.com", "-m", small)
    assert (done.status, "cannot read .virt/uids.json" in done.err) == (74, True), done.err


def test_creates_at_the_same_time_never_get_the_same_ids(virt: Virt, small: str) -> None:
    """Four processes that start together all succeed."""
    names = [f"domain{number}.com" for number in range(4)]
    started = [
        subprocess.Popen(
            [str(VIRT), "create", name, "-m", small],
            env=virt.environment(),
            stdout=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [process.wait(PATIENCE) for process in started] == [0] * len(names)
    found = sorted(base(virt, name) for name in names)
    assert found == [FIRST + number * SPAN for number in range(len(names))]


def test_ids_that_a_create_at_work_has_chosen_are_nobody_elses(virt: Virt, tmp_path: Path) -> None:
    """While its hook runs nobody gets them, by hand neither; killed, it gives them back."""
    asleep = tmp_path / "asleep.toml"
    asleep.write_text(
        f'uid_base = "auto"\n{BOB}hooks = [{{ phase = "built", run = ["/bin/sleep", "60"] }}]\n'
    )
    other = tmp_path / "other.toml"
    other.write_text(BOB)
    with subprocess.Popen(
        [str(VIRT), "create", "domain1.com", "-m", str(asleep)],
        env=virt.environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        memory = virt.root / ".virt/uids.json"
        until(lambda: memory.exists() or process.poll() is not None, "it has chosen")
        by_hand = ("create", "domain2.com", "-m", str(other), "--uid-base", str(FIRST + 5))
        refused = virt(*by_hand)
        virt.create("domain3.com", "-m", str(other), "--uid-base", "auto")
        os.killpg(process.pid, signal.SIGKILL)
    assert (refused.status, "another process" in refused.err) == (75, True), refused.err
    assert base(virt, "domain3.com") == FIRST + SPAN
    assert virt(*by_hand).status == 73  # the range of domain3.com
    virt.create(*by_hand[1:-1], str(FIRST))


def test_ids_that_are_a_users_are_chosen_by_hand_only(virt: Virt, small: str) -> None:
    """Then it is said; a dry run says which would be chosen and takes none."""
    with people.person("virtids", ranges=[(FIRST, SPAN)]):
        done = virt("create", "domain1.com", "-m", small, "--uid-base", str(FIRST + 1))
        assert done.status == 0
        assert f"ids of domain1.com ({FIRST + 1} to" in done.err
        assert "virtids's, by /etc/subuid, and 1 more, too" in done.err
        plan = virt.good("create", "domain2.com", "-m", small, "--dry-run")
    assert f"{FIRST + 2 * SPAN + 1000}:{FIRST + 2 * SPAN + 1000}" in plan
    assert not (virt.root / ".virt/uids.json").exists()


def test_an_image_has_no_range_of_its_own(virt: Virt, small: str, tmp_path: Path) -> None:
    """What `auto` would be depends on the machine; so its ids are those of the manifest."""
    out = tmp_path / "small.tar"
    virt.good("image", "-m", small, "-o", str(out), "--check-reproducible")
    listed = subprocess.run(["tar", "-tvnf", out], capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in listed.stdout.splitlines()} == {"0/0", "1000/1000"}


def test_an_ordinary_user_has_as_many_as_their_own_ids_are(as_root: None, small: str) -> None:
    """Of two times 65536 the second makes a range; then it is told where more come from."""
    with people.person("virtids", ranges=[(7_000_000, SPAN), (9_000_000, SPAN)]) as someone:
        manifest = someone.home / "m.toml"
        manifest.write_text(Path(small).read_text())
        os.chown(manifest, someone.uid, someone.gid)
        someone.good("create", "domain1.com", "-m", str(manifest))
        home = (someone.data / "domain1.com/home/bob").stat()
        assert home.st_uid == 9_000_000 + SPAN + 1000 - (SPAN + 1)
        done = someone("create", "domain2.com", "-m", str(manifest))
        assert (done.status, "ask root for more" in done.err) == (69, True), done.err


def test_a_number_of_thousands_of_digits_is_a_wrong_one(virt: Virt, small: str) -> None:
    done = virt("create", "x.test", "-m", small, "--uid-base", "1" * 5000)
    assert (done.status, "allowed: a whole number from 0" in done.err) == (65, True)
