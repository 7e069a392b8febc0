"""JSON answers; numpy arrays inside are written from their buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from torchless.contracts.errors import ErrorKind, TorchlessError


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` as JSON. float32 is written with as many digits as restore the same float32."""
    return Response(encode_json(content), status, headers, media_type="application/json")


def encode_json(content: Any) -> bytes:
    """`content` as JSON, as `json_response` sends it."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def joined_lists(parts: Iterable[bytes]) -> Response:
    """One JSON list with the items of several, none of which is empty.

    Args:
        parts: The lists, from `encode_json`.
    """
    return Response(b"[" + b",".join(part[1:-1] for part in parts) + b"]", media_type="application/json")


def finite(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """`vectors`, after a check: JSON has no NaN and no infinity, and clients would read null as a number.

    Raises:
        TorchlessError: INTERNAL, when a value is not finite.
    """
    if not np.isfinite(vectors).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model returned a vector with values that are not finite")
    return vectors
