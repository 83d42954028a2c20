"""What a user's programs do, on another computer: curl, and who changes a password."""

import sys
from dataclasses import dataclass

from tests.system.calls import Done
from tests.system.machine import Machine

_POPPASS = """\
import socket, sys
host, *said = sys.argv[1:]
with socket.create_connection((host, 106), 100) as connection:
    stream = connection.makefile("rw", newline="\\r\\n")
    for line in (None, *said, "quit"):
        if line is not None:
            stream.write(line + "\\n")
            stream.flush()
        answer = stream.readline()
        if not answer.startswith("200"):
            sys.exit(f"{line}: {answer}")
"""


@dataclass(frozen=True, slots=True)
class Customer:
    """bob of a domain, at another computer."""

    machine: Machine
    domain: str
    password: str

    def curl(self, *words: str, typed: str = "") -> Done:
        """curl, without a word but what it fetched or why it failed."""
        return self.machine.run("curl", "-sS", "--max-time", "100", *words, typed=typed)

    def ftp(self, path: str, *words: str, typed: str = "") -> Done:
        return self.curl(
            "-u", f"bob:{self.password}", f"ftp://{self.domain}/{path}", *words, typed=typed
        )

    def pop(self, path: str = "", *words: str) -> Done:
        return self.curl("-u", f"bob:{self.password}", f"pop3://{self.domain}/{path}", *words)

    def mail(self, sender: str, text: str, *, to: str = "") -> Done:
        """Send a message by SMTP to bob, or to somebody else by his server."""
        words = ["--mail-from", sender, "--mail-rcpt", to or f"bob@{self.domain}", "-T", "-"]
        return self.curl(f"smtp://{self.domain}", *words, typed=f"Subject: {text}\n\n{text}\n")

    def letters(self) -> list[str]:
        """The messages that wait for bob."""
        listed = self.pop()
        assert listed.status == 0, listed.err
        return [self.pop(line.split()[0]).out for line in listed.out.splitlines() if line.strip()]

    def forget(self, number: int) -> Done:
        """Delete a message; -I: its answer is one line."""
        return self.pop(f"{number}", "-I", "-X", "DELE")

    def change(self, new: str) -> Done:
        """Change the password, as the page of a web mail does."""
        said = ("user bob", f"pass {self.password}", f"newpass {new}")
        return self.machine.run(sys.executable, "-I", "-c", _POPPASS, self.domain, *said)
