"""`s2s preprocess`: raw text in, a dataset folder out, and an account of every line left out.

The corpus streams through in blocks: worker processes encode and filter, this process reads and writes, in order. What
is read is said in `inputs`, what is done to a block in `encoding`, what was found in `report`, where the folder stands
until it is whole in `output`, and how several machines share the work in `ranks`. This room knows no torch.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np

import s2s_cli
from s2s_cli.config import PreprocessSettings
from s2s_cli.data.batching import repeats_of
from s2s_cli.data.corpus import LINE_RULE, STDIN, Block, read_blocks
from s2s_cli.data.dataset import (
    FORMAT,
    MANIFEST,
    REPORT,
    VALID_SRC,
    VALID_TGT,
    VERSION,
    PairStore,
    PairWriter,
    checksums,
    write_text,
)
from s2s_cli.data.duplicates import Duplicates
from s2s_cli.data.encoding import Encoded, Encoder, tagged
from s2s_cli.data.filters import Limits
from s2s_cli.data.inputs import Inputs, lines_of, progress, reads_stdin, sample
from s2s_cli.data.output import fresh_folder, scratch_folder
from s2s_cli.data.ranks import Ranks
from s2s_cli.data.report import EXAMPLES, FIRST_LINES, Account, Found, example, reasons
from s2s_cli.data.spm import short
from s2s_cli.data.vocab import SENTINEL, TextRules, Vocab, Vocabs, is_shared, reuse
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.files import beside
from s2s_cli.worker import tidy_end

MAX_DROPPED = 0.1
_OF_A_NEW_VOCABULARY = {"vocab_type", "vocab_size", "vocab_sample", "byte_fallback", "character_coverage"}
COPY_ROWS = 1 << 16  # rows copied at a time


def preprocess(settings: PreprocessSettings) -> dict[str, Any]:
    """Write the dataset folder `settings.out` and return its report (the content of `report.json`).

    DataError if a text is not as it must be, if too much would be dropped or unknown, or if something that is no dataset
    stands where it shall be written; then nothing has changed.
    """
    with tidy_end(), Ranks() as ranks, ExitStack() as stack:
        if ranks.world > 1 and (settings.dry_run or reads_stdin(settings)):
            raise ConfigError("under torchrun there is no dry run and no standard input: start one process")
        if ranks.rank:
            return _assist(settings, ranks)
        with ranks.step():
            work: AbstractContextManager[str | Path] = fresh_folder(settings.out)
            if settings.dry_run:
                work = tempfile.TemporaryDirectory(prefix="s2s-")
            folder = Path(stack.enter_context(work))
            scratch = stack.enter_context(scratch_folder(folder))
            inputs = Inputs.of(settings, scratch)
            limits, held_out = Limits.of(settings), list(inputs.held_out())  # first: a vocabulary takes its time
            vocabs = _vocabs(settings, inputs)
            limits = limits.beside(held_out, vocabs.src.rules)
            vocabs.save(folder / "vocab")
            valid_account = _write_valid(inputs, vocabs, folder)
        with ranks.step():  # in which the others read what is written now
            num_lines = [0] * len(inputs.train)
            encoder = Encoder(vocabs, limits, inputs.tags)
        encoded = ranks.encode(_counted(read_blocks(inputs.train), num_lines), encoder, settings.workers, scratch)
        with ranks.step():
            account = _write_train(encoded, encoder, lambda line: inputs.where(line, num_lines), folder, scratch)
            _check_account(account, settings, inputs)
            corpora = _corpora(settings, inputs, num_lines, PairStore(folder / "train").lines)
            return _write_report(settings, vocabs, account, valid_account, corpora, folder)


def _assist(settings: PreprocessSettings, ranks: Ranks) -> dict[str, Any]:
    """What every rank but the first does: wait for the vocabulary, encode its part, wait for the end."""
    folder = beside(settings.out)
    with ranks.step():
        pass
    with ranks.step():
        inputs = Inputs.of(settings, folder)
        vocabs = Vocabs.load(folder / "vocab")
        encoder = Encoder(vocabs, Limits.of(settings).beside(inputs.held_out(), vocabs.src.rules), inputs.tags)
    ranks.encode(read_blocks(inputs.train), encoder, settings.workers, folder / ".scratch")
    with ranks.step():
        return {"summary": []}


def _vocabs(settings: PreprocessSettings, inputs: Inputs) -> Vocabs:
    """Reuse or train the vocabularies. Tags are pieces of the source side."""
    reserved = [*settings.reserved, *(f"{SENTINEL}{i}>" for i in range(settings.sentinels))]
    rules = TextRules(settings.normalize, settings.lowercase)

    def vocab(side: Literal["src", "tgt", "both"], path: Path | None) -> Vocab:
        tags = [] if side == "tgt" else inputs.tag_pieces
        if path is not None:
            return reuse(path, "tgt" if side == "tgt" else "src", rules, tags, reserved, settings.symbol)
        text = short(lines_of(inputs.train, side), settings.vocab_type)
        lines = sample(text, settings.vocab_sample, settings.seed)
        if not any(lines):
            raise DataError(f"{inputs.train[0].name}: the training text is empty")
        return Vocab.train(
            lines,
            size=settings.vocab_size,
            kind=settings.vocab_type,
            rules=rules,
            byte_fallback=settings.byte_fallback,
            character_coverage=settings.character_coverage,
            symbols=settings.symbol,
            reserved=reserved,
            tags=tags,
        )

    if settings.shared_vocab:
        if settings.src_vocab is not None and not is_shared(settings.src_vocab):
            raise ConfigError(
                f"{settings.src_vocab}: has a vocabulary for each side: give it as src_vocab and as tgt_vocab, with "
                "--no-shared-vocab"
            )
        joint = vocab("both", settings.src_vocab)
        return Vocabs(joint, joint)
    return Vocabs(vocab("src", settings.src_vocab), vocab("tgt", settings.tgt_vocab))


def _counted(blocks: Iterator[Block], num_lines: list[int]) -> Iterator[Block]:
    """The blocks, the lines of each source being counted as they pass."""
    for block in progress(blocks, "encoding"):
        num_lines[block.source] += block.size
        yield block


# what is written


def _write_valid(inputs: Inputs, vocabs: Vocabs, folder: Path) -> Account:
    """The validation set: its text whole, tags included, and the ids of the pairs without a blank side."""
    blocks = list(read_blocks(inputs.valid))
    if not blocks:
        raise DataError(f"{inputs.valid[0].name}: the validation text is empty")
    src_texts, tgt_texts = [], []
    for block in blocks:
        src, tgt = block.texts()
        src_texts += tagged(inputs.valid_tags[block.source], src)
        tgt_texts += tgt
    write_text(folder / VALID_SRC, src_texts)
    write_text(folder / VALID_TGT, tgt_texts)
    account = Account()
    with PairWriter(folder / "valid", vocabs) as writer:
        for encoded in map(Encoder(vocabs, Limits(), inputs.valid_tags), blocks):
            _write_block(writer, encoded)
            account.add(encoded.account)
    return account


def _write_train(
    blocks: Iterator[Encoded], encoder: Encoder, where: Callable[[int], str], folder: Path, scratch: Path
) -> Account:
    """Write the training pairs; their account. `where` gives file and line of a line number."""
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
        found = _count_duplicates(store, mask, encoder.vocabs, where)
        if found.count:
            (account.drops if drop else account.found)["duplicate"] = found
        if drop:
            _copy_unique(store, mask, encoder.vocabs, folder / "train", account)
    return account


def _write_block(writer: PairWriter, encoded: Encoded) -> None:
    src, tgt = encoded.src, encoded.tgt
    writer.write((src.ids, src.lengths), (tgt.ids, tgt.lengths), encoded.lines)


def _count_duplicates(store: PairStore, mask: np.ndarray, vocabs: Vocabs, where: Callable[[int], str]) -> Found:
    """The pairs that stood there before."""
    found = Found()
    for start in range(0, len(store), COPY_ROWS):
        rows = (start + np.flatnonzero(mask[start : start + COPY_ROWS])).tolist()
        examples = [
            example(
                where(store.line(row)),
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


def _check_account(account: Account, settings: PreprocessSettings, inputs: Inputs) -> None:
    """The gates: refuse what is most likely a mistake."""
    if not account.pairs:
        raise DataError(f"{inputs.train[0].name}: the training text is empty")
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
    settings: PreprocessSettings, inputs: Inputs, num_lines: list[int], lines: np.ndarray
) -> list[dict[str, Any]]:
    """What the manifest says of each training source; `lines` are the line numbers of all kept pairs."""
    sources = inputs.train
    names = settings.corpus or [source.name for source in sources]
    weights = settings.weight or [1.0] * len(sources)
    first_lines = np.cumsum([1, *num_lines])
    first_rows = np.searchsorted(lines, first_lines).tolist()
    kept = np.diff(first_rows).tolist()
    repeats = repeats_of(kept, weights, settings.temperature)
    if sum(kept) > 0 and not any(n * round(times, 6) >= 1.0 for n, times in zip(kept, repeats, strict=True)):
        raise ConfigError(
            f"with these weights ({', '.join(map(str, weights))}) no corpus has a pair in each epoch: raise them"
        )
    return [
        {
            "name": names[i],
            "files": [str(file) if file.name != STDIN else STDIN for file in source.files],
            "tag": inputs.tags[i],
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
        "line_rule": LINE_RULE,
        "settings": settings.model_dump(mode="json", exclude={"out", "workers", "dry_run"}),
    }
    head = {"format": FORMAT, "version": VERSION, "made_by": f"s2s {s2s_cli.__version__}"}
    counts = {"train": account.counts(), "valid": valid_account.counts()}
    _write_json(folder / MANIFEST, {**head, **counts, **facts, "files": checksums(folder)})
    lines = [*_vocab_lines(vocabs, settings), "training:", *account.lines(), "validation:", *valid_account.lines()]
    report = {**head, "train": account.as_dict(), "valid": valid_account.as_dict(), **facts, "summary": lines}
    _write_json(folder / REPORT, report)
    return report


def _vocab_lines(vocabs: Vocabs, settings: PreprocessSettings) -> Iterator[str]:
    sizes = (
        f"{len(vocabs.src):,} pieces, shared" if vocabs.shared else f"{len(vocabs.src):,} + {len(vocabs.tgt):,} pieces"
    )
    reused = [path for path in (settings.src_vocab, settings.tgt_vocab) if path]
    yield f"vocabulary: {sizes}{', reused from ' + ', '.join(map(str, reused)) if reused else ''}"
    if len(reused) == (1 if settings.shared_vocab else 2):
        if idle := sorted(_OF_A_NEW_VOCABULARY & settings.model_fields_set):
            yield f"  {', '.join(idle)}: for a new vocabulary, and of no effect on one that is reused"
    elif settings.vocab_type != "byte" and min(len(vocabs.src), len(vocabs.tgt)) < settings.vocab_size:
        yield f"  fewer than the {settings.vocab_size:,} asked for: the text, or the vocabulary reused, has no more"
    for side, vocab in (("source", vocabs.src), ("target", vocabs.tgt)):
        if vocab.rules != TextRules(settings.normalize, settings.lowercase):
            yield f"  {side}: normalisation and case as the vocabulary reused has them ({vocab.rules})"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # a name that is not UTF-8, as JSON escapes it
