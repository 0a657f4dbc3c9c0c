"""An output layer that computes, of each sentence, only the pieces which its own are translated by most likely."""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import decode
import numpy as np
import torch
from torch import Tensor

from prototypes.turns import case, cases, same, turns
from s2s_cli.checkpoint.bundle import open_model
from s2s_cli.config import ScoreSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.evaluation.score import corpus_score
from s2s_cli.models.base import Rows, StepOut
from s2s_cli.models.products import matmul
from s2s_cli.search.logprobs import Ensemble

SPECIALS = 4  # the first ids: padding, begin, end and what is unknown, in every list
ROUNDS = 4  # of expectation and maximization


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
