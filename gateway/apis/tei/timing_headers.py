"""The headers in which text-embeddings-inference reports sizes and times of a request.

Source: `ResponseMetadata` in its router/src/lib.rs.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.capabilities.request import Provenance
from torchless.clients.timings import Timings


def timing_headers(characters: int, tokens: int, times: Timings, provenance: Provenance) -> dict[str, str]:
    """The headers of one response.

    Args:
        characters: Length of all inputs, in Unicode code points and token ids.
        tokens: Tokens that the model read.
        times: Times inside the service; the headers have whole milliseconds.
        provenance: How the response came about. `x-compute-type` is `cache` if nothing was computed, as in Hugging
            Face's inference API. text-embeddings-inference sends `gpu+optimized`, also on a CPU; the gateway does not
            know the device, and sends its name.
    """
    is_cached = provenance.hits > 0 and provenance.misses == 0
    total_ms = str(round(times.total_ms))
    return {
        "x-compute-type": "cache" if is_cached else "torchless",
        "x-compute-time": total_ms,
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(tokens),
        "x-total-time": total_ms,
        "x-tokenization-time": str(round(times.tokenization_ms)),
        "x-queue-time": str(round(times.queue_ms)),
        "x-inference-time": str(round(times.inference_ms)),
    }


def characters_of(inputs: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> int:
    """Length of all inputs: Unicode code points of texts, numbers of token ids."""
    if isinstance(inputs, str):
        return len(inputs)
    return sum(1 if isinstance(each, int) else len(each) for each in inputs)
