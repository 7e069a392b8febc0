"""A chart of the run as plain SVG, without any library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain

from benchmarks.measurement.samples import Row, Spread
from benchmarks.plan import Case

_COLOURS = ("#444444", "#0072b2", "#009e73", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7")
"""Distinguishable for colour-blind readers (Okabe and Ito, "Color Universal Design", 2008)."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _LEGEND = 460, 300, 52, 36, 78
_IN_A_LINE = 4
"""Names in one line of the legend."""
_LINE_HEIGHT = _TOP + _HEIGHT + _LEGEND


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    value: Callable[[Row], Spread]


def to_svg(rows: Sequence[Row], groups: Sequence[Sequence[Case]]) -> str:
    """Bars of throughput and latency, one line for each group of cases of one task; whiskers span the rounds."""
    lines = [_line(rows, cases, _LINE_HEIGHT * number) for number, cases in enumerate(groups)]
    width, height = 2 * (_WIDTH + _LEFT), _LINE_HEIGHT * len(groups)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    return "\n".join([*head, *chain.from_iterable(lines), "</svg>\n"])


def _line(rows: Sequence[Row], cases: Sequence[Case], top: int) -> list[str]:
    labels = {case.name: case.load for case in cases}
    rows = [row for row in rows if row.case in labels]
    names = list(dict.fromkeys(row.contender for row in rows))
    task = cases[0].task
    panels = (
        _Panel(f"{task}: {task.unit} a second".capitalize(), lambda row: row.items_per_second),
        _Panel("Median latency, ms", lambda row: row.p50_ms),
    )
    parts = []
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * (_WIDTH + _LEFT) + _LEFT} {top + _TOP})">')
        parts += _panel(panel, rows, labels, names)
        parts.append("</g>")
    return [*parts, *_legend(names, top + _LINE_HEIGHT - 32)]


def _panel(panel: _Panel, rows: Sequence[Row], labels: Mapping[str, str], names: Sequence[str]) -> list[str]:
    top = max(panel.value(row).most for row in rows)
    width = _WIDTH - 20
    group = width / len(labels)
    positions = {case: position for position, case in enumerate(labels)}
    bar = group * 0.84 / len(names)
    parts = [f'<text x="{width / 2}" y="-14" text-anchor="middle" font-weight="bold">{escape(panel.title)}</text>']
    for step in range(5):
        y = _HEIGHT * (1 - step / 4)
        parts.append(f'<line x1="0" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{top * step / 4:.0f}</text>')
    for index, label in enumerate(labels.values()):
        middle = group * (index + 0.5)
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{escape(label)}</text>')
    for row in rows:
        position = names.index(row.contender)
        x = group * (positions[row.case] + 0.08) + bar * position
        parts += _bar(panel.value(row), x, bar, top, _COLOURS[position % len(_COLOURS)])
    return parts


def _bar(value: Spread, x: float, width: float, top: float, colour: str) -> list[str]:
    def y(at: float) -> float:
        return _HEIGHT * (1 - at / top)

    middle, height, least, most = x + width / 2, _HEIGHT - y(value.median), y(value.least), y(value.most)
    return [
        f'<rect x="{x:.1f}" y="{y(value.median):.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>',
        f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{most:.1f}" y2="{least:.1f}" stroke="black"/>',
    ]


def _legend(names: Sequence[str], y: float) -> list[str]:
    parts = []
    for position, name in enumerate(names):
        line, column = divmod(position, _IN_A_LINE)
        x, base = _LEFT + column * 240, y + 18 * line
        colour = _COLOURS[position % len(_COLOURS)]
        parts.append(f'<rect x="{x}" y="{base - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{base}">{escape(name)}</text>')
    return parts
