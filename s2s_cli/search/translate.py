"""`s2s translate`: read, translate, write, and tell on stderr what happened to lines.

What is done to a line is the business of `translator.py`; here is what a command adds: files read side by side, windows,
formats, processes that share the work, and work that goes on after it was interrupted.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from s2s_cli import __version__
from s2s_cli.config import RuntimeSettings, ScoreSettings, SearchSettings, TranslateSettings
from s2s_cli.data.corpus import file_name, read_lines
from s2s_cli.data.ranks import Ranks
from s2s_cli.errors import BundleError, ConfigError, DataError
from s2s_cli.evaluation.pairwise import rouge_tokenizer
from s2s_cli.files import is_regular, place_of, sha256
from s2s_cli.runtime import keep_memory, tell
from s2s_cli.search.account import Lines, Seen
from s2s_cli.search.alignment import pharaoh
from s2s_cli.search.logprobs import formula
from s2s_cli.search.output import Output, perplexity, rows
from s2s_cli.search.partial import Writer, join_ranks, names_for
from s2s_cli.search.translator import Line, Translator

_STDIN = Path("-")
_SCORE = ScoreSettings()
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_OF_SEARCH = {
    *("beam", "beam_patience", "min_len", "min_len_ratio", "max_len", "max_len_ratio", "max_len_extra"),
    *("no_repeat_ngram", "repetition_penalty", "may_repeat", "ban", "allow_unk"),
}


def translate(
    settings: TranslateSettings,
    search: SearchSettings,
    runtime: RuntimeSettings,
    score: ScoreSettings = _SCORE,
) -> None:
    """The subcommand. Under `torchrun` each process translates every so many-th line, and the first joins what they wrote."""
    keep_memory()  # of the one process that searches, where no others do
    with Ranks() as ranks:
        seen, repaired = Seen(), dict[Path, Lines]()
        with ranks.step():
            settings = _settled(settings, ranks.world)
            translator = Translator(*settings.model, search=search, runtime=runtime, weights=settings.weight or None)
            translator.check(settings)
            if ranks.rank == 0:
                _remark(settings, search, runtime, translator)
            identity = None
            if _STDIN not in _outputs(settings) and all(path.is_file() for path in _inputs(settings)):
                identity = _identity(settings, translator, runtime, score, ranks.world)
        with ranks.step():
            if any(each != translator.checksums for each in ranks.each(translator.checksums)):
                raise BundleError("a model was replaced while processes read it: run this again")
            _write(translator, settings, score, ranks, identity, seen, repaired)
            translator.workers.close()
        with ranks.step():
            seen = _together(seen, ranks)
            if ranks.rank == 0:
                if ranks.world > 1:
                    join_ranks(_outputs(settings), ranks.world, settings.format == "tsv")
                _report(settings, translator.settings, seen, repaired)


def _remark(
    settings: TranslateSettings, given: SearchSettings, runtime: RuntimeSettings, translator: Translator
) -> None:
    """Tell which settings `given` are of no effect, and of a precision that nobody asked for."""
    before, now = translator.validated_in, translator.runtime.precision
    if runtime.precision == "auto" and before not in ("", now):
        tell(f"{now}, where the model was validated in {before}: this machine is no faster in that")
    if advice := translator.runtime.advice:
        tell(advice)
    fields = SearchSettings.model_fields
    said = {name for name in given.model_fields_set if getattr(given, name) != fields[name].default}
    idle = sorted({"temperature", "top_k", "top_p"} & said)
    if idle and not settings.samples:
        tell(f"{', '.join(idle)}: for sampling alone, and of no effect without --samples")
    if "alpha" in said and translator.settings.length_penalty == "none":
        tell("alpha: for a length penalty, and of no effect with --length-penalty none")
    if "beam_patience" in said and translator.settings.beam == 1:
        tell("beam_patience: for a beam, and of no effect with --beam 1")
    of_scores = {"length_penalty", "alpha", "coverage_penalty"}
    if translator.settings.beam == 1 and settings.format == "text" and (idle := sorted(of_scores & said)):
        tell(f"{', '.join(idle)}: for choosing in a beam, and of no effect on text with --beam 1")
    if settings.samples and (idle := sorted({"beam", "beam_patience"} & said)):
        tell(f"{', '.join(idle)}: for search alone, and of no effect with --samples")
    if "seed" in settings.model_fields_set and not settings.samples:
        tell("seed: for sampling alone, and of no effect without --samples")
    if settings.force and (idle := sorted(_OF_SEARCH & said)):
        tell(f"{', '.join(idle)}: for search alone, and of no effect with --force")


def _settled(settings: TranslateSettings, world: int) -> TranslateSettings:
    """The settings with what follows from them; ConfigError where they do not fit each other, or the machine."""
    _check_files(settings, world)
    changes: dict[str, Any] = {}
    if settings.alignments and settings.align == "no":
        changes["align"] = "words"
    if settings.format == "text":
        if settings.nbest > 1 and settings.mbr == "no":
            raise ConfigError("nbest needs a format that holds several hypotheses a line: add --format tsv or jsonl")
        if settings.samples > 1 and settings.mbr == "no":
            raise ConfigError("samples needs a format that holds several outputs a line: add --format tsv or jsonl")
        if settings.align != "no" and not settings.alignments:
            raise ConfigError("align: text holds no alignments: add --alignments FILE, or --format tsv or jsonl")
    if _STDIN in _inputs(settings) and sys.stdin.isatty():
        tell("reading lines from the keyboard; Ctrl-D at the beginning of a line ends them")
        if "flush_every" not in settings.model_fields_set:
            changes["flush_every"] = 1
    return settings.model_copy(update=changes)


def _check_files(settings: TranslateSettings, world: int) -> None:
    """ConfigError or DataError for files that cannot be read, or written, or not by so many processes."""
    named = _inputs(settings)
    if named.count(_STDIN) > 1:
        raise ConfigError("standard input is named twice, but can be read once: name a file instead")
    for path in named:
        if path != _STDIN and not path.exists():
            raise DataError(f"{path}: no such file")
    if world > 1 and not all(is_regular(path) for path in [*named, *_outputs(settings)]):
        raise ConfigError(
            "several processes share files, not pipes or standard input and output: name them with -i and -o"
        )
    taken = {os.path.realpath(path) for path in named if path != _STDIN and path.is_file()}
    for flag, path in zip(("-o", "--alignments"), _outputs(settings), strict=False):
        names = [path] if not is_regular(path) else names_for(path, world)
        if clash := [name for name in names if os.path.realpath(name) in taken]:
            raise ConfigError(f"{flag} would write over {clash[0]}: name another file")
        if path.suffix in _COMPRESSED:
            raise ConfigError(
                f"{flag} {path}: what is written is not compressed: leave out {path.suffix}, or compress it after"
            )
        taken.update(map(os.path.realpath, names))


def _inputs(settings: TranslateSettings) -> list[Path]:
    return [path for path in (settings.input, settings.prefix, settings.force) if path is not None]


def _outputs(settings: TranslateSettings) -> list[Path]:
    return [place_of(path) for path in (settings.output, settings.alignments) if path is not None]


def _identity(
    settings: TranslateSettings, translator: Translator, runtime: RuntimeSettings, score: ScoreSettings, world: int
) -> dict[str, Any]:
    """All that the output is made of: a command may go on with what another one left if this is the same. Where batches end, and
    on how many threads they are searched, is none of it: rounding apart, nothing depends on them.
    """
    files = {"model", "input", "output", "alignments", "prefix", "force"}
    identity: dict[str, Any] = {
        "version": __version__,
        "translate": settings.model_dump(mode="json", exclude=files | {"flush_every"}),
        "search": translator.settings.model_dump(mode="json", exclude={"search_tokens"}),
        "runtime": runtime.model_dump(mode="json", exclude={"compile", "deterministic", "threads"})
        | {"precision": translator.runtime.precision},
        "model": translator.checksums,
        "number of processes": world,
        "alignments": settings.alignments is not None,
    }
    if settings.mbr != "no":
        identity["score"] = score.model_dump(mode="json") | {"rouge_tokenizer": rouge_tokenizer(score)}
    for name in ("input", "prefix", "force"):
        if (path := getattr(settings, name)) is not None:
            identity[name] = sha256(path)
    return identity


def _write(
    translator: Translator,
    settings: TranslateSettings,
    score: ScoreSettings,
    ranks: Ranks,
    identity: dict[str, Any] | None,
    seen: Seen,
    repaired: dict[Path, Lines],
) -> None:
    """Translate the lines of this process in windows, and write each as it is done."""
    rank = ranks.rank if ranks.world > 1 else None
    with Writer(_outputs(settings), identity, rank) as writer, _progress(ranks.rank) as bar:
        if writer.account:
            seen.add(writer.account)
            bar.update(writer.lines)
        lines = islice(_read(settings, repaired), ranks.rank, None, ranks.world)
        for _ in islice(lines, writer.lines):
            pass
        while window := list(islice(lines, settings.flush_every)):
            found = translator.search_lines(window, settings, seen, bar.update, score, settings.format != "text")
            writer.write(list(_encoded(window, found, settings)), writer.lines + len(window), asdict(seen))


def _read(settings: TranslateSettings, repaired: dict[Path, Lines]) -> Iterator[Line]:
    """The lines of the source and of what goes with it; DataError if these are not as many."""
    paths = _inputs(settings)  # of which two may be the same
    replaced: list[list[int]] = [[] for _ in paths]
    texts = [read_lines(path, invalid="replace", replaced=found) for path, found in zip(paths, replaced, strict=True)]
    for number, sides in enumerate(zip_longest(*texts), start=1):
        if None in sides:
            names = sorted((line is not None, file_name(path)) for line, path in zip(sides, paths, strict=True))
            raise DataError(
                f"{names[0][1]} ends after line {number - 1:,}, but {names[1][1]} goes on: line N of one must belong to "
                "line N of the other"
            )
        if settings.force:
            yield Line(number, sides[0], tgt=sides[1])
        else:
            yield Line(number, sides[0], sides[1] if settings.prefix else settings.prefix_text)
    for path, numbers in zip(paths, replaced, strict=True):
        if numbers:
            repaired[path] = Lines()
            repaired[path].add(numbers)


def _encoded(window: list[Line], found: list[list[Output]], settings: TranslateSettings) -> Iterator[bytes]:
    """What a window adds to each of the files."""
    pairs = list(zip(window, found, strict=True))
    yield "".join(row for line, outputs in pairs for row in rows(line.number, outputs, settings)).encode()
    if settings.alignments:
        links = (pharaoh(outputs[0].alignment or []) if outputs else "" for outputs in found)
        yield "".join(f"{row}\n" for row in links).encode()


def _together(seen: Seen, ranks: Ranks) -> Seen:
    """The account of all processes."""
    if ranks.world == 1:
        return seen
    whole = Seen()
    for part in ranks.each(asdict(seen)):
        whole.add(part)
    return whole


def _report(settings: TranslateSettings, search: SearchSettings, seen: Seen, repaired: dict[Path, Lines]) -> None:
    """What the scores are that were written, and what happened to lines on their way."""
    if settings.format == "jsonl" or (settings.format == "tsv" and not settings.force and settings.mbr == "no"):
        unit = "" if search.length_penalty == "none" else ", length in pieces with the end"
        plain = settings.samples > 0 or settings.force is not None  # scores of what is drawn, or given, have no penalty
        ranked = search.model_copy(update={"repetition_penalty": 1.0}) if plain else search
        tell(f"{formula(ranked)}, in nats{unit}")
    for path, lines in repaired.items():
        name = "" if path == settings.input else f" of {file_name(path)}"
        tell(
            f"{lines.count} lines{name} were repaired, what is not valid UTF-8 became U+FFFD and a byte order mark "
            f"at the beginning was taken away: {lines}"
        )
    if seen.cut.count:
        tell(f"{seen.cut.count} lines were cut to {search.max_src_len} pieces (--max-src-len): {seen.cut}")
    if seen.split.count:
        tell(
            f"{seen.split.count} lines of more than {search.max_src_len} pieces (--max-src-len) were split, translated "
            f"in parts and joined: {seen.split}"
        )
    if seen.unknown.count:
        what = "outputs to score" if settings.force else "prefixes"
        tell(f"{seen.unknown.count} {what} have words that the vocabulary lacks, each an unknown piece: {seen.unknown}")
    if settings.force:
        if seen.unscored.count:
            tell(f"{seen.unscored.count} outputs of blank source lines were not scored: {seen.unscored}")
        tell(
            f"{seen.lines - seen.blank:,} outputs of {seen.pieces:,} pieces, their ends counted: "
            f"log-probability {seen.logp:.4f}, perplexity {perplexity(seen.logp, seen.pieces):.4f}"
        )


@contextlib.contextmanager
def _progress(rank: int) -> "Iterator[tqdm]":  # type: ignore[name-defined] # noqa: F821 - tqdm is imported when it is needed
    from tqdm import tqdm

    with tqdm(unit=" lines", disable=rank > 0 or not sys.stderr.isatty(), leave=False) as bar:
        yield bar
