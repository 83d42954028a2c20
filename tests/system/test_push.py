"""`virt image --push`: by the real skopeo where the place is one of this machine, else by a stand-in that records."""

import json
import os
from pathlib import Path

import pytest

from tests.system.calls import Virt

MANIFEST = 'binaries = ["true"]\n'


@pytest.fixture
def small(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(MANIFEST)
    return str(file)


def recorder(folder: Path, name: str, status: int = 0) -> None:
    """A program that writes down its arguments."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(
        f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\necho "no basic auth" >&2\nexit {status}\n'
    )
    file.chmod(0o755)


def test_skopeo_takes_it_to_another_place(virt: Virt, small: str, tmp_path: Path) -> None:
    """What arrives is the image that was made, as another layout."""
    out, there = f"{tmp_path}/a.oci", f"{tmp_path}/there"
    told = virt.good("image", "-m", small, "-o", out, "--tag", "1", "--push", f"oci:{there}:1")
    assert f"pushed to oci:{there}:1 by skopeo" in told
    assert virt("diff", f"{out}:1", f"{there}:1").status == 0


@pytest.mark.parametrize(
    "case",
    [
        ((), ("skopeo", "oras"), "skopeo copy --quiet --insecure-policy --all oci:{out}:latest docker://r.example/a/b:1"),
        ((), ("oras",), "oras cp --no-tty --from-oci-layout {out}:latest r.example/a/b:1"),
        (("--attach", "spdx"), ("skopeo", "oras"), "oras cp --no-tty -r --from-oci-layout {out}:latest r.example/a/b:1"),
    ],
    ids=["skopeo goes first", "oras will do", "referrers need oras"],
)  # fmt: skip
def test_a_registry_gets_it_by_what_is_there(
    virt: Virt, small: str, tmp_path: Path, case: tuple[tuple[str, ...], tuple[str, ...], str]
) -> None:
    """HOST/NAME:TAG is a registry's; oras goes first where documents hang on the image."""
    more, there, called = case
    for name in there:
        recorder(tmp_path / "bin", name)
    out = f"{tmp_path}/a.oci"
    path = f"{tmp_path}/bin:/usr/sbin" if "skopeo" in there else f"{tmp_path}/bin"
    # /bin/virt is a script of sh: it needs no PATH.
    done = virt(
        "image", "-m", small, "-o", out, *more, "--push", "r.example/a/b:1", env={"PATH": path}
    )
    assert done.status == 0, done.err
    assert (tmp_path / "bin/calls").read_text() == called.format(out=out) + "\n"


def test_a_refusal_of_the_registry_is_told_and_the_image_stays(
    virt: Virt, small: str, tmp_path: Path
) -> None:
    """74 with what skopeo said last."""
    recorder(tmp_path / "bin", "skopeo", status=1)
    out = f"{tmp_path}/a.oci"
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    done = virt("image", "-m", small, "-o", out, "--push", "r.example/a:1", env={"PATH": path})
    assert done.status == 74
    assert done.err.startswith(
        "virt: cannot push to docker://r.example/a:1: skopeo: no basic auth\n"
    )
    assert virt("diff", out, out).status == 0


def test_nobody_to_push_is_69_and_no_place_is_2(virt: Virt, small: str, tmp_path: Path) -> None:
    """What is missing is named with its package, and nonsense before anything is built."""
    out = f"{tmp_path}/a.oci"
    lacks = virt(
        "image", "-m", small, "-o", out, "--push", "r.example/a:1", env={"PATH": "/nowhere"}
    )
    assert (lacks.status, "hint: apt-get install skopeo" in lacks.err) == (69, True)
    nonsense = virt("image", "-m", small, "-o", f"{out}2", "--push", "not a place")
    assert (nonsense.status, os.path.exists(f"{out}2")) == (2, False)
    assert virt("image", "-m", small, "-o", f"{out}.tar", "--push", "r.example/a:1").status == 2


def test_events_are_json_lines_beside_the_result(virt: Virt, small: str, tmp_path: Path) -> None:
    """A CI job reads how far it is on stderr, and one document on stdout."""
    done = virt("--json", "--events", "image", "-m", small, "-o", f"{tmp_path}/a.oci")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert {one["event"] for one in events} == {"progress"}
    assert events[-1]["done"] == events[-1]["total"] > 0
    assert json.loads(done.out)["status"] == "ok"
