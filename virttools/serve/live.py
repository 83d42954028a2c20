"""Values: the connections that a spawner serves now, by what will tell of their end."""

from virttools.serve import messages
from virttools.serve.board import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from virttools.serve.schedule import Job


class Connection:
    """One program that runs for a connection (or a periodic command: source is "").

    position: of its target on the board; slot: of its source in the ledger; wait_fd: the socket
    that is served by it alone, or -1; deadline: when it is ended, or 0.
    """

    __slots__ = (
        "deadline", "job", "number", "position", "slot", "source", "started", "target", "wait_fd",
    )  # fmt: skip

    def __init__(self, target: Target, position: int, source: str, started: float) -> None:
        self.target = target
        self.position = position
        self.source = source
        self.started = started
        self.slot = -1
        self.wait_fd = -1
        self.deadline = started + target.timeout if target.timeout else 0.0
        self.job: Job | None = None
        self.number = 0

    def told(self, status: int, now: float) -> str:
        """The line of the log at its end, as log_on_success asks; "" where it asks for none."""
        wanted, name = self.target.log_success, self.target.place.domain or "-"
        if not wanted:
            return ""
        spent = now - self.started
        line = messages.end(self.target.service, name, self.number, status, spent, wanted=wanted)
        return f"{line} from={self.source}" if "HOST" in wanted and self.source else line
