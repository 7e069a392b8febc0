"""The real embedding bento, shared by the tests of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests import running_bento
from tests.running_bento import Bento, wait_until_ready
from torchless.clients.embedding import EmbeddingClient


def serving(**options: Any) -> AbstractContextManager[Bento]:
    """Starts the embedding bento on a free port; see `running_bento.serving`."""
    return running_bento.serving("embedding", **options)


@pytest.fixture(scope="package")
def bento() -> Iterator[Bento]:
    """The bento with its default configuration."""
    with serving() as running:
        wait_until_ready(EmbeddingClient, running)
        yield running


@pytest.fixture
async def client(bento: Bento) -> AsyncIterator[EmbeddingClient]:
    """A client of the default bento."""
    async with EmbeddingClient(bento.address) as one:
        yield one
