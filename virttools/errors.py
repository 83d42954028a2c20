"""What a user can be told went wrong: one sentence, a hint, an exit status.

The statuses are those of sysexits.h where it has one; the list is in docs/virt.1.
Imports nothing: the fast ways load this module.
"""


class Problem:
    """One fault in a manifest or conf file, as `file:line: message`.

    file: str, as the user named it; line: int, from 1, or 0 where no line is known.
    """

    __slots__ = ("file", "line", "message")

    def __init__(self, file: str, line: int, message: str) -> None:
        self.file = file
        self.line = line
        self.message = message

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}"

    def __repr__(self) -> str:
        return f"Problem({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class VirtError(Exception):
    """Anything a user is told. Raised as it is, it means a bug of ours.

    message: `cannot <verb> <object>: <cause>`, lower case, no full stop.
    hint: what to do about it, or None.
    """

    code: str = "internal"
    exit_code: int = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(VirtError):
    """Something was checked, and the answer is no."""

    code = "check-failed"
    exit_code = 1


class UsageError(VirtError):
    """The call itself is wrong, or a choice is needed and there is no terminal."""

    code = "usage"
    exit_code = 2


class ManifestError(VirtError):
    """A manifest (or other data a user wrote) is wrong; `problems` holds every fault found."""

    code = "bad-manifest"
    exit_code = 65

    def __init__(
        self, message: str, *, problems: "tuple[Problem, ...]" = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class SecretFound(ManifestError):
    """The last scan before publication found what must not be published."""

    code = "secret-found"


class BadName(ManifestError):
    """A domain name or address is not one."""

    code = "bad-name"


class UnknownDomain(VirtError):
    """There is no such domain, or no route to one."""

    code = "unknown-domain"
    exit_code = 68


class HostLacks(VirtError):
    """The host has no such program, library, package or kernel feature."""

    code = "host-lacks"
    exit_code = 69

    def __init__(
        self, message: str, *, problems: "tuple[Problem, ...]" = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class DomainExists(VirtError):
    """What should be made is there already."""

    code = "exists"
    exit_code = 73


class ApplyError(VirtError):
    """Input or output failed; the message names the action."""

    code = "io"
    exit_code = 74


class Busy(VirtError):
    """Locked, in use, or at a limit: try again."""

    code = "busy"
    exit_code = 75


class NeedsPrivilege(VirtError):
    """Not permitted: root is needed, or a folder may be written by others."""

    code = "not-permitted"
    exit_code = 77


class ConfigError(VirtError):
    """virt.toml or a routes file is wrong; `problems` holds every fault found."""

    code = "bad-config"
    exit_code = 78

    def __init__(
        self, message: str, *, problems: "tuple[Problem, ...]" = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class EnterError(VirtError):
    """`virt exec` itself failed, before the command ran: 125, 126 or 127 as env(1) has it."""

    code = "enter"
    exit_code = 125

    def __init__(self, message: str, *, exit_code: int = 125, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
