"""What the fast ways load: every further module is paid before each command and each connection."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.system.handmade import tree
from virttools.cli import app

REPOSITORY = Path(__file__).parents[1]
MAIN = REPOSITORY / "virttools" / "__main__.py"

STANDARD = {
    "os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc",
    "_ctypes",
}  # fmt: skip
ENTER = {
    "virttools", "virttools.dispatch", "virttools.errors", "virttools.linux",
    "virttools.enter", "virttools.enter.accounts", "virttools.enter.environment",
    "virttools.enter.execute", "virttools.enter.inside", "virttools.enter.options",
    "virttools.enter.nothing", "virttools.enter.program", "virttools.enter.entrance", "virttools.enter.signals",
}  # fmt: skip
CONTAINED = {
    "fcntl",
    "virttools.enter.confinement", "virttools.enter.contain", "virttools.enter.init",
    "virttools.enter.keyrings", "virttools.enter.mounts",
    "virttools.tree", "virttools.tree.shared",
}  # fmt: skip
EXEC = (
    STANDARD
    | ENTER
    | {"virttools.settings"}
    | {"virttools.enter.choose", "virttools.enter.history", "virttools.enter.marker"}
)
VIRTUALD = (
    STANDARD
    | ENTER
    | {"_socket", "errno", "virttools.enter.entrance", "virttools.enter.signals"}
    | {"virttools.tree", "virttools.tree.ground", "virttools.tree.shared"}
    | {"virttools.serve", "virttools.serve.become", "virttools.serve.connection"}
    | {
        "virttools.enter.confinement",
        "virttools.enter.keyrings",
        "virttools.serve.jail",
        "virttools.serve.routes",
        "virttools.serve.ucspi",
    }
    | {"virttools.serve.conffile", "virttools.serve.wrapper"}
)


def loaded(*words: str, **env: str) -> set[str]:
    """The modules that an interpreter loads for words, up to the program it becomes."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", *words],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


@pytest.fixture
def bare() -> set[str]:
    """What the interpreter loads for itself."""
    return loaded("-c", "pass")


def test_the_modules_of_exec_are_these(bare: set[str], tmp_path: Path, as_root: None) -> None:
    """From start to execve, `virt exec` loads this and nothing else."""
    tree(tmp_path / "domain1.com", "true")
    plain = loaded(str(MAIN), "virt", "exec", "--chroot", "true", VIRT_ROOT=str(tmp_path))
    assert plain - bare <= EXEC
    found = loaded(str(MAIN), "virt", "exec", "true", VIRT_ROOT=str(tmp_path))
    assert found - bare <= EXEC | CONTAINED
    assert "virttools.enter.execute" in found


def test_the_modules_of_virtname_are_these(bare: set[str], tmp_path: Path, as_root: None) -> None:
    """A symlink's way is the same."""
    tree(tmp_path / "domain1.com", "true")
    assert loaded(str(MAIN), "virttrue", VIRT_ROOT=str(tmp_path)) - bare <= EXEC | CONTAINED


def test_the_modules_of_virtuald_are_these(bare: set[str], tmp_path: Path) -> None:
    """The wrapper loads this and nothing else; here it only explains, for want of a connection."""
    conf = tmp_path / "conf.ftp"
    conf.write_text(f"127.0.0.1 {tmp_path}\n")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import virttools.serve.wrapper, virttools.dispatch"
    assert loaded("-c", code, str(REPOSITORY)) - bare <= VIRTUALD


@pytest.mark.parametrize(
    "module",
    ["virttools.errors", "virttools.linux", "virttools.settings", "virttools.serve.routes"],
)
def test_the_ground_of_the_fast_ways_is_light(bare: set[str], module: str) -> None:
    """Each module that all ways share stays within the same list."""
    code = f"import sys; sys.path.insert(0, sys.argv.pop(1)); import {module}"
    assert loaded("-c", code, str(REPOSITORY)) - bare <= STANDARD | {
        "_socket",
        "virttools",
        "virttools.errors",
        "virttools.serve",
        module,
    }


def test_a_command_brings_its_own_module_and_no_other() -> None:
    """Each command is found without the others, whose modules would cost every call its start."""
    whole = registered(app.assemble())
    assert list(app.HOMES) == whole
    for command, home in app.HOMES.items():
        assert registered(app.assemble(command)) == [
            name for name in whole if app.HOMES[name] == home
        ]


def registered(virt: typer.Typer) -> list[str]:
    group = typer.main.get_command(virt)
    assert isinstance(group, typer.core.TyperGroup)
    return list(group.commands)


def test_what_only_looks_at_trees_loads_no_builder(bare: set[str]) -> None:
    """An image of a domain that is there needs the scan for secrets, and nothing of planning or building."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import virttools.domains.orders, virttools.domains.scrubbing"
    building = {"virttools.domains.create", "virttools.host.survey", "virttools.tree.apply"}
    building |= {"virttools.tree.actions", "virttools.tree.plan"}
    assert loaded("-c", code, str(REPOSITORY)) & building == set()
