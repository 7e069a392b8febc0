"""Embedding as every API family of the gateway needs it; knows no HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gateway.capabilities.errors import EmptyInputError, retold
from gateway.capabilities.request import RequestContext
from gateway.settings import LimitSettings, ModelSettings
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.embedding import Embeddings, EmbedOptions
from torchless.contracts.errors import TorchlessError, input_too_large

Inputs = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
"""One input or several, as texts or as token ids."""
Batch = Sequence[str] | Sequence[Sequence[int]]
"""Several inputs."""
_INPUT = re.compile(r"(?:texts|token_ids)\[(\d+)\]")


class InputLimits:
    """Turns what a request holds into a list of inputs within the limits.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits

    def texts(self, given: str | Sequence[str], field: str) -> Sequence[str]:
        """Texts of the request's `field`, a single one as a list of one.

        Raises:
            EmptyInputError: There is none, or one has no character.
            TorchlessError: INPUT_TOO_LARGE, when there are too many or one is too long.
        """
        if isinstance(given, str):
            self._check(given, field, "characters")
            return [given]
        self._check_number(given, field)
        for index, text in enumerate(given):
            self._check(text, f"{field}[{index}]", "characters")
        return given

    def token_ids(self, given: Sequence[int] | Sequence[Sequence[int]], field: str) -> Sequence[Sequence[int]]:
        """Token ids of the request's `field`, a single sequence as a list of one; raises as `texts`."""
        if given and isinstance(given[0], int):
            self._check(given, field, "token ids")
            return [given]  # type: ignore[list-item]
        self._check_number(given, field)
        for index, ids in enumerate(given):
            self._check(ids, f"{field}[{index}]", "token ids")  # type: ignore[arg-type]
        return given  # type: ignore[return-value]

    def check_total(self, inputs: Sequence[str] | Sequence[Sequence[int]], field: str) -> None:
        """Refuses more in all than is tokenized or decoded in one request.

        Raises:
            TorchlessError: INPUT_TOO_LARGE.
        """
        total, most = sum(map(len, inputs)), self._limits.tokenize_characters
        if total > most:
            unit = "characters" if isinstance(inputs[0], str) else "token ids"
            raise input_too_large(field, f"has {total} {unit} in all; one request takes at most {most}")

    def _check_number(self, given: Sequence[object], field: str) -> None:
        if not given:
            raise EmptyInputError(field, "is empty; send at least one input")
        if len(given) > self._limits.items:
            raise input_too_large(field, f"holds {len(given)} inputs; one request takes at most {self._limits.items}")

    def _check(self, given: str | Sequence[object], field: str, unit: str) -> None:
        if not given:
            raise EmptyInputError(field, f"has no {unit}; an input is never empty")
        if len(given) > self._limits.characters:
            raise input_too_large(field, f"has {len(given)} {unit}; an input takes at most {self._limits.characters}")


class EmbeddingUseCase:
    """Embeds what requests hold.

    Args:
        cache: The embedding service, and the cache before it.
        limits: Limits of a request.
        models: Names of models.
    """

    def __init__(self, cache: EmbeddingCache, limits: LimitSettings, models: ModelSettings) -> None:
        self._cache = cache
        self._aliases = models.aliases
        self.limits = InputLimits(limits)

    def model_id(self, name: str) -> str:
        """The id that a model's name in a request stands for; empty: the default model."""
        return self._aliases.get(name, name)

    async def embed(
        self,
        inputs: Inputs,
        options: EmbedOptions,
        context: RequestContext,
        *,
        field: str,
        renamed: Mapping[str, str] | None = None,
    ) -> Embeddings:
        """Vectors of `inputs`, in their order.

        Args:
            inputs: One or several; token ids are of the model's own vocabulary.
            options: How; its model may be an alias.
            context: The request; it learns what the cache gave.
            field: Name of the request's field that holds `inputs`; errors use it.
            renamed: Names that the request has for other fields of the service's.

        Raises:
            TorchlessError: As the service, or because a limit is passed.
        """
        if isinstance(inputs, str) or (inputs and isinstance(inputs[0], str)):
            batch: Batch = self.limits.texts(inputs, field)  # type: ignore[arg-type]
        else:
            batch = self.limits.token_ids(inputs, field)  # type: ignore[arg-type]
        names = {**inputs_are(field), **(renamed or {})}
        return await self.embed_batch(batch, options, context, name=names_of(inputs, field), renamed=names)

    async def embed_batch(
        self,
        batch: Batch,
        options: EmbedOptions,
        context: RequestContext,
        *,
        name: Callable[[int], str],
        renamed: Mapping[str, str] | None = None,
    ) -> Embeddings:
        """As `embed`, for inputs that are within the limits; `name` is what the request calls the input at an index."""
        try:
            answer = await self._cache.embed(
                batch, replace(options, model=self.model_id(options.model)), context.for_call()
            )
        except TorchlessError as error:
            raise in_words_of_the_request(error, name, renamed or {}) from error
        if self._cache.enabled:
            context.provenance.cached(answer.hits, answer.misses)
        if answer.degraded:
            context.provenance.mark_degraded("embedding")
        return answer.embeddings


def names_of(inputs: Inputs, field: str) -> Callable[[int], str]:
    """What a request calls each of the inputs in its `field`: a single input has the field's own name."""
    single = isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], int))
    return lambda index: field if single else f"{field}[{index}]"


def inputs_are(field: str) -> Mapping[str, str]:
    """The service's names for all inputs together, as the request's `field`."""
    return {"texts": field, "token_ids": field}


def in_words_of_the_request(
    error: TorchlessError, name: Callable[[int], str], renamed: Mapping[str, str]
) -> TorchlessError:
    """`error` with the service's field names replaced by those that the caller wrote.

    Args:
        error: What the service said.
        name: What the request calls the input at an index.
        renamed: Names that the request has for other fields of the service's.
    """

    def named(field: str) -> str:
        field = renamed.get(field, field)
        found = _INPUT.match(field)
        return name(int(found[1])) + field[found.end() :] if found else field

    return retold(error, named)
