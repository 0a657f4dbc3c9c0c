"""`s2s preprocess`: raw text in, a dataset folder out, and an account of every line left out.

The corpus streams through in blocks: worker processes decode, normalise, encode and filter, this process reads and
writes in order, so that memory does not grow with the corpus and the output is the same for any number of workers. The
folder is built beside its final name and renamed. This room knows no torch.
"""

import fcntl
import json
import multiprocessing
import os
import random
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import s2s_cli
from s2s_cli.config import PreprocessSettings
from s2s_cli.data.corpus import Block, blank, read_blocks, read_pairs
from s2s_cli.data.dataset import FORMAT, MANIFEST, VERSION
from s2s_cli.data.shards import ShardWriter
from s2s_cli.data.vocab import TextRules, Vocab, Vocabs, reuse
from s2s_cli.errors import DataError

VOCAB_SAMPLE = 1_000_000  # sentences a vocabulary is trained on, at most
MAX_DROPPED = 0.1
FIRST_LINES = 10  # line numbers kept for each reason
SHORT = 5  # sides of up to so many pieces may have any length ratio


@dataclass
class Drops:
    """Pairs left out for one reason: how many, and the first line numbers."""

    count: int = 0
    lines: list[int] = field(default_factory=list)

    def add(self, lines: Iterable[int], count: int) -> None:
        """Count more of them."""
        self.count += count
        self.lines = [*self.lines, *lines][:FIRST_LINES]


@dataclass
class Encoded:
    """A block as ids: kept pairs only, with the reasons for the others."""

    tokens: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
    lengths: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
    lines: npt.NDArray[np.int64]
    num_pairs: int
    drops: dict[str, Drops]


def preprocess(settings: PreprocessSettings) -> dict[str, Any]:
    """Write the dataset folder `settings.out` and return its manifest (the content of `dataset.json`).

    DataError if a text is not as it must be, if over a tenth of the pairs would be dropped, or if something that is no
    dataset stands where it shall be written; then nothing has changed.
    """
    _check_output(settings.out)
    with _fresh_folder(settings.out) as folder:
        vocabs = _vocabs(settings)
        vocabs.save(folder / "vocab")
        valid = _write_valid(settings, vocabs, folder)
        train = _write_train(settings, vocabs, folder)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "made_by": f"s2s {s2s_cli.__version__}",
            "train": train,
            "valid": valid,
            "vocab": {
                "shared": vocabs.shared,
                "src_size": len(vocabs.src),
                "tgt_size": len(vocabs.tgt),
                "fingerprints": vocabs.fingerprints,
            },
            "settings": settings.model_dump(mode="json", exclude={"out", "workers"}),
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def summary(manifest: dict[str, Any]) -> list[str]:
    """The account of a manifest in lines for a reader."""
    train, valid, vocab = manifest["train"], manifest["valid"], manifest["vocab"]
    sizes = (
        f"{vocab['src_size']:,} pieces shared"
        if vocab["shared"]
        else f"{vocab['src_size']:,} + {vocab['tgt_size']:,} pieces"
    )
    lines = [
        f"vocabulary: {sizes}",
        f"training: {train['kept']:,} of {train['pairs']:,} pairs kept, {train['src_tokens']:,} source and "
        f"{train['tgt_tokens']:,} target pieces",
    ]
    for reason, drop in train["drops"].items():
        lines.append(f"  dropped, {reason}: {drop['count']:,} (lines {_some(drop['lines'], drop['count'])})")
    lines.append(f"validation: {valid['pairs']:,} pairs, {valid['kept']:,} of them scored by loss")
    return lines


def _vocabs(settings: PreprocessSettings) -> Vocabs:
    """Reuse or train the vocabularies."""
    rules = TextRules(settings.normalize, settings.lowercase)
    if settings.shared_vocab:
        joint = reuse(settings.src_vocab, "src", rules) if settings.src_vocab else _train_vocab(settings, rules, "both")
        return Vocabs(joint, joint)
    src = reuse(settings.src_vocab, "src", rules) if settings.src_vocab else _train_vocab(settings, rules, "src")
    tgt = reuse(settings.tgt_vocab, "tgt", rules) if settings.tgt_vocab else _train_vocab(settings, rules, "tgt")
    return Vocabs(src, tgt)


def _train_vocab(settings: PreprocessSettings, rules: TextRules, side: Literal["src", "tgt", "both"]) -> Vocab:
    pairs = read_pairs(settings.train_src, settings.train_tgt)
    lines: Iterator[str]
    if side == "both":
        lines = chain.from_iterable((pair.src, pair.tgt) for pair in pairs)
    else:
        lines = (pair.src if side == "src" else pair.tgt for pair in pairs)
    return Vocab.train(
        _sample(_progress(lines, "vocabulary", "lines"), VOCAB_SAMPLE, settings.seed),
        size=settings.vocab_size,
        kind=settings.vocab_type,
        rules=rules,
        byte_fallback=settings.byte_fallback,
        character_coverage=settings.character_coverage,
    )


def _sample(lines: Iterable[str], size: int, seed: int) -> list[str]:
    """A uniform sample of at most `size` lines, the same for the same seed (reservoir sampling, Vitter 1985)."""
    rng = random.Random(seed)
    sample: list[str] = []
    for seen, line in enumerate(lines):
        if seen < size:
            sample.append(line)
        elif (slot := int(rng.random() * (seen + 1))) < size:
            sample[slot] = line
    return sample


def _write_train(settings: PreprocessSettings, vocabs: Vocabs, folder: Path) -> dict[str, Any]:
    blocks = read_blocks(settings.train_src, settings.train_tgt)
    account = _write_pairs(_encode_all(blocks, vocabs, settings), vocabs, folder / "train")
    dropped = account["pairs"] - account["kept"]
    if not account["pairs"]:
        raise DataError(f"{settings.train_src[0]}: the training text is empty")
    if not account["kept"] or (dropped > MAX_DROPPED * account["pairs"] and not settings.allow_drops):
        reasons = "; ".join(
            f"{reason} {drop['count']:,} (lines {_some(drop['lines'], drop['count'])})"
            for reason, drop in account["drops"].items()
        )
        fix = "repair the text, or go on with --allow-drops" if account["kept"] else "nothing is left to train on"
        raise DataError(f"{dropped:,} of {account['pairs']:,} training pairs would be dropped: {reasons}; {fix}")
    return account


def _write_valid(settings: PreprocessSettings, vocabs: Vocabs, folder: Path) -> dict[str, Any]:
    """The validation set: its text whole, its ids without the pairs that have a blank side."""
    blocks = list(read_blocks(settings.valid_src, settings.valid_tgt))
    if not blocks:
        raise DataError(f"{settings.valid_src[0]}: the validation text is empty")
    with (
        open(folder / "valid.src.txt", "w", encoding="utf-8", newline="") as src,
        open(folder / "valid.tgt.txt", "w", encoding="utf-8", newline="") as tgt,
    ):
        for pair in chain.from_iterable(block.pairs() for block in blocks):
            src.write(pair.src + "\n")
            tgt.write(pair.tgt + "\n")
    encoder = _Encoder(vocabs, max_len=None, max_ratio=None)
    return _write_pairs(map(encoder, blocks), vocabs, folder / "valid")


def _write_pairs(encoded: Iterable[Encoded], vocabs: Vocabs, stem: Path) -> dict[str, Any]:
    drops: dict[str, Drops] = {}
    num_pairs = 0
    with (
        ShardWriter(Path(f"{stem}.src"), len(vocabs.src)) as src,
        ShardWriter(Path(f"{stem}.tgt"), len(vocabs.tgt)) as tgt,
        open(f"{stem}.lines", "wb") as lines,
    ):
        for block in encoded:
            src.write(block.tokens[0], block.lengths[0])
            tgt.write(block.tokens[1], block.lengths[1])
            block.lines.astype("<i8").tofile(lines)
            num_pairs += block.num_pairs
            for reason, drop in block.drops.items():
                drops.setdefault(reason, Drops()).add(drop.lines, drop.count)
    return {
        "pairs": num_pairs,
        "kept": src.num_rows,
        "src_tokens": src.num_tokens,
        "tgt_tokens": tgt.num_tokens,
        "drops": {reason: {"count": drop.count, "lines": drop.lines} for reason, drop in sorted(drops.items())},
    }


@dataclass
class _Encoder:
    """What a worker does to a block: decode, encode, filter."""

    vocabs: Vocabs
    max_len: int | None
    max_ratio: float | None

    def __call__(self, block: Block) -> Encoded:
        pairs = list(block.pairs())
        reasons = {"blank": np.array([blank(pair.src) or blank(pair.tgt) for pair in pairs], bool)}
        src = self.vocabs.src.encode([pair.src for pair in pairs])
        tgt = self.vocabs.tgt.encode([pair.tgt for pair in pairs])
        src_len = np.fromiter(map(len, src), np.int32, len(src))
        tgt_len = np.fromiter(map(len, tgt), np.int32, len(tgt))
        longer, shorter = np.maximum(src_len, tgt_len), np.minimum(src_len, tgt_len)
        if self.max_len is not None:
            reasons["too long"] = longer > self.max_len
        if self.max_ratio is not None:
            reasons["length ratio"] = (longer > self.max_ratio * shorter) & (longer > SHORT)
        lines = np.arange(len(pairs), dtype=np.int64) + block.offset + block.first
        keep = np.ones(len(pairs), bool)
        drops = {}
        for reason, hit in reasons.items():
            hit = hit & keep  # the first reason that holds is the one counted
            if hit.any():
                drops[reason] = Drops(int(hit.sum()), lines[hit][:FIRST_LINES].tolist())
                keep &= ~hit
        return Encoded(
            (_flatten(src, keep, src_len), _flatten(tgt, keep, tgt_len)),
            (src_len[keep], tgt_len[keep]),
            lines[keep],
            len(pairs),
            drops,
        )


def _flatten(
    rows: list[list[int]], keep: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    kept = (row for row, yes in zip(rows, keep.tolist(), strict=True) if yes)
    return np.fromiter(chain.from_iterable(kept), np.int32, int(lengths[keep].sum()))


_worker_encoder: _Encoder  # in a worker process, set once by its initializer


def _start_worker(
    protos: tuple[bytes, bytes | None], rules: tuple[TextRules, TextRules], limits: tuple[int, float]
) -> None:
    global _worker_encoder
    src = Vocab(protos[0], rules[0])
    tgt = src if protos[1] is None else Vocab(protos[1], rules[1])
    _worker_encoder = _Encoder(Vocabs(src, tgt), *limits)


def _work(block: Block) -> Encoded:
    return _worker_encoder(block)


def _encode_all(blocks: Iterator[Block], vocabs: Vocabs, settings: PreprocessSettings) -> Iterator[Encoded]:
    """Encode blocks in worker processes, in order, a few ahead of the writer."""
    workers = settings.workers or len(os.sched_getaffinity(0))
    first = [block for _, block in zip(range(2), blocks, strict=False)]
    blocks = chain(first, blocks)
    bar = tqdm(desc="encoding", unit=" pairs", unit_scale=True, disable=not sys.stderr.isatty())
    with bar, ExitStack() as stack:
        results: Iterator[Encoded]
        if workers == 1 or len(first) < 2:  # processes would cost more than they bring
            results = map(_Encoder(vocabs, settings.max_len, settings.max_ratio), blocks)
        else:
            protos = vocabs.src.proto, None if vocabs.shared else vocabs.tgt.proto
            rules, limits = (vocabs.src.rules, vocabs.tgt.rules), (settings.max_len, settings.max_ratio)
            pool = ProcessPoolExecutor(
                workers,
                multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(protos, rules, limits),
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            results = _in_order(pool, blocks, ahead=2 * workers + 1)
        for encoded in results:
            bar.update(encoded.num_pairs)
            yield encoded


def _in_order(pool: ProcessPoolExecutor, blocks: Iterator[Block], ahead: int) -> Iterator[Encoded]:
    waiting: deque[Future[Encoded]] = deque()
    for block in blocks:
        waiting.append(pool.submit(_work, block))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _progress(items: Iterator[str], what: str, unit: str) -> Iterable[str]:
    return tqdm(items, desc=what, unit=f" {unit}", unit_scale=True, disable=not sys.stderr.isatty())


def _check_output(out: Path) -> None:
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: exists and is no dataset, so it is not overwritten; name another folder with -o")


@contextmanager
def _fresh_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes the name `out` only when all of it is written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    with _lock(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            _sync(partial)
            _replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """One writer at a time; the system lets go of the lock when a process dies, however it dies."""
    name = out.with_name(f".{out.name}.lock")
    with open(name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{out}: another preprocess is writing it; wait for it or name another folder with -o"
            ) from None
        try:
            yield
        finally:
            name.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _replace(new: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _some(lines: list[int], count: int) -> str:
    return ", ".join(map(str, lines)) + (", …" if count > len(lines) else "")
