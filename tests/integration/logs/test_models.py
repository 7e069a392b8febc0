"""The logs of the bentos with real models: every line is JSON, and none holds what a caller sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.running_bento import Bento, serving, until_health
from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient, EmbedOptions
from torchless.clients.reranking import RerankingClient, RerankOptions
from torchless.contracts.errors import TorchlessError

pytestmark = [pytest.mark.torch, pytest.mark.slow]
SECRET = "Pelargonium"


def lines(bento: Bento) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bento.log.read_text().splitlines()]


async def calls(bento: Bento, number: int) -> list[dict[str, Any]]:
    """The lines of the first calls with request ids, in the order of the ids."""

    def found() -> list[dict[str, Any]]:
        return [line for line in lines(bento) if line["message"] == "call" and "request_id" in line]

    await until(lambda: len(found()) >= number, bento.log.read_text, within_s=10)
    return sorted(found(), key=lambda line: str(line["request_id"]))


async def test_embedding_bento_logs_its_calls_without_texts() -> None:
    with serving("embedding", log__level="DEBUG", log__format="json") as bento:
        async with EmbeddingClient(bento.address) as client:
            await until_health(client, bento, ready=True)
            found = await client.embed([SECRET, f"{SECRET} twice"], context=CallContext("id-1"))
            await client.tokenize([SECRET], context=CallContext("id-2"))
            with pytest.raises(TorchlessError):
                await client.embed([SECRET * 9999], EmbedOptions(model=f"{SECRET} x"), CallContext("id-3"))
            embedded, tokenized, failed = await calls(bento, 3)
        assert embedded["model"] == found.model == tokenized["model"]
        assert (embedded["items"], embedded["tokens"]) == (2, sum(found.token_counts))
        assert embedded["inference_ms"] > 0
        assert tokenized["tokens"] > 2
        assert (failed["status"], failed["level"]) == ("NOT_FOUND", "warning")
        assert "model" not in failed
        log = bento.log.read_text()
        assert SECRET.lower() not in log.lower()
        assert not [number for number in map(str, found.vectors[0].tolist()) if number in log]
        assert bento.stop() == 0
        assert {line["service"] for line in lines(bento)} == {"embedding"}


async def test_reranking_bento_logs_its_calls_without_texts() -> None:
    with serving("reranking", log__level="DEBUG", log__format="json") as bento:
        async with RerankingClient(bento.address) as client:
            await until_health(client, bento, ready=True)
            found = await client.rerank(SECRET, [f"{SECRET} one", "two"], context=CallContext("id-1"))
            with pytest.raises(TorchlessError):
                await client.rerank(SECRET, [SECRET], RerankOptions(model=f"{SECRET} x"), CallContext("id-2"))
            ranked, failed = await calls(bento, 2)
        assert (ranked["method"], ranked["items"]) == ("RerankBatch", 2)
        assert ranked["tokens"] > 4
        assert ranked["inference_ms"] > 0
        assert failed["status"] == "NOT_FOUND"
        log = bento.log.read_text()
        assert SECRET.lower() not in log.lower()
        assert found.model in log
        assert bento.stop() == 0
        assert {line["service"] for line in lines(bento)} == {"reranking"}
