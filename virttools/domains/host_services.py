"""What virt.toml has the server run of the host's own, every so often: its mail queue, for one."""

import os
from collections.abc import Iterator

from virttools.domains.serving import host_account, rlimits
from virttools.enter import environment
from virttools.errors import ConfigError, Problem
from virttools.manifest import parse, profiles
from virttools.manifest.model import Isolation, Service
from virttools.serve.board import Board, Place, Target


def added(board: Board, file: str) -> Board:
    """The board, with the services of a virt.toml. Raises ConfigError with every wrong one."""
    return Board((*board.targets, *targets(file)), board.endpoints, board.notes)


def targets(file: str) -> tuple[Target, ...]:
    """The services of a virt.toml, which is TOML without faults. Raises ConfigError."""
    found, problems = parse.part(profiles.read(file), "services")
    if not problems:
        problems = tuple(_problems(found))
    if problems:
        raise ConfigError(f"cannot use {file}: {parse.count(problems)}", problems=problems)
    return tuple(_target(service) for service in found)


def _problems(found: tuple[Service, ...]) -> Iterator[Problem]:
    for service in found:
        file, line = service.origin.file, service.origin.line
        if service.every is None:
            said = f"{service.name} has a port; the host's services have every instead"
            yield Problem(file, line, said)
        if service.groups:
            said = f"{service.name} has groups; on the host a user has its own"
            yield Problem(file, line, said)
        if service.isolation is not Isolation.NAMESPACE:
            yield Problem(file, line, f"{service.name} has isolation; the host has none")


def _target(service: Service) -> Target:
    account, ids = host_account(service.user, None, str(service.origin))
    return Target(
        service.name,
        Place("", "/", isolation="none"),
        path=os.fsencode(service.program),
        argv=tuple(os.fsencode(word) for word in (service.program, *service.args)),
        env=environment.build(dict(os.environb), account, []),
        ids=ids,
        nice=service.nice,
        rlimits=rlimits(service.rlimits),
        timeout=service.timeout or 0,
        every=service.every or 0,
    )
