"""Calls running services from an environment that holds nothing but the installed wheel; `test_wheel.py` runs it.

    python -W error -I installed_client.py EMBEDDING_ADDRESS RERANKING_ADDRESS CLOSED_ADDRESS

Prints what came back, as JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torchless
from torchless.clients.embedding import EmbeddingClient, EmbedOptions, InputType, Truncation
from torchless.clients.reranking import RerankingClient
from torchless.clients.settings import BreakerSettings, ClientSettings, RetrySettings
from torchless.contracts.errors import TorchlessError


def import_every_module() -> int:
    """Imports every module that the wheel offers without extras, and returns how many they are."""
    root = Path(torchless.__file__).parent
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.parts[1] != "cli"]
    for name in names:
        importlib.import_module(name)
    return len(names)


async def refusal(embedding: EmbeddingClient) -> dict[str, Any]:
    """The error of a request with a text that is too long, and may not be truncated."""
    try:
        await embedding.embed(["A cell divides.", "w " * 300], EmbedOptions(truncation=Truncation.NONE))
    except TorchlessError as error:
        return {"kind": error.kind.value, "violations": {v.field: v.description for v in error.violations}}
    raise AssertionError("a text that is too long was embedded")


async def opened_breaker(address: str) -> list[str]:
    """Kinds of the errors of two calls to an endpoint without a listener, whose breaker opens after the first."""
    settings = ClientSettings(
        address=address, breaker=BreakerSettings(failures=1), retry=RetrySettings(attempts=1), deadline_s=5
    )
    kinds = []
    async with EmbeddingClient(settings) as client:
        for _ in range(2):
            try:
                await client.embed(["A cell divides."])
            except TorchlessError as error:
                kinds.append(error.kind.value)
    return kinds


async def main(embedding_address: str, reranking_address: str, closed_address: str) -> dict[str, Any]:
    """Everything that another team's program does first."""
    question, passages = "Why does bread rise?", ["The harbour froze.", "Yeast makes dough rise."]
    async with EmbeddingClient(embedding_address) as embedding, RerankingClient(reranking_address) as reranking:
        embedded = await embedding.embed(passages, EmbedOptions(input_type=InputType.DOCUMENT))
        reranked = await reranking.rerank(question, passages)
        return {
            "file": torchless.__file__,
            "modules": import_every_module(),
            "versions": {name: version(name) for name in ("protobuf", "grpcio")},
            "ready": [await embedding.ready(), await reranking.ready()],
            "shape": embedded.vectors.shape,
            "order": reranked.queries[0].order().tolist(),
            "refusal": await refusal(embedding),
            "breaker": await opened_breaker(closed_address),
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
