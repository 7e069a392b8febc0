"""The headers in which text-embeddings-inference reports tokens and times of a request."""

from __future__ import annotations

from torchless.clients.timings import Timings


def timing_headers(tokens: int, times: Timings) -> dict[str, str]:
    """Tokens that the model read, and times in whole milliseconds."""
    return {
        "x-compute-tokens": str(tokens),
        "x-total-time": str(round(times.total_ms)),
        "x-tokenization-time": str(round(times.tokenization_ms)),
        "x-queue-time": str(round(times.queue_ms)),
        "x-inference-time": str(round(times.inference_ms)),
    }
