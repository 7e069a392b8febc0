"""The model pool: models by id, batches and the tokenizer threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, NamedTuple

import pytest

from bentos.models.pool import ModelPool
from bentos.models.settings import ModelServingSettings
from bentos.serving.batching import BatchingSettings, Work
from tests.fakes import FakeRerankingModel
from torchless.contracts.errors import ErrorKind, TorchlessError


class BatchKey(NamedTuple):
    model: str


def pool(*ids: str, **batching: Any) -> ModelPool[Any, BatchKey, int, str]:
    models = [FakeRerankingModel(id=name) for name in ids]
    settings = ModelServingSettings(batching=BatchingSettings(**batching), tokenizer_threads=1)
    return ModelPool(
        "pooltest", models, lambda model, key, items: [f"{model.id} {n}" for n in items], settings, "texts"
    )


def test_models_are_found_by_id_and_the_default_by_none() -> None:
    subject = pool("first", "second")
    assert [subject.find(name).id for name in ("", "first", "second")] == ["first", "first", "second"]
    assert [model.id for model in subject.models] == ["first", "second"]


def test_unknown_model_is_named_with_at_most_200_characters() -> None:
    with pytest.raises(TorchlessError) as caught:
        pool("first").find("x" * 1000)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert "x" * 200 in caught.value.message
    assert "x" * 201 not in caught.value.message


async def test_work_runs_on_the_model_of_its_key() -> None:
    subject = pool("first", "second")
    subject.start()
    works = [Work(BatchKey(name), [1, 1], [n, n + 1]) for n, name in enumerate(["first", "second", "first"])]
    outcomes = await asyncio.gather(*(subject.run(subject.find(work.key.model), work) for work in works))  # type: ignore[attr-defined]
    assert [each.results for each in outcomes] == [
        ["first 0", "first 1"],
        ["second 1", "second 2"],
        ["first 2", "first 3"],
    ]
    await subject.stop()


async def test_full_tokenizer_pool_refuses() -> None:
    subject = pool("first", max_waiting_requests=2)
    gate = threading.Event()
    held = [asyncio.create_task(subject.run_in_tokenizer_pool(lambda: gate.wait(10))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TorchlessError) as caught:
        await subject.run_in_tokenizer_pool(lambda: True)
    gate.set()
    assert await asyncio.gather(*held) == [True, True]
    assert await subject.run_in_tokenizer_pool(lambda: "room again") == "room again"
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_s is not None


async def test_error_in_the_tokenizer_pool_is_raised_and_frees_its_slot() -> None:
    subject = pool("first", max_waiting_requests=1)

    def fail() -> None:
        raise TorchlessError(ErrorKind.INVALID_INPUT, "no")

    for _ in range(3):
        with pytest.raises(TorchlessError, match="no"):
            await subject.run_in_tokenizer_pool(fail)
    assert await subject.run_in_tokenizer_pool(lambda: 1) == 1


async def test_small_requests_do_not_wait_behind_large_ones() -> None:
    subject = pool("first")
    gate = threading.Event()
    large = [asyncio.create_task(subject.run_in_tokenizer_pool(lambda: gate.wait(10), 1_000_000)) for _ in range(4)]
    await asyncio.sleep(0)
    assert await subject.run_in_tokenizer_pool(lambda: "small", 1_000) == "small"
    assert not any(task.done() for task in large)
    gate.set()
    assert await asyncio.gather(*large) == [True] * 4
