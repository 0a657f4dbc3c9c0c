"""Other splits of encoded text into pieces: BPE-dropout and unigram sampling.

SentencePiece samples too, but salts its random generator in each process; here the pieces are a function of (ids, rate,
seed), so that a resumed run sees what the uninterrupted one saw. What a piece looks like in text, and which rules came
before, are the business of `vocab`; this room knows ids and the model file, and no torch.
"""

import math
import random
import struct
import sys
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate
from typing import Any, NamedTuple

SPACE = "\u2581"  # what SentencePiece writes for a space, and would take for one in raw text; with it, words begin
UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType in sentencepiece_model.proto
NORMAL = 1  # ModelProto.SentencePiece.Type: neither special, byte, unused nor user-defined
KEPT_CHARS = 1 << 17  # words are worked out once, up to so many characters of them: about 50 MB of lattices


class Piece(NamedTuple):
    """A piece of text that may be split and merged; all others stay as they are."""

    text: str
    id: int
    score: float


class Sampler(ABC):
    """Call it with ids and a seed to get ids of the same text. Pieces that are not `Piece`s, bytes for one, stay."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = {piece.text: piece for piece in pieces}
        self._texts = {piece.id: piece.text for piece in pieces}
        words = all(SPACE not in piece.text[1:] for piece in pieces)  # so that no piece reaches across words
        self._starts = {piece.id for piece in pieces if words and piece.text.startswith(SPACE)}
        self._room = KEPT_CHARS

    @abstractmethod
    def __call__(self, ids: Sequence[int], seed: int) -> list[int]:
        """Another split of the text of `ids`."""

    def _words(self, ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """The ids, cut where no piece reaches across; one that must stay is a word of its own."""
        texts, starts = self._texts, self._starts
        begin = 0
        for i, id in enumerate(ids):
            if id not in texts:
                if begin < i:
                    yield tuple(ids[begin:i])
                yield (id,)
                begin = i + 1
            elif id in starts and begin < i:
                yield tuple(ids[begin:i])
                begin = i
        if begin < len(ids):
            yield tuple(ids[begin:])

    def _text(self, word: tuple[int, ...]) -> str:
        """The text of one of `_words`; "" if that must stay."""
        return "".join([self._texts[id] for id in word]) if word[0] in self._texts else ""

    def _has_room(self, text: str) -> bool:
        """Whether one more word may be kept. The first ones are: the more frequent a word, the sooner it comes."""
        self._room -= len(text) + 1
        return self._room >= 0


class BpeDropout(Sampler):
    """BPE, but at each step each merge is left out with probability `rate` (Provilkov et al. 2020, algorithm 1).

    What is left out at one step may come at the next: the longer a word, the less is left out in the end, so that the
    paper takes 0.1, but 0.6 where no spaces are written. At rate 0 this is the split that SentencePiece makes. Words with
    a character that has no piece of its own stay as they are.
    """

    def __init__(self, pieces: Sequence[Piece], rate: float) -> None:
        super().__init__(pieces)
        self._rate = rate
        self._costs = {piece.text: -piece.score for piece in pieces}
        self._kept: dict[tuple[int, ...], tuple[str, int, list[int]]] = {}

    def __call__(self, ids: Sequence[int], seed: int) -> list[int]:
        """Another split, merged anew; where no merge is left out, the best one."""
        luck = _Luck(self._rate, seed)
        found: list[int] = []
        for word in self._words(ids):
            text, num_merges, best = self._kept.get(word) or self._learn(word)
            if num_merges <= luck.left:  # no merge of this word will be left out: the same throws, without the work
                luck.left -= num_merges
                found += best
            else:
                found += self._merge(text, luck)
        return found

    def _learn(self, word: tuple[int, ...]) -> tuple[str, int, list[int]]:
        """The text of a word, how many merges make its best split, and that."""
        text, best = self._text(word), list(word)
        if text and all(char in self._costs for char in text):
            best = self._merge(text, _Luck(0.0, 0))
        else:
            text = ""
        learned = (text, len(text) - len(best) if text else 0, best)
        if self._has_room(text):
            self._kept[word] = learned
        return learned

    def _merge(self, text: str, luck: "_Luck") -> list[int]:
        """Merge characters into pieces: always the best merge that is not left out, of equals the leftmost."""
        costs, size = self._costs, len(text)
        ends = [*range(1, size + 1), 0]  # where the piece that begins here ends; 0 where none begins
        begins = [0, *range(size)]  # where the piece that ends here begins
        agenda = [(costs[pair], i, i + 1, i + 2) for i in range(size - 1) if (pair := text[i : i + 2]) in costs]
        heapify(agenda)
        left_out = []
        while agenda:
            merge = heappop(agenda)
            _, begin, middle, end = merge
            if ends[begin] != middle or ends[middle] != end:
                continue  # another merge has taken one of the two
            if not luck.throw():
                left_out.append(merge)
                continue
            ends[begin], ends[middle], begins[end] = end, 0, begin
            if begin:
                before = begins[begin]
                if (pair := text[before:end]) in costs:
                    heappush(agenda, (costs[pair], before, begin, end))
            if end < size:
                after = ends[end]
                if (pair := text[begin:after]) in costs:
                    heappush(agenda, (costs[pair], begin, end, after))
            while left_out:
                heappush(agenda, left_out.pop())
        pieces, begin = [], 0
        while begin < size:
            pieces.append(self._pieces[text[begin : ends[begin]]].id)
            begin = ends[begin]
        return pieces


class _Luck:
    """Throws that fail with probability `rate`. Only failures are drawn: `left` throws succeed before the next one."""

    def __init__(self, rate: float, seed: int) -> None:
        self._scale = math.log1p(-rate) if 0 < rate < 1 else None
        self._always = sys.maxsize if rate <= 0 else 0
        self._random = random.Random(seed)
        self.left = self._draw()

    def _draw(self) -> int:
        return self._always if self._scale is None else int(math.log(1.0 - self._random.random()) / self._scale)

    def throw(self) -> bool:
        """Whether the next throw succeeds."""
        if self.left:
            self.left -= 1
            return True
        self.left = self._draw()
        return False


class UnigramSampling(Sampler):
    """Splits drawn with probability proportional to P(split) ** alpha (Kudo 2018), over all splits of each word.

    Forward filtering, once for each word, sums the weights of all ways to every position; backward sampling walks from the
    end, by those weights. Alpha 0 takes all splits alike, a large one the best.
    """

    def __init__(self, pieces: Sequence[Piece], alpha: float) -> None:
        super().__init__(pieces)
        self._alpha = alpha
        self._longest = max((len(piece.text) for piece in pieces), default=0)
        self._kept: dict[tuple[int, ...], list[_Arrivals]] = {}

    def __call__(self, ids: Sequence[int], seed: int) -> list[int]:
        """Another split, drawn piece by piece from the end of each word."""
        draw = random.Random(seed).random
        found: list[int] = []
        for word in self._words(ids):
            lattice = self._kept.get(word) or self._learn(word)
            position, split = len(lattice) - 1, []
            while position:
                limits, ways = lattice[position]
                position, id = ways[bisect(limits, draw())] if limits else ways[0]
                split.append(id)
            found += split[::-1]
        return found

    def _learn(self, word: tuple[int, ...]) -> list["_Arrivals"]:
        """For every position in the word, the pieces that end there, and how likely a random split comes by each."""
        text = self._text(word)
        lattice = self._filter(text) if text else [_Arrivals([], []), _Arrivals([], [(0, word[0])])]
        if self._has_room(text):
            self._kept[word] = lattice
        return lattice

    def _filter(self, text: str) -> list["_Arrivals"]:
        sums = [0.0]  # log of the summed weights of all ways to a position
        lattice = [_Arrivals([], [])]
        for end in range(1, len(text) + 1):
            starts = range(max(0, end - self._longest), end)
            ways = [
                (i, self._pieces[text[i:end]]) for i in starts if text[i:end] in self._pieces and sums[i] > -math.inf
            ]
            logs = [sums[i] + self._alpha * piece.score for i, piece in ways]
            top = max(logs, default=-math.inf)
            weights = [math.exp(log - top) for log in logs]
            total = sum(weights)
            sums.append(top + math.log(total) if weights else -math.inf)
            limits = [weight / total for weight in accumulate(weights[:-1])]  # the last way takes what is left
            lattice.append(_Arrivals(limits, [(i, piece.id) for i, piece in ways]))
        return lattice


class _Arrivals(NamedTuple):
    """Ways to arrive at a position: the cumulative probabilities of all but the last, and (where from, by which id)."""

    limits: list[float]
    ways: list[tuple[int, int]]


def sampler(proto: bytes, rate: float) -> Sampler | None:
    """The sampler for a serialized SentencePiece model; None if its kind has one split for each text."""
    kind, pieces = _read(proto)
    if kind == BPE:
        return BpeDropout(pieces, rate)
    return UnigramSampling(pieces, rate) if kind == UNIGRAM else None


def _read(proto: bytes) -> tuple[int, list[Piece]]:
    """The model type and the normal pieces of a ModelProto, which Python's SentencePiece does not tell."""
    kind, pieces, num_pieces = UNIGRAM, [], 0
    for number, value in _fields(proto):
        if number == 1:
            piece = dict(_fields(value))
            if piece.get(3, NORMAL) == NORMAL:
                score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
                pieces.append(Piece(piece[1].decode(), num_pieces, score))
            num_pieces += 1
        elif number == 2:
            kind = dict(_fields(value)).get(3, UNIGRAM)
    return kind, pieces


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: an int, or the bytes of any other type."""
    position = 0

    def varint() -> int:
        nonlocal position
        number = shift = 0
        while True:
            byte = message[position]
            position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while position < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            position += size
            yield key >> 3, message[position - size : position]
