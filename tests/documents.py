"""Reads the documentation as tests need it: blocks of Markdown, sections and terms of man pages."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parents[1]
PAGES = ("virt.1", "virtuald.8", "virt-serve.8", "virt-log.8", "virt-manifest.5")
_SIGNS = {r"\-": "-", r"\(dq": '"', r"\(aq": "'", r"\(ti": "~", r"\(ha": "^", r"\(ga": "`"}
_SIGNS |= {r"\(lq": '"', r"\(rq": '"', r"\&": "", r"\e": "\\"}


def text(path: str) -> str:
    """A document of the project, by its path in it."""
    return (HERE / path).read_text(encoding="utf-8")


def fenced(markdown: str, language: str) -> list[str]:
    """The blocks ```language of a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The lines of a console block, or of an example, that are typed: `# …` as root, `$ …`."""
    return [line[2:] for line in block.splitlines() if line.startswith(("# ", "$ "))]


def calls(line: str) -> list[list[str]]:
    """The words of each call of virt in one command line; pipes, lists and loops part calls."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|;&()<>") or word in {"do", "done"}:
            found.append([])
        elif found[-1] or "=" not in word:  # VIRT_ROOT=/srv virt …
            found[-1].append(word)
    return [words for words in found if words[:1] == ["virt"]]


@dataclass(frozen=True, slots=True)
class Term:
    """A paragraph of a man page with a hanging heading: .TP."""

    heading: str
    body: str

    def options(self) -> list[str]:
        return re.findall(r"(?<![\w-])--?[a-z][a-z-]*", self.heading)


@dataclass(frozen=True, slots=True)
class Section:
    """A section (.SH) or subsection (.SS) of a man page, without those below it."""

    title: str
    source: str

    def terms(self) -> list[Term]:
        return [
            Term(plain(part.split("\n", 2)[1]), plain(part.split("\n", 2)[2]))
            for part in self.source.split(".TP")[1:]
        ]

    def words(self) -> str:
        return plain(self.source)

    def blocks(self) -> list[tuple[str, str]]:
        """The examples: what the comment before .EX says, and the text."""
        pattern = r'(?:^\.\\" (\S+)\n)?^\.EX\n(.*?)^\.EE$'
        found = re.findall(pattern, self.source, re.MULTILINE | re.DOTALL)
        return [(kind, plain(block)) for kind, block in found]


def page(name: str) -> list[Section]:
    """The sections and subsections of a man page, in order; the first is what precedes them."""
    parts = re.split(r"^\.(?:SH|SS) (.*)$", text(f"docs/{name}"), flags=re.MULTILINE)
    pairs = zip(["", *parts[1::2]], parts[::2], strict=True)
    return [Section(plain(title).strip(), source) for title, source in pairs]


def section(name: str, title: str) -> Section:
    """One section of a man page; it must be there once."""
    (found,) = [one for one in page(name) if one.title == title]
    return found


def below(name: str, title: str) -> list[Section]:
    """The subsections of a section."""
    source = text(f"docs/{name}").split(f"\n.SH {title}\n")[1].split("\n.SH ")[0]
    names = [plain(line[4:]) for line in source.splitlines() if line.startswith(".SS ")]
    return [section(name, one) for one in names]


def plain(roff: str) -> str:
    """man(7) source as it reads: fonts, macros of fonts and escapes taken away."""
    lines = [_unfonted(line) for line in roff.split("\n")]
    return "\n".join(line for line in lines if line is not None)


def _unfonted(line: str) -> str | None:
    alternating = re.match(r"\.(BR|RB|BI|IB|IR|RI) (.*)", line)
    if alternating:
        line = "".join(_arguments(alternating[2]))
    elif line.startswith((".B ", ".I ")):
        line = " ".join(_arguments(line[3:]))
    elif line.startswith("."):
        return None
    line = re.sub(r"\\f(?:\[\w*\]|.)", "", line)
    return re.sub(r"\\(?:\(..|.)", lambda found: _SIGNS[found[0]], line)


def _arguments(text: str) -> list[str]:
    """The arguments of a macro: words, or "words in quotes"."""
    found = re.findall(r'"([^"]*)"|(\S+)', text)
    return [quoted or word for quoted, word in found]
