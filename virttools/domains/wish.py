"""A domain to create, and the manifest for it."""

from dataclasses import dataclass, replace

from virttools.manifest.load import Loaded, with_uid_base
from virttools.manifest.model import UidBase


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
