"""One cached vector, and how it looks in Redis."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchless.clients.embedding import Embeddings

_MAGIC = b"tle1"
# magic, checksum of the rest and of the key, when it was computed (Unix seconds), tokens
_HEAD = struct.Struct("<4sIII")
_REST = struct.Struct("<II")
_WIRE = np.dtype("<f4")


class Entry(NamedTuple):
    """The vector of one input."""

    vector: bytes
    """Little-endian float32, as the service answered it."""
    tokens: int
    """Tokens that the model read."""
    made_at: int
    """When it was computed, in Unix seconds."""


def entries_of(answer: Embeddings) -> list[Entry]:
    """One entry for each row of an answer with one vector an input."""
    width = answer.vectors.shape[1] * _WIRE.itemsize
    raw = answer.vectors.astype(_WIRE, order="C", copy=False).tobytes()
    now = int(time.time())
    return [Entry(raw[i * width : (i + 1) * width], tokens, now) for i, tokens in enumerate(answer.token_counts)]


def matrix_of(entries: Sequence[Entry]) -> NDArray[np.float32]:
    """The vectors of `entries`, read-only, shape (entries, dimensions), float32.

    Raises:
        ValueError: The vectors are not of one length.
    """
    raw = b"".join([entry.vector for entry in entries])
    if len(raw) != len(entries) * len(entries[0].vector):
        raise ValueError("vectors of one request have several lengths")
    vectors = np.frombuffer(raw, dtype=_WIRE).reshape(len(entries), -1)
    return vectors.astype(np.float32, copy=False)


def packed(entry: Entry, key: bytes) -> bytes:
    """`entry` as Redis holds it under `key`: a versioned head and the vector."""
    body = _REST.pack(entry.made_at, entry.tokens) + entry.vector
    return _MAGIC + zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "little") + body


def unpacked(value: object, key: bytes) -> Entry | None:
    """The entry that `value` holds; None where it is anything else, cut, altered, or of another key."""
    if not isinstance(value, bytes) or len(value) <= _HEAD.size or (len(value) - _HEAD.size) % _WIRE.itemsize:
        return None
    magic, checksum, made_at, tokens = _HEAD.unpack_from(value)
    if magic != _MAGIC or checksum != zlib.crc32(memoryview(value)[8:], zlib.crc32(key)):
        return None
    return Entry(value[_HEAD.size :], tokens, made_at)
