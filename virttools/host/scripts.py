"""Values: which program runs a script, by its first line."""

from dataclasses import dataclass

# The kernel reads this much of the line since Linux 5.1 (BINPRM_BUF_SIZE).
_LINE = 256


@dataclass(frozen=True, slots=True)
class Interpreter:
    """path: absolute. program: what env(1) is to look for in PATH, where the interpreter is env."""

    path: str
    program: str | None = None

    @property
    def name(self) -> str:
        """The name of what reads the script in the end: "python3" of "#!/usr/bin/env python3"."""
        return (self.program or self.path).rpartition("/")[2]


def interpreter(first_bytes: bytes) -> Interpreter | None:
    """What the kernel would start for a file that begins so; None where that is no `#!` script.

    A relative interpreter counts as none: perl modules begin with "#! perl".
    """
    if not first_bytes.startswith(b"#!"):
        return None
    line = first_bytes[2:_LINE].partition(b"\n")[0].strip(b" \t\r").decode(errors="surrogateescape")
    path, _, argument = line.replace("\t", " ").partition(" ")
    if not path.startswith("/") or "\0" in line:
        return None
    if path.rpartition("/")[2] == "env":
        return Interpreter(path, _program(argument.strip()))
    return Interpreter(path)


def _program(argument: str) -> str | None:
    """What env would run; the kernel hands it one argument, which -S splits (coreutils 8.30)."""
    words = argument.split()
    if not words:
        return None
    if words[0] in ("-S", "--split-string"):
        words = words[1:]
    elif words[0].startswith(("-S", "--split-string=")):
        words[0] = words[0].removeprefix("-S").removeprefix("--split-string=")
    elif len(words) > 1:
        return None
    for word in words:
        # Options with a value of their own (-u NAME, -C DIR) are too rare to be worth a table.
        if not word.startswith("-") and "=" not in word:
            return word.strip("'\"")
    return None
