"""Values: one thing that is wrong, its cause, and what mends it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """error: something does not work, or is not safe; warning: it will not always; note: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a check found. mend: a command line for a shell of root's, in the words of sh(1).

    domain: whose it is; None: the machine's, or that of the tree which was looked at.
    """

    what: str
    cause: str
    mend: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault with the id and the severity of the check that found it."""

    check: str
    severity: Severity
    domain: str | None
    what: str
    cause: str
    mend: str

    def document(self) -> dict[str, str | None]:
        return {
            "check": self.check,
            "severity": self.severity,
            "domain": self.domain,
            "what": self.what,
            "cause": self.cause,
            "mend": self.mend,
        }
