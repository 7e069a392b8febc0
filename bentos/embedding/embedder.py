"""What the service does, without a transport: checks, tokenizes, batches and finishes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bentos.embedding.model import EmbeddingModel, EncodedText, ModelCard, PassItem, Side
from bentos.embedding.settings import EmbeddingSettings, ModelSettings
from bentos.embedding.vectors import finish
from bentos.serving.batching import Batcher, Outcome, PassLimits, Work
from bentos.serving.metrics import BatchMetrics
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large, invalid_input

T = TypeVar("T")
Purpose = Literal["query", "document"]

_MIB = 1024 * 1024
_REST_OF_MESSAGE = 64 * 1024
"""What an answer holds beside its vectors, at most, in bytes."""
_SMALL_CHARACTERS = 1024
"""Texts that are shorter than this together are tokenized at once: a hop to another thread would cost more."""


class Lane(NamedTuple):
    """What items must have in common to share a pass."""

    model: str
    prompt_tokens: int

    def __str__(self) -> str:
        return self.model


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

    card: ModelCard
    vectors: NDArray[np.float32]
    """Shape (inputs, dimensions), or (sum of token_counts, dimensions) per token."""
    token_counts: list[int]
    tokenization_s: float
    queue_s: float
    inference_s: float


class Embedder:
    """Several models, each on its device.

    Args:
        models: The models, the default one first, each with its settings.
        settings: Limits and batching.
    """

    def __init__(self, models: Sequence[tuple[ModelSettings, EmbeddingModel]], settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._models = {model.card.id: (own, model) for own, model in models}
        self._default = models[0][1].card.id
        self._metrics = BatchMetrics("embedding")
        # A device runs one pass at a time, so what shares a device shares its queue.
        self._batchers: dict[str, Batcher[PassItem, NDArray[np.float32]]] = {
            device: Batcher(self._run_pass, self._limits_of, settings.batching, self._metrics)
            for device in {model.card.device for _, model in models}
        }
        self._metrics.watch(*self._batchers.values())
        self._beside = 0
        self._threads = ThreadPoolExecutor(settings.tokenizer_threads, thread_name_prefix="tokenizer")

    async def start(self) -> None:
        """Starts the devices' threads and sends some passes over it, so that the first caller does not pay for them."""
        for batcher in self._batchers.values():
            batcher.start()
        text = "a text of no importance "
        for name in self._models:
            for _ in range(self._settings.warm_up_passes):
                await self.embed(EmbedJob(texts=[text], model=name))
                await self.embed(EmbedJob(texts=[text * (1 + i % 8) for i in range(32)], model=name))

    async def stop(self) -> None:
        """Works off what waits and ends the threads."""
        await asyncio.gather(*(batcher.stop() for batcher in self._batchers.values()))
        self._threads.shutdown()

    def cards(self) -> list[ModelCard]:
        """The models, the default one first."""
        return [model.card for _, model in self._models.values()]

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
        own, model = self._find(job.model)
        dimensions = _checked_dimensions(job.dimensions, model.card)
        prompt_name = _prompt_name(job, own, model.card)
        batcher = self._batchers[model.card.device]
        if not wait_for_room:
            batcher.admission.refuse_if_full()
        started = time.monotonic()
        texts = await self._texts_of(job, model)
        encoded = await self._encode(model, texts, prompt_name, job.truncate)
        tokenized = time.monotonic()
        if job.per_token:
            self._refuse_if_no_message_holds(sum(len(one.ids) for one in encoded), model.card)
        lane = Lane(model.card.id, model.prompt_tokens(prompt_name))
        items = [PassItem(one, job.per_token) for one in encoded]
        counts = [len(one.ids) for one in encoded]
        work = Work(lane, counts, items, flow or None, expires_at)
        outcome = await batcher.submit(work, wait_for_room=wait_for_room)
        self._metrics.queued(model.card.id, outcome.queue_s)
        vectors = _joined(outcome, job, dimensions)
        return EmbedAnswer(model.card, vectors, counts, tokenized - started, outcome.queue_s, outcome.device_s)

    async def count_tokens(
        self, texts: Sequence[str], model_id: str, purpose: Purpose | None, prompt_name: str
    ) -> tuple[ModelCard, list[int]]:
        """Tokens of each text before truncation, prompt and special tokens included."""
        own, model = self._find(model_id)
        self.check_texts(texts)
        name = _prompt_name(EmbedJob(purpose=purpose, prompt_name=prompt_name), own, model.card)
        encoded = await self._encode(model, texts, name, truncate="right")
        return model.card, [len(one.ids) + one.dropped for one in encoded]

    def find(self, model_id: str) -> EmbeddingModel:
        """The model of that id; the default one for an empty id.

        Raises:
            TorchlessError: NOT_FOUND.
        """
        return self._find(model_id)[1]

    def prompted(self, texts: Sequence[str], prompt_name: str, card: ModelCard) -> list[str]:
        """The texts as the model is given them, with the prompt of that name; as they are for an empty name.

        Raises:
            TorchlessError: INVALID_INPUT, when the model has no such prompt.
        """
        prompt = card.prompts[_known_prompt(prompt_name, card)] if prompt_name else ""
        return [prompt + text for text in texts]

    async def beside_the_device(self, function: Callable[[], T]) -> T:
        """Runs `function` on a tokenizer thread.

        Raises:
            TorchlessError: OVERLOADED, when as many wait for one as may wait for the device.
        """
        if self._beside >= self._settings.batching.max_waiting_requests:
            raise TorchlessError(
                ErrorKind.OVERLOADED, "the service has too much to tokenize; try again shortly", retry_after_s=1.0
            )
        self._beside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        finally:
            self._beside -= 1

    def check_size(self, field: str, size: int) -> None:
        """Refuses a request to tokenize or detokenize `size` characters or ids, if that is too many.

        Raises:
            TorchlessError: INPUT_TOO_LARGE.
        """
        most = self._settings.max_tokenize_characters
        if size > most:
            raise input_too_large(field, f"is {size} long in all; at most {most} is taken in one call, send less")

    def _find(self, model_id: str) -> tuple[ModelSettings, EmbeddingModel]:
        found = self._models.get(model_id or self._default)
        if found is None:
            raise TorchlessError(
                ErrorKind.NOT_FOUND, f"model: {model_id[:200]!r} is not served; the list of models names those that are"
            )
        return found

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
        self.check_token_ids(job.token_ids, model.card)
        return await self.beside_the_device(lambda: model.detokenize(job.token_ids, skip_special_tokens=False))

    def check_token_ids(self, token_ids: Sequence[Sequence[int]], card: ModelCard) -> None:
        """Refuses ids that the model does not have.

        Raises:
            TorchlessError: INVALID_INPUT or INPUT_TOO_LARGE, naming the input and position.
        """
        self._check_count("token_ids", len(token_ids))
        for index, ids in enumerate(token_ids):
            if not ids:
                raise invalid_input(f"token_ids[{index}]", "is empty", index=str(index))
            for position, number in enumerate(ids):
                if number >= card.vocabulary_size:
                    raise invalid_input(
                        f"token_ids[{index}][{position}]",
                        f"is {number}; the model's ids are below {card.vocabulary_size}",
                        index=str(index),
                    )

    async def _encode(
        self, model: EmbeddingModel, texts: Sequence[str], prompt_name: str | None, truncate: Side | None
    ) -> list[EncodedText]:
        prompted = self.prompted(texts, prompt_name or "", model.card)
        if sum(map(len, prompted)) <= _SMALL_CHARACTERS:
            encoded = model.encode(prompted, truncate)
        else:
            encoded = await self.beside_the_device(lambda: model.encode(prompted, truncate))
        if truncate is None:
            _refuse_too_long(encoded, model.card)
        return encoded

    def _refuse_if_no_message_holds(self, rows: int, card: ModelCard) -> None:
        bytes_needed = rows * card.dimensions * 4
        most = self._settings.max_message_mib * _MIB - _REST_OF_MESSAGE
        if bytes_needed > most:
            raise input_too_large(
                "texts",
                f"hold {rows} tokens, whose vectors do not fit one answer; at most {most // (bytes_needed // rows)}"
                " do, send fewer",
            )

    def _limits_of(self, lane: Lane) -> PassLimits:
        batching = self._settings.batching
        return PassLimits(
            max_tokens=self._models[lane.model][1].card.max_batch_tokens,
            max_items=batching.max_items,
            padding_share=batching.padding_share,
            free_padding_tokens=batching.free_padding_tokens,
        )

    def _run_pass(self, lane: Lane, items: list[PassItem]) -> list[NDArray[np.float32]]:
        return self._models[lane.model][1].embed(items, lane.prompt_tokens)


def _checked_dimensions(dimensions: int, card: ModelCard) -> int:
    allowed = card.matryoshka_dimensions
    if dimensions in (0, card.dimensions, *allowed):
        return dimensions
    if not allowed:
        raise invalid_input(
            "dimensions", f"this model's vectors have {card.dimensions} and were not trained to be cut; leave it out"
        )
    choices = ", ".join(str(each) for each in (card.dimensions, *allowed))
    raise invalid_input("dimensions", f"{dimensions} is not one of those this model supports: {choices}")


def _prompt_name(job: EmbedJob, own: ModelSettings, card: ModelCard) -> str | None:
    if job.prompt_name:
        return _known_prompt(job.prompt_name, card)
    if job.purpose is None:
        return card.default_prompt_name
    name = own.query_prompt if job.purpose == "query" else own.document_prompt
    return name if name in card.prompts else card.default_prompt_name


def _known_prompt(name: str, card: ModelCard) -> str:
    if name not in card.prompts:
        names = ", ".join(sorted(card.prompts)) or "none"
        raise invalid_input("prompt_name", f"the model has no such prompt; it has: {names}")
    return name


def _refuse_too_long(encoded: Sequence[EncodedText], card: ModelCard) -> None:
    for index, one in enumerate(encoded):
        if len(one.ids) > card.max_tokens:
            raise input_too_large(
                f"texts[{index}]",
                f"has {len(one.ids)} tokens and the model reads at most {card.max_tokens}; shorten or truncate it",
                index=str(index),
            )


def _joined(outcome: Outcome[NDArray[np.float32]], job: EmbedJob, dimensions: int) -> NDArray[np.float32]:
    rows = np.concatenate(outcome.results) if job.per_token else np.stack(outcome.results)
    vectors = finish(rows, dimensions, job.normalize)
    if not np.isfinite(vectors).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model answered numbers that are not finite")
    return vectors
