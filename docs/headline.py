"""Writes the measured numbers at the top of README.md: `python -m docs.headline`.

They come from the last `python -m benchmarks --only embedding`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.reporting.aims import PEER
from benchmarks.systems.contenders import JOINED

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "README.md"
RESULTS = ROOT / "benchmarks/results/bench-embedding.json"
_MARKED = re.compile(r"(<!-- headline:start -->\n).*(<!-- headline:end -->\n)", re.DOTALL)


def page() -> str:
    """`README.md` with the numbers of the last run."""
    text, replaced = _MARKED.subn(lambda found: found[1] + _lines() + found[2], TARGET.read_text())
    if replaced != 1:
        raise ValueError(f"{TARGET.name} must contain the markers of the headline once")
    return text


def _lines() -> str:
    results = json.loads(RESULTS.read_text())
    rows = {(row["case"], row["contender"]): row for row in results["rows"]}
    busy, alone = rows["embedding, 32 in flight", JOINED], rows["embedding, 1 in flight", JOINED]
    peer = rows["embedding, 32 in flight", PEER[JOINED]]
    return (
        f"- **{_ratio(busy)} of the throughput** of calling the model directly, over HTTP with 32 requests in flight;"
        f"\n  infinity {_ratio(peer)}.\n"
        f"- **{alone['added_p50_ms']['median']:.1f} ms added** to the median latency of the direct call, by gateway and"
        " service together.\n"
        f"- **{_worker_mib(results):.0f} MiB** of memory for a gateway worker under load, without torch.\n"
    )


def _ratio(row: dict[str, Any]) -> str:
    return f"{row['ratio']['median']:.2f}"


def _worker_mib(results: dict[str, Any]) -> float:
    return max(float(each["resident_mib"]) for each in results["memory_used"] if each["role"] == "worker")


if __name__ == "__main__":
    TARGET.write_text(page())
