"""Validation: cross-entropy over the validation pairs, and a metric of `score` over text decoded as `translate` does it.

The value is what `translate | score` prints for the checkpoint, since it is made by the same two functions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from s2s_cli.config import ScoreSettings, SearchSettings
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import valid_batches
from s2s_cli.evaluation.score import Score, corpus_score
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import Runtime
from s2s_cli.search.translate import Translator


@dataclass(frozen=True)
class Validation:
    """Cross-entropy in nats a token, the scores of the output, and the output (empty if the loss alone was wanted)."""

    loss: float
    scores: dict[str, Score]
    output: list[str]

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


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
) -> Validation:
    """Measure `model` on the validation text, dropout off: its loss, and `metrics` of `score` with its `options`.

    `tick` hears of each batch, and may raise to end it.
    """
    model.eval()
    nll, num_tokens = 0.0, 0
    for batch in valid_batches(dataset.valid, dataset.vocabs, batch_tokens):
        with runtime.autocast():
            loss = model(batch.to(runtime.device))
        nll += float(loss.nll)
        num_tokens += loss.num_tokens
        tick(len(batch.lines))
    output, textual = [], [name for name in metrics if name != "loss"]
    if textual:
        output = Translator([model], dataset.vocabs, search, runtime).translate(dataset.valid_src, tick)
    scores = {name: corpus_score(name, output, [dataset.valid_tgt], options) for name in textual}
    return Validation(nll / max(1, num_tokens), scores, output)
