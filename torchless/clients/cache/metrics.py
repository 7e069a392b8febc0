"""Metrics of the cache.

Plain counters and gauges, so that several processes can share them (`PROMETHEUS_MULTIPROC_DIR`).
"""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheMetrics:
    """The metrics of one process's cache.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        requests = counter(
            "torchless_cache_requests",
            "Embedding requests by outcome: hit (answered from the cache alone), partial, miss, uncached",
            ("outcome",),
        )
        self.hit, self.partial, self.miss, self.uncached = map(requests.labels, ("hit", "partial", "miss", "uncached"))
        self.degraded = counter(
            "torchless_cache_degraded_requests", "Requests answered from the cache while the service was down"
        )
        self.joined = counter(
            "torchless_cache_joined_inputs", "Inputs that waited for an equal input that was being computed already"
        )
        self.revisions = counter(
            "torchless_cache_revision_changes", "Models found to have another revision than before"
        )
        lookups = counter(
            "torchless_cache_lookups",
            "Inputs looked up in a level of the cache; Redis is asked only for what memory does not have",
            ("level", "outcome"),
        )
        self.memory_hits, self.memory_misses = lookups.labels("memory", "hit"), lookups.labels("memory", "miss")
        self.redis_hits, self.redis_misses = lookups.labels("redis", "hit"), lookups.labels("redis", "miss")
        self.bytes = gauge(
            "torchless_cache_memory_bytes", "Bytes in use by the memory level", multiprocess_mode="livesum"
        )
        self.entries = gauge(
            "torchless_cache_memory_entries", "Entries in the memory level", multiprocess_mode="livesum"
        )
        self.evictions = counter("torchless_cache_memory_evictions", "Entries evicted from the memory level")
        self.warmed = counter("torchless_cache_warmed_entries", "Entries read from Redis into memory at start")
        failures = counter("torchless_cache_redis_failures", "Calls to Redis that failed, by cause", ("cause",))
        self.redis_timeouts, self.redis_errors = failures.labels("timeout"), failures.labels("error")
        self.redis_corrupt = counter(
            "torchless_cache_redis_corrupt_values", "Values in Redis that are not an entry of their key"
        )
        self.redis_up = gauge(
            "torchless_cache_redis_up",
            "1 while Redis is in use, 0 while it is paused after a failure; the lowest of several processes",
            multiprocess_mode="livemin",
        )
        self.written = counter("torchless_cache_redis_written_entries", "Entries written to Redis")
        dropped = counter(
            "torchless_cache_redis_dropped_writes",
            "Entries not written to Redis, by cause: the queue was full, or Redis was down",
            ("cause",),
        )
        self.dropped_full, self.dropped_down = dropped.labels("full"), dropped.labels("down")
