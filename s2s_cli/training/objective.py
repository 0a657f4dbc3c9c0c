"""What training minimizes: the cross-entropy, alone or with a pull that makes two passes over a batch agree, and on targets
that the model may have to read from itself.

Whatever is drawn by chance here comes from torch's global generators, which are seeded for each update: it is a function of
seed, update and rank, as dropout is. This file knows no optimizer and no order of data.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from s2s_cli.config import TrainSettings
from s2s_cli.data.loader import Batch
from s2s_cli.models.base import Loss, Seq2Seq
from s2s_cli.models.consistency import Pull, pair_loss

_WEIGHTS = {"rdrop": 5.0, "simcut": 3.0}  # of their papers, for translation


def batch_loss(model: Seq2Seq, batch: Batch, settings: TrainSettings, number: int) -> Loss:
    """What update `number` minimizes, summed over the real target tokens of a batch.

    R-Drop (Liang et al. 2021) reads the batch twice, with other dropout, and adds the symmetric divergence of the two
    distributions; both cross-entropies count, by half each, so that without dropout the loss is the plain one (half the
    paper's loss, which is the same minimum). SimCut (Gao et al. 2022) adds KL(whole ‖ cut), where the second pass has lost
    some tokens of both sides; the gradient flows through both passes, as in the authors' program.
    """
    rate = sampling_rate(number, settings)
    if settings.consistency == "none" and not rate:
        return model(batch, settings.label_smoothing)
    if settings.consistency == "none":
        memory = model.encode(batch.src, batch.src_len)
        batch = replace(batch, tgt_in=_mixed(model, batch, memory, rate))
        return model.read(batch, memory, settings.label_smoothing)
    return _two_passes(model, batch, settings, rate)


def sampling_rate(number: int, settings: TrainSettings) -> float:
    """How much of the target the model reads from itself at update 1, 2, …: a line up to the full rate."""
    return settings.scheduled_sampling * min(1.0, number / settings.sampling_ramp)


def _two_passes(model: Seq2Seq, batch: Batch, settings: TrainSettings, rate: float) -> Loss:
    """Both passes as one batch of 2B rows: the B sentences, and the same once more."""
    both = settings.consistency == "rdrop"
    weight = settings.consistency_weight
    if weight is None:
        weight = _WEIGHTS[settings.consistency]
    pull, cutoff = Pull(weight / 2 if both else weight, both), 0.0 if both else settings.cutoff
    num_rows = len(batch.src)
    with _cut(model, cutoff):
        memory = model.encode(batch.src.repeat(2, 1), batch.src_len.repeat(2))
    if rate:
        first = memory.select(torch.arange(num_rows, device=batch.src.device))
        batch = replace(batch, tgt_in=_mixed(model, batch, first, rate))
    tgt_in, tgt_out, tgt_len = (torch.cat([t, t]) for t in (batch.tgt_in, batch.tgt_out, batch.tgt_len))
    twice = replace(batch, tgt_in=tgt_in, tgt_out=tgt_out, tgt_len=tgt_len)
    with _cut(model, cutoff):
        hidden, weights = model.decode(twice.tgt_in, memory)
    real = model.real(twice, memory, hidden, weights)
    targets = real.targets[: len(real.targets) // 2]
    found = pair_loss(model.head, real.hidden, real.attended, targets, settings.label_smoothing, pull)
    total = found.total
    if real.repeated is not None:
        for share, part in zip(pull.shares, real.repeated.chunk(2), strict=True):
            total = total + model.head.coverage_loss * share * part.sum()
    return Loss(total, found.nll, batch.num_tokens, found.divergence)


@contextlib.contextmanager
def _cut(model: Seq2Seq, rate: float) -> Iterator[None]:
    """Within, each token of the second half of all rows loses its embedding, though not its place, with probability `rate`
    (token cutoff, Shen et al. 2020).
    """

    def cut(_module: nn.Module, _ids: Any, vectors: Tensor) -> Tensor:
        # What a copy head may copy is not cut: those are the source's own pieces.
        kept = torch.rand(vectors.shape[:2], device=vectors.device) >= rate  # [2B, T]
        kept[: len(kept) // 2] = True
        return vectors * kept[:, :, None]

    tables = {model.src_embedding, model.tgt_embedding} if rate else set()
    hooks = [table.register_forward_hook(cut) for table in tables]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _no_grad() -> Iterator[None]:
    """No gradient within; and after it autocast casts weights anew: before 2.11, torch gives those without one to what learns."""
    with torch.no_grad():
        yield
    torch.clear_autocast_cache()


@_no_grad()
def _mixed(model: Seq2Seq, batch: Batch, memory: Any, rate: float) -> Tensor:
    """The decoder's input [B, T], each token but BOS by chance, at `rate`, the one that the model would have written there.

    A recurrent model reads its own choices as it goes (Bengio et al. 2015). For one that reads all positions at once, a
    first pass over the reference makes the choices (Mihaylova and Martins 2019). No gradient flows through them.
    """
    reference = batch.tgt_in
    chosen = torch.rand(reference.shape, device=reference.device) < rate
    chosen[:, 0] = False
    if not model.recurrent:
        hidden, weights = model.decode(reference, memory)
        guess = _best(model, batch, memory, hidden, weights)
        return torch.where(chosen, guess.roll(1, dims=1), reference)
    state, tokens = model.start(memory), reference[:, 0]
    read = [tokens]
    for t in range(1, reference.shape[1]):
        out = model.step(tokens, memory, state)
        state, tokens = out.state, torch.where(chosen[:, t], out.logp.argmax(dim=1), reference[:, t])
        read.append(tokens)
    return torch.stack(read, dim=1)


def _best(model: Seq2Seq, batch: Batch, memory: Any, hidden: Tensor, weights: Tensor | None) -> Tensor:
    """The likeliest piece at each real position of `decode`'s output, as [B, T]; at others, what stands there."""
    real = model.real(batch, memory, hidden, weights)
    best = model.head.each(real.hidden, real.attended, lambda logp, _: logp.argmax(dim=1))
    return batch.tgt_in.flatten().index_copy(0, batch.real(), best).view_as(batch.tgt_in)
