"""Metrics of the cache.

Plain counters and gauges, so that several processes can share them (`PROMETHEUS_MULTIPROC_DIR`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheMetrics:
    """The metrics of one process's cache.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "torchless_cache_requests",
            "Embedding requests by outcome: hit (answered from the cache alone), partial, miss, uncached",
            ("outcome",),
            registry=registry,
        )
        lookups = Counter(
            "torchless_cache_lookups",
            "Inputs looked up in a level of the cache; Redis is asked only for what memory does not have",
            ("level", "outcome"),
            registry=registry,
        )
        self.hit, self.partial, self.miss, self.uncached = (
            requests.labels(outcome) for outcome in ("hit", "partial", "miss", "uncached")
        )
        self.memory_hits, self.memory_misses = lookups.labels("memory", "hit"), lookups.labels("memory", "miss")
        self.redis_hits, self.redis_misses = lookups.labels("redis", "hit"), lookups.labels("redis", "miss")
        self.degraded = Counter(
            "torchless_cache_degraded_requests",
            "Requests answered from the cache while the service was down",
            registry=registry,
        )
        self.joined = Counter(
            "torchless_cache_joined_inputs",
            "Inputs that waited for an equal input that was being computed already",
            registry=registry,
        )
        self.bytes = Gauge(
            "torchless_cache_memory_bytes",
            "Bytes in use by the memory level",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.entries = Gauge(
            "torchless_cache_memory_entries",
            "Entries in the memory level",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.evictions = Counter(
            "torchless_cache_memory_evictions", "Entries evicted from the memory level", registry=registry
        )
        self.warmed = Counter(
            "torchless_cache_warmed_entries", "Entries read from Redis into memory at start", registry=registry
        )
        self.revisions = Counter(
            "torchless_cache_revision_changes",
            "Models found to have another revision than before",
            registry=registry,
        )
        failures = Counter(
            "torchless_cache_redis_failures", "Calls to Redis that failed, by cause", ("cause",), registry=registry
        )
        self.redis_timeouts, self.redis_errors = failures.labels("timeout"), failures.labels("error")
        self.redis_corrupt = Counter(
            "torchless_cache_redis_corrupt_values",
            "Values in Redis that are not an entry of their key",
            registry=registry,
        )
        self.redis_up = Gauge(
            "torchless_cache_redis_up",
            "1 while Redis is in use, 0 while it is paused after a failure; the lowest of several processes",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.written = Counter("torchless_cache_redis_written_entries", "Entries written to Redis", registry=registry)
        dropped = Counter(
            "torchless_cache_redis_dropped_writes",
            "Entries not written to Redis, by cause: the queue was full, or Redis was down",
            ("cause",),
            registry=registry,
        )
        self.dropped_full, self.dropped_down = dropped.labels("full"), dropped.labels("down")
