"""Embedding, as every API family needs it: limits, model aliases, cache, and errors in the request's field names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from gateway.capabilities.errors import EmptyInputError, UntokenizableInputError
from gateway.capabilities.request import RequestContext
from gateway.settings import LimitSettings, ModelSettings
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.embedding import EmbeddingClient, Embeddings, EmbedOptions, Token
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large
from torchless.contracts.field_path import FieldPath

Inputs = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
"""One input or several, as texts or as token ids."""
InputList = Sequence[str] | Sequence[Sequence[int]]
"""Several inputs."""
PathOfInput = Callable[[int], FieldPath]
"""Gives the request's path of the input at an index."""
_CHARACTERS_A_CALL = 200_000
"""Most characters of several texts in one call of Tokenize, whose answer is held as objects: some 50,000 tokens."""
I = TypeVar("I", str, Sequence[int])  # noqa: E741  # an input


class InputLimits:
    """Turns what a request holds into a list of inputs within the limits.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits

    def texts(self, given: str | Sequence[str], path: FieldPath, *, one_may_be_empty: bool = False) -> Sequence[str]:
        """The texts at `path` of the request; a single one as a list of one.

        Args:
            given: The text or the texts.
            path: Their path.
            one_may_be_empty: Whether a single text that is not in a list may be empty.

        Raises:
            EmptyInputError: There is no text, or one is empty.
            TorchlessError: INPUT_TOO_LARGE, when there are too many.
        """
        if given == "" and one_may_be_empty:
            return [given]
        return self._checked(
            [given] if isinstance(given, str) else given, path_of_input(given, path), path, "characters"
        )

    def token_ids(self, given: Sequence[int] | Sequence[Sequence[int]], path: FieldPath) -> Sequence[Sequence[int]]:
        """The token ids at `path` of the request; a single sequence as a list of one. Raises as `texts`."""
        sequences: Sequence[Sequence[int]] = [given] if _is_single(given) else given  # type: ignore[list-item, assignment]
        return self._checked(sequences, path_of_input(given, path), path, "token ids")

    def check_total(self, inputs: InputList, path: FieldPath) -> None:
        """Refuses more in all than one request may tokenize or decode.

        Raises:
            TorchlessError: INPUT_TOO_LARGE.
        """
        total, most = sum(map(len, inputs)), self._limits.tokenize_characters
        if total > most:
            unit = "characters" if isinstance(inputs[0], str) else "token ids"
            raise input_too_large(path, f"has {total} {unit} in total; the maximum per request is {most}")

    def _checked(self, inputs: Sequence[I], path_of: PathOfInput, path: FieldPath, unit: str) -> Sequence[I]:
        if not inputs:
            raise EmptyInputError(path, "is empty; send at least one input")
        if len(inputs) > self._limits.items:
            raise input_too_large(path, f"holds {len(inputs)} inputs; the maximum is {self._limits.items}")
        for index, each in enumerate(inputs):
            if not each:
                raise EmptyInputError(path_of(index), f"has no {unit}; an input must not be empty")
        return inputs


class EmbeddingUseCase:
    """Embeds and tokenizes the inputs of requests.

    Args:
        client: The embedding service.
        cache: The cache in front of it.
        limits: Limits of a request.
        models: Names of models.
    """

    def __init__(
        self, client: EmbeddingClient, cache: EmbeddingCache, limits: LimitSettings, models: ModelSettings
    ) -> None:
        self._client = client
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
        one_may_be_empty: bool = False,
    ) -> Embeddings:
        """Vectors of `inputs`, in their order.

        Args:
            inputs: One or several; token ids are of the model's own vocabulary.
            options: Options; the model may be an alias.
            context: The request; the cache's hits and misses are recorded in it.
            field: The request's field that holds `inputs`, for errors.
            renamed: The request's names of other fields of the service.
            one_may_be_empty: Whether a single text that is not in a list may be empty.

        Raises:
            TorchlessError: As the service, or because the inputs exceed a limit.
        """
        path = (field,)
        if isinstance(inputs, str) or (inputs and isinstance(inputs[0], str)):
            checked: InputList = self.limits.texts(inputs, path, one_may_be_empty=one_may_be_empty)  # type: ignore[arg-type]
        else:
            checked = self.limits.token_ids(inputs, path)  # type: ignore[arg-type]
        path_of = path_of_input(inputs, path)
        return await self.embed_list(checked, options, context, path=path, path_of=path_of, renamed=renamed)

    async def embed_list(
        self,
        inputs: InputList,
        options: EmbedOptions,
        context: RequestContext,
        *,
        path: FieldPath,
        path_of: PathOfInput,
        renamed: Mapping[str, str] | None = None,
    ) -> Embeddings:
        """As `embed`, for inputs that are within the limits.

        Args:
            inputs: The inputs.
            options: Options; the model may be an alias.
            context: The request; the cache's hits and misses are recorded in it.
            path: The request's path of all inputs together.
            path_of: The request's path of the input at an index.
            renamed: The request's names of other fields of the service.
        """
        options = replace(options, model=self.model_id(options.model))
        context.provenance.requested(options.model, len(inputs))
        try:
            answer = await self._cache.embed(inputs, options, context.for_call())
        except TorchlessError as error:
            raise _with_request_paths(error, path, path_of, renamed or {}) from error
        context.provenance.revision = answer.embeddings.revision
        if self._cache.enabled:
            context.provenance.cached(answer.hits, answer.misses)
        context.provenance.truncated += len(answer.embeddings.truncated)
        if answer.degraded:
            context.provenance.mark_degraded("embedding")
        found = answer.embeddings
        context.provenance.answered(found.model, sum(found.token_counts), found.timings)
        context.provenance.shared_with = answer.shared_with
        return found

    async def tokenize(
        self,
        inputs: str | Sequence[str],
        context: RequestContext,
        *,
        field: str,
        model: str = "",
        add_special_tokens: bool = True,
        prompt_name: str = "",
    ) -> AsyncIterator[list[list[Token]]]:
        """The tokens of each text, in the order of the texts; several texts at a time, in one call for each.

        Args:
            inputs: One text or several.
            context: The request.
            field: The request's field that holds `inputs`, for errors.
            model: The model, by id or alias.
            add_special_tokens: Whether special tokens are included.
            prompt_name: The prompt that is put before each text; empty: none.

        Raises:
            UntokenizableInputError: The service refuses an input.
            TorchlessError: As the service, or because the inputs exceed a limit.
        """
        path = (field,)
        texts = self.limits.texts(inputs, path)
        self.limits.check_total(texts, path)
        context.provenance.requested(self.model_id(model), len(texts))
        path_of = path_of_input(inputs, path)
        for start, part in _parts(texts, _CHARACTERS_A_CALL):
            try:
                tokens = await self._client.tokenize(
                    part,
                    model=self.model_id(model),
                    add_special_tokens=add_special_tokens,
                    prompt_name=prompt_name,
                    context=context.for_call(),
                )
            except TorchlessError as error:
                raise _untokenizable(error, path, _from_index(path_of, start)) from error
            context.provenance.tokens += sum(map(len, tokens))
            yield tokens

    async def detokenize(
        self,
        inputs: Sequence[int] | Sequence[Sequence[int]],
        context: RequestContext,
        *,
        field: str,
        model: str = "",
        skip_special_tokens: bool = True,
    ) -> list[str]:
        """The text of each sequence of token ids. Arguments and errors as in `tokenize`."""
        path = (field,)
        sequences = self.limits.token_ids(inputs, path)
        self.limits.check_total(sequences, path)
        context.provenance.requested(self.model_id(model), len(sequences))
        try:
            return await self._client.detokenize(
                sequences,
                model=self.model_id(model),
                skip_special_tokens=skip_special_tokens,
                context=context.for_call(),
            )
        except TorchlessError as error:
            raise _untokenizable(error, path, path_of_input(inputs, path)) from error


def path_of_input(inputs: Inputs, path: FieldPath) -> PathOfInput:
    """The path of each of the inputs at `path`: that of a single input is `path` itself."""
    return (lambda _: path) if _is_single(inputs) else lambda index: (*path, index)


def _is_single(inputs: Inputs) -> bool:
    return isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], int))


def _with_request_paths(
    error: TorchlessError, path: FieldPath, path_of: PathOfInput, renamed: Mapping[str, str]
) -> TorchlessError:
    """`error` of the service with the paths of the request in place of the service's."""

    def rename(of_service: FieldPath) -> FieldPath:
        match of_service:
            case ("texts" | "token_ids", int(index), *rest):
                return (*path_of(index), *rest)
            case ("texts" | "token_ids",):
                return path
            case (str(name), *rest):
                return (renamed.get(name, name), *rest)
        return of_service

    return error.with_paths(rename)


def _parts(texts: Sequence[str], characters: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Parts of at most so many characters, or of one text, each with the index of its first text."""
    start = size = 0
    for index, text in enumerate(texts):
        if index > start and size + len(text) > characters:
            yield start, texts[start:index]
            start, size = index, 0
        size += len(text)
    yield start, texts[start:]


def _from_index(path_of: PathOfInput, start: int) -> PathOfInput:
    """The paths of the inputs from an index on."""
    return lambda index: path_of(start + index)


def _untokenizable(error: TorchlessError, path: FieldPath, path_of: PathOfInput) -> TorchlessError:
    renamed = _with_request_paths(error, path, path_of, {})
    return UntokenizableInputError(renamed) if renamed.kind is ErrorKind.INVALID_INPUT else renamed
