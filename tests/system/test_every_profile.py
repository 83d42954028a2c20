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
from tests.system.handmade import REPOSITORY
from tests.system.logdaemons import Packages
from virttools.manifest import profiles
from virttools.manifest.load import load

pytestmark = pytest.mark.usefixtures("as_root")

HINT = "on Debian: apt-get install "
PROFILES = [
    name
    for name in profiles.names(site="/nonexistent")
    if load("d.example", manifest_file=None, profiles=[name], addresses=[]).manifest.probes
]
_UNPACKED = """\
packages=$1
shift
for place in usr etc; do
    [ ! -d "$packages/$place" ] || mount -t overlay -o "lowerdir=$packages/$place:/$place" none "/$place"
done
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


def proved(root: Path, profile: str, packages: Path) -> Any:  # noqa: ANN401  JSON
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
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_green_by_itself_and_nothing_of_it_is_gone_unnoticed(
    root: Path, tmp_path: Path, profile: str
) -> None:
    """With what the hint of `virt create` says is needed, where the host has another in its place."""
    found = proved(root, profile, tmp_path)
    if "lacks" in found:
        assert found["lacks"].startswith(HINT), found
        named = found["lacks"].removeprefix(HINT).split()
        found = proved(root, profile, Packages(tmp_path).get(*named))
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
