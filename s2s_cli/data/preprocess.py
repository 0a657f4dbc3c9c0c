"""`s2s preprocess`: raw text in, a dataset folder out, and an account of every line left out.

The corpus streams through in blocks: worker processes encode and filter, this process reads and writes, in order. What
is done to a block is said in `encoding`, what was found in `report`, where the folder stands until it is whole in
`output`, and how several machines share the work in `ranks`. This room knows no torch.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

import s2s_cli
from s2s_cli.config import PreprocessSettings
from s2s_cli.data.batching import repeats_of
from s2s_cli.data.corpus import STDIN, Block, Reader, Source, open_bytes, paired, read_blocks, read_lines
from s2s_cli.data.dataset import (
    FORMAT,
    MANIFEST,
    REPORT,
    VALID_SRC,
    VALID_TGT,
    VERSION,
    PairStore,
    PairWriter,
    read_text,
    write_text,
)
from s2s_cli.data.duplicates import Duplicates
from s2s_cli.data.encoding import Encoded, Encoder
from s2s_cli.data.filters import Limits
from s2s_cli.data.formats import Columns, Fields
from s2s_cli.data.output import fresh_folder, partial_folder, scratch_folder
from s2s_cli.data.ranks import Ranks
from s2s_cli.data.report import EXAMPLES, FIRST_LINES, Account, Found, example, reasons
from s2s_cli.data.vocab import TextRules, Vocab, Vocabs, reuse
from s2s_cli.errors import ConfigError, DataError

MAX_DROPPED = 0.1
COPY_ROWS = 1 << 16  # rows copied at a time


def preprocess(settings: PreprocessSettings) -> dict[str, Any]:
    """Write the dataset folder `settings.out` and return its report (the content of `report.json`).

    DataError if a text is not as it must be, if too much would be dropped or unknown, or if something that is no dataset
    stands where it shall be written; then nothing has changed.
    """
    with Ranks() as ranks, ExitStack() as stack:
        if ranks.world > 1 and (settings.dry_run or "-" in map(str, chain(*_files(settings)))):
            raise ConfigError("under torchrun there is no dry run and no standard input: start one process")
        if ranks.rank:
            return _assist(settings, ranks)
        with ranks.step():
            work: AbstractContextManager[str | Path] = fresh_folder(settings.out)
            if settings.dry_run:
                work = tempfile.TemporaryDirectory(prefix="s2s-")
            folder = Path(stack.enter_context(work))
            scratch = stack.enter_context(scratch_folder(folder))
            train, valid = _sources(settings, scratch)
            tags, valid_tags = _tags(settings, len(train), len(valid))
            vocabs = _vocabs(settings, train, sorted({piece for tag in tags + valid_tags for piece in tag.split()}))
            vocabs.save(folder / "vocab")
            valid_account = _write_valid(valid, vocabs, valid_tags, folder)
        num_lines = [0] * len(train)
        encoder = _encoder(settings, vocabs, tags, folder)
        encoded = ranks.encode(_counted(read_blocks(train), num_lines), encoder, settings.workers, scratch)
        with ranks.step():
            account = _write_train(encoded, encoder, folder, scratch)
            _check_account(account, settings)
            corpora = _corpora(settings, train, tags, num_lines, PairStore(folder / "train").lines)
            return _write_report(settings, vocabs, account, valid_account, corpora, folder)


def summary(report: dict[str, Any]) -> list[str]:
    """The account of a report in lines for a reader."""
    return list(report["summary"])


def _assist(settings: PreprocessSettings, ranks: Ranks) -> dict[str, Any]:
    """What every rank but the first does: wait for the vocabulary, encode its part, wait for the end."""
    folder = partial_folder(settings.out)
    with ranks.step():
        pass
    train, valid = _sources(settings, folder)
    tags, _ = _tags(settings, len(train), len(valid))
    encoder = _encoder(settings, Vocabs.load(folder / "vocab"), tags, folder)
    ranks.encode(read_blocks(train), encoder, settings.workers, folder / ".scratch")
    with ranks.step():
        return {"summary": []}


# what is read


def _sources(settings: PreprocessSettings, scratch: Path) -> tuple[list[Source], list[Source]]:
    """Training and validation sources. Standard input, which can be read but once, is copied to `scratch` first."""
    files = _files(settings)
    if sum(str(path) == "-" for path in chain(*files)) > 1:
        raise ConfigError("standard input (-) is named twice, and can be read once")
    train_src, train_tgt, valid_src, valid_tgt = (
        [_copy_stdin(scratch) if str(path) == "-" else path for path in paths] for paths in files
    )
    if not (settings.tsv or settings.jsonl):
        return paired(train_src, train_tgt), paired(valid_src, valid_tgt)
    reader: Reader = Columns(settings.src_column, settings.tgt_column)
    if settings.jsonl:
        reader = Fields(settings.src_field, settings.tgt_field)
    return [Source((path,), reader) for path in train_src], [Source((path,), reader) for path in valid_src]


def _files(settings: PreprocessSettings) -> tuple[list[Path], list[Path], list[Path], list[Path]]:
    """Training and validation files, source and target side."""
    if settings.tsv or settings.jsonl:
        return settings.train, [], settings.valid, []
    return settings.train_src, settings.train_tgt, settings.valid_src, settings.valid_tgt


def _copy_stdin(scratch: Path) -> Path:
    with open_bytes("-") as stream, open(scratch / STDIN, "wb") as copy:
        shutil.copyfileobj(stream, copy)
    return scratch / STDIN


def _tags(settings: PreprocessSettings, num_train: int, num_valid: int) -> tuple[list[str], list[str]]:
    """The tag of each training and of each validation source; empty where there is none."""
    tags = settings.tag or [""] * num_train
    if settings.valid_tag:
        return tags, settings.valid_tag
    if len(set(tags)) > 1:
        raise ConfigError("the training files have different tags: name valid_tag for each validation file too")
    return tags, tags[:1] * num_valid


def _vocabs(settings: PreprocessSettings, sources: list[Source], tags: list[str]) -> Vocabs:
    """Reuse or train the vocabularies. Tags are pieces of the source side."""
    reserved = [*settings.reserved, *(f"<extra_id_{i}>" for i in range(settings.sentinels))]
    rules = TextRules(settings.normalize, settings.lowercase)

    def vocab(side: Literal["src", "tgt", "both"], path: Path | None) -> Vocab:
        side_tags = [] if side == "tgt" else tags
        if path is not None:
            return reuse(path, "tgt" if side == "tgt" else "src", rules, side_tags, reserved)
        sample = _sample(_lines(sources, side), settings.vocab_sample, settings.seed)
        if not any(sample):
            raise DataError(f"{sources[0].name}: the training text is empty")
        return Vocab.train(
            sample,
            size=settings.vocab_size,
            kind=settings.vocab_type,
            rules=rules,
            byte_fallback=settings.byte_fallback,
            character_coverage=settings.character_coverage,
            symbols=settings.symbol,
            reserved=reserved,
            tags=side_tags,
        )

    if settings.shared_vocab:
        joint = vocab("both", settings.src_vocab)
        return Vocabs(joint, joint)
    return Vocabs(vocab("src", settings.src_vocab), vocab("tgt", settings.tgt_vocab))


def _lines(sources: list[Source], side: Literal["src", "tgt", "both"]) -> Iterator[str]:
    for block in _progress(read_blocks(sources), "vocabulary"):
        src, tgt = block.texts()
        if side != "tgt":
            yield from src
        if side != "src":
            yield from tgt


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


def _encoder(settings: PreprocessSettings, vocabs: Vocabs, tags: list[str], folder: Path) -> Encoder:
    """What is done to the training text; sources of validation and test text are looked for in it."""
    held_out = chain(read_text(folder / VALID_SRC), *map(read_lines, settings.test_src))
    return Encoder(vocabs, Limits.of(settings, held_out), tags)


def _counted(blocks: Iterator[Block], num_lines: list[int]) -> Iterator[Block]:
    """The blocks, the lines of each source being counted as they pass."""
    for block in _progress(blocks, "encoding"):
        num_lines[block.source] += block.size
        yield block


# what is written


def _write_valid(sources: list[Source], vocabs: Vocabs, tags: list[str], folder: Path) -> Account:
    """The validation set: its text whole, tags included, and the ids of the pairs without a blank side."""
    blocks = list(read_blocks(sources))
    if not blocks:
        raise DataError(f"{sources[0].name}: the validation text is empty")
    src_texts, tgt_texts = [], []
    for block in blocks:
        src, tgt = block.texts()
        tag = tags[block.source]
        src_texts += [f"{tag} {text}" for text in src] if tag else src
        tgt_texts += tgt
    write_text(folder / VALID_SRC, src_texts)
    write_text(folder / VALID_TGT, tgt_texts)
    account = Account()
    with PairWriter(folder / "valid", vocabs) as writer:
        for encoded in map(Encoder(vocabs, Limits(), tags), blocks):
            _write_block(writer, encoded)
            account.add(encoded.account)
    return account


def _write_train(blocks: Iterator[Encoded], encoder: Encoder, folder: Path, scratch: Path) -> Account:
    """Write the training pairs; their account."""
    account = Account()
    drop = encoder.limits.drop_duplicates
    stem = scratch / "train" if drop else folder / "train"
    with Duplicates(scratch / "duplicates") as duplicates:
        with PairWriter(stem, encoder.vocabs) as writer:
            for encoded in blocks:
                _write_block(writer, encoded)
                duplicates.add(encoded.hashes)
                account.add(encoded.account)
        store, mask = PairStore(stem), duplicates.mask()
        found = _count_duplicates(store, mask, encoder.vocabs)
        if found.count:
            (account.drops if drop else account.found)["duplicate"] = found
        if drop:
            _copy_unique(store, mask, encoder.vocabs, folder / "train", account)
    return account


def _write_block(writer: PairWriter, encoded: Encoded) -> None:
    src, tgt = encoded.src, encoded.tgt
    writer.write((src.ids, src.lengths), (tgt.ids, tgt.lengths), encoded.lines)


def _count_duplicates(store: PairStore, mask: np.ndarray, vocabs: Vocabs) -> Found:
    """The pairs that stood there before."""
    found = Found()
    for start in range(0, len(store), COPY_ROWS):
        rows = (start + np.flatnonzero(mask[start : start + COPY_ROWS])).tolist()
        examples = [
            example(
                f"line {store.line(row)}",
                vocabs.src.decode(store.src(row).tolist()),
                vocabs.tgt.decode(store.tgt(row).tolist()),
            )
            for row in rows[:EXAMPLES]
        ]
        found.add(Found(len(rows), [store.line(row) for row in rows[:FIRST_LINES]], examples))
    return found


def _copy_unique(store: PairStore, mask: np.ndarray, vocabs: Vocabs, stem: Path, account: Account) -> None:
    """Write the pairs anew without those that stood there before."""
    account.kept = account.src_tokens = account.tgt_tokens = 0
    with PairWriter(stem, vocabs) as writer:
        for start in range(0, len(store), COPY_ROWS):
            stop = min(start + COPY_ROWS, len(store))
            keep = ~mask[start:stop]
            *sides, lines = store.slice(start, stop)
            src, tgt = ((ids[np.repeat(keep, lengths)], lengths[keep]) for ids, lengths in sides)
            writer.write(src, tgt, lines[keep])
            account.kept += int(keep.sum())
            account.src_tokens += len(src[0])
            account.tgt_tokens += len(tgt[0])


def _check_account(account: Account, settings: PreprocessSettings) -> None:
    """The gates: refuse what is most likely a mistake."""
    if not account.pairs:
        raise DataError("the training text is empty")
    why = f"{account.dropped:,} of {account.pairs:,} training pairs would be dropped: {reasons(account.drops)}"
    if not account.kept:
        raise DataError(f"{why}; nothing is left to train on")
    if account.dropped > MAX_DROPPED * account.pairs and not settings.allow_drops:
        raise DataError(f"{why}; repair the text, change the limits, or go on with --allow-drops")
    if account.unknown_rate > settings.max_unknown_rate and not settings.allow_unknown:
        raise DataError(
            f"{account.unknown_rate:.1%} of the pieces are unknown to the vocabulary: use another one, byte_fallback, "
            "a larger vocab_size, or go on with --allow-unknown"
        )


def _corpora(
    settings: PreprocessSettings, sources: list[Source], tags: list[str], num_lines: list[int], lines: np.ndarray
) -> list[dict[str, Any]]:
    """What the manifest says of each training source; `lines` are the line numbers of all kept pairs."""
    names = settings.corpus or [source.name for source in sources]
    weights = settings.weight or [1.0] * len(sources)
    first_lines = np.cumsum([1, *num_lines])
    first_rows = np.searchsorted(lines, first_lines).tolist()
    kept = np.diff(first_rows).tolist()
    repeats = repeats_of(kept, weights, settings.temperature)
    return [
        {
            "name": names[i],
            "files": [str(file) if file.name != STDIN else STDIN for file in source.files],
            "tag": tags[i],
            "first_line": int(first_lines[i]),
            "lines": num_lines[i],
            "first_row": first_rows[i],
            "kept": kept[i],
            "weight": weights[i],
            "repeats": round(repeats[i], 6),
        }
        for i, source in enumerate(sources)
    ]


def _write_report(
    settings: PreprocessSettings,
    vocabs: Vocabs,
    account: Account,
    valid_account: Account,
    corpora: list[dict[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    """Write `dataset.json`, which the other commands read, and `report.json`, which has the whole account."""
    facts = {
        "vocab": {
            "shared": vocabs.shared,
            "src_size": len(vocabs.src),
            "tgt_size": len(vocabs.tgt),
            "fingerprints": vocabs.fingerprints,
        },
        "corpora": corpora,
        "length_ratio": account.length_ratio(),
        "settings": settings.model_dump(mode="json", exclude={"out", "workers", "dry_run"}),
    }
    head = {"format": FORMAT, "version": VERSION, "made_by": f"s2s {s2s_cli.__version__}"}
    _write_json(folder / MANIFEST, {**head, "train": account.counts(), "valid": valid_account.counts(), **facts})
    lines = [*_vocab_lines(vocabs, settings), "training:", *account.lines(), "validation:", *valid_account.lines()]
    report = {**head, "train": account.as_dict(), "valid": valid_account.as_dict(), **facts, "summary": lines}
    _write_json(folder / REPORT, report)
    return report


def _vocab_lines(vocabs: Vocabs, settings: PreprocessSettings) -> Iterator[str]:
    sizes = (
        f"{len(vocabs.src):,} pieces, shared" if vocabs.shared else f"{len(vocabs.src):,} + {len(vocabs.tgt):,} pieces"
    )
    yield f"vocabulary: {sizes}"
    if settings.vocab_type != "byte" and min(len(vocabs.src), len(vocabs.tgt)) < settings.vocab_size:
        yield f"  fewer than the {settings.vocab_size:,} asked for: the text, or the vocabulary reused, has no more"
    for side, vocab in (("source", vocabs.src), ("target", vocabs.tgt)):
        if vocab.rules != TextRules(settings.normalize, settings.lowercase):
            yield f"  {side}: normalisation and case as the vocabulary reused has them ({vocab.rules})"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _progress(blocks: Iterator[Block], what: str) -> Iterator[Block]:
    """A progress bar over lines, on a terminal only."""
    shown = sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"
    with tqdm(desc=what, unit=" lines", unit_scale=True, disable=not shown) as bar:
        for block in blocks:
            yield block
            bar.update(block.size)
