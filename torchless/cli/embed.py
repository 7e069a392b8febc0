"""`torchless embed`: embeds texts through the gateway, or directly by an embedding service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchless.cli.gateway_api import GatewayClient
from torchless.clients.embedding import EmbeddingClient, EmbedOptions

TEXTS_A_CALL = 256
"""Most texts in one call."""
NUMBERS_SHOWN = 4
"""How many numbers of each vector the table shows."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where vectors come from."""

    gateway: str
    """Base URL of a gateway."""
    address: str = ""
    """`host:port` of an embedding service to call over gRPC instead of the gateway; empty: the gateway."""
    key: str = field(default="", repr=False)
    """API key of the gateway; empty: none. The embedding service needs none."""


def embed_texts(texts: Sequence[str], source: Source, *, model: str, dimensions: int) -> NDArray[np.float32]:
    """Embeds texts; returns vectors of shape (texts, dimensions), float32.

    Raises:
        GatewayError: The gateway does not answer or refuses the request.
        TorchlessError: The embedding service does not answer or refuses the request.
    """
    frames = [texts[start : start + TEXTS_A_CALL] for start in range(0, len(texts), TEXTS_A_CALL)]
    embed = _over_grpc if source.address else _over_http
    return np.concatenate(asyncio.run(embed(frames, source, model, dimensions)))


async def _over_http(
    frames: Sequence[Sequence[str]], source: Source, model: str, dimensions: int
) -> list[NDArray[np.float32]]:
    async with GatewayClient(source.gateway, key=source.key) as client:
        return [await client.embed(frame, model=model, dimensions=dimensions) for frame in frames]


async def _over_grpc(
    frames: Sequence[Sequence[str]], source: Source, model: str, dimensions: int
) -> list[NDArray[np.float32]]:
    options = EmbedOptions(model=model, dimensions=dimensions)
    async with EmbeddingClient(source.address) as client:
        return [(await client.embed(frame, options)).vectors for frame in frames]


def print_json(texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Prints one JSON object per line, with the text and its whole vector."""
    for text, vector in zip(texts, vectors, strict=True):
        print(json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False))


def print_table(texts: Sequence[str], vectors: NDArray[np.float32], console: Console) -> None:
    """Prints one row per text, with the size of its vector and the first numbers."""
    table = Table("text", "dimensions", "vector")
    for text, vector in zip(texts, vectors, strict=True):
        numbers = ", ".join(f"{number:+.4f}" for number in vector[:NUMBERS_SHOWN])
        table.add_row(escape(text), str(len(vector)), f"{numbers}, ...")
    console.print(table)
