"""The embedding use case, without a transport: validates, tokenizes, batches and normalizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bentos.embedding import validation
from bentos.embedding.model import BatchItem, EmbeddingModel, ModelInfo
from bentos.embedding.settings import EmbeddingSettings
from bentos.embedding.vectors import truncate_and_normalize
from bentos.models.pool import ModelPool
from bentos.models.tokens import EncodedText, Side, TokenPiece
from bentos.serving.batching import Outcome, Work
from torchless.contracts.errors import ErrorKind, TorchlessError, invalid_input

T = TypeVar("T")
Purpose = Literal["query", "document"]

_SMALL_CHARACTERS = 1024
"""Total length of texts that are tokenized on the event loop: a hop to another thread would cost more."""


class BatchKey(NamedTuple):
    """Items with equal keys may share a batch."""

    model: str
    prompt_tokens: int

    def __str__(self) -> str:
        return self.model


class _Plan(NamedTuple):
    """The validated model, dimensions and prompt of a request."""

    model: EmbeddingModel
    dimensions: int
    prompt_name: str | None


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """One request; the fields are those of `GenerateEmbeddingsRequest`."""

    texts: Sequence[str] = ()
    token_ids: Sequence[Sequence[int]] = ()
    model: str = ""
    purpose: Purpose | None = None
    prompt_name: str = ""
    normalize: bool = True
    dimensions: int = 0
    truncate: Side | None = "right"
    """None: inputs that are too long are refused."""
    per_token: bool = False


@dataclass(frozen=True, slots=True)
class EmbedAnswer:
    """The vectors of a request; times in seconds."""

    info: ModelInfo
    vectors: NDArray[np.float32]
    """Shape (inputs, dimensions), or (sum of token_counts, dimensions) per token."""
    token_counts: list[int]
    truncated: list[int]
    """Indices of the inputs that were truncated, ascending."""
    tokenization_s: float
    queue_s: float
    inference_s: float


class Embedder:
    """Embeds texts with one or more models.

    Args:
        models: The models, the default one first.
        settings: Limits, batching, and the settings of each model.
    """

    def __init__(self, models: Sequence[EmbeddingModel], settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._own = {own.id: own for own in settings.models}
        self._pool: ModelPool[EmbeddingModel, BatchKey, BatchItem, NDArray[np.float32]] = ModelPool(
            "embedding", models, _run_batch, settings, inputs="texts"
        )

    async def start(self) -> None:
        """Starts the devices' threads and runs some batches, so that the first caller does not wait for the warm-up."""
        self._pool.start()
        text = "a text of no importance "
        for model in self._pool.models:
            for _ in range(self._settings.warm_up_batches):
                # Without validation: the limits for callers may be lower.
                for texts in ([text], [text * (1 + i % 8) for i in range(32)]):
                    plan = _Plan(model, dimensions=0, prompt_name=model.info.default_prompt_name)
                    await self._embed_texts(EmbedJob(), texts, plan, started=time.monotonic())

    async def stop(self) -> None:
        """Finishes the waiting requests and ends the threads."""
        await self._pool.stop()

    def models(self) -> list[ModelInfo]:
        """The models, the default one first."""
        return [model.info for model in self._pool.models]

    async def embed(
        self, job: EmbedJob, *, flow: str = "", expires_at: float | None = None, wait_for_room: bool = False
    ) -> EmbedAnswer:
        """Embeds the job's inputs.

        Args:
            job: The inputs and options.
            flow: The caller, for fairness between callers; empty: unknown.
            expires_at: `time.monotonic()` after which the caller no longer waits.
            wait_for_room: Wait while the queue is full, instead of refusing.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE, NOT_FOUND, OVERLOADED, DEADLINE, GPU_UNAVAILABLE, INTERNAL.
        """
        model = self._pool.find(job.model)
        validation.check_dimensions(job.dimensions, model.info)
        plan = _Plan(model, job.dimensions, self._prompt_name(job.purpose, job.prompt_name, model.info))
        if not wait_for_room:
            self._pool.refuse_if_full(model)
        started = time.monotonic()
        texts = await self._texts_of(job, model)
        return await self._embed_texts(
            job, texts, plan, started=started, flow=flow, expires_at=expires_at, wait_for_room=wait_for_room
        )

    async def _embed_texts(
        self,
        job: EmbedJob,
        texts: Sequence[str],
        plan: _Plan,
        *,
        started: float,
        flow: str = "",
        expires_at: float | None = None,
        wait_for_room: bool = False,
    ) -> EmbedAnswer:
        model, dimensions, prompt_name = plan
        encoded = await self._encode(model, texts, prompt_name, job.truncate)
        validation.check_lengths(encoded, model.info)
        tokenized = time.monotonic()
        counts = [len(text.ids) for text in encoded]
        if job.per_token:
            validation.check_message_size(sum(counts), model.info, self._settings)
        key = BatchKey(model.info.id, model.prompt_tokens(prompt_name))
        items = [BatchItem(text, job.per_token) for text in encoded]
        work = Work(key, counts, items, flow or None, expires_at)
        outcome = await self._pool.run(model, work, wait_for_room=wait_for_room)
        vectors = _join(outcome, job, dimensions)
        truncated = [index for index, text in enumerate(encoded) if text.truncated]
        self._pool.count_truncated(model, len(truncated))
        times = (tokenized - started, outcome.queue_s, outcome.device_s)
        return EmbedAnswer(model.info, vectors, counts, truncated, *times)

    async def count_tokens(
        self, texts: Sequence[str], model_id: str, purpose: Purpose | None, prompt_name: str
    ) -> tuple[ModelInfo, list[int]]:
        """Number of tokens of each text before truncation, prompt and special tokens included."""
        model = self._pool.find(model_id)
        validation.check_count("texts", len(texts), self._settings)
        validation.check_characters(texts, self._settings)
        encoded = await self._encode(model, texts, self._prompt_name(purpose, prompt_name, model.info), truncate=None)
        return model.info, [len(text.ids) for text in encoded]

    async def tokenize(
        self,
        texts: Sequence[str],
        model_id: str,
        prompt_name: str,
        *,
        add_special_tokens: bool,
        convert: Callable[[ModelInfo, list[list[TokenPiece]]], T],
    ) -> T:
        """The tokens of each text, never truncated.

        Args:
            texts: The texts.
            model_id: The model; empty: the default one.
            prompt_name: Prompt put before each text; empty: none.
            add_special_tokens: Whether to add the model's special tokens.
            convert: Makes the answer from the tokens, on the tokenizer's thread, because it may take long.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE, NOT_FOUND or OVERLOADED.
        """
        model = self._pool.find(model_id)
        validation.check_count("texts", len(texts), self._settings)
        validation.check_size("texts", sum(map(len, texts)), self._settings)
        prompted = _with_prompt(texts, prompt_name, model.info)
        return await self._pool.run_in_tokenizer_pool(
            lambda: convert(model.info, model.tokenize(prompted, add_special_tokens)), sum(map(len, prompted))
        )

    async def detokenize(
        self, token_ids: Sequence[Sequence[int]], model_id: str, *, skip_special_tokens: bool
    ) -> tuple[ModelInfo, list[str]]:
        """The text of each sequence of token ids.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE, NOT_FOUND or OVERLOADED.
        """
        model = self._pool.find(model_id)
        validation.check_size("token_ids", sum(map(len, token_ids)), self._settings)
        validation.check_token_ids(token_ids, model.info, self._settings)
        return model.info, await self._decode(model, token_ids, skip_special_tokens)

    async def _texts_of(self, job: EmbedJob, model: EmbeddingModel) -> Sequence[str]:
        if job.texts and job.token_ids:
            raise invalid_input("token_ids", "must not be given together with texts")
        if not job.token_ids:
            validation.check_count("texts", len(job.texts), self._settings)
            if job.truncate is None:
                validation.check_characters(job.texts, self._settings)
            return job.texts
        validation.check_token_ids(job.token_ids, model.info, self._settings)
        return await self._decode(model, job.token_ids, skip_special_tokens=False)

    async def _decode(
        self, model: EmbeddingModel, token_ids: Sequence[Sequence[int]], skip_special_tokens: bool
    ) -> list[str]:
        return await self._pool.run_in_tokenizer_pool(
            lambda: model.detokenize(token_ids, skip_special_tokens), sum(map(len, token_ids))
        )

    async def _encode(
        self, model: EmbeddingModel, texts: Sequence[str], prompt_name: str | None, truncate: Side | None
    ) -> list[EncodedText]:
        prompted = _with_prompt(texts, prompt_name, model.info)
        characters = sum(map(len, prompted))
        if characters <= _SMALL_CHARACTERS:
            return model.encode(prompted, truncate)
        return await self._pool.run_in_tokenizer_pool(lambda: model.encode(prompted, truncate), characters)

    def _prompt_name(self, purpose: Purpose | None, prompt_name: str, info: ModelInfo) -> str | None:
        if prompt_name:
            validation.check_prompt(prompt_name, info)
            return prompt_name
        if purpose is None:
            return info.default_prompt_name
        own = self._own[info.id]
        name = own.query_prompt if purpose == "query" else own.document_prompt
        return name if name in info.prompts else info.default_prompt_name


def _run_batch(model: EmbeddingModel, key: BatchKey, items: list[BatchItem]) -> list[NDArray[np.float32]]:
    return model.embed(items, key.prompt_tokens)


def _with_prompt(texts: Sequence[str], prompt_name: str | None, info: ModelInfo) -> list[str]:
    if not prompt_name:
        return list(texts)
    validation.check_prompt(prompt_name, info)
    prompt = info.prompts[prompt_name]
    return [prompt + text for text in texts]


def _join(outcome: Outcome[NDArray[np.float32]], job: EmbedJob, dimensions: int) -> NDArray[np.float32]:
    rows = np.concatenate(outcome.results) if job.per_token else np.stack(outcome.results)
    vectors = truncate_and_normalize(rows, dimensions, job.normalize)
    if not np.isfinite(vectors).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model returned values that are not finite")
    return vectors
