"""Values: which domain a person means by a number, the begin of a name, some letters, or `-`."""


def near(text: str, names: "tuple[str, ...]", last: "str | None" = None) -> "list[int]":
    """The positions in names that text may mean, the likely ones first; all of them for no text.

    names: as listed, numbered from 1. last: what `-` stands for.
    """
    wanted = _plain(text)
    if wanted == "-":
        return [names.index(last)] if last in names else []
    found = [position for group in _groups(wanted, names) for position in group]
    return list(dict.fromkeys(found))


def choice(text: str, names: "tuple[str, ...]", last: "str | None" = None) -> "int | None":
    """The one position in names that text means, or None where that is not sure.

    A whole name comes first, then a number, then the begin of just one name; where no name begins
    so, a part of just one name, or letters that just one name has in that order.
    """
    wanted = _plain(text)
    if not wanted:
        return None
    if wanted == "-":
        return names.index(last) if last in names else None
    first = next((group for group in _groups(wanted, names) if group), [])
    return first[0] if len(first) == 1 else None


def _plain(text: str) -> str:
    return text.strip().lower().removesuffix(".")


def _groups(wanted: str, names: "tuple[str, ...]") -> "list[list[int]]":
    """Positions by how they match, the surest way first."""
    every = range(len(names))
    whole = [position for position in every if names[position] == wanted]
    return [
        whole,
        _numbered(wanted, len(names)),
        [position for position in every if names[position].startswith(wanted)],
        [position for position in every if wanted in names[position]],
        [position for position in every if _has_letters(wanted, names[position])],
    ]


def _numbered(wanted: str, count: int) -> "list[int]":
    is_number = wanted.isascii() and wanted.isdigit() and wanted[0] != "0" and len(wanted) < 10
    return [int(wanted) - 1] if is_number and 0 < int(wanted) <= count else []


def _has_letters(wanted: str, name: str) -> bool:
    rest = iter(name)
    return all(letter in rest for letter in wanted)
