#!/usr/bin/env python3
"""On one GPU: how fast training and decoding are beside transformers in PyTorch, and how much of the card training uses.

    python benchmarks/gpu.py train [--shape base …] [--batch-tokens 25000 …] [--engine s2s …] [--limit 150] [--out FILE]
    python benchmarks/gpu.py decode [--shape base …] [--batch 128 …] [--beam 5 …] [--engine s2s …] [--limit 150] [--out FILE]
    python benchmarks/gpu.py train --device cpu --smoke       # a tiny one, to see that it works

Options that stand for several are given several times. Ours and MarianMTModel have the same weights and read the same random ids:
no data, no network. Engines take turns in one process after two rounds to warm up, which see every batch; times are those between
two synchronizations. After `--limit` seconds nothing more is begun; `left_out` says what was not, and what failed and why. Each
case is written when it is done. `--commit` names the commit where there is no git.

Training: a vocabulary of 32,000, shared and tied, dropout 0.1, label smoothing 0.1, weights in fp32 and bf16 autocast, fused
Adam, clipping. Lengths are drawn to be like WMT's, 28 pieces in the mean and 100 at most; batches are ours, a few from short to
long out of the epoch of a large corpus; a turn is an update on each. Ours is `Updater.update`. Theirs is what a good practitioner
writes (sdpa, cross-entropy on the logits, fused AdamW), as it comes, and with model and loss compiled for shapes that vary.
Peak memory is that of an engine alone: what the others hold is subtracted. Tokens are real ones, without padding.

MFU is the share of the card's dense bf16 peak that goes into products which the model needs: 6 floating-point operations
for each multiplication of the forward pass (2 there, 4 on the way back), over real tokens, nothing for padding, for what is
computed again, or for embeddings. With L layers of width D on each side, F inside, V pieces, and S and T tokens of a pair, it is
6 · [L·S·(4D² + 2DF + 2D²) + L·T·(6D² + 2DF) + T·V·D + L·D·(2S² + T(T+1) + 2ST)]: the encoder's layers, and the keys and values
that each decoder layer makes of its output, by source token; the rest of the decoder's, and the output layer, by target token;
products of attention by pairs of positions, of which the decoder's own are those that a target position may see.

Decoding: every output has 32 pieces, for sources of about 28, in bf16. Ours takes one step more, for the end of the sentence
that it is then made to say; theirs stops without. `same_fp32` is the share of greedy outputs that are alike in fp32.
"""

import argparse
import copy
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from conditions import ROOT, conditions
from peers.clock import LABEL_SMOOTHING, Shape
from peers.transformers import EOS, PAD, START, UNK, begin_as_ours, build
from torch import Tensor

from s2s_cli.config import RuntimeSettings, SearchSettings, TrainSettings, TransformerSettings
from s2s_cli.data.batching import plan_epoch
from s2s_cli.data.loader import Batch, collate
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.layers import lanes
from s2s_cli.models.pack import pack
from s2s_cli.models.transformer import Transformer
from s2s_cli.runtime import Runtime
from s2s_cli.search.graphs import Recorder
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.strategies import Specials, beam_search, limits_for
from s2s_cli.training.optim import build_optimizer
from s2s_cli.training.state import Learner
from s2s_cli.training.update import Updater

SHAPES = {
    "base": Shape("transformer", 6, 512, 8, 2048, 0, 0, dropout=0.1),
    "big": Shape("transformer", 6, 1024, 16, 4096, 0, 0, dropout=0.1),
    "smoke": Shape("transformer", 2, 32, 4, 64, 0, 0, dropout=0.1),
}
ENGINES = {
    "train": ("s2s", "s2s, compiled", "transformers", "transformers, compiled"),
    "decode": ("s2s", "s2s, graphs", "transformers", "transformers, static"),
}
OURS = ("s2s", "s2s, compiled", "s2s, graphs")
VOCAB, PAIRS, MEAN, LONGEST, PIECES = 32_000, 400_000, 28, 100, 32
RATE, MOST_LOSS = 1e-4, 100.0
# Dense bf16 FLOP/s, by what the name of a card holds: half of what NVIDIA's data sheets give with sparsity (H100 and H200 SXM:
# 1,979 TFLOP/s, H100 PCIe: 1,513), and for the A100 what its sheet gives without.
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
Row = dict[str, Any]
Ids = list[list[int]]
BEGUN = time.monotonic()


class Trained(NamedTuple):
    """An engine that trains: an update, which gives the loss a token, and what it changes."""

    update: Callable[[Batch], Tensor]
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer

    def held(self) -> int:
        """Bytes of weights and moments."""
        state = [x for one in self.optimizer.state.values() for x in one.values() if isinstance(x, Tensor)]
        return sum(x.numel() * x.element_size() for x in [*self.model.parameters(), *self.model.buffers(), *state])


class Decoder(NamedTuple):
    """An engine that decodes: outputs of a batch of sources, and how many steps these take it."""

    run: Callable[[Ids], Ids]
    steps: int


# --- The two variants of ours that are asked for: the places to change when how that is done changes.


def compile_ours(model: Transformer) -> None:
    """SWITCH of `s2s, compiled` in training."""
    if not hasattr(model, "compile_layers"):
        raise NotImplementedError("this checkout cannot compile layers")
    model.compile_layers()


def search_of_ours(
    model: Transformer, runtime: Runtime, settings: SearchSettings, graphs: bool
) -> Callable[[Ids], Ids]:
    """The search of a batch, as the translator has it on a GPU. SWITCH of `s2s, graphs`."""
    ensemble = Ensemble([pack(copy.deepcopy(model), runtime.dtype)])
    specials, recorder = Specials(bos=START, eos=EOS, banned=(UNK, PAD, START)), Recorder() if graphs else None

    @torch.inference_mode()
    def run(batch: Ids) -> Ids:
        src, src_len = padded(batch), torch.tensor([len(ids) for ids in batch])
        src = F.pad(src, (0, lanes(src.shape[1]) - src.shape[1]), value=PAD)
        memory = ensemble.encode(src.to(runtime.device), src_len)
        rest = (limits_for([len(ids) - 1 for ids in batch], settings), specials, settings)
        found = beam_search(ensemble.step, memory, ensemble.start(memory), *rest, scores=False, recorder=recorder)
        return [hypotheses[0].ids for hypotheses in found]

    return run


# --- What both parts need.


def first_model(shape: str) -> Transformer:
    """Ours with first weights, its norms where Marian's are, on the host. It never says what search forbids."""
    size = SHAPES[shape]
    settings = TransformerSettings(
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        dim=size.dim,
        heads=size.heads,
        ffn_dim=size.ffn_dim,
        dropout=size.dropout,
        norm="post",
    )
    torch.manual_seed(1)
    model = build_model(settings, Sizes(VOCAB, VOCAB, True))
    with torch.no_grad():
        model.head.bias[[PAD, UNK, START]] = -1e4
    return model


def marian(shape: str, model: Transformer, device: torch.device) -> torch.nn.Module:
    """MarianMTModel with the weights of ours."""
    theirs = build(SHAPES[shape], VOCAB)
    begin_as_ours(theirs, {name: weight.clone() for name, weight in model.state_dict().items()})
    assert theirs.config._attn_implementation == "sdpa"
    return theirs.to(device)


def padded(rows: Ids) -> Tensor:
    """Rows as one tensor."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def now(device: torch.device) -> float:
    """The time when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def spread(values: list[float], digits: int = 0) -> dict[str, float]:
    """As tables want it."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def all_made(make: Callable[[str], Any], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """The engines by name, and why those that are missing are."""
    engines: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in options.engine:
        with noted(failed, name):
            engines[name] = make(name)
    return engines, failed


def in_turns(engines: dict[str, Any], turn: Callable[[str, bool], None], options: argparse.Namespace) -> dict[str, str]:
    """Call `turn` for each engine to warm up, then round by round; why those that fell out did."""
    failed: dict[str, str] = {}
    for number in range(-2, options.rounds):  # a recording is made of what comes for the second time
        for name in [name for name in engines if name not in failed]:
            with noted(failed, name):
                if number < 0 and late(options):
                    raise TimeoutError("no time was left")
                turn(name, number < 0)
            gc.collect()
        if number >= 0 and late(options):
            break
    return failed


@contextmanager
def noted(failed: dict[str, str], name: str) -> Iterator[None]:
    """What goes wrong in an engine ends it, and not the others."""
    try:
        yield
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
        print(f"{name}: {failed[name]}", file=sys.stderr, flush=True)


def late(options: argparse.Namespace) -> bool:
    """Whether no more is to be begun."""
    return time.monotonic() - BEGUN > options.limit


# --- Training.


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
        engine, row = engines[name], found[name]
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


def train(options: argparse.Namespace) -> Iterator[tuple[list[Row], list[Row]]]:
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
                our_training(first, options.runtime, compiled) if name in OURS else their_training(*theirs(), compiled)
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


# --- Decoding.


def sources_of(num: int) -> Ids:
    """Sentences of about 28 pieces, longest first."""
    chance = random.Random(1)
    lengths = sorted((min(LONGEST, max(6, round(chance.gauss(MEAN, 6)))) for _ in range(num)), reverse=True)
    return [[*(chance.randrange(EOS + 1, VOCAB) for _ in range(length - 1)), EOS] for length in lengths]


def our_decoding(model: Transformer, runtime: Runtime, beam: int, graphs: bool) -> Decoder:
    """Ours, packed as the translator has it."""
    settings = SearchSettings(beam=beam, min_len=PIECES, max_len=PIECES, max_len_extra=PIECES)
    return Decoder(search_of_ours(model, runtime, settings, graphs), PIECES + 1)


def their_decoding(model: torch.nn.Module, beam: int, static: bool) -> Decoder:
    """`generate`, whose cache grows, or is static, which has it compile the steps."""
    lengths = {"min_new_tokens": PIECES, "max_new_tokens": PIECES}
    kind = {"cache_implementation": "static"} if static else {}

    @torch.inference_mode(not static)
    def run(batch: Ids) -> Ids:
        src = padded(batch).to(model.device)
        seen = (src != PAD).long()
        found = model.generate(input_ids=src, attention_mask=seen, num_beams=beam, do_sample=False, **lengths, **kind)
        return found[:, 1:].tolist()

    return Decoder(run, PIECES)


def decode_case(engines: dict[str, Decoder], batches: list[Ids], options: argparse.Namespace) -> tuple[list[Row], dict]:
    """Speed of each engine on these batches; and who fell out."""
    device, num = options.runtime.device, sum(map(len, batches))
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    warm: dict[str, float] = {}
    outputs: dict[str, Ids] = {}

    def turn(name: str, warms_up: bool) -> None:
        begun = now(device)
        found = [ids for batch in batches for ids in engines[name].run(batch)]
        spent = now(device) - begun
        if {len(ids) for ids in found} != {PIECES}:
            raise ValueError(f"outputs of other lengths than {PIECES}")
        outputs.setdefault(name, found)
        if warms_up:
            warm[name] = round(spent, 1)
        else:
            seconds[name].append(spent)

    failed, rows = in_turns(engines, turn, options), []
    for name, spent in seconds.items():
        if name in failed or not spent:
            continue
        row = {"engine": name, "rounds": len(spent), "warm_up_seconds": warm[name], "same_as": same(outputs, name)}
        row["tokens_per_second"] = spread([num * PIECES / x for x in spent])
        row["ms_per_step"] = spread([1000 * x / len(batches) / engines[name].steps for x in spent], 3)
        row["ms_per_sentence"] = spread([1000 * x / num for x in spent], 3)
        rows.append(row)
    return rows, failed


def same(outputs: dict[str, Ids], name: str) -> dict[str, float]:
    """The share of outputs that are those of another engine, for each other one."""
    own = outputs[name]
    pairs = ((other, zip(own, theirs, strict=True)) for other, theirs in outputs.items() if other != name)
    return {other: round(sum(a == b for a, b in both) / len(own), 3) for other, both in pairs}


def decode(options: argparse.Namespace) -> Iterator[tuple[list[Row], list[Row]]]:
    """Rows and failures, case by case."""
    runtime = options.runtime
    for shape in options.shape:
        first = first_model(shape).eval()
        theirs = marian(shape, first, runtime.device).eval()
        ours = first.to(runtime.device)
        sources = sources_of(max(options.batch))
        exact = Runtime(runtime.device, torch.float32)
        both = (our_decoding(ours, exact, 1, False).run(sources), their_decoding(theirs, 1, False).run(sources))
        agree = {"same_fp32": round(sum(a == b for a, b in zip(*both, strict=True)) / len(sources), 3)}
        theirs = theirs.to(torch.bfloat16)
        for batch in options.batch:
            num = batch if batch > 1 else options.sentences
            chosen = sources[:: max(1, len(sources) // num)][:num]
            batches = [chosen[i : i + batch] for i in range(0, len(chosen), batch)]
            for beam in options.beam:

                def make(name: str, beam: int = beam, ours: Transformer = ours, theirs: Any = theirs) -> Decoder:
                    if name in OURS:
                        return our_decoding(ours, runtime, beam, name.endswith("graphs"))
                    return their_decoding(theirs, beam, name.endswith("static"))

                case = {"shape": shape, "batch": batch, "beam": beam, "sentences": len(chosen)} | agree
                engines, unmade = all_made(make, options)
                rows, failed = decode_case(engines, batches, options)
                yield (
                    [case | row for row in rows],
                    [case | {"engine": n, "why": w} for n, w in (unmade | failed).items()],
                )


# --- The command.


def ceiling(device: torch.device) -> float:
    """TFLOP/s of a product of two large square matrices in bf16."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    times = []
    for _ in range(6):
        begun = now(device)
        for _ in range(10):
            a @ b
        times.append((now(device) - begun) / 10)
    return round(2 * size**3 / min(times[1:]) / 1e12, 3)


def arguments() -> argparse.Namespace:
    """Those of the command; with `--smoke` all is tiny."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for part in ENGINES:
        one = parts.add_parser(part)
        one.add_argument("--shape", choices=SHAPES, action="append")
        one.add_argument("--engine", choices=ENGINES[part], action="append")
        one.add_argument("--rounds", type=int, default=3)
        one.add_argument("--limit", type=float, default=150.0, help="seconds after which nothing more is begun")
        one.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
        one.add_argument("--smoke", action="store_true", help="see that it works")
        one.add_argument("--commit", default="", help="what is measured, where there is no git")
        one.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / f"gpu_{part}.json")
        if part == "train":
            one.add_argument("--batch-tokens", type=int, action="append", help="positions of the longer side")
            one.add_argument("--updates", type=int, default=10, help="of a round, each on another batch")
        else:
            one.add_argument("--batch", type=int, action="append")
            one.add_argument("--beam", type=int, action="append")
            one.add_argument("--sentences", type=int, default=6, help="of a round with batches of one")
    options = parser.parse_args()
    options.engine = options.engine or list(ENGINES[options.part])
    options.shape = ["smoke"] if options.smoke else options.shape or ["base"]
    if options.part == "train":
        options.batch_tokens = [512] if options.smoke else options.batch_tokens or [8192, 25_000, 64_000]
    else:
        options.batch = [4, 1] if options.smoke else options.batch or [128, 1]
        options.beam = options.beam or [1, 5]
    if options.smoke:
        options.rounds, options.updates, options.sentences = 1, 2, 2
    return options


def main() -> None:
    """Measure, print, write after each case."""
    options = arguments()
    device = torch.device(options.device)
    packages = [name for name in ("s2s-cli", "torch", "numpy", "transformers") if installed(name)]
    result: dict[str, Any] = {"benchmark": f"gpu_{options.part}"} | conditions(packages)
    result["commit"] = options.commit or result["commit"]
    options.runtime = Runtime.start(RuntimeSettings(device=options.device, precision="bf16"))
    options.card = torch.cuda.get_device_name() if device.type == "cuda" else result["machine"]["cpu"]
    result |= {
        "card": options.card,
        "cuda": torch.version.cuda,
        "product_tflops": ceiling(device),
        "rows": [],
        "left_out": [],
    }
    print(f"{options.card}: {result['product_tflops']} TFLOP/s in bf16 products", flush=True)
    for rows, left_out in (train if options.part == "train" else decode)(options):
        result["rows"] += rows
        result["left_out"] += left_out
        result["seconds"] = round(time.monotonic() - BEGUN)
        for row in rows:
            told = {
                key: value["median"] if "median" in (value if isinstance(value, dict) else {}) else value
                for key, value in row.items()
            }
            print("  ".join(f"{key} {value}" for key, value in told.items()), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def installed(package: str) -> bool:
    """Whether a package is there; ours may be a folder that PYTHONPATH names."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
