"""`virt test`: the services of a domain, tried by real clients."""

import os
from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.asking import ask_password
from virttools.cli.output import Output
from virttools.domains.testing import Report
from virttools.errors import CheckFailed, NeedsPrivilege, UsageError
from virttools.probe.outcome import Login, Missing, Outcome, printable

PASSWORD = "VIRT_TEST_PASSWORD"  # noqa: S105  the name of a variable
_LONGEST = 4096


def register(app: typer.Typer) -> None:
    app.command(
        "test",
        epilog="Example: virt test domain1.com && virt test domain1.com ftp --live --user bob",
    )(try_services)


def try_services(
    ctx: typer.Context,
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", autocompletion=complete.domains)],
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="[default: all]")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Log in as this user, whose password is asked for, or {PASSWORD}"
            " [default: an account that is there for the trial only].",
        ),
    ] = None,
    password_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Its first line is the password; - is standard input."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Ask who listens at the domain's address now; without --user, as nobody.",
        ),
    ] = False,
) -> None:
    """Try a domain's services as their clients would, and name what is missing. The tree stays as it is."""
    from virttools.domains import testing

    output: Output = ctx.obj
    if os.geteuid() != 0:
        raise NeedsPrivilege("cannot try services: only root may enter a tree", hint="use sudo")
    if password_file is not None and user is None:
        raise UsageError("cannot use --password-file without --user", hint="whose is it?")
    login = None
    if user is not None:
        login = Login(user, _password(user, domain, password_file), is_ours=False)
    way = testing.Way(login, live, output.virt())
    report = testing.run(output.settings.root, domain, services or (), way)
    _show(output, domain, report)
    if not report.is_ok:
        raise typer.Exit(CheckFailed.exit_code)


def _password(user: str, domain: str, file: str | None) -> str:
    if file is not None:
        return _first_line(file)
    said = os.environ.get(PASSWORD)
    return said if said is not None else ask_password(f"Password of {user} in {domain}: ", PASSWORD)


def _first_line(file: str) -> str:
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as lines:
            return lines.readline(_LONGEST).rstrip(b"\r\n").decode()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {file}: its first line is no text in UTF-8") from error


def _show(output: Output, domain: str, report: Report) -> None:
    if output.json:
        output.result("test", _data(domain, report))
        return
    if not report.outcomes:
        output.note(f"{domain} declares no probe; virt-manifest(5), probes, tells how")
    rows = [row for one in report.outcomes for row in (_row(one), *_causes(one))]
    rows += [("tree", "-", "missing", f"{one.path}: {_remedy(one)}") for one in report.missing]
    output.table(("service", "port", "result", "what"), rows)
    for one in report.outcomes:
        for line in one.evidence:
            output.note(f"{one.service}: {line}")
    if any(one.is_live and not one.is_ok for one in report.outcomes):
        output.note(f"`virt log tail --domain {domain}` tells what its programs said")
    idle = dict.fromkeys(one.service for one in report.outcomes if one.is_ok and not one.is_live)
    if idle:
        output.note(f"nobody answers for the domain now: {', '.join(idle)}; `virt serve` does")
    for name in report.untried:
        output.note(f"not tried, since no probe says how: {name}")
    if report.missing:
        output.note(f"hint: `{output.virt()} doctor {domain}` tells what puts each of them back")
    elif any(not one.is_ok and not one.causes for one in report.outcomes):
        output.note(f"hint: `{output.virt()} doctor {domain}` looks for the cause")


def _row(one: Outcome) -> tuple[str, str, str, str]:
    return one.service, str(one.port), "ok" if one.is_ok else "failed", one.told


def _causes(one: Outcome) -> list[tuple[str, str, str, str]]:
    return [
        (one.service, str(one.port), "cause", f"{printable(cause.what)}; mend: {cause.mend}")
        for cause in one.causes
    ]


def _remedy(one: Missing) -> str:
    source = "" if one.source is None else f", from {one.source}"
    return f"comes by {one.supplied}{source}"


def _data(domain: str, report: Report) -> dict[str, object]:
    return {
        "domain": domain,
        "services": [
            {
                "service": one.service,
                "port": one.port,
                "ok": one.is_ok,
                "live": one.is_live,
                "told": one.told,
                "evidence": list(one.evidence),
                "causes": [{"what": cause.what, "mend": cause.mend} for cause in one.causes],
            }
            for one in report.outcomes
        ],
        "missing": [
            {"path": one.path, "supplied": one.supplied, "source": one.source}
            for one in report.missing
        ],
        "untried": list(report.untried),
    }
