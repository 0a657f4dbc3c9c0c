#!/usr/bin/env python3
"""What levers of search on a CPU would be worth that s2s does not have, by prototypes of them.

    python benchmarks/not_taken.py compiled [--shapes tiny base]
    python benchmarks/not_taken.py waiting --model RUN --src FILE
    python benchmarks/not_taken.py shortlist [--vocab 32000] [--shapes base]
    python benchmarks/not_taken.py shortlist --model RUN --src FILE --ref FILE --pairs SRC TGT [--size 256]

*compiled*: what a decoder layer does before its cache, and after it, as one program of `torch.compile` each, for all layers and
any number of rows and positions; they call products and attention as they are. The time of compiling is told apart.

*waiting*: sentences that wait enter a batch as others end. What it could gain at most: every step as fast, by sentence that is
not done, as the steps of its batch were while that was full, and no sentence carried on after its end.

*shortlist*: of each sentence the `--size` pieces that its own pieces are translated by most likely, by IBM model 1 (Brown et al.
1993) of the training pairs, are all that the output layer computes, for a beam in int8 in bf16, else in fp32. With a model,
quality is measured too (BLEU without case); without, which pieces they are is chance. Lists are made in the first turn, which
does not count: what they cost would come to it.

Turns alternate as in `levers.py`: with the prototype, as it is, and a ratio is the median of those of the turns.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import decode
import numpy as np
import torch
import torch.nn.functional as F
from conditions import conditions
from torch import Tensor, nn

from s2s_cli.checkpoint.bundle import open_model
from s2s_cli.config import ScoreSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.evaluation.score import corpus_score
from s2s_cli.models.base import Rows, StepOut
from s2s_cli.models.cache import Cache
from s2s_cli.models.layers import attend, join_heads, split_heads
from s2s_cli.models.pack import pack
from s2s_cli.models.positions import Order
from s2s_cli.models.products import matmul
from s2s_cli.models.transformer import DecoderLayer, LayerOut, Transformer
from s2s_cli.runtime import keep_memory
from s2s_cli.search import strategies
from s2s_cli.search.logprobs import Ensemble

SPECIALS = 4  # the first ids: padding, begin, end and what is unknown, in every list
ROUNDS = 4  # of expectation and maximization


def case(options: argparse.Namespace, shape: str, beam: int, precision: str) -> argparse.Namespace:
    """As `decode.py` has its options."""
    num = options.sentences // (4 if shape == "base" else 1)
    fields = {"shape": shape, "beam": beam, "precision": precision, "sentences": num, "threads": 1, "patience": 0.0}
    return argparse.Namespace(**fields, model=options.model, src=options.src)


def turns(one: Callable[[], Any], other: Callable[[], Any], num: int) -> tuple[dict[str, float], Any, Any]:
    """Speed of `one` over that of `other`, in turns after a first of each to warm up; and what they returned last."""
    ratios = []
    for _ in range(num + 1):
        begun = time.perf_counter()
        ours = one()
        between = time.perf_counter()
        theirs = other()
        ratios.append((time.perf_counter() - between) / (between - begun))
    ratios = ratios[1:]
    median, low, high = (round(of(ratios), 3) for of in (statistics.median, min, max))
    return {"ratio": median, "min": low, "max": high}, ours, theirs


# compiled

_called: list[nn.Module] = []  # products of all layers: a program is given their places here, and so serves each layer
_library = torch.library.Library("s2s_benchmarks", "DEF")
_library.define("product(Tensor x, SymInt number, SymInt width, bool halves) -> Tensor")
_library.define("attend(Tensor q, Tensor k, Tensor v, Tensor bias) -> Tensor")
_library.impl("product", lambda x, number, width, halves: _called[number](x), "CPU")
_library.impl("attend", lambda q, k, v, bias: join_heads(attend(q, k, v, bias, None)[0]), "CPU")


@torch.library.register_fake("s2s_benchmarks::product")
def _(x: Tensor, number: int, width: int, halves: bool) -> Tensor:
    return x.new_empty(*x.shape[:-1], width, dtype=torch.bfloat16 if halves else torch.float32)


@torch.library.register_fake("s2s_benchmarks::attend")
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return v.new_empty(q.shape[0], q.shape[2], q.shape[1] * q.shape[3])


def before(x: Tensor, weight: Tensor, bias: Tensor, number: int, halves: bool) -> Tensor:
    """x [B, R, D] -> queries, keys and values [B, R, 3·D]; `number` is the place of the layer's first product."""
    product = torch.ops.s2s_benchmarks.product
    return product(F.layer_norm(x, x.shape[-1:], weight, bias), number, 3 * x.shape[-1], halves)


def after(
    x: Tensor, heads: tuple[Tensor, Tensor, Tensor], mask: Tensor, cross: tuple[Tensor, Tensor], cross_mask: Tensor,
    norms: list[Tensor], number: int, inner: int, halves: bool,
) -> Tensor:  # fmt: skip
    """What the layer gives [N, 1, D], of `x` and of its queries, and keys and values of all positions."""
    product, look = torch.ops.s2s_benchmarks.product, torch.ops.s2s_benchmarks.attend
    dim = x.shape[-1]
    x = x + product(look(*heads, mask), number + 1, dim, False).view(x.shape)
    y = F.layer_norm(x, (dim,), norms[0], norms[1]).view(cross[0].shape[0], -1, dim)
    q = split_heads(product(y, number + 2, dim, halves), heads[0].shape[1])
    x = x + product(look(q, *cross, cross_mask), number + 3, dim, False).view(x.shape)
    y = product(
        F.layer_norm(x, (dim,), norms[2], norms[3]), number + 4, inner, False
    )  # what type it has is nobody's matter
    return x + product(y, number + 5, dim, False)


def compile_decoder(model: Transformer) -> Transformer:
    """A packed model with programs in place of its decoder layers."""
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._inductor.config.force_disable_caches = True
    programs = torch.compile(before, dynamic=True), torch.compile(after, dynamic=True)
    for layer in model.decoder:
        layer.forward = partial(_compiled, layer, *programs, len(_called))
        of_self, cross, inner = layer.self_attention, layer.cross_attention, layer.feed_forward
        _called.extend((of_self.qkv, of_self.out, cross.q, cross.out, inner.up, inner.down))
    return model


def _compiled(
    layer: DecoderLayer, before: Callable[..., Tensor], after: Callable[..., Tensor], number: int, x: Tensor, cache: Cache,
    order: Order, cross: tuple[Tensor, Tensor], cross_mask: Tensor, *_: Any,
) -> LayerOut:  # fmt: skip
    residuals = layer.around_self_attention, layer.around_cross_attention, layer.around_feed_forward
    norms = [tensor for residual in residuals for tensor in (residual.norm.weight, residual.norm.bias)]
    halves = layer.cross_attention.q.rounds
    y = before(x.view(-1, cache.width, x.shape[2]), *norms[:2], number, halves)
    q, k, v = split_heads(y, 3 * layer.self_attention.heads).chunk(3, dim=1)
    cache = cache.append(k, v)
    inner = layer.feed_forward.up.out_features
    heads = (q, *cache.keys_values)
    return LayerOut(after(x, heads, order.bias, cross, cross_mask, norms[2:], number, inner, halves), cache, None, None)


def compiled(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Speed with and without, in each case."""
    rows = []
    for shape, beam, precision in cases(options):
        model, sources, *rest = decode.sentences(here := case(options, shape, beam, precision))
        theirs = decode.ours(model, here, *rest)
        torch._dynamo.reset()
        with patch.object(decode, "pack", lambda *arguments: compile_decoder(pack(*arguments))):
            ours = decode.ours(model, here, *rest)
        begun = time.perf_counter()
        ours(sources)
        first = round(time.perf_counter() - begun, 1)
        found, a, b = turns(partial(ours, sources), partial(theirs, sources), options.turns)
        rows.append({"lever": "compiled", "shape": shape, "beam": beam, "precision": precision} | found)
        rows[-1] |= {"first seconds": first, "same outputs": same(a, b), "sentences": len(sources)}
        print(rows[-1], flush=True)
    return rows


# waiting


class Watch(strategies._Alive):
    """Notes at each step of a batch when it was, how many sentences were there, and how many of them were not done."""

    batches: ClassVar[list[list[tuple[float, int, int]]]] = []  # of all that there have been

    def __init__(self, num: int) -> None:
        super().__init__(num)
        self.steps: list[tuple[float, int, int]] = []
        self.batches.append(self.steps)

    def leaving(self, improves: Tensor, together: bool = False) -> Tensor | None:
        """See `_Alive`."""
        self.steps.append((time.perf_counter(), len(improves), int(improves.sum())))
        return super().leaving(improves, together)


def waiting(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What it could gain at most, in each case."""
    rows = []
    for _, beam, precision in cases(options):
        model, sources, *rest = decode.sentences(here := case(options, "model", beam, precision))
        search = decode.ours(model, here, *rest)
        search(sources)
        bounds = []
        for _ in range(options.turns):
            Watch.batches.clear()
            with patch.object(strategies, "_Alive", Watch):
                begun = time.perf_counter()
                search(sources)
                whole = time.perf_counter() - begun
            bounds.append(whole / (whole - sum(map(saved, Watch.batches))))
        row = {"lever": "waiting", "beam": beam, "precision": precision, "sentences": len(sources)}
        median, low, high = (round(of(bounds), 3) for of in (statistics.median, min, max))
        rows.append(row | {"at most": median, "min": low, "max": high})
        print(rows[-1], flush=True)
    return rows


def saved(steps: list[tuple[float, int, int]]) -> float:
    """Seconds of a batch that would be spared if every step were as fast by sentence as the median of those with all sentences
    of the batch, which came first, when there was less to attend to, and if only sentences that are not done cost anything.
    """
    spent = [
        (later[0] - before[0], later[1], before[2]) for before, later in pairwise(steps)
    ]  # seconds, there, not done
    full = [seconds / num for seconds, num, _ in spent if num == steps[0][1]]
    best = statistics.median(full) if full else 0.0
    return sum(seconds - needed * min(best, seconds / num) for seconds, num, needed in spent)


# shortlist


@dataclass(frozen=True)
class Lists(Rows):
    """A memory and, of each of its sentences, the pieces [B, K] that it may be translated by, with rows and bias of the output
    layer, [B, K, D] and [B, 1, K].
    """

    memory: Any
    mask: Tensor
    pieces: Tensor
    weight: Tensor
    bias: Tensor


class Short(Ensemble):
    """An ensemble of one packed model that finds pieces of each sentence's list, by their places there."""

    def __init__(self, models: list[Any], lists: Callable[[list[int]], list[int]]) -> None:
        super().__init__(models)
        self.lists, self.head = lists, models[0].head
        half = models[0].decoder[0].cross_attention.q.rounds
        self.table = self.head.weight.detach().to(torch.bfloat16 if half else torch.float32)

    def encode(self, src: Tensor, src_len: Tensor) -> Any:
        """See `Ensemble`."""
        memory = super().encode(src, src_len)
        pieces = torch.tensor([self.lists(ids[:num]) for ids, num in zip(src.tolist(), src_len, strict=True)])
        return Lists(memory, memory.mask, pieces, self.table[pieces], self.head.bias[pieces][:, None])

    def start(self, memory: Any) -> Any:
        """See `Ensemble`."""
        return super().start(memory.memory)

    def step(self, tokens: Tensor, memory: Any, state: Any, attention: bool = False, normalize: bool = True) -> StepOut:
        """See `Ensemble`."""
        num = memory.pieces.shape[0]
        pieces = memory.pieces.gather(1, tokens.view(num, -1)).flatten()

        def product(hidden: Tensor) -> Tensor:
            rows = hidden.view(num, -1, hidden.shape[1]).to(memory.weight.dtype)
            return (matmul(rows, memory.weight.transpose(1, 2)).float() + memory.bias).flatten(0, 1)

        with patch.dict(self.head._modules, {"product": product}):
            return super().step(pieces, memory.memory, state, attention, normalize)


def translations(sources: list[list[int]], targets: list[list[int]], num_src: int, num_tgt: int) -> Any:
    """p(target piece | source piece) of IBM model 1, where it is not 0: keys source · num_tgt + target, and values."""
    keys, columns, column = [], [], 0
    for source, target in zip(sources, targets, strict=True):
        pairs = np.array(source)[:, None] * num_tgt + np.array(target)[None]
        keys.append(pairs.ravel())
        columns.append((column + np.tile(np.arange(len(target)), len(source))).ravel())
        column += len(target)
    at = np.concatenate(columns)
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    chance = np.ones(len(unique))
    for _ in range(ROUNDS):
        share = chance[inverse]
        share /= np.bincount(at, share)[at]
        chance = np.bincount(inverse, share)
        chance /= np.bincount(unique // num_tgt, chance, num_src)[unique // num_tgt]
    return unique, chance


class Lexicon:
    """For a sentence's pieces the `size` pieces of its list, after the special ones: those that its pieces are translated by most
    likely; each piece has its own `size` best, and a place goes by the highest probability that any gives.
    """

    def __init__(
        self, sources: list[list[int]], targets: list[list[int]], num_src: int, num_tgt: int, size: int
    ) -> None:
        keys, chance = translations(sources, targets, num_src, num_tgt)
        order = np.lexsort((-chance, keys // num_tgt))
        keys, chance = keys[order], chance[order]
        ends = np.searchsorted(keys // num_tgt, np.arange(num_src + 1))
        self.best = [(keys[a:b][:size] % num_tgt, chance[a:b][:size]) for a, b in pairwise(ends)]
        counts = np.bincount(np.concatenate([np.array(target) for target in targets]), minlength=num_tgt)
        self.frequent, self.size = np.argsort(-counts, kind="stable")[: size + SPECIALS], size

    def __call__(self, source: list[int]) -> list[int]:
        """Specials, then `size` others; where a sentence has too few, the most frequent pieces fill its list up."""
        found: dict[int, float] = {}
        for piece in source:
            for target, value in zip(*(part.tolist() for part in self.best[piece]), strict=True):
                found[target] = max(found.get(target, 0.0), value)
        ranked = sorted(found, key=lambda target: (-found[target], target)) + self.frequent.tolist()
        return [*range(SPECIALS), *dict.fromkeys(n for n in ranked if n >= SPECIALS)][: SPECIALS + self.size]


def shortlist(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Speed in each case, and with a model what becomes of its outputs."""
    rows, about = [], {"lever": "shortlist", "size": options.size}
    if options.model:
        vocabs = open_model(options.model).vocabs
        texts = [list(read_lines(path)) for path in options.pairs]
        both = zip(vocabs.src.encode(texts[0]), vocabs.tgt.encode(texts[1]), strict=True)
        src, tgt = zip(*((a, b) for a, b in both if a and b), strict=True)
        begun = time.perf_counter()
        ends = ([*ids, vocabs.src.eos] for ids in src), ([*ids, vocabs.tgt.eos] for ids in tgt)
        lists = Lexicon(*map(list, ends), len(vocabs.src), len(vocabs.tgt), options.size)
        about["seconds to learn"] = round(time.perf_counter() - begun, 1)
        refs = list(read_lines(options.ref))
    else:
        about["vocab"] = options.vocab

        def lists(source: list[int]) -> list[int]:
            chance = np.random.default_rng(source)
            return [
                *range(SPECIALS),
                *(chance.choice(options.vocab - SPECIALS, options.size, False) + SPECIALS).tolist(),
            ]

    lists = once_each(lists)
    for shape, beam, precision in cases(options):
        here = case(options, "model" if options.model else shape, beam, precision)
        with patch.object(decode, "VOCAB", options.vocab) if not options.model else ExitStack():
            model, sources, *rest = decode.sentences(here)
        theirs = decode.ours(model, here, *rest)
        with patch.object(decode, "Ensemble", lambda models: Short(models, lists)):
            ours = decode.ours(model, here, *rest)
        found, short, plain = turns(partial(ours, sources), partial(theirs, sources), options.turns)
        row = about | {"shape": here.shape, "beam": beam, "precision": precision} | found
        if options.model:
            short = [[lists(ids)[place] for place in places] for ids, places in zip(sources, short, strict=True)]
            order = {tuple(ids): number for number, ids in enumerate(sources)}
            lines = [line for line in read_lines(options.src) if line.strip()][: len(sources)]
            at = [order[*ids, vocabs.src.eos] for ids in vocabs.src.encode(lines)]
            for name, outputs in (("bleu", short), ("bleu without", plain)):
                text = [vocabs.tgt.decode(outputs[i]) for i in at]
                row[name] = round(
                    corpus_score("bleu", text, [refs[: len(text)]], ScoreSettings(lowercase=True)).value, 2
                )
            row["same outputs"] = same(short, plain)
        rows.append(row | {"sentences": len(sources)})
        print(rows[-1], flush=True)
    return rows


def once_each(of: Callable[[list[int]], list[int]]) -> Callable[[list[int]], list[int]]:
    """`of`, which is asked once for each sentence, so that nothing is timed but its use."""
    known: dict[tuple[int, ...], list[int]] = {}
    return lambda ids: known[key] if (key := tuple(ids)) in known else known.setdefault(key, of(ids))


# all of them


def same(ones: list[list[int]], others: list[list[int]]) -> float:
    """The part of the outputs that are the same."""
    return round(sum(a == b for a, b in zip(ones, others, strict=True)) / len(ones), 3)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Shape, beam, precision."""
    shapes = ["model"] if options.model else options.shapes
    yield from product(shapes, (1, 5), options.precisions)


def main() -> None:
    """Measure a prototype in every case, print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lever", choices=("compiled", "waiting", "shortlist"))
    parser.add_argument("--model", type=Path, help="a run or bundle in place of random weights")
    parser.add_argument("--src", type=Path, help="its source text")
    parser.add_argument("--ref", type=Path, help="and its references")
    parser.add_argument("--pairs", type=Path, nargs=2, help="the training text that a shortlist is learned from")
    parser.add_argument("--size", type=int, default=256, help="pieces of a shortlist")
    parser.add_argument("--vocab", type=int, default=decode.VOCAB, help="pieces of random models")
    parser.add_argument("--shapes", nargs="+", choices=decode.SHAPES, default=list(decode.SHAPES))
    parser.add_argument("--precisions", nargs="+", choices=decode.DTYPES, default=["fp32", "int8"])
    parser.add_argument("--sentences", type=int, default=400, help="a quarter of them for base")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    if (options.lever == "waiting" and not options.model) or (options.model and not options.src):
        parser.error("this needs --model and --src")
    if options.lever == "shortlist" and options.model and not (options.ref and options.pairs):
        parser.error("a shortlist of a model needs --ref and --pairs")
    about = {"benchmark": "not_taken"} | conditions(["s2s-cli", "torch", "numpy"])
    torch.set_num_threads(1)
    keep_memory()
    rows = {"compiled": compiled, "waiting": waiting, "shortlist": shortlist}[options.lever](options)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
