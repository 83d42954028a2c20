"""What the README and the manual show is what happens."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import documents
from tests.system.calls import Virt

CALLS: dict[str, list[tuple[str, ...]]] = {
    "create": [("create", "domain1.com"), ("create", "--dry-run", "domain2.com")],
    "list": [("list",)],
    "show": [("show", "domain1.com")],
    "why": [("why", "domain1.com", "/bin/bash"), ("why", "domain1.com", "/dev/null")],
    "libs": [("libs", "/bin/sh")],
    "scrub": [("scrub", "-n", "domain1.com"), ("scrub", "--list-operations")],
    "manifest check": [("manifest", "check", str(documents.HERE / "examples" / "howto.toml"))],
    "manifest show": [("manifest", "show", "domain1.com")],
    "manifest schema": [("manifest", "schema")],
    "profile list": [("profile", "list")],
    "profile show": [("profile", "show", "base")],
    "log relink": [("log", "relink", "--all")],
    "render": [("render", "rsyslog"), ("render", "syslog-ng"), ("render", "logrotate")],
    "remove": [("remove", "--yes", "domain1.com")],
}
FREE = {"manifest", "schema", "files", "missing"}
"""What is below these keys has names of its own: those of manifests, of JSON Schema, of files."""


def test_the_commands_of_the_readme_work_in_their_order(
    virt: Virt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who types what the README shows, on a machine without domains, meets no error."""
    monkeypatch.chdir(tmp_path)  # it writes an image there
    blocks = documents.fenced(documents.text("README.md"), "console")
    lines = [line for block in blocks for line in documents.commands(block)]
    ours = [line for line in lines if line.startswith("virt ")]
    assert ours, "the README shows no command"
    for line in ours:
        # Links are made beside virt: not in the checkout.
        beside = ["--bindir", str(tmp_path)] if line.startswith("virt link ") else []
        done = virt(*shlex.split(line)[1:], *beside)
        assert done.status == 0, f"{line}: {done.status}\n{done.out}{done.err}"


def test_json_has_the_keys_that_the_manual_names(virt: Virt) -> None:
    """Whoever reads --json by a program finds every key in virt(1), under its command."""
    for name, calls in CALLS.items():
        described = documents.section("virt.1", name).words().split("JSON:")[1]
        known = set(re.findall(r"\w+", described)) | finding_keys()
        for words in calls:
            unknown = set(keys_of(virt.json(*words))) - known
            assert not unknown, f"{name}: {unknown}"


def finding_keys() -> set[str]:
    """A finding is described once, under create."""
    described = documents.section("virt.1", "create").words().split("A finding has")[1]
    return set(re.findall(r"\w+", described))


def keys_of(value: Any) -> Iterator[str]:  # noqa: ANN401  any JSON
    """All keys of a document, but for those that are names of things."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in FREE and key not in {"entries", "xattrs"}:
                yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


@pytest.mark.parametrize("words", [("show", "nobody.example"), ("create", "a_b"), ("frob",)])
def test_an_error_in_json_is_the_envelope_of_the_manual(virt: Virt, words: tuple[str, ...]) -> None:
    """An error with --json is one document, with the keys of the manual's example."""
    (example,) = (block for _, block in documents.section("virt.1", "OUTPUT").blocks())
    done = virt("--json", *words)
    found, shown = json.loads(done.out), json.loads(example)
    assert done.status != 0
    assert list(found) == list(shown)
    assert (found["version"], found["status"]) == (shown["version"], shown["status"])
    assert found["data"] == {}
    assert all(set(error) == set(shown["errors"][0]) for error in found["errors"])
