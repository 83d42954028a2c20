"""What dispatch serves before typer is loaded, as `virt --help` lists it: exec, shell, virtuald, serve."""

from typing import Annotated

import typer

from virttools import dispatch
from virttools.cli import complete

_AS_IT_IS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    app.command("exec", short_help="Run a command inside a domain.", context_settings=_AS_IT_IS)(
        exec_
    )
    app.command(short_help="Log in to a domain.", context_settings=_AS_IT_IS)(shell)
    app.command(short_help="Answer a connection from its tree.", context_settings=_AS_IT_IS)(
        virtuald
    )
    app.command(short_help="Answer all services of all domains.", context_settings=_AS_IT_IS)(serve)


def exec_(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="--domain D -- CMD...", autocompletion=complete.words_of_exec),
    ] = None,
) -> None:
    """Run a command inside a domain; the exit status is the command's own."""
    raise typer.Exit(dispatch.main(["virt", "exec", *(words or []), *ctx.args]))


def shell(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[DOMAIN]", autocompletion=complete.domains)
    ] = None,
) -> None:
    """Start a login shell inside a domain, with a prompt that names it."""
    raise typer.Exit(dispatch.main(["virt", "shell", *(words or []), *ctx.args]))


def virtuald(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="CONF PROGRAM ARGS...")] = None,
) -> None:
    """Answer one connection of inetd from the tree that its local address leads to."""
    raise typer.Exit(dispatch.main(["virt", "virtuald", *(words or []), *ctx.args]))


def serve(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="OPTIONS")] = None,
) -> None:
    """Answer the services of all domains, each connection by a fresh process inside its domain."""
    raise typer.Exit(dispatch.main(["virt", "serve", *(words or []), *ctx.args]))
