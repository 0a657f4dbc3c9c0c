"""The analysis as one HTML page: no script, no network, charts as inline SVG, to be opened, mailed and archived.

This file must not compute anything but where things stand on the page. All text is escaped by the template.
"""

import math
import os
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from s2s_cli import __version__
from s2s_cli.evaluation.analyze import REFERENCE, Analysis, Chart
from s2s_cli.files import told, whole_file

_COLOURS = ("#2563eb", "#d97706", "#059669", "#c026d3", "#dc2626", "#0891b2", "#65a30d", "#7c3aed")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 240, 46, 58, 10


def write_page(path: Path, analysis: Analysis) -> None:
    """Write the page, whole or not at all; its folder is made if need be."""
    html = render(analysis).encode(errors="backslashreplace")  # a file's name need not be UTF-8
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(html)


def render(analysis: Analysis) -> str:
    """The page as text."""
    systems = [result.system for result in analysis.comparisons[0].results]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        analysis=analysis,
        systems=systems,
        colour=dict(zip(systems, _cycle(len(systems)), strict=True)),
        labels=_short_names(systems),
        reference=REFERENCE,
        draw=draw,
        version=__version__,
    )


def _cycle(num: int) -> list[str]:
    return [_COLOURS[k % len(_COLOURS)] for k in range(num)]


def _short_names(systems: list[str]) -> dict[str, str]:
    """File names without their folders, where that leaves them different."""
    names = [os.path.basename(system) for system in systems]
    return dict(zip(systems, names if len(set(names)) == len(names) else systems, strict=True))


def draw(chart: Chart) -> Markup:
    """A line or bar chart as SVG; the systems' colours are those of the page's legend."""
    values = [value for series in chart.series.values() for value in series]
    low, high, step = _scale(values, from_zero=chart.bars)
    inner_width, inner_height = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - _BOTTOM
    slot = inner_width / len(chart.buckets)

    def y(value: float) -> float:
        return _TOP + inner_height * (1 - (value - low) / (high - low))

    def x(bucket: int) -> float:
        return _LEFT + slot * (bucket + 0.5)

    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, chart.title)]
    tick = low
    while tick <= high + step / 2:
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            _LEFT, _WIDTH - 8, y(tick), y(tick)))  # fmt: skip
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(
            _LEFT - 6, y(tick) + 4, round(tick, 6)))  # fmt: skip
        tick += step
    for k, (bucket, size) in enumerate(zip(chart.buckets, chart.sizes, strict=True)):
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x(k), _HEIGHT - _BOTTOM + 16, bucket))  # fmt: skip
        if not chart.bars:
            parts.append(Markup('<text class="size" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x(k), _HEIGHT - _BOTTOM + 30, f"n={size:,}"))  # fmt: skip
    parts.append(Markup('<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        _LEFT + inner_width / 2, _HEIGHT - 8, chart.x))  # fmt: skip
    parts.append(Markup('<text class="axis" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>')
                 .format(_TOP + inner_height / 2, chart.y))  # fmt: skip
    for k, (name, series) in enumerate(chart.series.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        points = [(x(b), y(value)) for b, value in enumerate(series)]
        titles = [f"{name}: {v:.2f} ({b})" for v, b in zip(series, chart.buckets, strict=True)]
        if chart.bars:
            width = slot * 0.8 / len(chart.series)
            for (px, py), title in zip(points, titles, strict=True):
                left = px - slot * 0.4 + k * width
                parts.append(Markup(
                    '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"><title>{}</title></rect>'
                ).format(left, py, width * 0.92, y(low) - py, colour, title))  # fmt: skip
            continue
        for (x1, y1), (x2, y2) in pairwise(points):
            parts.append(Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}"/>').format(
                x1, y1, x2, y2, colour))  # fmt: skip
        for (px, py), title in zip(points, titles, strict=True):
            parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="{}"><title>{}</title></circle>').format(
                px, py, colour, title))  # fmt: skip
    return Markup("").join([*parts, Markup("</svg>")])


def _scale(values: list[float], from_zero: bool) -> tuple[float, float, float]:
    """Bottom, top and tick distance of an axis: four to eight round steps around the values."""
    low, high = (0.0 if from_zero else min(values)), max(values)
    if high - low < 1e-9:
        low, high = max(0.0, low - 1.0), high + 1.0  # no score is below zero
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step
