"""What a user's programs do, on another computer."""

from dataclasses import dataclass

from tests.system.calls import Done
from tests.system.machine import Machine


@dataclass(frozen=True, slots=True)
class Customer:
    """bob of a domain, at another computer."""

    machine: Machine
    domain: str
    password: str

    def curl(self, *words: str, typed: str = "") -> Done:
        """curl, without a word but what it fetched or why it failed."""
        return self.machine.run("curl", "-sS", "--max-time", "30", *words, typed=typed)

    def ftp(self, path: str, *words: str, typed: str = "") -> Done:
        return self.curl(
            "-u", f"bob:{self.password}", f"ftp://{self.domain}/{path}", *words, typed=typed
        )

    def mail(self, sender: str, text: str, *, to: str = "") -> Done:
        """Send a message by SMTP to bob, or to somebody else by his server."""
        words = ["--mail-from", sender, "--mail-rcpt", to or f"bob@{self.domain}", "-T", "-"]
        return self.curl(f"smtp://{self.domain}", *words, typed=f"Subject: {text}\n\n{text}\n")
