"""Values: connections to what is flooded, which wait until nobody else is at the door."""

MOST = 128
_SECONDS = 1.0
_TURNS = 8


class Waiting:
    """One of them: its descriptor and family, the position of its target, and its ends."""

    __slots__ = ("family", "fd", "local", "position", "remote")

    def __init__(
        self,
        fd: int,
        family: int,
        position: int,
        local: tuple[str, int],
        remote: tuple[str, int],
    ) -> None:
        self.fd = fd
        self.family = family
        self.position = position
        self.local = local
        self.remote = remote


class Crowd:
    """A target is flooded while it refuses somebody every second."""

    __slots__ = ("_refused", "_turns", "_waiting")

    def __init__(self) -> None:
        self._refused: dict[int, float] = {}
        self._turns = 0
        self._waiting: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def refuse(self, position: int, now: float) -> None:
        """A target has refused a connection."""
        self._refused[position] = now

    def has_room_for(self, position: int, now: float) -> bool:
        """Whether who wants to that target is to wait here."""
        last = self._refused.get(position)
        return last is not None and now - last < _SECONDS and len(self._waiting) < MOST

    def add(self, one: Waiting) -> None:
        self._waiting.append(one)

    def is_due(self, *, somebody_came: bool) -> bool:
        """Whether one is to be served now: where nobody else came, and now and then in any case."""
        self._turns += 1
        return not somebody_came or self._turns % _TURNS == 0

    def next(self) -> Waiting:
        """Who has waited longest. Raises IndexError where nobody waits."""
        return self._waiting.pop(0)
