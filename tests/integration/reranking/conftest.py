"""The real reranking bento, shared by the tests of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager

import pytest

from tests import running_bento
from tests.running_bento import Bento, wait_until_ready
from torchless.clients.reranking import RerankingClient


def serving(*, prefix: tuple[str, ...] = (), **environment: str) -> AbstractContextManager[Bento]:
    """Starts the reranking bento on a free port; see `running_bento.serving`."""
    return running_bento.serving("reranking", prefix=prefix, **environment)


@pytest.fixture(scope="package")
def bento() -> Iterator[Bento]:
    """The bento with its default configuration."""
    with serving() as running:
        wait_until_ready(RerankingClient, running)
        yield running


@pytest.fixture
async def client(bento: Bento) -> AsyncIterator[RerankingClient]:
    """A client of the default bento."""
    async with RerankingClient(bento.address) as one:
        yield one
