"""`s2s score`: outputs and references in, scores with signatures out, on a terminal, in a pipe or as JSON.

It reads the lines, holds them against each other and passes them on: numbers are made in `metrics.py`, `compare.py` and
`analyze.py`, shown by `report.py` and `page.py`. It runs without torch.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from s2s_cli.config import ScoreSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.evaluation import report
from s2s_cli.evaluation.compare import Systems, chosen_metrics, compare, sentence_values
from s2s_cli.evaluation.metrics import METRICS, Metric, Score, build_metric, corpus_score

__all__ = ["METRICS", "Score", "corpus_score", "score"]


def score(settings: ScoreSettings) -> None:
    """Run the command: results to standard output, messages to standard error."""
    systems, refs, src = read_texts(settings)
    for warning in warnings(systems, refs, settings):
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

    train_tgt = read_lines(settings.train_tgt) if settings.train_tgt else None
    analysis = analyze(systems, refs, src, comparisons, train_tgt)
    report.scores(comparisons, settings, analysis if settings.diff else None)
    if settings.analyze:
        write_page(settings.analyze, analysis)
        print(f"s2s score: wrote {settings.analyze}", file=sys.stderr)


def read_texts(settings: ScoreSettings) -> tuple[Systems, list[list[str]], list[str] | None]:
    """The systems with the baseline first, the references, and the source; all of equally many lines."""
    paths = list(settings.input)
    if settings.baseline is not None:
        paths = [settings.baseline] + [path for path in paths if path != settings.baseline]
    every = paths + settings.ref + ([settings.src] if settings.src else [])
    for path in every:
        if paths.count(path) > 1 or settings.ref.count(path) > 1 or (_name(path) == "stdin" and every.count(path) > 1):
            raise ConfigError(f"{_name(path)} is named twice: name each text once")
    if settings.paired != "none" and len(paths) < 2:
        raise ConfigError("a paired test needs two systems: name both with -i, or one with --baseline")
    texts = {path: list(read_lines(path)) for path in every}
    counts = {path: len(lines) for path, lines in texts.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{_name(path)} has {count:,}" for path, count in counts.items())
        raise DataError(f"line counts differ: {listed}. Line N of every file must belong to line N of the others")
    if not texts[paths[0]]:
        raise DataError(f"nothing to score: {_name(paths[0])} has no lines")
    systems = {_name(path): texts[path] for path in paths}
    return systems, [texts[path] for path in settings.ref], texts[settings.src] if settings.src else None


def warnings(systems: Systems, refs: list[list[str]], settings: ScoreSettings) -> Iterable[str]:
    """What makes a score mean something else than its reader will think."""
    metrics = chosen_metrics(settings)
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


def _name(path: Path) -> str:
    return "stdin" if str(path) == "-" else str(path)
