"""Each profile that says how it is tried: green by itself, and whatever is taken out of its tree is named."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.system.calls import Virt
from tests.system.fetching import fetched
from tests.system.handmade import REPOSITORY
from tests.system.waiting import PATIENCE
from virttools.manifest import profiles
from virttools.manifest.load import load

pytestmark = pytest.mark.usefixtures("as_root")

BINARIES = {
    name: loaded.manifest.binaries
    for name in profiles.names(site="/nonexistent")
    if (loaded := load("d", manifest_file=None, profiles=[name], addresses=[])).manifest.probes
}
PROFILES = list(BINARIES)
_UNPACKED = """\
for place in usr etc; do
    lower=
    for package in $1; do
        [ ! -d "$package/$place" ] || lower=$lower$package/$place:
    done
    [ -z "$lower" ] || mount -t overlay -o "lowerdir=$lower/$place" none "/$place"
done
shift
exec "$@"
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One root, so that what profiles have in common is stored once."""
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    yield folder
    virt = Virt(folder)
    virt.good("remove", "--yes", *(line.split("\t")[0] for line in virt.good("list").splitlines()))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each package installs that the host lacks: most exclude others that it has."""
    folder = tmp_path_factory.mktemp("packages")
    names = {name for profile in PROFILES for name in lacking(profile)}
    for package in fetched(folder, *sorted(names)) if names else ():
        subprocess.run(["dpkg-deb", "-x", package, folder / package.name.split("_")[0]], check=True)
        package.unlink()
    return folder


def lacking(profile: str) -> list[str]:
    """The packages of what the host lacks, as the profile names them for the hint of `virt create`."""
    absent = (one for one in BINARIES[profile] if not os.path.exists(one.name))
    return sorted({name for one in absent for name in one.packages})


def proved(root: Path, profile: str, packages: str) -> Any:  # noqa: ANN401  JSON
    """What tests/system/proving.py finds, on a host that seems to have these packages."""
    address = f"192.0.2.{PROFILES.index(profile) + 1}"
    words = [sys.executable, "-m", "tests.system.proving", str(root), profile, address]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", _UNPACKED, "sh", packages, *words],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_green_by_itself_and_nothing_of_it_is_gone_unnoticed(
    root: Path, unpacked: Path, profile: str
) -> None:
    """With the packages that it names itself, where the host has others in their place."""
    found = proved(root, profile, " ".join(str(unpacked / name) for name in lacking(profile)))
    assert found["green"]["ok"], found["green"]
    assert found["green"]["missing"] == []
    assert found["files"] > 200
    assert (found["unrecorded"], found["unnamed"]) == ([], [])
    red, victim = found["red"], found["victim"]
    (gone,) = red["missing"]
    assert (red["ok"], gone[0]) == (False, victim)
    assert gone[1].startswith(found["origin"])
    assert not all(red["services"].values()), f"nobody misses {victim}"
    assert PurePosixPath(victim).name in " ".join(red["said"])
