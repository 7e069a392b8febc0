"""The run as a picture: plain SVG, so that nothing has to be installed for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.samples import Row, Spread

_COLOURS = ("#444444", "#0072b2", "#009e73", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7")
"""Told apart by colour-blind readers, too (Okabe and Ito, "Color Universal Design", 2008)."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _LEGEND = 460, 300, 52, 36, 60


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    value: Callable[[Row], Spread]


_PANELS = (
    _Panel("Texts a second", lambda row: row.texts_per_second),
    _Panel("Median latency, ms", lambda row: row.p50_ms),
)


def to_svg(rows: Sequence[Row], cases: Sequence[str]) -> str:
    """Bars of throughput and of latency for `cases`; whiskers span the rounds."""
    names = list(dict.fromkeys(row.contestant for row in rows))
    width = len(_PANELS) * (_WIDTH + _LEFT)
    height = _TOP + _HEIGHT + _LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, panel in enumerate(_PANELS):
        parts.append(f'<g transform="translate({number * (_WIDTH + _LEFT) + _LEFT} {_TOP})">')
        parts += _panel(panel, rows, cases, names)
        parts.append("</g>")
    parts += _legend(names, height - 14)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: _Panel, rows: Sequence[Row], cases: Sequence[str], names: Sequence[str]) -> list[str]:
    top = max(panel.value(row).most for row in rows if row.case in cases)
    width = _WIDTH - 20
    group = width / len(cases)
    bar = group * 0.84 / len(names)
    parts = [f'<text x="{width / 2}" y="-14" text-anchor="middle" font-weight="bold">{escape(panel.title)}</text>']
    for step in range(5):
        y = _HEIGHT * (1 - step / 4)
        parts.append(f'<line x1="0" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{top * step / 4:.0f}</text>')
    for index, case in enumerate(cases):
        middle = group * (index + 0.5)
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{escape(case)}</text>')
    for row in rows:
        if row.case in cases:
            place = names.index(row.contestant)
            x = group * (cases.index(row.case) + 0.08) + bar * place
            parts += _bar(panel.value(row), x, bar, top, _COLOURS[place % len(_COLOURS)])
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
    for place, name in enumerate(names):
        x = _LEFT + place * 150
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{y}">{escape(name)}</text>')
    return parts
