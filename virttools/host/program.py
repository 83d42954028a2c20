"""Runs a program and hands back what it said. Nothing else imports subprocess."""

import subprocess  # noqa: TID251  this is the one place
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from virttools.errors import HostLacks

CLEAN = (("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C"))


@dataclass(frozen=True, slots=True)
class Result:
    """status: as waitpid decodes it, minus the signal number where one ended the program."""

    status: int
    stdout: bytes
    stderr: bytes


def call(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    stdin_fd: int | None = None,
) -> Result:
    """Run argv to its end: no shell, cwd "/", an environment of PATH, LC_ALL and what `env` adds.

    stdin: its whole input, or stdin_fd: where it reads that; else it is empty.
    Raises HostLacks where it cannot be started.
    """
    environment = {**dict(CLEAN), **(env or {})}
    try:
        done = subprocess.run(
            list(argv),
            env=environment,
            stdin=stdin_fd,
            input=(stdin or b"") if stdin_fd is None else None,
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise HostLacks(f"cannot run {argv[0]}: {error.strerror}") from error
    return Result(done.returncode, done.stdout, done.stderr)
