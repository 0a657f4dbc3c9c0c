"""Noise that training puts on pairs of ids: other splits into pieces, unknown words, and damage to be repaired.

All of it is a function of (seed, epoch, line, and the how many-th time it is that the epoch holds the line), so that a resumed
run sees what the uninterrupted one saw. Validation and search never come here.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from s2s_cli.config import NoiseSettings
from s2s_cli.data.scripts import STOPS, WIDE_STOPS
from s2s_cli.data.vocab import SENTINEL, Vocab, Vocabs
from s2s_cli.errors import ConfigError

Ids = npt.NDArray[np.int64]

MASK = "<mask>"
_STOPS = tuple(STOPS + WIDE_STOPS)
_ENDS_IN_BYTES = ("<0x2E>", "<0x21>", "<0x3F>")  # where a vocabulary spells them so


class Noise:
    """Call it with the ids of a pair (no bos, no eos) to get source, target as the decoder reads it, and target."""

    def __init__(self, settings: NoiseSettings, vocabs: Vocabs, seed: int) -> None:
        """ConfigError if the vocabulary lacks what the settings need."""
        self._settings, self._vocabs, self._seed = settings, vocabs, seed
        self._src_starts, self._tgt_starts = vocabs.src.starts_word, vocabs.tgt.starts_word
        self._ends_sentence = np.array([vocabs.src.piece(i).endswith(_STOPS) for i in range(len(vocabs.src))])
        self._ends_in_bytes = np.array([vocabs.src.piece(i) in _ENDS_IN_BYTES for i in range(len(vocabs.src))])
        if settings.subword_sampling and not (vocabs.src.can_resample or vocabs.tgt.can_resample):
            raise ConfigError(
                "subword_sampling needs a vocabulary of type bpe or unigram: preprocess with --vocab-type"
            )
        if settings.denoise in ("mask", "infill"):
            self._mask = _reserved(vocabs.src, MASK, "--reserved '<mask>'")
        if settings.denoise == "span":
            if not vocabs.shared:
                raise ConfigError("denoise span needs one vocabulary for both sides: preprocess with --shared-vocab")
            _reserved(vocabs.src, f"{SENTINEL}0>", "--sentinels 100")
            num_sentinels = next(i for i in range(len(vocabs.src) + 1) if f"{SENTINEL}{i}>" not in vocabs.src)
            self._sentinels = [vocabs.src.id(f"{SENTINEL}{i}>") for i in range(num_sentinels)]

    @classmethod
    def of(cls, settings: NoiseSettings, vocabs: Vocabs, seed: int) -> "Noise | None":
        """The noise of the settings; None if they ask for none."""
        return None if settings == NoiseSettings() else cls(settings, vocabs, seed)

    def __call__(
        self, src: Sequence[int], tgt: Sequence[int], epoch: int, line: int, copy: int = 0
    ) -> tuple[Ids, Ids, Ids]:
        """Source, target as read by the decoder, and target of a pair in an epoch, which holds it `copy` times before."""
        settings, vocabs = self._settings, self._vocabs
        rng = np.random.default_rng([self._seed, epoch, line, *([copy] if copy else [])])
        if settings.subword_sampling:
            src = vocabs.src.resample(src, settings.subword_sampling, int(rng.integers(1 << 32)))
            tgt = vocabs.tgt.resample(tgt, settings.subword_sampling, int(rng.integers(1 << 32)))
        source, target = np.asarray(src, np.int64), np.asarray(tgt, np.int64)
        if settings.permute_sentences:
            source = self._permute(source, rng)
        if settings.denoise != "none":
            source, target = self._damage(source, target, rng)
        source = self._forget(source, vocabs.src, self._src_starts, settings.src_word_dropout, rng)
        read = self._forget(target, vocabs.tgt, self._tgt_starts, settings.tgt_word_dropout, rng)
        return source, read, target

    def _forget(
        self, ids: Ids, vocab: Vocab, starts: npt.NDArray[np.bool_], rate: float, rng: np.random.Generator
    ) -> Ids:
        """Make all pieces of some words unknown."""
        if not rate or not len(ids):
            return ids
        word = np.cumsum(starts[ids]) - starts[ids[0]]
        dropped = rng.random(word[-1] + 1) < rate
        return np.where(dropped[word] & ~vocab.is_control[ids], vocab.unk, ids)

    def _permute(self, ids: Ids, rng: np.random.Generator) -> Ids:
        """Put sentences in random order; tags stay in front."""
        num_tags = _leading(self._vocabs.src.is_control[ids])
        body = ids[num_tags:]
        ends = self._ends_sentence[body][:-1]
        ends |= self._ends_in_bytes[body][:-1] & self._src_starts[body][1:]  # 3.14 is one word
        sentences = np.split(body, np.flatnonzero(ends) + 1)
        order = rng.permutation(len(sentences))
        return np.concatenate([ids[:num_tags], *(sentences[i] for i in order)])

    def _damage(self, source: Ids, target: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        settings = self._settings
        num_tags = _leading(self._vocabs.src.is_control[source])
        tags, body = source[:num_tags], source[num_tags:]
        if settings.denoise == "mask":
            masked = np.where(rng.random(len(body)) < settings.denoise_rate, self._mask, body)
            return np.concatenate([tags, masked]), target
        least = int(settings.denoise == "span" and settings.denoise_rate > 0.0)  # or nothing would be asked for
        gone = spans(len(body), settings.denoise_rate, settings.span_length, rng, least)
        begins = gone & ~np.concatenate([[False], gone[:-1]])
        keep = begins | ~gone
        if settings.denoise == "infill":
            return np.concatenate([tags, np.where(begins, self._mask, body)[keep]]), target
        number = np.cumsum(begins) - 1  # of the span that a piece is in
        gone &= number < len(self._sentinels)  # more spans than sentinels: the others stay
        begins, keep = begins & gone, keep | ~gone
        sentinels = np.array(self._sentinels)
        shown = np.where(begins, sentinels[np.clip(number, 0, len(sentinels) - 1)], body)[keep]
        asked = [np.concatenate([[sentinels[i]], body[gone & (number == i)]]) for i in range(int(begins.sum()))]
        return np.concatenate([tags, shown]), np.concatenate([np.zeros(0, np.int64), *asked])


def spans(length: int, rate: float, mean: float, rng: np.random.Generator, least: int = 0) -> npt.NDArray[np.bool_]:
    """[length] which positions are taken away: spans of Poisson lengths (at least 1) with about `rate` of all in them, and with
    `least` at least.
    """
    gone = np.zeros(length, np.bool_)
    wanted = min(length, max(least, int(rate * length + rng.random())))
    while (missing := wanted - int(gone.sum())) > 0:
        size = min(missing, max(1, int(rng.poisson(mean))))
        start = int(rng.integers(0, length - size + 1))
        gone[start : start + size] = True
    return gone


def _leading(mask: npt.NDArray[np.bool_]) -> int:
    """How many true values an array begins with."""
    return len(mask) if mask.all() else int(np.argmin(mask))


def _reserved(vocab: Vocab, piece: str, flag: str) -> int:
    if piece not in vocab:
        raise ConfigError(f"denoise needs the piece {piece} in the source vocabulary: preprocess with {flag}")
    return vocab.id(piece)
