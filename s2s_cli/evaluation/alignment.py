"""Which words of an output answer to no word of its source, by IBM Model 1 (Brown et al. 1993),
though without its empty word.

It is weak evidence about one word, and fair evidence about a whole output when held against the references' own rate.
This file must not know systems or scores.
"""

from collections.abc import Iterable, Sequence

import numpy as np

_MAX_LINKS = 20_000_000  # word pairs to train on; about 1 GB
_ITERATIONS = 8
_ENOUGH = 0.1  # of the probability that a word's best origin gives it


class Aligner:
    """Word translation probabilities learned from pairs of lines; pairs beyond some 20 million links are left out."""

    def __init__(self, pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> None:
        self._src: dict[str, int] = {}
        self._tgt: dict[str, int] = {}
        src_of_link, tgt_of_link, links_of_word, total = [], [], [], 0
        for src, tgt in pairs:
            total += len(src) * len(tgt)
            if total > _MAX_LINKS:
                break
            if src and tgt:
                s = [self._src.setdefault(word, len(self._src)) for word in src]
                t = [self._tgt.setdefault(word, len(self._tgt)) for word in tgt]
                src_of_link.append(np.tile(s, len(t)))
                tgt_of_link.append(np.repeat(t, len(s)))
                links_of_word.append(np.full(len(t), len(s)))
        self._keys, self._prob, self._best = np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(0)
        if links_of_word:
            self._train(*map(np.concatenate, (src_of_link, tgt_of_link, links_of_word)))

    def _train(self, src_of_link: np.ndarray, tgt_of_link: np.ndarray, links_of_word: np.ndarray) -> None:
        first = np.concatenate([[0], np.cumsum(links_of_word)[:-1]])
        self._keys, link = np.unique(src_of_link * len(self._tgt) + tgt_of_link, return_inverse=True)
        origin, word = np.divmod(self._keys, len(self._tgt))
        prob = np.ones(len(self._keys))
        for _ in range(_ITERATIONS):
            share = prob[link]
            share /= np.repeat(np.add.reduceat(share, first), links_of_word)
            counts = np.bincount(link, share, len(prob))
            prob = counts / np.bincount(origin, counts)[origin]
        self._prob = prob
        self._best = np.zeros(len(self._tgt))
        np.maximum.at(self._best, word, prob)

    def unaligned(self, src: Sequence[str], tgt: Sequence[str]) -> list[bool]:
        """For each target word, whether every source word of the line explains it far worse than its best origin does.

        A word that stands in the source as it is counts as explained; so does one that training never saw.
        """
        known = np.array([self._src[word] for word in src if word in self._src], dtype=np.int64)
        literal = set(src)
        return [word in self._tgt and word not in literal and self._lost(self._tgt[word], known) for word in tgt]

    def _lost(self, word: int, src: np.ndarray) -> bool:
        keys = src * len(self._tgt) + word
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        prob = np.where(self._keys[found] == keys, self._prob[found], 0.0)
        return bool(prob.max(initial=0.0) < _ENOUGH * self._best[word])
