"""Training: updates of ours and of a plain loop over MarianMTModel, plain and compiled, on the same batches."""

import argparse
import copy
import gc
import random
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from peers.clock import LABEL_SMOOTHING, Shape
from peers.transformers import EOS, PAD, START
from torch import Tensor
from torch._dynamo.utils import counters

from on_gpu.turns import LONGEST, MEAN, SHAPES, VOCAB, Row, all_made, first_model, in_turns, marian, now, spread
from s2s_cli.config import TrainSettings
from s2s_cli.data.batching import plan_epoch
from s2s_cli.data.loader import Batch, collate
from s2s_cli.models.transformer import Transformer
from s2s_cli.runtime import Runtime
from s2s_cli.training.optim import build_optimizer
from s2s_cli.training.state import Learner
from s2s_cli.training.update import Updater

ENGINES = ("s2s", "s2s, compiled", "transformers", "transformers, compiled")
PAIRS, RATE, MOST_LOSS = 400_000, 1e-4, 100.0
# Dense bf16 FLOP/s, by what the name of a card holds: half of what NVIDIA's data sheets give with sparsity (H100 and H200 SXM:
# 1,979 TFLOP/s, H100 PCIe: 1,513, NVL: 1,671), and for the A100 what its sheet gives without.
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


def compile_ours(model: Transformer) -> None:
    """SWITCH: what `s2s, compiled` is."""
    if not hasattr(model, "compile_layers"):
        raise NotImplementedError("this checkout cannot compile layers")
    model.compile_layers()


class Trained(NamedTuple):
    """An engine that trains: an update, which gives the loss a token, and what it changes."""

    update: Callable[[Batch], Tensor]
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer

    def held(self) -> int:
        """Bytes of weights and moments."""
        state = [x for one in self.optimizer.state.values() for x in one.values() if isinstance(x, Tensor)]
        return sum(x.numel() * x.element_size() for x in [*self.model.parameters(), *self.model.buffers(), *state])


class Pairs:
    """Pairs of random ids, of lengths as WMT's are, as `collate` wants them."""

    def __init__(self, num: int) -> None:
        self.rng = np.random.default_rng(1)
        drawn = self.rng.lognormal(np.log(MEAN) - 0.55**2 / 2, 0.55, num)
        other = drawn * self.rng.lognormal(0.0, 0.15, num)
        self.src_len, self.tgt_len = (x.round().clip(1, LONGEST - 1).astype(np.int64) for x in (drawn, other))
        self.lines = np.arange(num)

    def __len__(self) -> int:
        return len(self.lines)

    def src(self, i: int) -> np.ndarray:
        """Of a source, as many ids as it has, others each time."""
        return self.rng.integers(EOS + 1, VOCAB, self.src_len[i])

    def tgt(self, i: int) -> np.ndarray:
        """Of a target."""
        return self.rng.integers(EOS + 1, VOCAB, self.tgt_len[i])


def batches_of(pairs: Pairs, batch_tokens: int, num: int) -> list[Batch]:
    """As many batches, from the shortest to the longest of an epoch at equal distances, in random order."""
    plan = plan_epoch(pairs.src_len, pairs.tgt_len, batch_tokens, seed=1, epoch=0)
    plan.sort(key=lambda rows: int(pairs.src_len[rows].max()))
    chosen = [plan[int((i + 0.5) * len(plan) / num)] for i in range(num)]
    random.Random(1).shuffle(chosen)
    side = SimpleNamespace(pad=PAD, bos=START, eos=EOS)
    return [collate(pairs, rows, SimpleNamespace(src=side, tgt=side)) for rows in chosen]


def flops(size: Shape, batch: Batch) -> float:
    """Of an update: see above."""
    s, t = batch.src_len.double(), batch.tgt_len.double()
    d, f, layers = size.dim, size.ffn_dim, size.layers
    weights = layers * (s * (4 * d * d + 2 * d * f + 2 * d * d) + t * (6 * d * d + 2 * d * f)) + t * VOCAB * d
    pairs = layers * d * (2 * s * s + t * (t + 1) + 2 * s * t)
    return 6.0 * float((weights + pairs).sum())


def our_training(first: Transformer, runtime: Runtime, compiled: bool) -> Trained:
    """Ours: all that an update of `train` does."""
    model = copy.deepcopy(first).to(runtime.device).train()
    if compiled:
        compile_ours(model)
    settings = TrainSettings(label_smoothing=LABEL_SMOOTHING, seed=1)
    learner = Learner(model, build_optimizer(model, settings))
    updater, number = Updater(learner, settings, runtime), iter(range(1, 10**9))

    def update(batch: Batch) -> Tensor:
        loss = updater.update([batch], next(number), RATE, MOST_LOSS).sums[0] / batch.num_tokens
        if updater.split:
            raise MemoryError("the batch had to be split")
        return loss

    return Trained(update, model, learner.optimizer)


def their_training(model: torch.nn.Module, optimizer: torch.optim.Optimizer, compiled: bool) -> Trained:
    """Theirs. Compiled or not, it may be one model with one optimizer."""
    device = model.device

    def loss_of(src: Tensor, tgt_in: Tensor, tgt_out: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            seen = (src != PAD).long()
            logits = model(input_ids=src, attention_mask=seen, decoder_input_ids=tgt_in, use_cache=False).logits
        logits, targets = logits.float().flatten(0, 1), tgt_out.flatten()
        return F.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=LABEL_SMOOTHING)

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=True)

    def update(batch: Batch) -> Tensor:
        there = batch.to(device)
        loss = loss_of(there.src, there.tgt_in, there.tgt_out)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return Trained(update, model, optimizer)


def train_case(
    engines: dict[str, Trained], batches: list[Batch], options: argparse.Namespace
) -> tuple[list[Row], dict]:
    """Speed, memory and MFU of each engine on these batches; and who fell out."""
    device, on_gpu = options.runtime.device, options.runtime.device.type == "cuda"
    largest = max(batches, key=lambda batch: batch.src.numel() + batch.tgt_in.numel())
    found: dict[str, Row] = {name: {"engine": name} for name in engines}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    peaks: dict[str, list[float]] = {name: [] for name in engines}

    def turn(name: str, warms_up: bool) -> None:
        engine, row, programs = engines[name], found[name], counters["stats"]["unique_graphs"]
        if on_gpu:
            torch.cuda.empty_cache()
        others = torch.cuda.memory_allocated() - engine.held() if on_gpu else 0
        try:
            if not warms_up:
                engine.update(largest)  # what was given back above is asked for again
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            begun = now(device)
            losses = torch.stack([engine.update(batch) for batch in batches])
            spent = now(device) - begun
        finally:
            engine.model.zero_grad(set_to_none=True)
        if warms_up:
            row["warm_up_seconds"] = round(spent, 1)
            row["programs"] = counters["stats"]["unique_graphs"] - programs  # that were compiled
            row["first_loss"] = round(float(losses[0]), 3)
        else:
            seconds[name].append(spent)
            peaks[name].append((torch.cuda.max_memory_allocated() - others) / 1e6 if on_gpu else 0.0)
        row["last_loss"] = round(float(losses.mean()), 3)

    failed = in_turns(engines, turn, options)
    num_src, num_tgt = (sum(int(getattr(batch, side).sum()) for batch in batches) for side in ("src_len", "tgt_len"))
    operations = sum(flops(SHAPES[options.at], batch) for batch in batches)
    peak = next((value for part, value in PEAKS.items() if part in options.card), None)
    for name, row in found.items():
        row |= {"rounds": len(seconds[name]), "updates": len(seconds[name]) * len(batches)}
        if seconds[name]:
            row["tgt_tokens_per_second"] = spread([num_tgt / x for x in seconds[name]])
            row["tokens_per_second"] = spread([(num_src + num_tgt) / x for x in seconds[name]])
            row["ms_per_update"] = spread([1000 * x / len(batches) for x in seconds[name]], 2)
            row["tflops"] = spread([operations / x / 1e12 for x in seconds[name]], 2)
            row["mfu"] = peak and round(operations / statistics.median(seconds[name]) / peak, 4)
            row["peak_mb"] = spread(peaks[name])
    return [row for name, row in found.items() if name not in failed and row["rounds"]], failed


def cases(options: argparse.Namespace) -> Iterator[tuple[list[Row], list[Row]]]:
    """Rows and failures, case by case."""
    pairs = Pairs(PAIRS)
    for shape in options.shape:
        options.at, first = shape, first_model(shape)

        @cache
        def theirs(first: Transformer = first, shape: str = shape) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
            model = marian(shape, first, options.runtime.device).train()
            return model, torch.optim.AdamW(
                model.parameters(), lr=RATE, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=True
            )

        def make(name: str, first: Transformer = first, theirs: Callable = theirs) -> Trained:
            compiled = name.endswith("compiled")
            return (
                our_training(first, options.runtime, compiled)
                if name.startswith("s2s")
                else their_training(*theirs(), compiled)
            )

        engines, unmade = all_made(make, options)
        for batch_tokens in options.batch_tokens:
            batches = batches_of(pairs, batch_tokens, options.updates)
            real = sum(int(batch.src_len.sum() + batch.tgt_len.sum()) for batch in batches)
            share = real / sum(batch.src.numel() + batch.tgt_in.numel() for batch in batches)
            case = {"shape": shape, "batch_tokens": batch_tokens, "real_share": round(share, 3)}
            rows, failed = train_case(engines, batches, options)
            yield (
                [case | row for row in rows],
                [case | {"engine": n, "why": why} for n, why in (unmade | failed).items()],
            )
        del engines, make, theirs
        gc.collect()
