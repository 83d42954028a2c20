"""`virt`: the commands put together, the options before them, and what every failure looks like."""

import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from virttools import __version__, settings
from virttools.cli.output import Output, failure
from virttools.errors import UsageError, VirtError

HOMES = {  # the module of each command, in the order of --help
    "create": "create", "diff": "diff", "doctor": "doctor",
    "list": "domains", "show": "domains", "why": "domains", "remove": "domains",
    "image": "image",
    "exec": "inside", "shell": "inside", "virtuald": "inside", "serve": "inside",
    "libs": "libs", "link": "links", "unlink": "links", "links": "links",
    "render": "render", "scrub": "scrub", "test": "testing", "services": "services",
    "manifest": "manifest", "profile": "profile", "log": "log", "ip": "ip",
}  # fmt: skip


_BEFORE = ("--root", "--json", "-v", "--verbose", "-q", "--quiet", "--no-color", "--events")


def assemble(command: str = "") -> typer.Typer:
    """`virt` as far as one command needs it, or whole: to load all takes four times as long."""
    app = typer.Typer(
        name="virt",
        help="A filesystem of its own for every domain of this machine.",
        epilog="Example: virt create domain1.com --profile login && virt exec --domain domain1.com -- id",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(virt)
    homes = [HOMES[command]] if command in HOMES else dict.fromkeys(HOMES.values())
    for home in homes:
        import_module(f"virttools.cli.{home}").register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"virt {__version__}")
        raise typer.Exit


def virt(
    ctx: typer.Context,
    root: Annotated[
        str | None,
        typer.Option(help="The folder that holds the trees [default: VIRT_ROOT or /virtual]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say less.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Tell progress on stderr, as JSON lines.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A filesystem of its own for every domain of this machine."""
    ctx.obj = Output(
        settings=settings.load(os.environ, root=root),
        json=json,
        verbose=verbose,
        quiet=quiet,
        color=not no_color and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb",
        events=events,
        called=ctx.obj,
    )


def main(argv: list[str], *, called: str = "virt") -> int:
    """Run one command line (without argv[0], which is `called`); returns the exit status.

    VirtError is said here, and only here.
    """
    as_json = "--json" in _leading_options(argv)
    try:
        app = assemble(_command(argv).partition(" ")[0])
        status = app(argv, standalone_mode=False, prog_name="virt", obj=called)
    except VirtError as error:
        return failure(error, _command(argv), as_json=as_json)
    except SystemExit as ended:
        # typer makes a status of 1 of a reader that went away; it is ours to say.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        raise
    except Exception as error:
        # typer's own errors (its click is vendored and private) say so by this method.
        if not hasattr(error, "format_message"):
            raise
        told = error.format_message()
        if told.startswith("Usage: "):  # a command that cannot stand alone shows its help
            print(told, file=sys.stderr)
            return UsageError.exit_code
        return failure(_usage(told, argv), _command(argv), as_json=as_json)
    sys.stdout.flush()
    return status if isinstance(status, int) else 0


def _usage(told: str, argv: list[str]) -> UsageError:
    cause, _, guess = told.partition(" Did you mean ")
    is_unknown = cause.startswith("No such command")
    command = "" if is_unknown else _command(argv)
    manual = f"virt {command} --help" if command else "virt --help"
    hint = f"did you mean {guess}" if guess else manual
    option = cause.removeprefix("No such option: ").partition(" ")[0]
    if command and option in _BEFORE:
        value = " DIR" if option == "--root" else ""
        hint = f"{option} stands before the command: virt {option}{value} {command}"
    return UsageError(
        f"cannot understand the command line: {cause[:1].lower()}{cause[1:].rstrip('.')}", hint=hint
    )


def _leading_options(argv: list[str]) -> list[str]:
    """The words before the command: options, and the value of --root."""
    for index, word in enumerate(argv):
        if not word.startswith("-") and argv[index - 1 : index] != ["--root"]:
            return argv[:index]
    return argv


def _command(argv: list[str]) -> str:
    rest = argv[len(_leading_options(argv)) :]
    nested = rest[:1] in (["manifest"], ["profile"], ["log"], ["services"], ["ip"])
    nested = nested and bool(rest[1:2]) and rest[1][0] != "-"
    return " ".join(rest[: 2 if nested else 1])
