"""Blocks of raw lines become blocks of ids, in worker processes: decode, tag, encode, filter, count.

Blocks go out and come back in order, a few at a time, so that memory does not grow with the corpus and the result is the
same for any number of processes. This room writes no files.
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, compress, islice

import numpy as np
import numpy.typing as npt

from s2s_cli.data.corpus import Block, blank
from s2s_cli.data.filters import Encodings, Lengths, Limits, Mask, marks
from s2s_cli.data.report import EXAMPLES, FIRST_LINES, Account, Found, Side, count_lengths, count_ratios, example
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.errors import DataError
from s2s_cli.worker import call, cores, start_pool

Ids = npt.NDArray[np.int32]


@dataclass
class Rows:
    """One side of a block: the ids of all rows in one array, and the length of each row."""

    ids: Ids
    lengths: Lengths

    def select(self, keep: Mask) -> "Rows":
        """Some of the rows."""
        return self if keep.all() else Rows(self.ids[np.repeat(keep, self.lengths)], self.lengths[keep])


@dataclass
class Encoded:
    """The kept pairs of a block as ids, and the account of the others."""

    src: Rows
    tgt: Rows
    lines: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]  # of each kept pair's text; empty if duplicates do not matter
    account: Account


@dataclass
class Encoder:
    """What is done to a block. `tags` has one for each source: what its source texts begin with."""

    vocabs: Vocabs
    limits: Limits
    tags: Sequence[str] = field(default_factory=tuple)

    def __call__(self, block: Block) -> Encoded:
        """Encode a block. DataError names the file and line of what cannot be read."""
        src_texts, tgt_texts = block.texts()
        tag = self.tags[block.source] if self.tags else ""
        src, src_uncut = _encode(self.vocabs.src, tagged(tag, src_texts), self.limits.src_truncate)
        tgt, tgt_uncut = _encode(self.vocabs.tgt, tgt_texts, self.limits.tgt_truncate)
        src_seen, tgt_seen = self.vocabs.src.seen(src_texts), self.vocabs.tgt.seen(tgt_texts)
        sources = Encodings(src_texts, src_seen, src.lengths, _count_unknown(src, self.vocabs.src.unk))
        targets = Encodings(tgt_texts, tgt_seen, tgt.lengths, _count_unknown(tgt, self.vocabs.tgt.unk))
        keep, account = self._filter(block, sources, targets)
        if not keep.all():
            src, tgt = src.select(keep), tgt.select(keep)
            src_texts, tgt_texts, src_seen, tgt_seen = (
                list(compress(texts, keep)) for texts in (src_texts, tgt_texts, src_seen, tgt_seen)
            )
        account.kept, account.src_tokens, account.tgt_tokens = len(src.lengths), len(src.ids), len(tgt.ids)
        account.src = _side(self.vocabs.src, src, src_texts, src_uncut[keep])
        account.tgt = _side(self.vocabs.tgt, tgt, tgt_texts, tgt_uncut[keep])
        account.ratios = count_ratios(src.lengths, tgt.lengths)
        hashes = _hashes(tag, src_seen, tgt_seen) if self.limits.find else np.zeros(0, np.uint64)
        return Encoded(src, tgt, np.array(block.lines, np.int64)[keep], hashes, account)

    def _filter(self, block: Block, sources: Encodings, targets: Encodings) -> tuple[Mask, Account]:
        """Which pairs to keep, and what was found on the way."""
        account = Account(pairs=block.size)
        keep = np.ones(block.size, np.bool_)
        kept_although: dict[str, Mask] = {}
        for name, mask, drop in marks(sources, targets, self.limits):
            if not mask.any():
                continue
            if drop:
                _count(account.drops, name, mask & keep, block, sources.texts, targets.texts)
                keep &= ~mask
            else:
                kept_although[name] = mask
        for name, mask in kept_although.items():
            _count(account.found, name, mask & keep, block, sources.texts, targets.texts)
        return keep, account


def tagged(tag: str, texts: list[str]) -> list[str]:
    """Source texts with a tag in front; a blank one stays blank."""
    return [text if blank(text) else f"{tag} {text}" for text in texts] if tag else texts


def encode_blocks(blocks: Iterator[Block], encoder: Encoder, workers: int) -> Iterator[Encoded]:
    """Encode blocks in that many processes (0: one for each core), in order."""
    workers = workers or cores()
    first = list(islice(blocks, 2))
    blocks = chain(first, blocks)
    if workers == 1 or len(first) < 2:  # processes would cost more than they bring
        yield from map(encoder, blocks)
        return
    # Forked workers start at once, with the vocabulary in memory that they share; macOS's own libraries forbid forking.
    pool = start_pool(encoder, workers, "fork" if sys.platform == "linux" else "spawn")
    waiting: deque[Future[Encoded]] = deque()
    try:
        for block in blocks:
            waiting.append(pool.submit(call, block))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process was killed, most likely for want of memory; run again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(vocab: Vocab, texts: Sequence[str], truncate: int) -> tuple[Rows, Lengths]:
    """The ids of texts, and how long each was before it was cut."""
    rows = vocab.encode(texts)
    uncut = lengths = np.fromiter(map(len, rows), np.int32, len(rows))
    if truncate and lengths.max(initial=0) > truncate:
        rows = [row[:truncate] for row in rows]
        lengths = np.minimum(lengths, truncate)
    return Rows(np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths), uncut


def _count_unknown(rows: Rows, unk: int) -> Lengths | None:
    unknown = rows.ids == unk
    if not unknown.any():
        return None
    sums = np.concatenate([[0], np.cumsum(unknown)])
    ends = np.cumsum(rows.lengths)
    return (sums[ends] - sums[ends - rows.lengths]).astype(np.int32)


def _side(vocab: Vocab, rows: Rows, texts: Sequence[str], uncut: Lengths) -> Side:
    return Side(
        pieces=len(rows.ids),
        pieces_uncut=int(uncut.sum()),
        words=" ".join(texts).count(" ") + 1 if texts else 0,
        unknown=int((rows.ids == vocab.unk).sum()),
        bytes=int(vocab.is_byte[rows.ids].sum()),
        cut=int((uncut > rows.lengths).sum()),
        lengths=count_lengths(rows.lengths),
    )


def _count(
    found: dict[str, Found], name: str, mask: Mask, block: Block, src_texts: Sequence[str], tgt_texts: Sequence[str]
) -> None:
    rows = np.flatnonzero(mask).tolist()
    if rows:
        lines = [block.lines[row] for row in rows[:FIRST_LINES]]
        examples = [
            example(f"{block.names[0]}:{block.first + row}", src_texts[row], tgt_texts[row]) for row in rows[:EXAMPLES]
        ]
        found.setdefault(name, Found()).add(Found(len(rows), lines, examples))


def _hashes(tag: str, src_texts: Sequence[str], tgt_texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """64 bits for each pair of texts under a tag, which tell it from others."""
    pairs = [f"{tag}\n{src}\n{tgt}".encode() for src, tgt in zip(src_texts, tgt_texts, strict=True)]
    return np.frombuffer(b"".join([blake2b(pair, digest_size=8).digest() for pair in pairs]), np.uint64)
