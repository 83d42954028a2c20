"""A command's cgroup: made where it is not, again and again while others take it away."""

import os
import shutil
from pathlib import Path

import pytest

from virttools.devlog import belonging, cgroups


def test_a_folder_that_is_taken_away_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who removes the last domain removes the folder of all, too."""
    made: list[str] = []
    makedirs = os.makedirs

    def made_and_gone(path: str, mode: int = 0o777, *, exist_ok: bool) -> None:
        makedirs(path, mode, exist_ok=exist_ok)
        made.append(path)
        if len(made) < 4:
            shutil.rmtree(tmp_path / cgroups.FOLDER)

    monkeypatch.setattr(cgroups, "mount_point", lambda: str(tmp_path))
    monkeypatch.setattr(os, "makedirs", made_and_gone)
    belonging.join("a.com")
    assert (tmp_path / cgroups.FOLDER / "a.com/cgroup.procs").read_bytes() == b"0"
