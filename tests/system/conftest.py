"""A root for trees that only one test sees."""

from collections.abc import Iterator

import pytest

from tests.system.calls import Virt


@pytest.fixture
def virt(as_root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """A fresh root; what is left in it goes by `virt remove`, which never crosses a mount."""
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    here = Virt(folder)
    yield here
    here.sweep()
