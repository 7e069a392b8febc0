"""What an entry is found by: a digest over everything that decides a vector.

The parts before the input are written with their lengths, and the input comes last, so that no two requests that differ
share a digest. The version changes with this encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from torchless.clients.embedding import EmbedOptions, InputType

VERSION: Final = 1
DIGEST_BYTES: Final = 32
_TAG_BYTES = 8
_SCOPES_KEPT = 1024

Inputs = Sequence[str] | Sequence[Sequence[int]]
"""Texts, or token ids."""


@dataclass(frozen=True, slots=True)
class Served:
    """Which weights answered."""

    model: str
    """Id of the model."""
    revision: str
    """Its revision."""

    @property
    def tag(self) -> str:
        """A short name of both in keys of Redis."""
        return _tag(self.model, self.revision)


class UncacheableInputError(ValueError):
    """An input is neither text nor a sequence of unsigned 32-bit ids; the service says what is wrong with it."""


class Scope:
    """What the inputs of one request have in common: for whom, with which weights, and how.

    Args:
        tenant: Whose entries; nobody else finds them.
        served: The weights.
        options: How inputs are embedded; of its model, `served` has the id.
    """

    __slots__ = ("_ids", "_texts", "redis_prefix", "served", "tenant_tag")

    def __init__(self, tenant: str, served: Served, options: EmbedOptions) -> None:
        self.served = served
        self.tenant_tag = tenant_tag(tenant)
        self.redis_prefix = f"{VERSION}:{served.tag}:{self.tenant_tag}:"
        # A named prompt is used whatever the inputs are for.
        input_type = InputType.UNSPECIFIED if options.prompt_name else options.input_type
        numbers = (input_type, options.normalize, options.dimensions, options.truncation, options.granularity)
        common = _joined(tenant, served.model, served.revision, options.prompt_name, *(str(int(n)) for n in numbers))
        self._texts = blake2b(common + b"t", digest_size=DIGEST_BYTES)
        self._ids = blake2b(common + b"i", digest_size=DIGEST_BYTES)

    def digests(self, inputs: Inputs) -> list[bytes]:
        """One digest an input, 32 bytes each.

        Raises:
            UncacheableInputError: An input cannot be read.
        """
        try:
            return self._of_texts(inputs) if isinstance(inputs[0], str) else self._of_ids(inputs)  # type: ignore[arg-type]
        except (AttributeError, TypeError, struct.error) as error:
            raise UncacheableInputError from error

    def _of_texts(self, texts: Sequence[str]) -> list[bytes]:
        copy, found = self._texts.copy, []
        for text in texts:
            state = copy()
            # Half of a surrogate pair is refused by the client, by name; here it only must not fail.
            state.update(text.encode("utf-8", "surrogatepass"))
            found.append(state.digest())
        return found

    def _of_ids(self, sequences: Sequence[Sequence[int]]) -> list[bytes]:
        copy, found = self._ids.copy, []
        for ids in sequences:
            state = copy()
            state.update(struct.pack(f"<{len(ids)}I", *ids))
            found.append(state.digest())
        return found


class Scopes:
    """The scopes in use, so that their common part is hashed once."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Served, EmbedOptions], Scope] = {}

    def of(self, tenant: str, served: Served, options: EmbedOptions) -> Scope:
        """The scope of these."""
        key = (tenant, served, options)
        scope = self._made.get(key)
        if scope is None:
            if len(self._made) >= _SCOPES_KEPT:
                self._made.clear()
            scope = self._made[key] = Scope(tenant, served, options)
        return scope


def tenant_tag(tenant: str) -> str:
    """A short name of the tenant, under which its entries are counted and which keys in Redis carry."""
    return _tag(tenant)


def _tag(*parts: str) -> str:
    return blake2b(_joined(*parts), digest_size=_TAG_BYTES).hexdigest()


def _joined(*parts: str) -> bytes:
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(struct.pack("<BI", VERSION, len(each)) + each for each in encoded)
