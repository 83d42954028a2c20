"""The shipped profiles: each stands by itself, asks a minimal Debian for nothing it lacks, leaks no account."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from virttools.errors import ManifestError
from virttools.host import templates
from virttools.manifest.keys import DEVICES, SKELETON
from virttools.manifest.load import load
from virttools.manifest.model import Manifest
from virttools.manifest.profiles import names

NOWHERE = "/nonexistent"
HERE = Path(__file__).parents[1]
SHIPPED = names(site=NOWHERE)
EXAMPLES = sorted((HERE / "examples").glob("*.toml"))


def loaded(*profiles: str) -> Manifest:
    """The manifest of these profiles, as shipped."""
    return load(
        "domain1.com", manifest_file=None, profiles=profiles, addresses=[], site=NOWHERE
    ).manifest


@pytest.mark.parametrize("name", SHIPPED)
def test_each_profile_can_be_used_alone(name: str) -> None:
    """It parses, and what it counts on it includes: base is in all of them."""
    found = loaded(name)
    assert "base" in found.profiles
    assert {user.name for user in found.users} >= {"root", "nobody"}


@pytest.mark.parametrize("name", SHIPPED)
def test_each_profile_begins_with_what_it_is(name: str) -> None:
    """The first line says so, for `virt profile list` and for the reader."""
    text = (HERE / "virttools/profiles" / f"{name}.toml").read_text()
    assert text.startswith(f"# {name}: ")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_each_example_is_a_manifest(file: Path) -> None:
    """And its README names it."""
    load("domain1.com", manifest_file=str(file), profiles=[], addresses=[], site=NOWHERE)
    assert f"`{file.name}`" in (HERE / "examples/README.md").read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_no_profile_brings_the_hosts_accounts(name: str) -> None:
    """Files with hashes, names, keys or addresses of the host come from templates only."""
    secret = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid", "hosts", "ssh")
    for file in loaded(name).files:
        top = file.source.split("/")[1:3]
        assert top[:1] != ["root"], file
        assert not (top[:1] == ["etc"] and top[-1].startswith(secret)), file


@pytest.mark.parametrize("name", SHIPPED)
def test_nobody_can_log_in_until_somebody_sets_a_password(name: str) -> None:
    """All accounts of a profile are locked; those but root have no shell either."""
    for user in loaded(name).users:
        assert user.password == "*", user
        assert user.shell == ("/bin/bash" if user.name == "root" else "/usr/sbin/nologin"), user
        assert not user.create_home, user


def test_base_makes_the_whole_skeleton_and_all_six_devices() -> None:
    """A first login must miss neither a file of /etc nor a node of /dev."""
    base = loaded("base")
    assert set(base.etc.skeleton) == set(SKELETON)
    assert {device.path.name for device in base.devices} == set(DEVICES)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_everybody_may_write_to_is_sticky(name: str) -> None:
    """Folders with mode 1777, never 0777."""
    for directory in loaded(name).directories:
        assert not directory.mode & 0o002 or directory.mode & 0o1000, directory


def test_only_programs_keep_set_id_bits_and_each_is_one_of_the_profile() -> None:
    """A path in `setuid` that no line brings would be a misspelling."""
    found = loaded("login")
    programs = {binary.name for binary in found.binaries} | {"unix_chkpwd"}
    assert {path.name for path in found.setuid} <= programs
    assert loaded("base").setuid == ()


def test_every_template_is_used_and_every_used_one_is_shipped() -> None:
    """No template is dead, and none is missing; render/ is not for trees (`virt render`)."""
    each = [loaded(name) for name in SHIPPED]
    used = {template.source for one in each for template in one.templates}
    used |= {f"etc/{name}.j2" for one in each for name in one.etc.skeleton if name != "localtime"}
    shipped = {
        str(path.relative_to(HERE / "templates")) for path in (HERE / "templates").rglob("*.j2")
    }
    shipped = {name for name in shipped if not name.startswith("render/")}
    assert used == shipped
    for name in used:
        templates.text(name, site=NOWHERE)


def test_a_domain_has_one_mail_server() -> None:
    """Two that wait for connections replace each other; a daemon beside a service is refused."""
    with pytest.raises(ManifestError) as raised:
        loaded("smtp", "smtp-postfix")
    (problem,) = raised.value.problems
    assert problem.message.startswith('daemon "smtp" has the name of a service')


def test_each_number_is_one_accounts() -> None:
    """Whichever profiles a domain names, none needs the number of another's user or group."""
    each = [loaded(name) for name in SHIPPED]
    users = {(user.uid, user.name) for one in each for user in one.users}
    groups = {(group.gid, group.name) for one in each for group in one.groups}
    for found in (users, groups):
        assert len({number for number, _ in found}) == len(found), sorted(found)


def test_numbers_are_debians() -> None:
    """Files of packages keep their meaning: the ids are those of base-passwd."""
    master = Path("/usr/share/base-passwd")
    if not master.exists():
        pytest.skip("not a Debian")
    users = _numbers(master / "passwd.master")
    groups = _numbers(master / "group.master")
    base = loaded("base")
    assert {user.name: user.uid for user in base.users}.items() <= users.items()
    assert {group.name: group.gid for group in base.groups}.items() <= groups.items()


def _numbers(file: Path) -> dict[str, int]:
    rows = [line.split(":") for line in file.read_text().splitlines()]
    return {row[0]: int(row[2]) for row in rows if len(row) > 2}


def test_what_is_not_optional_is_on_every_debian() -> None:
    """Each program of base and login is of a package that debootstrap's minimal variant has."""
    if shutil.which("dpkg-query") is None:
        pytest.skip("not a Debian")
    paths = {
        binary.name: _places(binary.name)
        for binary in loaded("base", "login").binaries
        if not binary.optional
    }
    owners = _owners(path for places in paths.values() for path in places)
    priority = _priorities()
    packages = {
        name: {owners[path] for path in places if path in owners} for name, places in paths.items()
    }
    assert not {
        name: found
        for name, found in packages.items()
        if "required" not in {priority.get(package) for package in found}
    }


def _places(program: str) -> list[str]:
    """Where dpkg may have it: merged /usr or not; a link of alternatives is nobody's, its end is."""
    found = shutil.which(program) or program
    end = str(Path(found).resolve())
    return [found, found.removeprefix("/usr"), end, end.removeprefix("/usr")]


def _owners(paths: Iterable[str]) -> dict[str, str]:
    """Path to package, of those that dpkg knows."""
    asked = ["dpkg", "-S", *sorted(set(paths))]
    text = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    lines = [line for line in text.splitlines() if not line.startswith("diversion")]
    return {path: package.split(":")[0] for package, path in (it.split(": ", 1) for it in lines)}


def _priorities() -> dict[str, str]:
    asked = ["dpkg-query", "-W", "-f", "${Package} ${Priority}\n"]
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in text.splitlines())
