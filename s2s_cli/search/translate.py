"""`s2s translate`, and the one way from source lines to target lines: the command, validation and Python users share it.

N lines in, N lines out. A blank line stays blank and never meets the model; an over-long one is cut and reported.
Sentences are searched in batches of like length; their order, and where windows of the input end, show in nothing.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

import torch

from s2s_cli.checkpoint.bundle import find_bundle, open_bundle
from s2s_cli.config import RuntimeSettings, SearchSettings, TranslateSettings
from s2s_cli.data.corpus import blank, read_lines
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError, ConfigError, S2SError
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import Runtime, tell
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.strategies import Hypothesis, Specials, beam_search, limits_for

Tick = Callable[[int], object]


@dataclass
class Seen:
    """What happened to lines on their way, by line number from 1."""

    lines: int = 0
    blank: int = 0
    cut: list[int] = field(default_factory=list)


class Translator:
    """Models and vocabularies, ready to translate. `Translator.load("run").translate(["…"])` is all that most need."""

    def __init__(
        self,
        models: list[Seq2Seq],
        vocabs: Vocabs,
        search: SearchSettings,
        runtime: Runtime,
        max_src_len: int = 1024,
    ) -> None:
        self.model = Ensemble(models)
        self.vocabs, self.search, self.runtime, self.max_src_len = vocabs, search, runtime, max_src_len
        tgt = vocabs.tgt
        self.specials = Specials(bos=tgt.bos, eos=tgt.eos, banned=(tgt.pad, tgt.unk, tgt.bos))

    @classmethod
    def load(
        cls,
        *paths: str | Path,
        search: SearchSettings | None = None,
        runtime: Runtime | None = None,
        max_src_len: int = 1024,
    ) -> "Translator":
        """From run folders or bundles; several make an ensemble, which must share one vocabulary.

        Of `search`, the fields that were given count; the others are as the (first) model was validated.
        """
        runtime = runtime or Runtime.start(RuntimeSettings())
        bundles = [open_bundle(find_bundle(Path(path))) for path in paths]
        for other in bundles[1:]:
            if other.vocabs.fingerprints != bundles[0].vocabs.fingerprints:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} have different vocabularies: an ensemble shares one"
                )
        settings = bundles[0].search
        if search is not None:
            settings = SearchSettings.model_validate(settings.model_dump() | search.model_dump(exclude_unset=True))
        models = [bundle.load_model(runtime.device) for bundle in bundles]
        return cls(models, bundles[0].vocabs, settings, runtime, max_src_len)

    def translate(self, lines: list[str], tick: Tick | None = None) -> list[str]:
        """One target line for each source line."""
        windows = self.search_windows(iter(lines), TranslateSettings().window, tick=tick)
        return [self.text(hypotheses) for window in windows for hypotheses in window]

    def search_windows(
        self,
        lines: Iterator[str],
        size: int,
        num_best: int = 1,
        seen: Seen | None = None,
        tick: Tick | None = None,
    ) -> Iterator[list[list[Hypothesis]]]:
        """`search_lines` over so many lines at a time: a stream of any length in bounded memory."""
        while window := list(islice(lines, size)):
            yield self.search_lines(window, num_best, seen, tick)

    def text(self, hypotheses: list[Hypothesis]) -> str:
        """The best hypothesis as text; nothing for a blank line."""
        # A carriage return at the end would be taken for a part of the line end by whoever reads the output.
        return self.vocabs.tgt.decode(hypotheses[0].ids).rstrip("\r") if hypotheses else ""

    def search_lines(
        self, lines: list[str], num_best: int = 1, seen: Seen | None = None, tick: Tick | None = None
    ) -> list[list[Hypothesis]]:
        """The best hypotheses of each line, best first; none for a blank line. `tick` hears of each batch of lines done."""
        seen = seen if seen is not None else Seen()
        results: list[list[Hypothesis]] = [[] for _ in lines]
        full = [i for i, line in enumerate(lines) if not blank(line)]
        ids = dict(zip(full, self.vocabs.src.encode([lines[i] for i in full]), strict=True))
        first = seen.lines + 1
        seen.cut += [first + i for i in full if len(ids[i]) > self.max_src_len]
        seen.blank += len(lines) - len(full)
        seen.lines += len(lines)
        todo = [i for i in full if ids[i]]
        for batch in self._batches(sorted(todo, key=lambda i: len(ids[i])), ids):
            found = self._search([ids[i][: self.max_src_len] for i in batch], num_best)
            for i, hypotheses in zip(batch, found, strict=True):
                if not hypotheses:
                    raise S2SError(f"the model gives line {first + i} no output of finite probability: it has diverged")
                results[i] = hypotheses
            if tick is not None:
                tick(len(batch))
        return results

    def _batches(self, order: list[int], ids: dict[int, list[int]]) -> Iterator[list[int]]:
        """Lines of like length, so many that positions times beam stay within the budget."""
        batch: list[int] = []
        for i in order:  # from short to long: the last of a batch is its longest
            positions = min(len(ids[i]), self.max_src_len) + 1
            if batch and (len(batch) + 1) * positions * self.search.beam > self.search.search_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    @torch.inference_mode()
    def _search(self, sources: list[list[int]], num_best: int) -> list[list[Hypothesis]]:
        eos, pad, device = self.vocabs.src.eos, self.vocabs.src.pad, self.runtime.device
        src_len = torch.tensor([len(ids) + 1 for ids in sources])
        src = torch.full((len(sources), int(src_len.max())), pad)
        for row, ids in enumerate(sources):
            src[row, : len(ids) + 1] = torch.tensor([*ids, eos])
        with self.runtime.autocast():
            memory = self.model.encode(src.to(device), src_len.to(device))
            return beam_search(
                self.model.step,
                memory,
                self.model.start(memory),
                limits_for([len(ids) for ids in sources], self.search),
                self.specials,
                self.search,
                num_best,
            )


def translate(settings: TranslateSettings, search: SearchSettings, runtime: RuntimeSettings) -> None:
    """The subcommand: read, translate, write, and tell on stderr what happened to lines."""
    if settings.nbest > 1 and settings.format == "text":
        raise ConfigError("nbest needs a format that holds several hypotheses a line: add --format tsv or jsonl")
    if settings.input != Path("-") and not settings.input.exists():
        raise S2SError(f"{settings.input} does not exist: name the source text with -i, or - for standard input")
    translator = Translator.load(
        *settings.model, search=search, runtime=Runtime.start(runtime), max_src_len=settings.max_src_len
    )
    if settings.nbest > translator.search.beam:
        raise ConfigError(f"nbest ({settings.nbest}) is more than beam ({translator.search.beam}): raise --beam")
    seen = Seen()
    with _writer(settings.output) as out, _progress() as bar:
        for hypotheses in _translations(translator, settings, seen, bar.update):
            out.write("".join(_rows(translator, hypotheses, seen, settings.format)).encode())
            out.flush()
    if seen.cut:
        tell(f"{len(seen.cut)} lines were cut to {settings.max_src_len} pieces (--max-src-len): {_some(seen.cut)}")


def _translations(
    translator: Translator, settings: TranslateSettings, seen: Seen, tick: Tick
) -> Iterator[list[list[Hypothesis]]]:
    replaced: list[int] = []
    lines = read_lines(settings.input, invalid="replace", replaced=replaced)
    yield from translator.search_windows(lines, settings.window, settings.nbest, seen, tick)
    if replaced:
        tell(
            f"{len(replaced)} lines were repaired, what is not valid UTF-8 became U+FFFD and a byte order mark "
            f"at the beginning was taken away: {_some(replaced)}"
        )


def _rows(translator: Translator, window: list[list[Hypothesis]], seen: Seen, form: str) -> Iterator[str]:
    """The output of a window, the last lines that were `seen`."""
    tgt = translator.vocabs.tgt
    for line, hypotheses in enumerate(window, start=seen.lines - len(window) + 1):
        if form == "text":
            yield translator.text(hypotheses) + "\n"
        elif form == "tsv":
            for rank, h in enumerate(hypotheses, start=1):
                yield f"{line}\t{rank}\t{h.score:.4f}\t{tgt.decode(h.ids)}\n"
            if not hypotheses:
                yield f"{line}\t1\t0.0000\t\n"
        else:
            found = [
                {"text": tgt.decode(h.ids), "score": h.score, "logp": h.logp, "pieces": [tgt.piece(i) for i in h.ids]}
                for h in hypotheses
            ]
            yield json.dumps({"line": line, "hypotheses": found}, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[IO[bytes]]:
    """Standard output, or a file that gets its name when it is whole; a device or pipe is written as it is."""
    if path == Path("-"):
        yield sys.stdout.buffer
        return
    if path.is_dir():
        raise S2SError(f"{path} is a folder: name a file with -o, or - for standard output")
    special = path.exists() and not path.is_file()
    beside = path if special else path.with_name(path.name + ".part")
    try:
        with open(beside, "wb") as file:
            yield file
        if not special:
            os.replace(beside, path)
    except BaseException as error:
        if not special:
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise S2SError(f"{path} could not be written: {error.strerror or error}") from error
        raise


@contextlib.contextmanager
def _progress() -> "Iterator[tqdm]":  # type: ignore[name-defined] # noqa: F821 - tqdm is imported when it is needed
    from tqdm import tqdm

    with tqdm(unit=" lines", disable=not sys.stderr.isatty(), leave=False) as bar:
        yield bar


def _some(numbers: list[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:10])
    return f"line {shown}" + (", …" if len(numbers) > 10 else "")
