"""The way of a spawner into the namespaces of its domains, and back, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.handmade import REPOSITORY

MANY, FEW, ROUNDS = 40, 10, 3
VISITS = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from virttools import linux
from virttools.serve.board import Place
from virttools.serve.namespaces import Home, Way, build

linux.unshare(linux.CLONE_NEWNS)
home = Home()
linux.set_mount(home.root_fd, propagation=linux.MS_PRIVATE)
places, numbers = [], []
for name in sorted(os.listdir(sys.argv[1])):
    folder = f"{{sys.argv[1]}}/{{name}}"
    found = os.stat(folder)
    place = Place(name, folder, hostname=name, identity=(found.st_dev, found.st_ino))
    places.append(place)
    numbers.append(build(home, place))
host = os.stat("/").st_ino
way = Way(home, os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY))
before = set(os.listdir("/proc/self/fd"))
for entered in (range({MANY}), range({FEW}), range({FEW}, {MANY})):
    for position in list(entered) * {ROUNDS}:
        place = places[position]
        try:
            way.enter(place, numbers[position])
            assert os.listdir("/") == [f"file-of-{{place.domain}}"], os.listdir("/")
            assert os.uname().nodename == place.hostname
        finally:
            way.leave()
        assert os.stat("/").st_ino == host
    print(len(set(os.listdir("/proc/self/fd")) - before))
"""


@pytest.mark.usefixtures("as_root")
def test_each_place_is_its_own_and_those_entered_often_stay_open(tmp_path: Path) -> None:
    """Of many in turn nothing stays open, of a few all, three descriptors each, until others are entered."""
    for number in range(MANY):
        folder = tmp_path / f"d{number}.test"
        folder.mkdir()
        (folder / f"file-of-d{number}.test").touch()
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", VISITS, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.stdout.split(), found.stderr) == (["0", str(3 * FEW), "0"], "")
