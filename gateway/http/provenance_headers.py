"""Response headers that say how an answer came about, the same for every API family.

`x-torchless-cache` says what the cache gave: `hit`, `partial` or `miss`. `x-torchless-degraded` names the capabilities
that were unavailable and that the answer does without.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

from gateway.capabilities.provenance import Provenance

CACHE_HEADER = "x-torchless-cache"
DEGRADED_HEADER = "x-torchless-degraded"


def write_provenance_headers(provenance: Provenance, headers: MutableHeaders) -> None:
    """Adds the headers for `provenance`; none, where there is nothing to say."""
    if provenance.hits or provenance.misses:
        headers[CACHE_HEADER] = "miss" if not provenance.hits else "partial" if provenance.misses else "hit"
    if provenance.degraded:
        headers[DEGRADED_HEADER] = ", ".join(provenance.degraded)
