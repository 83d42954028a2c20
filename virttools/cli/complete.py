"""What a shell completes after a command: the names of domains and of profiles."""

import os

import typer

from virttools import settings
from virttools.enter import inside
from virttools.errors import VirtError


def domains(ctx: typer.Context, incomplete: str) -> list[str]:
    """The trees below the root that the words before say; none where it cannot be read."""
    try:
        root = settings.load(os.environ, root=ctx.find_root().params.get("root")).root
        return [name for name in inside.domains(root) if name.startswith(incomplete)]
    except VirtError:
        return []


def profiles(incomplete: str) -> list[str]:
    from virttools.manifest import profiles as known

    return [name for name in known.names() if name.startswith(incomplete)]


def words_of_exec(ctx: typer.Context, incomplete: str) -> list[str]:
    """A domain behind --domain; of the command that runs inside we know nothing."""
    before = tuple(ctx.params.get("words") or ())
    return domains(ctx, incomplete) if before == ("--domain",) else []
