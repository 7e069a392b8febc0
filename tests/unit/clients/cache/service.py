"""A service whose vectors are a function of model, options and input, and which does what a test tells it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from torchless.clients.cache.entry import Inputs
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingModelInfo, Embeddings, EmbedOptions, Granularity
from torchless.clients.mapping import reader
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large

MODEL = "tests/hashes"
TOO_LONG = "too long"
POISON = "poison"
TRUNCATED = frozenset("fgh")
"""Inputs that the model truncates."""
DIMENSIONS = 16
_read_model = reader(pb.Model, EmbeddingModelInfo)


@dataclass
class HashService:
    """What stands where the embedding client would."""

    revision: str = "r1"
    failure: TorchlessError | None = None
    """What every call raises."""
    gate: asyncio.Event | None = None
    """What a call waits for before it answers."""
    list_gate: asyncio.Event | None = None
    """What a listing of the models waits for before it answers."""
    others: dict[str, str] = field(default_factory=dict)
    """Revisions of the models that it serves besides."""
    calls: list[list[str]] = field(default_factory=list)
    contexts: list[CallContext] = field(default_factory=list)
    listed: int = 0
    cancelled: int = 0

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        self.calls.append([str(each) for each in inputs])
        self.contexts.append(context)
        revision = self.others.get(options.model, self.revision)
        model = options.model if options.model in self.others else MODEL
        if self.gate is not None:
            try:
                async with asyncio.timeout(context.deadline and context.deadline.timeout_s):
                    await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            except TimeoutError:
                raise TorchlessError(ErrorKind.DEADLINE, "the service did not answer within the deadline") from None
        if self.failure is not None:
            raise self.failure
        for index, each in enumerate(inputs):
            if each == TOO_LONG:
                raise input_too_large(("texts", index), "is too long", index=str(index))
            if each == POISON:
                raise TorchlessError(ErrorKind.INTERNAL, "the model failed on this request")
        return answer_of(inputs, options, revision, model)

    async def list_models(self, context: CallContext) -> list[EmbeddingModelInfo]:
        self.listed += 1
        revision = self.revision
        if self.list_gate is not None:
            await self.list_gate.wait()
        if self.failure is not None:
            raise self.failure
        return [_read_model(pb.Model(id=MODEL, revision=revision))]


def answer_of(
    inputs: Inputs, options: EmbedOptions = EmbedOptions(), revision: str = "r1", model: str = MODEL
) -> Embeddings:
    """What the service answers."""
    rows = [_vector(each, options, revision) for each in inputs]
    counts = [len(str(each)) for each in inputs]
    if options.granularity is Granularity.TOKEN:
        rows = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
    truncated = [index for index, each in enumerate(inputs) if str(each) in TRUNCATED]
    return Embeddings(np.stack(rows), counts, model, revision, truncated=truncated)


def same(one: Embeddings, other: Embeddings) -> bool:
    """Whether two answers are equal, their vectors bit for bit."""
    facts = [
        (each.token_counts, each.truncated, each.model, each.revision, each.vectors.shape) for each in (one, other)
    ]
    return facts[0] == facts[1] and one.vectors.tobytes() == other.vectors.tobytes()


def _vector(given: str | Sequence[int], options: EmbedOptions, revision: str) -> NDArray[np.float32]:
    facts = (options.prompt_name or options.input_type, options.normalize, options.dimensions, options.truncation)
    seed = hashlib.sha256(repr((given, facts, revision)).encode()).digest()
    width = options.dimensions or DIMENSIONS
    return np.random.default_rng(list(seed)).standard_normal(width).astype(np.float32)
