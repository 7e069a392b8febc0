"""The report of a run as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from benchmarks.client_layer.report import TITLE, section
from benchmarks.markdown import table
from benchmarks.measurement.cpu import OTHER_PROCESSES, STOLEN
from benchmarks.measurement.samples import Row, Spread
from benchmarks.plan import Task
from benchmarks.reporting.aims import Verdict
from benchmarks.reporting.results import LayerRun, Results, warning
from benchmarks.systems.footprint import Memory

_HEAD = (
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "of direct",
    "added p50 ms",
    "added p95 ms",
    "batch",
    "load generator, cores",
)


def to_markdown(results: Results, chart: str) -> str:
    """All tables; `chart` is the file name of the chart in the same folder."""
    parts = [
        "# Benchmark",
        _setting(results),
        *([f"**{warning(results)}**"] if warning(results) else []),
        f"![Throughput and latency]({chart})",
        *_cases(results.rows),
        *([f"## {TITLE}", section(results.layer)] if results.layer else []),
        "## Aims",
        _aims(results.verdicts),
        "## Batches on the device",
        _batches(results.rows),
        "## The gateway by itself",
        _footprint(results),
        "## How it was measured",
        _method(results),
    ]
    return "\n\n".join(parts) + "\n"


def layer_to_markdown(run: LayerRun) -> str:
    """The report of a run of only the client layer."""
    disturbed = [f"**{warning(run)}**"] if warning(run) else []
    parts = [f"# {TITLE}", f"{_machine(run)}.", *disturbed, section(run.layer), "## Aims", _aims(run.verdicts)]
    return "\n\n".join(parts) + "\n"


def _setting(results: Results) -> str:
    return (
        f"{_machine(results)}. Weights: all-MiniLM-L6-v2, and for `cross-encoder` random ones of its size; float32, "
        f"{results.threads} threads."
    )


def _machine(results: Results | LayerRun) -> str:
    """Machine, code and versions."""
    machine = results.machine
    changes = ", with uncommitted changes" if machine["uncommitted_changes"] else ""
    versions = "; ".join(
        f"{name}: " + ", ".join(f"{package} {version}" for package, version in packages.items())
        for name, packages in results.versions.items()
    )
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}, commit {machine['commit']}{changes}. {versions}"
    )


def _aims(verdicts: Sequence[Verdict]) -> str:
    return table(("aim", "measured", ""), ((v.aim, v.measured, "met" if v.met else "missed") for v in verdicts))


def _cases(rows: Sequence[Row]) -> Iterable[str]:
    for case in dict.fromkeys(row.case for row in rows):
        of_case = [row for row in rows if row.case == case]
        yield f"## {case.capitalize()}"
        yield table(("contender", f"{of_case[0].unit}/s", *_HEAD), map(_cells, of_case))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.contender,
        _spread(row.items_per_second, 1),
        *(f"{value.median:.1f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms)),
        _spread(row.ratio, 2),
        f"{row.added_p50_ms.median:+.2f}",
        f"{row.added_p95_ms.median:+.2f}",
        "" if row.mean_batch is None else f"{row.mean_batch:.1f}",
        f"{row.load_cores:.2f}",
    )


def _batches(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        if row.batch_sizes is not None:
            shares = ", ".join(f"{size}: {share:.0%}" for size, share in row.batch_sizes.items())
            cells.append((row.case, row.contender, f"{row.mean_batch:.1f}", shares))
    return table(("load", "contender", "mean", "share of the batches by items in a batch"), cells)


def _footprint(results: Results) -> str:
    starts = sorted(results.starts_s)
    text = (
        f"From the start of the process to the first answer of `/health/live`: {median(starts):.2f} s (median of "
        f"{len(starts)}, {starts[0]:.2f} to {starts[-1]:.2f})."
    )
    head = ("process", "resident MiB, idle", "after all load", "proportional MiB, idle", "after all load")
    idle, used = _by_role(results.memory_idle), _by_role(results.memory_used)
    cells = ((role, *(f"{mib:.0f}" for mib in _figures(idle[role], used[role]))) for role in idle if role in used)
    return f"{text}\n\n{table(head, cells)}"


def _figures(idle: Memory, used: Memory) -> tuple[float, ...]:
    return idle.resident_mib, used.resident_mib, idle.proportional_mib, used.proportional_mib


def _method(results: Results) -> str:
    plan = results.plan
    others, stolen = ([sample.cores[name] for sample in results.samples] for name in (OTHER_PROCESSES, STOLEN))
    tokens = "; ".join(f"{n}: {t['mean']:.1f} ({t['least']} to {t['most']})" for n, t in results.tokens.items())
    lines = [
        f"{plan.rounds} rounds of {plan.seconds} s windows after {plan.warm_up_s} s of load. Under each load the "
        "contenders run one after another, in reverse order every other round. Figures are medians over the rounds, "
        "with the lowest and highest in brackets; comparisons with the direct call are made within a round.",
        f"Tokens of a text, with special tokens: {tokens}. All contenders get the same texts in the same order. "
        f"Queries and documents are {results.documents}.",
        "Texts repeat, so the gateway's cache of embeddings is off; only its start is timed with the default settings. "
        "The gateway joins concurrent small requests into one call of the service; `not joined` is a second gateway "
        "before the same services, without joining.",
        "`in flight`: when a request is answered, the next is sent at once. The direct call gets all requests in "
        "flight in one call, with a batch size of at most 64, for reranking 32, so its latency is that of all answers "
        "together. For reranking it encodes each query once, and the documents of all queries together. The load "
        "generator and the contenders share the cores: a service does not have the CPU time that the load generator "
        "uses, and the direct call has all of it.",
        "All contenders keep running. Contenders that are not measured are idle: together they used "
        f"{median(results.idle_cores):.3f} cores at the median and {max(results.idle_cores):.3f} at most. "
        f"Other processes, with the system's, used {median(others):.2f} cores at the median and "
        f"{max(others):.2f} at most; the hypervisor took {median(stolen):.2f} and {max(stolen):.2f}. The "
        "higher these figures, the less reliable the results.",
        *(_fidelity(task, figures) for task, figures in results.fidelity.items()),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _fidelity(task: Task, figures: Mapping[str, float]) -> str:
    if task is Task.EMBEDDING:
        listed = "; ".join(f"{name} {cosine:.7f}" for name, cosine in figures.items())
        return f"Lowest cosine with the direct call's vectors: {listed}."
    listed = "; ".join(f"{name} {difference:.1e}" for name, difference in figures.items())
    return f"Largest difference from the direct call's raw scores, {task}: {listed}."


def _by_role(memory: Sequence[Memory]) -> dict[str, Memory]:
    numbered: dict[str, Memory] = {}
    for process in memory:
        count = sum(name.split(" ")[0] == process.role for name in numbered)
        numbered[process.role if not count else f"{process.role} {count + 1}"] = process
    return numbered


def _spread(value: Spread, digits: int) -> str:
    if value.least == value.most:
        return f"{value.median:.{digits}f}"
    return f"{value.median:.{digits}f} ({value.least:.{digits}f}-{value.most:.{digits}f})"
