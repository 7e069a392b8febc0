"""What the service does, without a transport: checks, tokenizes, batches and finishes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bentos.embedding.model import BatchItem, EmbeddingModel, ModelInfo
from bentos.embedding.settings import EmbeddingSettings
from bentos.embedding.vectors import truncate_and_normalize
from bentos.models.pool import ModelPool
from bentos.models.tokens import EncodedText, Side
from bentos.serving.batching import Outcome, Work
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large, invalid_input

Purpose = Literal["query", "document"]

_MIB = 1024 * 1024
_REST_OF_MESSAGE = 64 * 1024
"""What an answer holds beside its vectors, at most, in bytes."""
_SMALL_CHARACTERS = 1024
"""Texts that are shorter than this together are tokenized at once: a hop to another thread would cost more."""


class BatchKey(NamedTuple):
    """What items must have in common to share a batch."""

    model: str
    prompt_tokens: int

    def __str__(self) -> str:
        return self.model


class _How(NamedTuple):
    """What a request's names and numbers stand for, once they are checked."""

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
    """What came of it; times in seconds."""

    info: ModelInfo
    vectors: NDArray[np.float32]
    """Shape (inputs, dimensions), or (sum of token_counts, dimensions) per token."""
    token_counts: list[int]
    tokenization_s: float
    queue_s: float
    inference_s: float


class Embedder:
    """Several models, each on its device.

    Args:
        models: The models, the default one first.
        settings: Limits and batching, and what is set for each model.
    """

    def __init__(self, models: Sequence[EmbeddingModel], settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._own = {own.id: own for own in settings.models}
        self.pool: ModelPool[EmbeddingModel, BatchKey, BatchItem, NDArray[np.float32]] = ModelPool(
            "embedding", models, _run_batch, settings, inputs="texts"
        )

    async def start(self) -> None:
        """Starts the devices' threads and runs some batches, so that the first caller does not wait for the warm-up."""
        self.pool.start()
        text = "a text of no importance "
        for model in self.pool.models:
            for _ in range(self._settings.warm_up_batches):
                # Past the checks: limits that are set for callers may be lower.
                for texts in ([text], [text * (1 + i % 8) for i in range(32)]):
                    how = _How(model, dimensions=0, prompt_name=model.info.default_prompt_name)
                    await self._embedded(EmbedJob(), texts, how, started=time.monotonic())

    async def stop(self) -> None:
        """Works off what waits and ends the threads."""
        await self.pool.stop()

    def models(self) -> list[ModelInfo]:
        """The models, the default one first."""
        return [model.info for model in self.pool.models]

    async def embed(
        self, job: EmbedJob, *, flow: str = "", expires_at: float | None = None, wait_for_room: bool = False
    ) -> EmbedAnswer:
        """Embeds the job's inputs.

        Args:
            job: The inputs, and how.
            flow: Whose job it is, for fairness; empty: nobody's in particular.
            expires_at: `time.monotonic()` after which nobody waits for the answer.
            wait_for_room: Wait while too much is waiting, instead of refusing.

        Raises:
            TorchlessError: INVALID_INPUT, INPUT_TOO_LARGE, NOT_FOUND, OVERLOADED, DEADLINE, GPU_UNAVAILABLE, INTERNAL.
        """
        model = self.pool.find(job.model)
        dimensions = _checked_dimensions(job.dimensions, model.info)
        how = _How(model, dimensions, self._prompt_name(job.purpose, job.prompt_name, model.info))
        if not wait_for_room:
            self.pool.refuse_if_full(model)
        started = time.monotonic()
        texts = await self._texts_of(job, model)
        return await self._embedded(
            job, texts, how, started=started, flow=flow, expires_at=expires_at, wait_for_room=wait_for_room
        )

    async def _embedded(
        self,
        job: EmbedJob,
        texts: Sequence[str],
        how: _How,
        *,
        started: float,
        flow: str = "",
        expires_at: float | None = None,
        wait_for_room: bool = False,
    ) -> EmbedAnswer:
        model, dimensions, prompt_name = how
        encoded = await self._encode(model, texts, prompt_name, job.truncate)
        tokenized = time.monotonic()
        if job.per_token:
            self._refuse_if_no_message_holds(sum(len(one.ids) for one in encoded), model.info)
        key = BatchKey(model.info.id, model.prompt_tokens(prompt_name))
        items = [BatchItem(one, job.per_token) for one in encoded]
        counts = [len(one.ids) for one in encoded]
        work = Work(key, counts, items, flow or None, expires_at)
        outcome = await self.pool.run(model, work, wait_for_room=wait_for_room)
        vectors = _joined(outcome, job, dimensions)
        return EmbedAnswer(model.info, vectors, counts, tokenized - started, outcome.queue_s, outcome.device_s)

    async def count_tokens(
        self, texts: Sequence[str], model_id: str, purpose: Purpose | None, prompt_name: str
    ) -> tuple[ModelInfo, list[int]]:
        """Tokens of each text before truncation, prompt and special tokens included."""
        model = self.pool.find(model_id)
        self.check_texts(texts)
        name = self._prompt_name(purpose, prompt_name, model.info)
        encoded = await self._encode(model, texts, name, truncate="right")
        return model.info, [len(one.ids) + one.dropped for one in encoded]

    def prompted(self, texts: Sequence[str], prompt_name: str, info: ModelInfo) -> list[str]:
        """The texts as the model is given them, with the prompt of that name; as they are for an empty name.

        Raises:
            TorchlessError: INVALID_INPUT, when the model has no such prompt.
        """
        prompt = info.prompts[_known_prompt(prompt_name, info)] if prompt_name else ""
        return [prompt + text for text in texts]

    def check_size(self, field: str, size: int) -> None:
        """Refuses a request to tokenize or detokenize `size` characters or ids, if that is too many.

        Raises:
            TorchlessError: INPUT_TOO_LARGE.
        """
        most = self._settings.max_tokenize_characters
        if size > most:
            raise input_too_large(field, f"is {size} long in all; at most {most} is taken in one call, send less")

    def check_texts(self, texts: Sequence[str]) -> None:
        """Refuses texts that no method takes.

        Raises:
            TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE, naming the text.
        """
        self._check_count("texts", len(texts))
        longest = self._settings.max_input_characters
        total = sum(map(len, texts))
        if total > self._settings.max_request_characters:
            raise input_too_large(
                "texts", f"hold {total} characters in all; at most {self._settings.max_request_characters} are taken"
            )
        for index, text in enumerate(texts):
            if not text:
                raise invalid_input(f"texts[{index}]", "is empty", index=str(index))
            if len(text) > longest:
                raise input_too_large(
                    f"texts[{index}]", f"has {len(text)} characters; at most {longest} are taken", index=str(index)
                )

    def _check_count(self, field: str, count: int) -> None:
        if count == 0:
            raise invalid_input(field, "is empty; give at least one")
        if count > self._settings.max_inputs:
            raise input_too_large(field, f"holds {count} inputs; at most {self._settings.max_inputs} are taken")

    async def _texts_of(self, job: EmbedJob, model: EmbeddingModel) -> Sequence[str]:
        if job.texts and job.token_ids:
            raise invalid_input("token_ids", "cannot be given together with texts")
        if not job.token_ids:
            self.check_texts(job.texts)
            return job.texts
        self.check_token_ids(job.token_ids, model.info)
        return await self.pool.run_in_tokenizer_pool(
            lambda: model.detokenize(job.token_ids, skip_special_tokens=False), sum(map(len, job.token_ids))
        )

    def check_token_ids(self, token_ids: Sequence[Sequence[int]], info: ModelInfo) -> None:
        """Refuses ids that the model does not have.

        Raises:
            TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE, naming the input and position.
        """
        self._check_count("token_ids", len(token_ids))
        for index, ids in enumerate(token_ids):
            if not ids:
                raise invalid_input(f"token_ids[{index}]", "is empty", index=str(index))
            for position, number in enumerate(ids):
                if number >= info.vocabulary_size:
                    raise invalid_input(
                        f"token_ids[{index}][{position}]",
                        f"is {number}; the model's ids are below {info.vocabulary_size}",
                        index=str(index),
                    )

    async def _encode(
        self, model: EmbeddingModel, texts: Sequence[str], prompt_name: str | None, truncate: Side | None
    ) -> list[EncodedText]:
        prompted = self.prompted(texts, prompt_name or "", model.info)
        characters = sum(map(len, prompted))
        if characters <= _SMALL_CHARACTERS:
            encoded = model.encode(prompted, truncate)
        else:
            encoded = await self.pool.run_in_tokenizer_pool(lambda: model.encode(prompted, truncate), characters)
        if truncate is None:
            _refuse_too_long(encoded, model.info)
        return encoded

    def _refuse_if_no_message_holds(self, rows: int, info: ModelInfo) -> None:
        bytes_needed = rows * info.dimensions * 4
        most = self._settings.max_message_mib * _MIB - _REST_OF_MESSAGE
        if bytes_needed > most:
            raise input_too_large(
                "texts",
                f"hold {rows} tokens, whose vectors do not fit one answer; at most {most // (bytes_needed // rows)}"
                " do, send fewer",
            )

    def _prompt_name(self, purpose: Purpose | None, prompt_name: str, info: ModelInfo) -> str | None:
        if prompt_name:
            return _known_prompt(prompt_name, info)
        if purpose is None:
            return info.default_prompt_name
        own = self._own[info.id]
        name = own.query_prompt if purpose == "query" else own.document_prompt
        return name if name in info.prompts else info.default_prompt_name


def _run_batch(model: EmbeddingModel, key: BatchKey, items: list[BatchItem]) -> list[NDArray[np.float32]]:
    return model.embed(items, key.prompt_tokens)


def _checked_dimensions(dimensions: int, info: ModelInfo) -> int:
    allowed = info.matryoshka_dimensions
    if dimensions in (0, info.dimensions, *allowed):
        return dimensions
    if not allowed:
        raise invalid_input(
            "dimensions", f"this model's vectors have {info.dimensions} and were not trained to be cut; leave it out"
        )
    choices = ", ".join(str(each) for each in (info.dimensions, *allowed))
    raise invalid_input("dimensions", f"{dimensions} is not one of those this model supports: {choices}")


def _known_prompt(name: str, info: ModelInfo) -> str:
    if name not in info.prompts:
        names = ", ".join(sorted(info.prompts)) or "none"
        raise invalid_input("prompt_name", f"the model has no such prompt; it has: {names}")
    return name


def _refuse_too_long(encoded: Sequence[EncodedText], info: ModelInfo) -> None:
    for index, one in enumerate(encoded):
        if len(one.ids) > info.max_tokens:
            raise input_too_large(
                f"texts[{index}]",
                f"has {len(one.ids)} tokens and the model reads at most {info.max_tokens}; shorten or truncate it",
                index=str(index),
            )


def _joined(outcome: Outcome[NDArray[np.float32]], job: EmbedJob, dimensions: int) -> NDArray[np.float32]:
    rows = np.concatenate(outcome.results) if job.per_token else np.stack(outcome.results)
    vectors = truncate_and_normalize(rows, dimensions, job.normalize)
    if not np.isfinite(vectors).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model answered numbers that are not finite")
    return vectors
