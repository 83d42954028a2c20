"""Values: a board as bytes and back, between processes of ours: what pickle loads costs each of them a megabyte."""

import marshal
from _blake2 import blake2b  # hashlib would load openssl

from virttools.serve.admission import Limits, Rate
from virttools.serve.board import Board, Daemon, Endpoint, Ids, Place, Target
from virttools.serve.routes import Route, Routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLASSES = (Board, Target, Place, Limits, Rate, Endpoint, Routes, Route, Ids, Daemon)
_NUMBERS = {kind: number for number, kind in enumerate(_CLASSES)}
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
_MANY: "dict[type, Any]" = {kind: kind for kind in (tuple, list, frozenset)}
_FORM = 4
_WITHOUT_REFERENCES = 2


def pack(value: object) -> bytes:
    """Values of a board, and what Python builds in, as bytes. Raises TypeError for others."""
    return marshal.dumps(_flatten(value, {}), _FORM)  # type: ignore[arg-type]  # it is flat now


def digest(value: object) -> bytes:
    """The same for values of which everything is the same, in this process and those it forks."""
    flat = marshal.dumps(_flatten(value, {}), _WITHOUT_REFERENCES)  # type: ignore[arg-type]
    return blake2b(flat, digest_size=16).digest()


def unpack(text: bytes) -> "Any":  # noqa: ANN401  what it is, the caller knows
    """What `pack` made bytes of; what was one object, is one again."""
    return _revive(marshal.loads(text), {})  # noqa: S302  our own process wrote it


def _flatten(value: object, known: dict[int, object]) -> object:
    """With (Ellipsis, class, attributes…) for an object of ours."""
    if type(value) in _PLAIN:
        return value
    flat = known.get(id(value))
    if flat is None:
        flat = known[id(value)] = _flatten_anew(value, known)
    return flat


def _flatten_anew(value: object, known: dict[int, object]) -> object:
    kind = type(value)
    if isinstance(value, dict):
        return {_flatten(key, known): _flatten(one, known) for key, one in value.items()}
    if isinstance(value, (tuple, list, frozenset)):
        return _MANY[kind](_flatten(one, known) for one in value)
    if isinstance(value, str):  # of an enum
        return str(value)
    number = _NUMBERS.get(kind)
    if number is None:
        raise TypeError(f"cannot pack a {kind.__name__}")
    return (..., number, *(_flatten(getattr(value, name), known) for name in _slots(kind)))


def _revive(flat: object, known: dict[int, object]) -> object:
    """What has no object of ours in it stays as it is: there are thousands, and they need not be copied."""
    if type(flat) in _PLAIN or not _has_ours(flat):
        return flat
    found = known.get(id(flat))
    if found is None:
        found = known[id(flat)] = _revive_anew(flat, known)
    return found


def _has_ours(flat: object) -> bool:
    if isinstance(flat, dict):
        return any(_has_ours(one) for pair in flat.items() for one in pair)
    if not isinstance(flat, (tuple, list, frozenset)):
        return False
    return any(one is ... or _has_ours(one) for one in flat)


def _revive_anew(flat: object, known: dict[int, object]) -> object:
    if isinstance(flat, dict):
        return {_revive(key, known): _revive(one, known) for key, one in flat.items()}
    assert isinstance(flat, (tuple, list, frozenset))
    if not isinstance(flat, tuple) or flat[:1] != (...,):
        return type(flat)(_revive(one, known) for one in flat)
    made = object.__new__(_CLASSES[flat[1]])
    for name, value in zip(_slots(type(made)), flat[2:], strict=True):
        setattr(made, name, _revive(value, known))
    return made


def _slots(kind: type) -> tuple[str, ...]:
    slots: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]  # each of _CLASSES has them
    return slots
