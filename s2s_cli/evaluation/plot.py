"""`s2s plot`: learning curves of one or several runs, as a picture drawn from their `metrics.jsonl`.

It needs no display and no torch, and may look at a run that is still going on.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_cli.config import LOWER_IS_BETTER, METRICS, PlotSettings
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people tell apart; black last, as it draws the eye.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D")  # one more for each time that the colours begin again
_GREY = "#666666"
_WIDTH, _HEIGHT = 5.2, 3.4  # of a panel, in inches
_LABELS = {
    **{
        "loss": "cross-entropy (nats per token)",
        "ppl": "perplexity",
        "criterion": "training criterion (nats per token)",
    },
    **{"lr": "learning rate", "grad_norm": "norm of the gradient", "tokens_per_second": "target tokens per second"},
    **{"consistency": "divergence of two readings (nats per token)", "exact": "exact match (%)"},
    **{"bleu": "BLEU", "chrf": "chrF", "ter": "TER (%)", "wer": "word error rate (%)"},
    **{"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"},
}
_POSITIONS = {"updates": "update", "epochs": "epoch", "hours": "elapsed"}  # and the key of `metrics.jsonl`
Points = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Run:
    """The lines of a `metrics.jsonl`, by kind."""

    path: Path
    records: dict[str, list[dict[str, Any]]]

    def points(self, kind: str, name: str, x: str) -> Points:
        """Where a curve goes: positions and values, in order; nothing for what was not recorded."""
        found: list[tuple[float, float]] = []
        for record in self.records.get(kind, []):
            value = _value(record, kind, name)
            if value is None:
                continue
            if _POSITIONS[x] not in record:
                raise DataError(f"{self.path}: its numbers were written without {x}; draw them along --x updates")
            found.append((record[_POSITIONS[x]] / (3600 if x == "hours" else 1), value))
        found.sort(key=lambda point: point[0])
        return [a for a, _ in found], [b for _, b in found]

    @property
    def metrics(self) -> list[str]:
        """What its validations measured beside the loss."""
        return [name for name in METRICS if any(name in record for record in self.records.get("valid", []))]


def plot(settings: PlotSettings) -> None:
    """The subcommand. Raises DataError for a run without numbers, ConfigError for what cannot be drawn."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("s2s plot needs a package that is not there: pip install 's2s-cli[plot]'") from None
    form = settings.output.suffix.lower().removeprefix(".")
    if form not in ("svg", "png", "pdf"):
        raise ConfigError(f"{settings.output}: let its name end in .svg, .png or .pdf")
    runs = [read_run(path) for path in settings.runs]
    names = _chosen(settings, runs)
    columns = min(len(names), 2 if len(names) < 5 else 3)
    rows = -(-len(names) // columns)
    with _style():
        figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.3), layout="constrained")
        first = None
        for number, name in enumerate(names, start=1):
            axes = figure.add_subplot(rows, columns, number, sharex=first)
            first = first or axes
            for index, run in enumerate(runs):
                _draw(axes, run, name, settings, index)
            _dress(axes, name, settings.x)
        _legends(figure, runs, names, columns)
        with whole_file(settings.output) as file:
            figure.savefig(file, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)


def read_run(path: Path) -> Run:
    """The numbers of a run folder. Raises DataError where there are none."""
    file = path / "metrics.jsonl"
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; name a run folder that `s2s train` wrote") from None
    records: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(lines[:-1], start=1):  # after the last line end, a line is being written
        try:
            record = json.loads(line)
            if not record.keys() >= {"update", "ppl" if record["kind"] == "train" else "loss"}:
                raise KeyError
            records.setdefault(record["kind"], []).append(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{file}:{number} is no record of a run: was it altered? `s2s train` leaves it out when it goes on"
            ) from None
    if not records:
        raise DataError(f"{file} has no numbers yet: train further (train.log_every says how often it gets some)")
    return Run(path, records)


def _value(record: dict[str, Any], kind: str, name: str) -> float | None:
    """What a record says of a curve. A loss is the one that the perplexity tells; runs of before called the criterion so too."""
    if name in ("loss", "ppl"):
        loss = record.get("loss") if kind != "train" else math.log(record["ppl"])
        if loss is None or name == "loss":
            return loss
        return math.exp(min(700.0, loss))
    return record.get(name, record.get("loss") if name == "criterion" and kind == "train" else None)


def _chosen(settings: PlotSettings, runs: list[Run]) -> list[str]:
    """The curves that were asked for, or those that most people want; ConfigError for one that no run has."""
    names: list[str] = list(dict.fromkeys(settings.y))
    if not names:
        names = ["loss", *dict.fromkeys(name for run in runs for name in run.metrics), "lr", "tokens_per_second"]
        return [name for name in names if _has(runs, name)]
    for name in names:
        if not _has(runs, name):
            there = ", ".join(other for other in _LABELS if _has(runs, other))
            raise ConfigError(f"plot.y: {name} was not recorded by any of the runs; there are {there}")
    return names


def _has(runs: list[Run], name: str) -> bool:
    return any(run.points(kind, name, "updates")[0] for run in runs for kind in ("train", "valid"))


def _draw(axes: "Axes", run: Run, name: str, settings: PlotSettings, index: int) -> None:
    """A run's curves in one panel: training thin, validation with marks, a star for an average of checkpoints."""
    colour, marker = _look(index)
    x, y = run.points("train", name, settings.x)
    if x and name == "lr":
        axes.plot(x, y, color=colour, linewidth=1.6)
    elif x:
        faint = 0.25 if settings.smooth else 0.0
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=faint)
        smooth = _smoothed([math.log(v) for v in y] if name == "ppl" else y, settings.smooth)
        smooth = [math.exp(v) for v in smooth] if name == "ppl" else smooth
        axes.plot(x, smooth, color=colour, linewidth=1.2, linestyle=(0, (4, 1.5)))
    x, y = run.points("valid", name, settings.x)
    if x:
        size = 4.5 if len(x) <= 40 else 2.5
        axes.plot(x, y, color=colour, linewidth=1.6, marker=marker, markersize=size, markeredgecolor="white", zorder=3)
    x, y = run.points("average", name, "updates")
    if x:  # it stands where the run ended
        x, _ = run.points("valid", "loss", settings.x)
        axes.plot(x[-1:], y[-1:], color=colour, marker="*", markersize=11, markeredgecolor="white", zorder=4)


def _look(index: int) -> tuple[str, str]:
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index // len(_COLOURS) % len(_MARKERS)]


def _smoothed(values: list[float], share: float) -> list[float]:
    """The mean of an exponential moving mean and of one from the end backwards, so that no curve lags behind its points."""
    ahead, back = _moving_mean(values, share), _moving_mean(values[::-1], share)[::-1]
    return [(a + b) / 2 for a, b in zip(ahead, back, strict=True)]


def _moving_mean(values: list[float], share: float) -> list[float]:
    """Without the pull of its beginning; what is no number is left out of it."""
    total = weight = 0.0
    means = []
    for value in values:
        if math.isfinite(value):
            total, weight = share * total + (1.0 - share) * value, share * weight + 1.0 - share
        means.append(total / weight if weight else math.nan)
    return means


def _dress(axes: "Axes", name: str, x: str) -> None:
    from matplotlib.ticker import EngFormatter, StrMethodFormatter

    axes.set_xlabel(x)
    axes.set_title(_LABELS[name], loc="left")
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
    if x == "updates":
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if name == "ppl":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    elif name == "tokens_per_second":
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylim(bottom=0)
    elif name == "lr":
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_ylim(bottom=0)


def _legends(figure: "Figure", runs: list[Run], names: list[str], columns: int) -> None:
    """Above the panels each run's colour, name and best score; below them what lines and marks mean."""
    from matplotlib.lines import Line2D

    handles = []
    for index, (run, label) in enumerate(zip(runs, _names(runs), strict=True)):
        colour, marker = _look(index)
        best = _best(run, names)
        handles.append(
            Line2D([], [], color=colour, marker=marker, linewidth=2, label=(label + best).replace("$", r"\$"))
        )
    marks = [
        Line2D([], [], color=_GREY, linewidth=1.2, linestyle=(0, (4, 1.5)), label="training, smoothed"),
        Line2D([], [], color=_GREY, linewidth=1.6, marker="o", markersize=4.5, label="validation"),
    ]
    if any("average" in run.records for run in runs):
        marks.append(Line2D([], [], color=_GREY, linewidth=0, marker="*", markersize=9, label="average of the best"))
    both = [name for name in names if name != "lr"]
    kinds = {
        kind for kind in ("train", "valid") for name in both for run in runs if run.points(kind, name, "updates")[0]
    }
    widest = max(len(str(handle.get_label())) for handle in handles)
    fit = max(1, min(len(handles), int(_WIDTH * columns * 13 / (widest + 7))))
    figure.set_figheight(figure.get_figheight() + 0.22 * -(-len(handles) // fit))
    figure.legend(handles=handles, loc="outside upper left", ncols=fit, frameon=False)
    if shown := marks if len(kinds) == 2 else marks[2:]:
        figure.legend(handles=shown, loc="outside lower left", ncols=len(shown), frameon=False)


def _names(runs: list[Run]) -> list[str]:
    """The folders' names, or the paths where two names are the same."""
    short = [run.path.resolve().name for run in runs]
    return [name if short.count(name) == 1 else str(run.path) for name, run in zip(short, runs, strict=True)]


def _best(run: Run, names: list[str]) -> str:
    """The best value of the first metric that is drawn, for the legend."""
    for name in (name for name in names if name in run.metrics):
        values = [y for kind in ("valid", "average") for y in run.points(kind, name, "updates")[1] if math.isfinite(y)]
        if values:
            best = min(values) if name in LOWER_IS_BETTER else max(values)
            return f", best {_LABELS[name].removesuffix(' (%)')} {best:.2f}"
    return ""


def _style() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(
        {
            **{"font.size": 10, "axes.titlesize": 10.5, "axes.labelsize": 10, "legend.fontsize": 10},
            **{"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _GREY, "axes.axisbelow": True},
            **{"axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.8},
            **{"xtick.color": "#444444", "ytick.color": "#444444"},
            **{"svg.fonttype": "none", "svg.hashsalt": "s2s"},  # texts stay texts; the same numbers give the same file
        }
    )
