"""The results for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from rich.table import Table

from benchmarks.quality.significance import DRAWS, Difference

DEPTH = 10
"""Ranks that nDCG counts."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Results of one run."""

    collection: str
    """Name of the collection."""
    questions: int
    """Number of questions."""
    documents: int
    """Number of documents."""
    top: int
    """Documents reranked for each question."""
    api: str
    """How the stack was called."""
    models: str
    """The models."""
    machine: Mapping[str, Any]
    """See `benchmarks.measurement.machine.facts`."""
    seconds: float
    """Duration of the run, in seconds."""
    found: float
    """Share of the questions whose document is among the `top`."""
    by_vector: float
    """nDCG@10 of the order by vector."""
    reranked: float
    """nDCG@10 of the order after reranking."""
    difference: Difference
    """The difference between the two."""


def to_table(quality: Quality) -> Table:
    """The figures."""
    table = Table(title=f"{quality.collection}: {_asked(quality)}", title_justify="left", show_header=False)
    for name, value in _figures(quality).items():
        table.add_row(name, value)
    return table


def to_markdown(quality: Quality) -> str:
    """The figures, and how they were measured."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in _figures(quality).items())
    machine = quality.machine
    changes = ", with uncommitted changes" if machine["uncommitted_changes"] else ""
    return (
        f"# Quality: {quality.collection}\n\n"
        f"Known-item retrieval: {_asked(quality)}. The {quality.top} documents nearest by vector are reranked. "
        f"Called over {quality.api}; {quality.models}. It took {quality.seconds:.0f} s on {machine['processor']}, "
        f"{machine['cores']} cores, commit {machine['commit']}{changes}.\n\n"
        f"| | |\n| --- | --- |\n{rows}\n\n"
        f"The p value is from the two-sided paired randomisation test, and the interval from a percentile bootstrap, "
        f"each with {DRAWS} draws over the questions and a fixed seed.\n"
    )


def to_json(quality: Quality) -> bytes:
    """The results as indented JSON."""
    return orjson.dumps(asdict(quality), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _asked(quality: Quality) -> str:
    return f"each of {quality.questions} questions against {quality.documents} documents"


def _figures(quality: Quality) -> dict[str, str]:
    difference = quality.difference
    return {
        f"right document among the {quality.top} found by vector": f"{quality.found:.1%}",
        f"nDCG@{DEPTH} of the order by vector": f"{quality.by_vector:.4f}",
        f"nDCG@{DEPTH} reranked": f"{quality.reranked:.4f}",
        "paired difference": f"{difference.mean:+.4f} (95 % interval {difference.low:+.4f} to {difference.high:+.4f})",
        "p value": f"{difference.p_value:.2g}",
        "questions better, worse, equal": f"{difference.better}, {difference.worse}, {difference.equal}",
    }
