"""What the cache counts, for Prometheus.

Plain counters and gauges, so that several processes can share them (`PROMETHEUS_MULTIPROC_DIR`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheMetrics:
    """The metrics of one process's cache.

    Args:
        registry: Where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "torchless_cache_requests",
            "Embedding requests by how they were answered: hit (from the cache alone), partial, miss, uncached",
            ("outcome",),
            registry=registry,
        )
        lookups = Counter(
            "torchless_cache_lookups",
            "Inputs looked for in a level of the cache; what memory has is not looked for in Redis",
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
            "Inputs that waited for an equal one that was being computed already",
            registry=registry,
        )
        self.bytes = Gauge(
            "torchless_cache_memory_bytes",
            "Bytes that the memory level takes",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.entries = Gauge(
            "torchless_cache_memory_entries",
            "Entries that the memory level holds",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.evictions = Counter(
            "torchless_cache_memory_evictions", "Entries that the memory level pushed out", registry=registry
        )
        self.warmed = Counter(
            "torchless_cache_warmed_entries", "Entries read from Redis into memory at start", registry=registry
        )
        self.revisions = Counter(
            "torchless_cache_revision_changes",
            "Times that a model was found to have another revision than before",
            registry=registry,
        )
        failures = Counter(
            "torchless_cache_redis_failures", "Calls to Redis that failed, by cause", ("cause",), registry=registry
        )
        self.redis_timeouts, self.redis_errors = failures.labels("timeout"), failures.labels("error")
        self.redis_corrupt = Counter(
            "torchless_cache_redis_corrupt_values",
            "Values in Redis that were not an entry of their key",
            registry=registry,
        )
        self.redis_up = Gauge(
            "torchless_cache_redis_up",
            "Whether Redis is in use: 1, or 0 while it is left alone; of several processes the least",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.written = Counter("torchless_cache_redis_written_entries", "Entries written to Redis", registry=registry)
        dropped = Counter(
            "torchless_cache_redis_dropped_writes",
            "Entries not written to Redis: the queue was full, or Redis was down",
            ("cause",),
            registry=registry,
        )
        self.dropped_full, self.dropped_down = dropped.labels("full"), dropped.labels("down")
