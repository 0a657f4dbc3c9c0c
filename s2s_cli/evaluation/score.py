"""`s2s score`: outputs and references in, scores with signatures out, on a terminal, in a pipe or as JSON.

It reads the lines, holds them against each other and passes them on: numbers are made in `metrics.py`, `compare.py` and
`analyze.py`, shown by `report.py` and `page.py`. It runs without torch.
"""

import contextlib
import io
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from s2s_cli.config import ScoreSettings
from s2s_cli.data.corpus import file_name, read_lines
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.evaluation import report
from s2s_cli.evaluation.compare import Systems, chosen_metrics, compare, sentence_values
from s2s_cli.evaluation.metrics import Metric, Score, build_metric, corpus_score
from s2s_cli.files import STDOUT, place_of

__all__ = ["Score", "corpus_score", "score"]

_OPTIONS = {
    "bleu": ("tokenize", "smooth", "smooth_value"),
    "chrf": (),
    "ter": (),
    "rouge": (),
}  # and what begins with its name


def score(settings: ScoreSettings, typed: Collection[str] | None = None) -> None:
    """Run the command: results to standard output, messages to standard error. Of settings that were `typed`, by default all
    that were given, it is told if they do nothing.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # texts of any script in any locale, names of files in any bytes
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    systems, refs, src = read_texts(settings)
    for warning in warnings(systems, refs, settings, settings.model_fields_set if typed is None else typed):
        print(f"s2s score: {warning}", file=sys.stderr)
    if settings.sentence:
        metrics: list[Metric] = [build_metric(name, refs, settings, sentence=True) for name in chosen_metrics(settings)]
        values = [sentence_values(systems, metric) for metric in metrics]
        report.sentences(list(systems), metrics, values, settings)
        return
    comparisons = compare(systems, refs, settings)
    if not (settings.diff or settings.analyze):
        report.scores(comparisons, settings)
        return
    from s2s_cli.evaluation.analyze import analyze
    from s2s_cli.evaluation.page import write_page

    train_tgt = read_lines(settings.train_tgt) if settings.train_tgt and settings.analyze else None
    analysis = analyze(systems, refs, src, comparisons, train_tgt)
    report.scores(comparisons, settings, analysis if settings.diff else None)
    if settings.analyze:
        write_page(settings.analyze, analysis)
        with contextlib.suppress(OSError):  # the page is there, whoever hears of it
            print(f"s2s score: wrote {settings.analyze}", file=sys.stderr, flush=True)


def read_texts(settings: ScoreSettings) -> tuple[Systems, list[list[str]], list[str] | None]:
    """The systems with the baseline first, the references, and the source; all of equally many lines."""
    paths = list(settings.input)
    if settings.baseline is not None:
        paths = [settings.baseline] + [path for path in paths if path != settings.baseline]
    every = paths + settings.ref + ([settings.src] if settings.src else [])
    for path in every:
        if paths.count(path) > 1 or settings.ref.count(path) > 1:
            raise ConfigError(f"{file_name(path)} is named twice: name each text once")
    if [*every, settings.train_tgt].count(Path("-")) > 1:
        raise ConfigError("standard input is named twice, but can be read once: name a file instead")
    taken = {os.path.realpath(path) for path in [*every, settings.train_tgt] if path is not None}
    if settings.analyze is not None and place_of(settings.analyze) == STDOUT:
        raise ConfigError("--analyze: standard output is for the scores: name a file")
    if settings.analyze is not None and os.path.realpath(settings.analyze) in taken:
        raise ConfigError(f"--analyze would write its page over {settings.analyze}: name another file")
    if settings.paired != "none" and len(paths) < 2:
        raise ConfigError("a paired test needs two systems: name both with -i, or one with --baseline")
    if Path("-") in every and sys.stdin.isatty():
        print("s2s score: reading lines from the keyboard; Ctrl-D ends them, -i names a file", file=sys.stderr)
    texts = {path: list(read_lines(path)) for path in every}
    counts = {path: len(lines) for path, lines in texts.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{file_name(path)} has {count:,}" for path, count in counts.items())
        raise DataError(f"line counts differ: {listed}. Line N of every file must belong to line N of the others")
    if not texts[paths[0]]:
        raise DataError(f"nothing to score: {file_name(paths[0])} has no lines")
    systems = {file_name(path): texts[path] for path in paths}
    return systems, [texts[path] for path in settings.ref], texts[settings.src] if settings.src else None


def warnings(systems: Systems, refs: list[list[str]], settings: ScoreSettings, typed: Collection[str]) -> Iterable[str]:
    """What makes a score mean something else than its reader will think, and flags that do nothing."""
    metrics = chosen_metrics(settings)
    if not settings.confidence and settings.paired == "none":
        for name in ("resamples", "seed"):
            if name in typed:
                yield f"--{name} does nothing without --confidence or --paired"
    for name in sorted(typed):
        of = next(
            (metric for metric, names in _OPTIONS.items() if name in names or name.startswith(f"{metric}_")), None
        )
        if of and not any(metric.startswith(of) for metric in metrics):
            yield f"--{name.replace('_', '-')} does nothing without --{of}"
    if settings.train_tgt and not settings.analyze:
        yield "--train-tgt does nothing without --analyze"
    if settings.src and not (settings.analyze or settings.diff):
        yield "--src does nothing without --analyze or --diff"
    if "bleu" in metrics and settings.tokenize != "none":
        for name, hyps in systems.items():
            if (spaced := sum(hyp.endswith(" .") for hyp in hyps)) >= 100:
                yield f"{name}: {spaced} lines end in a tokenized full stop; BLEU is for detokenized text"
    if "rouge1" in metrics and settings.rouge_tokenizer == "rouge-score":
        letters = [char for ref in refs for line in ref[:1000] for char in line if char.isalpha()]
        erased = sum(not char.isascii() for char in letters)
        if erased > 0.01 * len(letters):
            yield (
                f"ROUGE's own tokenizer erases {100 * erased // len(letters)} % of the references' letters, "
                "all but a-z; --rouge-tokenizer unicode keeps them"
            )
