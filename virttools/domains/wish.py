"""What is to be built: a domain, the manifest for it, and where its files come from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from virttools.manifest.load import Loaded, with_uid_base
from virttools.manifest.model import UidBase

Advance = Callable[[int, int], None]
"""Told, while something long runs, how many more actions are done, and of how many in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where facts come from: "/" or a folder that holds another system; "own" resolver or "ldd"."""

    source_root: str = "/"
    resolver: str = "own"


@dataclass(frozen=True, slots=True)
class Wish:
    """A domain to create, and the manifest for it."""

    domain: str
    loaded: Loaded

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.loaded.manifest.addresses

    @property
    def uid_base(self) -> int:
        return self.loaded.manifest.shift

    @property
    def is_open(self) -> bool:
        """Whether its ids are yet to be chosen."""
        return self.loaded.manifest.uid_base is UidBase.AUTO

    def with_uid_base(self, base: int) -> "Wish":
        return replace(self, loaded=with_uid_base(self.loaded, base))
