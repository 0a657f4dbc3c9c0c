"""Validation: cross-entropy over the validation pairs, and a metric of `score` over text decoded as `translate` does it.

The value is what `translate | score` prints for the checkpoint, since it is made by the same two functions. A subset of the
lines may stand for all of them: it is spread evenly over the text, and the same at every validation.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s2s_cli.config import ScoreSettings, SearchSettings
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import valid_batches
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import S2SError
from s2s_cli.evaluation.score import Score, corpus_score
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import Runtime
from s2s_cli.search.translator import Translator


@dataclass(frozen=True)
class Validation:
    """Cross-entropy in nats a token, the scores of the output, the sources that were read, and the output (empty if the loss
    alone was wanted); and the precision that all was computed in.
    """

    precision: str
    loss: float
    scores: dict[str, Score]
    src: list[str]
    output: list[str]

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def record(self, metric: str) -> dict[str, Any]:
        """The numbers, and the signature of `metric` if it has one."""
        record: dict[str, Any] = {"precision": self.precision, "loss": self.loss}
        record |= {name: score.value for name, score in self.scores.items()}
        return record | ({"signature": self.scores[metric].signature} if metric in self.scores else {})

    def __str__(self) -> str:
        scores = "".join(f" {name} {score.value:.2f}" for name, score in self.scores.items())
        return f"valid loss {self.loss:.4f} ppl {self.perplexity:.2f}{scores}"


@torch.no_grad()
def validate(
    model: Seq2Seq,
    dataset: Dataset,
    metrics: Sequence[str],
    search: SearchSettings,
    options: ScoreSettings,
    runtime: Runtime,
    batch_tokens: int,
    tick: Callable[[int], object],
    subset: int = 0,
) -> Validation:
    """Measure `model` on the validation text, dropout off: its loss, and `metrics` of `score` with its `options`.

    `tick` hears of each batch, and may raise to end it. With `subset`, only so many lines count. Sources are cut where search
    cuts them, for the loss too.
    """
    model.eval()
    nll, num_tokens = 0.0, 0
    lines = chosen_lines(len(dataset.valid_src), subset)
    src, tgt = ([text[i] for i in lines] for text in (dataset.valid_src, dataset.valid_tgt))
    rows = chosen_pairs(dataset, subset)
    for batch in valid_batches(dataset.valid, dataset.vocabs, batch_tokens, rows, search.max_src_len):
        with runtime.autocast():
            loss = model(batch.to(runtime.device))
        nll += float(loss.nll)
        num_tokens += loss.num_tokens
        tick(len(batch.lines))
    output, textual = [], [name for name in metrics if name != "loss"]
    if textual:
        translator = Translator.of([model], dataset.vocabs, search, runtime)
        output = translator.translate(src, tick)
        translator.workers.close()
    scores = {name: corpus_score(name, output, [tgt], options) for name in textual}
    return Validation(runtime.precision, nll / num_tokens if num_tokens else math.nan, scores, src, output)


@torch.no_grad()
def samples(
    found: Validation, model: Seq2Seq, vocabs: Vocabs, search: SearchSettings, runtime: Runtime
) -> list[tuple[str, str]]:
    """Two sources and their outputs, to be looked at; none where no output was wanted, and search finds none."""
    output = found.output
    if not output:
        model.eval()
        with contextlib.suppress(S2SError):
            output = Translator.of([model], vocabs, search, runtime).translate(found.src[:2])
        model.train()
    return list(zip(found.src, output, strict=False))[:2]


def chosen_lines(num_lines: int, subset: int) -> list[int]:
    """`subset` of the line numbers from 0 to before `num_lines`, at even distances; all of them for 0, or if there are fewer.

    Line i, from 1, is one of n among N if the whole part of i·n/N is not that of (i-1)·n/N.
    """
    if not subset or subset >= num_lines:
        return list(range(num_lines))
    return [i for i in range(num_lines) if (i + 1) * subset // num_lines > i * subset // num_lines]


def chosen_pairs(dataset: Dataset, subset: int) -> npt.NDArray[np.intp]:
    """The validation pairs, by their rows, that stand in the chosen lines: those with a blank side are in none."""
    return np.flatnonzero(np.isin(dataset.valid.lines, [i + 1 for i in chosen_lines(len(dataset.valid_src), subset)]))
