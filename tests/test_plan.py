"""Plans: for a manifest and given facts, the very same actions every time.

Each case is a folder of tests/golden: manifest.toml, host.json and plan.txt or problems.txt.
`make golden` writes the last one anew; read what changed before you commit it.
"""

import json
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from virttools.errors import ManifestError
from virttools.host.facts import Facts, HostEntry, Kind, Why
from virttools.manifest.merge import merge
from virttools.manifest.model import Layer, Origin
from virttools.manifest.parse import parse
from virttools.tree.actions import CopyFile, document
from virttools.tree.plan import prepare

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.iterdir())
OWNED = {"shared", "skeleton"}
"""Those where something belongs to others than root."""


def entry(inode: int, row: dict[str, Any]) -> HostEntry:
    """An entry from the few keys that a case says."""
    mode, xattrs = row.pop("mode", "0755"), row.pop("xattrs", {})
    path = row.pop("path")
    made: dict[str, Any] = {"uid": 0, "gid": 0, "inode": inode, **row}
    return HostEntry(
        path=PurePosixPath(path),
        source=Path(row.get("source", path)),
        kind=Kind(made.pop("kind", "file")),
        mode=int(mode, 8),
        xattrs=tuple((name, bytes.fromhex(value)) for name, value in xattrs.items()),
        why=Why("binaries", None, Origin("manifest.toml", 1)),
        **made,
    )


def facts(document: dict[str, Any]) -> Facts:
    """Facts as a survey would bring them, from host.json."""
    return Facts(
        entries=tuple(entry(inode, row) for inode, row in enumerate(document["entries"], 1)),
        user_names=tuple((int(number), name) for number, name in document.get("users", {}).items()),
        group_names=tuple(
            (int(number), name) for number, name in document.get("groups", {}).items()
        ),
        templates=tuple(document.get("templates", {}).items()),
    )


def planned(case: Path) -> str:
    """The plan of a case as --dry-run prints it, or its problems."""
    text = (case / "manifest.toml").read_text()
    try:
        manifest = merge([parse(Layer("manifest.toml", text))])
        blueprint = prepare(manifest, facts(json.loads((case / "host.json").read_text())))
    except ManifestError as error:
        return "".join(f"{problem}\n" for problem in error.problems)
    plan = blueprint.plan("domain1.com", ("192.0.2.1",))
    return "".join(f"{action}\n" for action in sorted(plan.actions, key=lambda one: one.path))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_the_plan_of_each_case_is_as_recorded(case: Path) -> None:
    """A plan never changes by accident."""
    name = "problems.txt" if (case / "problems.txt").exists() else "plan.txt"
    if os.environ.get("VIRT_GOLDEN") == "write":
        (case / name).write_text(planned(case))
    assert planned(case) == (case / name).read_text()


def test_what_is_common_is_the_same_object_in_every_plan() -> None:
    """A thousand domains are built by what was made ready for the first."""
    case = GOLDEN / "skeleton"
    manifest = merge([parse(Layer("manifest.toml", (case / "manifest.toml").read_text()))])
    blueprint = prepare(manifest, facts(json.loads((case / "host.json").read_text())))
    one = {id(action) for action in blueprint.plan("domain1.com", ("192.0.2.1",)).actions}
    two = {id(action) for action in blueprint.plan("domain2.com", ("192.0.2.2",)).actions}
    assert {id(action) for action in blueprint.common} <= one & two


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if (case / "plan.txt").exists()],
    ids=lambda case: str(case.name),
)
def test_domains_that_differ_in_their_ids_only_share_all_else(case: Path) -> None:
    """A moved blueprint is the one that would be drawn, and what is root's is the very same object."""
    manifest = merge([parse(Layer("manifest.toml", (case / "manifest.toml").read_text()))])
    known = facts(json.loads((case / "host.json").read_text()))
    first, second = (prepare(replace(manifest, uid_base=base), known) for base in (65536, 131072))
    moved = first.moved(131072)
    assert moved == second
    plans = [one.plan("domain1.com", ("192.0.2.1",)) for one in (first, moved, second)]
    assert plans[1] == plans[2]
    assert (plans[0] == plans[1]) == (case.name not in OWNED)
    same = {id(action) for action in first.common} & {id(action) for action in moved.common}
    roots = [one for one in moved.common if not (getattr(one, "uid", 0) or getattr(one, "gid", 0))]
    assert len(same) == len(roots)
    assert prepare(manifest, known).moved(65536) == first


def test_a_blueprint_is_not_moved_to_ids_that_there_are_not() -> None:
    """As when it is drawn there, that is an error of the manifest."""
    manifest = merge([parse(Layer("m", 'uid_base = 65536\nusers = [{ name = "bob", uid = 9 }]'))])
    with pytest.raises(ManifestError, match="cannot number the accounts"):
        prepare(manifest, Facts(entries=())).moved(2**32 - 9)


def test_a_plan_as_json_says_why_each_thing_is_there() -> None:
    """Mode in octal, rule and origin on every action."""
    case = GOLDEN / "shared"
    manifest = merge([parse(Layer("manifest.toml", (case / "manifest.toml").read_text()))])
    plan = prepare(manifest, facts(json.loads((case / "host.json").read_text()))).plan("a.com", ())
    copied = next(action for action in plan.actions if isinstance(action, CopyFile))
    found = document(copied)
    assert (found["action"], found["rule"], found["origin"]) == (
        "copy",
        "binaries",
        "manifest.toml:1",
    )
    assert found["mode"] == f"{copied.mode:04o}"
