"""One server for the whole corpus; a room for each case.

Fuzz tests take a hundred examples each; `pytest tests/verifier/hostile --hypothesis-profile nightly`
takes five thousand.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.verifier.conftest import Signer
from tests.verifier.hostile.cases import Room, Worker

settings.register_profile("nightly", max_examples=5_000)


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("hostile"), signer)
    yield made
    made.close()


@pytest.fixture
def room(worker: Worker, tmp_path: Path) -> Iterator[Room]:
    """A room with a good copy."""
    with worker.room(tmp_path / "room") as made:
        yield made
