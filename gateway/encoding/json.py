"""JSON answers; numpy arrays inside are written from their buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from torchless.contracts.errors import ErrorKind, TorchlessError


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` as JSON. float32 is written with as many digits as restore the same float32."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def finite(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """`vectors`, after a check: JSON has no NaN and no infinity, and clients would read null as a number.

    Raises:
        TorchlessError: INTERNAL, when a value is not finite.
    """
    if not np.isfinite(vectors).all():
        raise TorchlessError(ErrorKind.INTERNAL, "the model returned a vector with values that are not finite")
    return vectors
