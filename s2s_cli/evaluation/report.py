"""Scores on standard output: a table on a terminal, aligned text in a pipe, JSON for programs.

This file must not compute anything.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation.compare import Comparison
from s2s_cli.evaluation.metrics import Metric

if TYPE_CHECKING:
    from s2s_cli.evaluation.analyze import Analysis
    from s2s_cli.evaluation.examples import Difference, Piece

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def scores(comparisons: list[Comparison], settings: ScoreSettings, analysis: "Analysis | None" = None) -> None:
    """Corpus scores of all systems, and the lines that differ most if an analysis is given."""
    if settings.as_json:
        _print_json(_json(comparisons, settings) | ({"differences": _json_differences(analysis)} if analysis else {}))
        return
    if len(comparisons[0].results) == 1 and not sys.stdout.isatty():
        _lines(comparisons, settings.digits)
    else:
        _table(*(_long if settings.confidence or settings.paired != "none" else _wide)(comparisons, settings))
        for c in comparisons:
            detail = c.results[0].score.detail if len(c.results) == 1 else ""
            print(f"{c.metric.name}|{c.results[0].score.signature} {detail}".rstrip())
    if settings.paired != "none":
        print(f"p: probability of such a difference from {comparisons[0].results[0].system} by chance; * below 0.05")
    if analysis:
        for difference in analysis.differences[:10]:
            _difference(difference)
        if not analysis.differences:
            print("\nno differences")


def sentences(
    names: Sequence[str], metrics: list[Metric], values: list[list[np.ndarray]], settings: ScoreSettings
) -> None:
    """Scores of each line, `values[metric][system][line]`, tab-separated; the signatures go to standard error."""
    if settings.as_json:
        described = [
            {
                "system": name,
                "scores": [
                    {**_json_metric(metric), "signature": metric.signature({}), "sentences": by_system[k].tolist()}
                    for metric, by_system in zip(metrics, values, strict=True)
                ],
            }
            for k, name in enumerate(names)
        ]
        _print_json({"references": [str(path) for path in settings.ref], "systems": described})
        return
    for metric in metrics:
        print(f"{metric.name}|{metric.signature({})}", file=sys.stderr)
    print("\t".join(["system", "line", *(metric.name for metric in metrics)]))
    for k, name in enumerate(names):
        for line, row in enumerate(zip(*(by_system[k] for by_system in values), strict=True), 1):
            print("\t".join([name, str(line), *(f"{value:.{settings.digits}f}" for value in row)]))


def _lines(comparisons: list[Comparison], digits: int) -> None:
    """One system in a pipe: one line a metric, as sacrebleu prints it."""
    left = [f"{c.metric.name}|{c.results[0].score.signature}" for c in comparisons]
    for head, c in zip(left, comparisons, strict=True):
        result = c.results[0]
        fields = [head.ljust(max(map(len, left))), "=", f"{result.score.value:.{digits}f}"]
        if result.interval:
            fields.append(f"(μ = {result.interval.mean:.{digits}f} ± {result.interval.half:.{digits}f})")
        print(" ".join([*fields, result.score.detail]).rstrip())


def _wide(comparisons: list[Comparison], settings: ScoreSettings) -> tuple[list[str], list[list[str]]]:
    """A row for each system, a column for each metric."""
    headers = ["system", *(c.metric.name + ("" if c.metric.higher_is_better else " ↓") for c in comparisons)]
    columns = [_cells(c, settings.digits) for c in comparisons]
    return headers, [
        [result.system, *(column[k] for column in columns)] for k, result in enumerate(comparisons[0].results)
    ]


def _long(comparisons: list[Comparison], settings: ScoreSettings) -> tuple[list[str], list[list[str]]]:
    """A row for each metric and system, with interval and p-value."""
    digits = settings.digits
    bootstrap = comparisons[0].results[0].interval is not None
    headers = ["metric", "system", "score"]
    headers += ["mean ± 95 %", "from", "to"] if bootstrap else []
    headers += ["p"] if settings.paired != "none" else []
    rows = []
    for c in comparisons:
        for k, (result, cell) in enumerate(zip(c.results, _cells(c, digits), strict=True)):
            row = [c.metric.name + ("" if c.metric.higher_is_better else " ↓"), result.system, cell]
            if (i := result.interval) is not None:
                row += [f"{i.mean:.{digits}f} ± {i.half:.{digits}f}", f"{i.low:.{digits}f}", f"{i.high:.{digits}f}"]
            if settings.paired != "none":
                row.append(result.p_shown.ljust(7) if k else "baseline")
            rows.append(row)
    return headers, rows


def _cells(c: Comparison, digits: int) -> list[str]:
    return [f"{result.score.value:.{digits}f}" for result in c.results]


def _table(headers: list[str], rows: list[list[str]]) -> None:
    """Names to the left, numbers to the right; boxed on a terminal."""
    left = {"metric", "system"}
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for header in headers:
            table.add_column(Text(header), justify="left" if header in left else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in [headers, *rows]:
        cells = [
            cell.ljust(width) if header in left else cell.rjust(width)
            for cell, width, header in zip(row, widths, headers, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _json(comparisons: list[Comparison], settings: ScoreSettings) -> dict[str, Any]:
    systems = []
    for k, first in enumerate(comparisons[0].results):
        described = []
        for c in comparisons:
            result = c.results[k]
            entry = {**_json_metric(c.metric), "score": result.score.value, "signature": result.score.signature}
            if result.score.detail:
                entry["detail"] = result.score.detail
            if result.interval:
                entry["interval"] = asdict(result.interval)
            if result.p_value is not None:
                entry |= {"p_value": result.p_value, "significant": result.significant}
            described.append(entry)
        systems.append({"system": first.system, "scores": described})
    about: dict[str, Any] = {
        "num_lines": len(comparisons[0].stats[0]),
        "references": [str(path) for path in settings.ref],
    }
    if settings.paired != "none":
        about |= {"paired": settings.paired, "baseline": comparisons[0].results[0].system}
    return about | {"systems": systems}


def _json_metric(metric: Metric) -> dict[str, Any]:
    return {"name": metric.name, "higher_is_better": metric.higher_is_better}


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def _difference(difference: "Difference") -> None:
    """One line with its outputs; words that have no partner are red on a terminal, {braced} in a pipe."""
    rows = [("source", _visible(difference.src))] if difference.src is not None else []
    rows += [("reference", _marked(ref)) for ref in difference.refs]
    rows += [(f"{name} {difference.chrf[name]:.1f}", _marked(pieces)) for name, pieces in difference.outputs.items()]
    width = max(len(label) for label, _ in rows)
    print(f"\nline {difference.line}")
    for label, text in rows:
        print(f"  {label:{width}}  {text}")


def _marked(pieces: "list[Piece]") -> str:
    before, after = ("\x1b[31m", "\x1b[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("{", "}")
    runs = ((off, "".join(piece.text for piece in run)) for off, run in groupby(pieces, key=lambda piece: piece.off))
    return "".join(f"{before}{_visible(text)}{after}" if off else _visible(text) for off, text in runs) or "(empty)"


def _visible(text: str) -> str:
    """The text with its control characters written out, for they could end the line or command the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _json_differences(analysis: "Analysis") -> list[dict[str, Any]]:
    def text(pieces: "list[Piece]") -> str:
        return "".join(piece.text for piece in pieces)

    return [
        {
            "line": d.line,
            "chrf": d.chrf,
            "outputs": {name: text(pieces) for name, pieces in d.outputs.items()},
            "references": [text(ref) for ref in d.refs],
        }
        for d in analysis.differences
    ]
