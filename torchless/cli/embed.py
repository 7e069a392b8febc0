"""`torchless embed`: vectors of texts, through the gateway or from an embedding service directly."""

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
"""Texts sent in one call; more are sent in several."""
NUMBERS_SHOWN = 4
"""Leading numbers of a vector that the table shows."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who is asked for vectors."""

    gateway: str
    """Base URL of a gateway."""
    address: str = ""
    """`host:port` of an embedding service, asked over gRPC in place of the gateway; empty: the gateway is."""
    key: str = field(default="", repr=False)
    """The gateway's key; empty: it asks for none. The embedding service never does."""


def embed_texts(texts: Sequence[str], source: Source, *, model: str, dimensions: int) -> NDArray[np.float32]:
    """Vectors of `texts`, shape (texts, dimensions).

    Raises:
        GatewayError: The gateway does not answer, or refuses.
        TorchlessError: The same of the embedding service.
    """
    frames = [texts[start : start + TEXTS_A_CALL] for start in range(0, len(texts), TEXTS_A_CALL)]
    ask = _over_grpc if source.address else _over_http
    return np.concatenate(asyncio.run(ask(frames, source, model, dimensions)))


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
    """One JSON object a line, with the text and every number of its vector."""
    for text, vector in zip(texts, vectors, strict=True):
        print(json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False))


def print_table(texts: Sequence[str], vectors: NDArray[np.float32], console: Console) -> None:
    """A line a text, with the size of its vector and the first numbers."""
    table = Table("text", "dimensions", "vector")
    for text, vector in zip(texts, vectors, strict=True):
        numbers = ", ".join(f"{number:+.4f}" for number in vector[:NUMBERS_SHOWN])
        table.add_row(escape(text), str(len(vector)), f"{numbers}, ...")
    console.print(table)
