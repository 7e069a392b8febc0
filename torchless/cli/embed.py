"""`torchless embed`: embeds texts through the gateway, or directly by an embedding service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.batches import in_batches
from torchless.cli.gateway_api import GatewayClient
from torchless.cli.provenance import Provenance
from torchless.clients.embedding import EmbeddingClient, EmbedOptions

NUMBERS_SHOWN = 4
"""How many numbers of each vector the table shows."""
Vectors = NDArray[np.float32]
"""Shape (texts, dimensions)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where vectors come from."""

    gateway: str
    """Base URL of a gateway."""
    address: str = ""
    """`host:port` of an embedding service to call over gRPC instead of the gateway; empty: the gateway."""
    key: str = field(default="", repr=False)
    """API key of the gateway; empty: none. The embedding service needs none."""


async def embed_texts(
    texts: Iterable[str], source: Source, provenance: Provenance, *, model: str, dimensions: int
) -> AsyncIterator[tuple[Sequence[str], Vectors]]:
    """Embeds texts in batches; gives each batch with its vectors, in the order of the texts.

    Args:
        texts: The texts.
        source: Where vectors come from.
        provenance: Collects what the answers say about themselves.
        model: Model id; empty: the default model.
        dimensions: Number of leading dimensions to keep; 0: all.

    Raises:
        GatewayError: The gateway does not answer or refuses a request.
        TorchlessError: The embedding service does not answer or refuses a request.
    """
    if not source.address:
        async with GatewayClient(source.gateway, key=source.key, provenance=provenance) as gateway:

            async def over_http(batch: Sequence[str]) -> Vectors:
                return await gateway.embed(batch, model=model, dimensions=dimensions)

            async for found in in_batches(texts, over_http):
                yield found
        return
    options = EmbedOptions(model=model, dimensions=dimensions)
    async with EmbeddingClient(source.address) as client:

        async def over_grpc(batch: Sequence[str]) -> Vectors:
            answer = await client.embed(batch, options)
            provenance.add(len(answer.truncated), answer.revision)
            return answer.vectors

        async for found in in_batches(texts, over_grpc):
            yield found


def print_json(texts: Sequence[str], vectors: Vectors) -> None:
    """Prints one JSON object per line, with the text and its whole vector."""
    for text, vector in zip(texts, vectors, strict=True):
        print(json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False), flush=True)


def print_table(texts: Sequence[str], vectors: Vectors, console: Console) -> None:
    """Prints one row per text, with the size of its vector and the first numbers."""
    table = Table("text", "dimensions", "vector")
    for text, vector in zip(texts, vectors, strict=True):
        numbers = ", ".join(f"{number:+.4f}" for number in vector[:NUMBERS_SHOWN])
        table.add_row(escape(text), str(len(vector)), f"{numbers}, ...")
    console.print(table)
