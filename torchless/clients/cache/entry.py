"""Cache entries: the vector of one input, and the digest that finds it.

A digest covers everything that decides a vector. The parts before the input are encoded with their lengths and the
input comes last, so no two different requests share a digest. `VERSION` changes with this encoding.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torchless.clients.embedding import Embeddings, EmbedOptions, InputType

VERSION: Final = 2
DIGEST_BYTES: Final = 32
_TAG_BYTES = 8
_MAX_SCOPES = 1024
_LONGEST_NAMES = 1024
"""Longest names of model and prompt together of a scope that is kept, in characters."""
_MAGIC = b"tle2"
# magic, checksum of the key and of what follows, time of computation (Unix seconds), tokens, whether truncated
_HEAD = struct.Struct("<4sIIII")
_REST = struct.Struct("<III")
_WIRE = np.dtype("<f4")

Inputs: TypeAlias = Sequence[str] | Sequence[Sequence[int]]
"""Texts, or token ids."""


class Entry(NamedTuple):
    """The vector of one input."""

    vector: bytes
    """Little-endian float32, as the service returned it."""
    tokens: int
    """Tokens that the model read."""
    made_at: int
    """Time of computation, in Unix seconds."""
    truncated: bool = False
    """Whether the input was longer than the model reads."""


def entries_of(answer: Embeddings) -> list[Entry]:
    """One entry per row of an answer with one vector per input."""
    width = answer.vectors.shape[1] * _WIRE.itemsize
    raw = answer.vectors.astype(_WIRE, order="C", copy=False).tobytes()
    now, truncated = int(time.time()), set(answer.truncated)
    return [
        Entry(raw[i * width : (i + 1) * width], tokens, now, i in truncated)
        for i, tokens in enumerate(answer.token_counts)
    ]


def matrix_of(entries: Sequence[Entry]) -> NDArray[np.float32]:
    """The vectors of `entries`, read-only, shape (entries, dimensions), float32.

    Raises:
        ValueError: The vectors differ in length.
    """
    raw = b"".join([entry.vector for entry in entries])
    if len(raw) != len(entries) * len(entries[0].vector):
        raise ValueError("the vectors of one request differ in length")
    vectors = np.frombuffer(raw, dtype=_WIRE).reshape(len(entries), -1)
    return vectors.astype(np.float32, copy=False)


def pack(entry: Entry, key: bytes) -> bytes:
    """`entry` as Redis holds it under `key`: a versioned header and the vector."""
    body = _REST.pack(entry.made_at, entry.tokens, entry.truncated) + entry.vector
    return _MAGIC + zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "little") + body


def unpack(value: object, key: bytes) -> Entry | None:
    """The entry that `value` holds; None if it is anything else, truncated, altered, or the entry of another key."""
    if not isinstance(value, bytes) or len(value) <= _HEAD.size or (len(value) - _HEAD.size) % _WIRE.itemsize:
        return None
    magic, checksum, made_at, tokens, truncated = _HEAD.unpack_from(value)
    if magic != _MAGIC or checksum != zlib.crc32(memoryview(value)[8:], zlib.crc32(key)):
        return None
    return Entry(value[_HEAD.size :], tokens, made_at, bool(truncated))


@dataclass(frozen=True, slots=True)
class ModelRevision:
    """The weights that compute an answer."""

    id: str
    """Id of the model."""
    revision: str
    """Its revision; empty: not known."""

    @property
    def tag(self) -> str:
        """A short name of both for keys in Redis."""
        return _tag(self.id, self.revision)


class UncacheableInputError(ValueError):
    """An input is neither text nor a sequence of unsigned 32-bit ids; the service reports what is wrong with it."""


class Scope:
    """The common part of all inputs of a request: the tenant, the weights and the options.

    Args:
        tenant: Whose entries; no other tenant finds them.
        model: The weights.
        options: How inputs are embedded; `model` replaces their model name.
    """

    __slots__ = ("_ids", "_texts", "model", "redis_prefix", "tenant_tag")

    def __init__(self, tenant: str, model: ModelRevision, options: EmbedOptions) -> None:
        self.model = model
        self.tenant_tag = tenant_tag(tenant)
        self.redis_prefix = f"{VERSION}:{model.tag}:{self.tenant_tag}:"
        # A named prompt overrides the input type.
        input_type = InputType.UNSPECIFIED if options.prompt_name else options.input_type
        numbers = (input_type, options.normalize, options.dimensions, options.truncation, options.granularity)
        common = _encode(tenant, model.id, model.revision, options.prompt_name, *(str(int(n)) for n in numbers))
        self._texts = blake2b(common + b"t", digest_size=DIGEST_BYTES)
        self._ids = blake2b(common + b"i", digest_size=DIGEST_BYTES)

    def digests(self, inputs: Inputs) -> list[bytes]:
        """One digest per input, 32 bytes each.

        Raises:
            UncacheableInputError: An input cannot be read.
        """
        try:
            return self._of_texts(inputs) if isinstance(inputs[0], str) else self._of_ids(inputs)  # type: ignore[arg-type]
        except (AttributeError, TypeError, struct.error) as error:
            raise UncacheableInputError from error

    def _of_texts(self, texts: Sequence[str]) -> list[bytes]:
        copy, digests = self._texts.copy, []
        for text in texts:
            state = copy()
            # The client refuses half of a surrogate pair and names the field; here it only must not fail.
            state.update(text.encode("utf-8", "surrogatepass"))
            digests.append(state.digest())
        return digests

    def _of_ids(self, sequences: Sequence[Sequence[int]]) -> list[bytes]:
        copy, digests = self._ids.copy, []
        for ids in sequences:
            state = copy()
            state.update(struct.pack(f"<{len(ids)}I", *ids))
            digests.append(state.digest())
        return digests


class Scopes:
    """The scopes in use, so that their common part is hashed once."""

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, ModelRevision, EmbedOptions], Scope] = {}

    def of(self, tenant: str, model: ModelRevision, options: EmbedOptions) -> Scope:
        """The scope of requests with these properties."""
        key = (tenant, model, options)
        scope = self._scopes.get(key)
        if scope is None:
            scope = Scope(tenant, model, options)
            # What callers send must not stay in memory, however long it is.
            if len(options.model) + len(options.prompt_name) <= _LONGEST_NAMES:
                if len(self._scopes) >= _MAX_SCOPES:
                    self._scopes.clear()
                self._scopes[key] = scope
        return scope


def tenant_tag(tenant: str) -> str:
    """A short name of the tenant: its entries are counted under it, and keys in Redis carry it."""
    return _tag(tenant)


def _tag(*parts: str) -> str:
    return blake2b(_encode(*parts), digest_size=_TAG_BYTES).hexdigest()


def _encode(*parts: str) -> bytes:
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(struct.pack("<BI", VERSION, len(part)) + part for part in encoded)
