"""Does what a guide tells to do: writes its files, types its commands, and compares what is shown."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests import documents
from tests.system.machine import Machine

PASSWORD = "assword"
"""What an answer without echo is asked with: Password:, New SMB password:"""


@dataclass(frozen=True, slots=True)
class File:
    """A block whose first line is a comment that names the file."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A line that is typed, on the server after `#`, on another computer after `$`; what is shown then.

    fails: the block is called ```console fails, and this is its first command.
    """

    line: str
    shown: tuple[str, ...]
    on_server: bool
    fails: bool

    def wanted(self) -> str:
        """A regular expression for its output: lines in their order, whatever the width; … is anything."""
        lines = [" ".join(line.split()) for line in self.shown if line.strip()]
        return ".*".join(".*".join(map(re.escape, line.split("…"))) for line in lines)


Step = File | Command


def parts(path: str) -> dict[str, list[Step]]:
    """The steps of a guide, below the heading they stand under."""
    found: dict[str, list[Step]] = {}
    sections = re.split(r"^## (.*)$", documents.text(path), flags=re.MULTILINE)
    for title, text in zip(sections[1::2], sections[2::2], strict=True):
        blocks = re.findall(r"^```(.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        found[title] = [step for kind, block in blocks for step in _steps(kind, block)]
    return found


def _steps(kind: str, block: str) -> Iterator[Step]:
    if kind.startswith("console"):
        typed = re.findall(r"^([#$]) (.*)\n((?:(?![#$] ).*\n)*)", block, re.MULTILINE)
        for number, (prompt, line, shown) in enumerate(typed):
            lines = tuple(shown.splitlines())
            yield Command(line, lines, prompt == "#", kind.endswith(" fails") and not number)
    elif named := re.match(r"# (/\S+)\n", block):
        yield File(named[1], block)


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody at two machines. secret: the password to type when a command asks for one."""

    server: Machine
    client: Machine
    secret: Callable[[Command], str]

    def follow(self, steps: list[Step]) -> str:
        """Do all steps; what the commands showed."""
        return "".join(self.do(step) for step in steps)

    def do(self, step: Step) -> str:
        match step:
            case File(path, text):
                self.server.write(path, text)
                return ""
            case Command():
                return self.type(step)

    def type(self, command: Command) -> str:
        """Type the line, and the password as often as the guide shows that it is asked for."""
        machine = self.server if command.on_server else self.client
        asked = [line for line in command.shown if PASSWORD in line and line.rstrip().endswith(":")]
        with machine.terminal(command.line) as terminal:
            for question in asked:
                terminal.expect(question.strip())
                terminal.type(self.secret(command) + "\r")
            status = terminal.end()
            shown = terminal.shown
        assert bool(status) == command.fails, f"{command.line}: {status}\n{shown}"
        plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).split())
        told = f"{command.line}\nthe guide shows:\n" + "\n".join(command.shown) + f"\nbut:\n{shown}"
        assert re.search(command.wanted(), plain), told
        return shown
