"""What is refused before it is sent, because it cannot be."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient, EmbedOptions
from torchless.clients.reranking import RerankingClient, RerankOptions
from torchless.clients.testing import EmbeddingService
from torchless.contracts.errors import ErrorKind, TorchlessError

HALF = "\ud800"


@pytest.mark.parametrize("field", ["request_id", "tenant", "traceparent"])
@pytest.mark.parametrize("text", ["é", "a\nb", "a\0", "\x7f", HALF])
def test_context_must_be_printable_ascii(field: str, text: str) -> None:
    with pytest.raises(TorchlessError) as caught:
        CallContext(**{field: text})  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.INVALID_INPUT
    assert field in caught.value.message


def test_context_is_sent_as_metadata() -> None:
    context = CallContext(request_id="a b~!", tenant="t")
    assert context.metadata() == (("x-request-id", "a b~!"), ("x-tenant-id", "t"))


def test_request_id_of_more_than_128_characters_is_refused() -> None:
    assert CallContext(request_id="a" * 128).metadata()
    with pytest.raises(TorchlessError) as caught:
        CallContext(request_id="a" * 129)
    assert caught.value.kind is ErrorKind.INVALID_INPUT
    assert "request_id" in caught.value.message


def test_ids_of_requests_that_share_a_call_are_sent_together() -> None:
    context = CallContext(request_id="a", other_request_ids=("b", "c"))
    assert context.metadata() == (("x-request-id", "a,b,c"),)
    assert CallContext(other_request_ids=("b", "c")).metadata() == (("x-request-id", "b,c"),)


@pytest.mark.parametrize(
    ("field", "ask"),
    [
        ("model", lambda client: client.embed(["a"], EmbedOptions(model=HALF))),
        ("prompt_name", lambda client: client.embed(["a"], EmbedOptions(prompt_name=HALF))),
        ("dimensions", lambda client: client.embed(["a"], EmbedOptions(dimensions=-1))),
        ("dimensions", lambda client: client.embed(["a"], EmbedOptions(dimensions=2**32))),
        ("model", lambda client: client.count_tokens(["a"], EmbedOptions(model=HALF))),
        ("prompt_name", lambda client: client.count_tokens(["a"], EmbedOptions(prompt_name=HALF))),
        ("model", lambda client: client.tokenize(["a"], model=HALF)),
        ("prompt_name", lambda client: client.tokenize(["a"], prompt_name=HALF)),
        ("model", lambda client: client.detokenize([[1]], model=HALF)),
    ],
)
async def test_options_to_embed_that_cannot_be_sent_are_the_callers_fault(
    field: str, ask: Callable[[EmbeddingClient], Coroutine[Any, Any, Any]]
) -> None:
    async with EmbeddingClient("127.0.0.1:1") as client:
        await _is_refused(ask(client), field)


async def test_options_to_rerank_that_cannot_be_sent_are_the_callers_fault() -> None:
    async with RerankingClient("127.0.0.1:1") as client:
        await _is_refused(client.rerank("a", ["b"], RerankOptions(model=HALF)), "model")


async def _is_refused(call: Coroutine[Any, Any, Any], field: str) -> None:
    with pytest.raises(TorchlessError) as caught:
        await call
    assert caught.value.kind is ErrorKind.INVALID_INPUT
    assert field in caught.value.message


async def test_names_that_callers_send_do_not_stay_in_memory() -> None:
    async with EmbeddingService() as service, EmbeddingClient(service.address) as client:

        async def send(count: int) -> int:
            for index in range(count):
                with suppress(TorchlessError):
                    await client.embed(["a"], EmbedOptions(model=f"{index}" + "x" * 2**20))
                service.requests.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = await send(2)
            assert await send(20) - before < 4 * 2**20
        finally:
            tracemalloc.stop()
