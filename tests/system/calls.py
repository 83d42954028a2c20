"""`bin/virt` run as a user runs it, with a root for trees of its own."""

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.system.waiting import PATIENCE
from virttools import dispatch
from virttools.domains.remove import remove
from virttools.errors import VirtError
from virttools.tree.root import open_root

VIRT = Path(__file__).parents[2] / "bin" / "virt"


@dataclass(frozen=True, slots=True)
class Done:
    """A call that ended: its status and what it said."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Virt:
    """`virt` with one root of its own."""

    root: Path

    def __call__(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        done = subprocess.run(
            [str(VIRT), *words],
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=PATIENCE,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def good(self, *words: str) -> str:
        """Run a call that must succeed; what it printed."""
        done = self(*words)
        assert done.status == 0, f"virt {' '.join(words)}: {done.status}\n{done.out}{done.err}"
        return done.out

    def json(self, *words: str) -> Any:  # noqa: ANN401  each command has keys of its own
        """The data of a call with --json that must succeed."""
        return json.loads(self.good("--json", *words))["data"]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        clean = {"PATH": os.environ["PATH"], "VIRT_ROOT": str(self.root), "TERM": "xterm"}
        return {**clean, **(more or {})}

    def record(self, domain: str) -> bytes:
        return (self.root / ".virt" / "records" / f"{domain}.json").read_bytes()

    def tree(self, domain: str) -> Path:
        return self.root / domain

    def create(self, *words: str) -> None:
        """`virt create` of what a test stands on, in this process: to start Python takes longer than to build."""
        with mock.patch.dict(os.environ, self.environment(), clear=True):
            assert dispatch.main(["virt", "--quiet", "create", "--yes", *words]) == 0, words

    def sweep(self) -> None:
        """Remove the domains that are left, as `virt remove` does: never across a mount.

        In this process: for most tests it is the longest part of the end.
        """
        names: tuple[str, ...] = ()
        with suppress(VirtError), open_root(str(self.root)) as root:
            names = root.domains()
        for name in names:
            with suppress(VirtError):
                remove(str(self.root), [name])
