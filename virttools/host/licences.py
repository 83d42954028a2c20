"""Values: the licences that a package names, as an SPDX expression where its words make one for sure."""

import re
from dataclasses import dataclass

# The short names of machine-readable copyright files (DEP 5), and what SPDX calls them.
_NAMES = {
    "expat": "MIT",
    "mit": "MIT",
    "x11": "X11",
    "isc": "ISC",
    "zlib": "Zlib",
    "curl": "curl",
    "openssl": "OpenSSL",
    "psf-2": "PSF-2.0",
    "python-2.0": "Python-2.0",
    "cc0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
    "unicode": "Unicode-DFS-2016",
    "bsl-1.0": "BSL-1.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "0bsd": "0BSD",
    "apache-2.0": "Apache-2.0",
    "artistic-1": "Artistic-1.0",
    "artistic": "Artistic-1.0",
    "artistic-2": "Artistic-2.0",
    "artistic-2.0": "Artistic-2.0",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "fsful": "FSFUL",
    "fsfullr": "FSFULLR",
    "fsfap": "FSFAP",
    "bzip2": "bzip2-1.0.6",
    "unlicense": "Unlicense",
    "tcl": "TCL",
    "vim": "Vim",
}
_GNU = re.compile(r"(gpl|lgpl|agpl|gfdl)-([0-9])(?:\.([0-9]))?(\+?)(?:-only|-or-later)?")
_WORD = re.compile(r"\s+(and|or)\s+|,\s+", re.IGNORECASE)
_FIELD = re.compile(r"^license:[ \t]*(.+)$", re.IGNORECASE | re.MULTILINE)
_FILES = re.compile(r"^files:", re.IGNORECASE | re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_FORMAT = re.compile(r"\A\s*format(?:-specification)?:", re.IGNORECASE)
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class Licences:
    """expression: by the SPDX licence list, or None. words: what the package says, "" where nothing."""

    expression: str | None
    words: str


def of_debian(text: str) -> Licences:
    """Of a copyright file: all that its paragraphs name, together. Only machine-readable ones tell."""
    if not _FORMAT.match(text):
        return Licences(None, "")
    # Paragraphs without files hold the texts of licences that were named before.
    fields = [_FIELD.search(part) for part in _PARAGRAPH.split(text) if _FILES.search(part)]
    said = list(dict.fromkeys(field[1].strip() for field in fields if field))
    each = [_expression(one) for one in said]
    known = [one for one in each if one is not None]
    words = "; ".join(said)
    if not said or len(known) < len(each) or len(known) > _LONGEST:
        return Licences(None, words)
    parts = sorted({f"({one})" if " OR " in one else one for one in known})
    whole = " AND ".join(parts)
    return Licences(known[0] if len(parts) == 1 else whole, words)


def of_words(text: str) -> Licences:
    """Of one line, as rpm has it."""
    return Licences(_expression(text), text)


def _expression(text: str) -> str | None:
    """GPL-2+ or Artistic → GPL-2.0-or-later OR Artistic-1.0; None if a word of it is not known."""
    parts = _WORD.split(text.strip())
    names = [_name(part) for part in parts[::2]]
    if any(name is None for name in names) or None in parts[1::2]:
        return None
    joints = [joint.upper() for joint in parts[1::2]]
    if len(set(joints)) > 1:
        return None  # which of the two binds is not said
    joint = f" {joints[0]} " if joints else ""
    return joint.join(sorted({name for name in names if name is not None}))


def _name(word: str) -> str | None:
    small = word.strip().lower()
    gnu = _GNU.fullmatch(small)
    if gnu is None:
        return _NAMES.get(small)
    family, major, minor, plus = gnu.groups()
    later = plus or small.endswith("-or-later")
    return f"{family.upper()}-{major}.{minor or '0'}-{'or-later' if later else 'only'}"
