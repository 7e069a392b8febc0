"""The batches that the device computed, from the Prometheus metrics of a service."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_METRIC = "torchless_batch_items"


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches over the device since the service started, or between two readings."""

    count: float
    """Number of batches."""
    items: float
    """Items in all batches."""
    at_most: Mapping[float, float]
    """Number of batches with at most so many items, by the upper bound of each bucket."""

    def __sub__(self, earlier: Batches) -> Batches:
        at_most = {bound: count - earlier.at_most.get(bound, 0.0) for bound, count in self.at_most.items()}
        return Batches(self.count - earlier.count, self.items - earlier.items, at_most)

    @property
    def mean(self) -> float:
        """Items of a batch, on average.

        Raises:
            ValueError: There was none.
        """
        if not self.count:
            raise ValueError("the device computed no batch")
        return self.items / self.count

    def shares(self) -> dict[str, float]:
        """Share of the batches by size, as `5-8` or `1`; sizes that did not occur are left out."""
        shares: dict[str, float] = {}
        below, before = 0.0, 0.0
        for bound, count in sorted(self.at_most.items()):
            label = f"over {below:g}" if bound == float("inf") else _range(below, bound)
            if count > before:
                shares[label] = (count - before) / self.count
            below, before = bound, count
        return shares


def total(parts: Sequence[Batches]) -> Batches:
    """The batches of several stretches of time together."""
    bounds = parts[0].at_most
    at_most = {bound: sum(part.at_most[bound] for part in parts) for bound in bounds}
    return Batches(sum(part.count for part in parts), sum(part.items for part in parts), at_most)


def read_batches(port: int) -> Batches:
    """Reads the metrics of the service on a port of 127.0.0.1."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return parse_batches(answer.read().decode())


def parse_batches(exposition: str) -> Batches:
    """Batches in a Prometheus text exposition, all models together; zero when there was none yet."""
    count, items = 0.0, 0.0
    at_most: dict[float, float] = {}
    for family in text_string_to_metric_families(exposition):
        if family.name != _METRIC:
            continue
        for sample in family.samples:
            if sample.name.endswith("_count"):
                count += sample.value
            elif sample.name.endswith("_sum"):
                items += sample.value
            elif sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                at_most[bound] = at_most.get(bound, 0.0) + sample.value
    return Batches(count, items, at_most)


def _range(below: float, bound: float) -> str:
    return f"{bound:g}" if below + 1 >= bound else f"{below + 1:g}-{bound:g}"
