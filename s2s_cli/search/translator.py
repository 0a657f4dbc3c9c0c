"""The one way from source lines to outputs: the command, validation and Python users share it.

N lines in, N lines out. A line that is blank, tags aside, stays blank and never meets the model; an over-long one is cut or
split, and counted. Sentences are searched in batches of like length; their order, and where windows of the input end, show in
nothing.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import compress, count, groupby, islice, repeat
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from s2s_cli.checkpoint.bundle import SUMS, common_precision, open_model
from s2s_cli.config import RuntimeSettings, ScoreSettings, SearchSettings, TranslateSettings
from s2s_cli.data.corpus import blank
from s2s_cli.data.vocab import SPACE, Vocab, Vocabs
from s2s_cli.errors import BundleError, ConfigError, S2SError
from s2s_cli.evaluation.pairwise import Utility, utility
from s2s_cli.files import sha256
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.layers import lanes
from s2s_cli.models.pack import pack
from s2s_cli.runtime import Runtime, is_out_of_memory
from s2s_cli.search.account import Seen
from s2s_cli.search.alignment import Link, piece_links, word_links, words_of
from s2s_cli.search.arguments import as_many, check_kind, texts
from s2s_cli.search.forced import force, force_at_once
from s2s_cli.search.graphs import Recorder
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.mbr import by_utility
from s2s_cli.search.output import Output, join
from s2s_cli.search.phrases import specials_for
from s2s_cli.search.sampling import sample
from s2s_cli.search.sentences import Span, split
from s2s_cli.search.strategies import Hypothesis, beam_search, limits_for
from s2s_cli.search.workers import Workers, at_once, batched, in_few_shapes

Tick = Callable[[int], object]
_PLAIN = TranslateSettings()
_AT_ONCE = 4096  # pieces of a given output, beyond which one pass over all pairs of its positions needs too much memory


class Line(NamedTuple):
    """A source line under its number, from 1; what its output has to begin with; or the output that is to be scored."""

    number: int
    src: str
    prefix: str = ""
    tgt: str | None = None


@dataclass(frozen=True)
class _Unit:
    """What is searched at once: a line, or a part of one that was split. `index` is the line's place in the window."""

    index: int
    part: int
    line: Line
    span: Span
    head: str
    ids: list[int]
    prefix: list[int]
    tgt: list[int]


class Translator:
    """Models and vocabularies, ready to translate. `Translator("run").translate(["…"])` is all that most need."""

    def __init__(
        self,
        *paths: str | Path,
        search: SearchSettings | None = None,
        runtime: RuntimeSettings | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        """From run folders (their best checkpoints) or bundles; several make an ensemble, which must share one vocabulary.

        Of `search`, the fields that were given count; the others are as the (first) model was validated. `runtime` says where
        and how to compute (`RuntimeSettings(device="cpu", threads=2)`); its precision, unless given, is what all the models were
        validated in. `weights` are those of the ensemble's models. Raises BundleError for what is no whole model, ConfigError
        for settings that conflict and for arguments of another kind.
        """
        if not paths or not all(isinstance(path, str | Path) for path in paths):
            raise ConfigError(
                'Translator needs a model: name a run folder or bundle, as in Translator("run"), or several, as in '
                'Translator("a", "b")'
            )
        search, runtime = search or SearchSettings(), runtime or RuntimeSettings()
        check_kind("search", search, SearchSettings)
        check_kind("runtime", runtime, RuntimeSettings)
        try:
            shares = None if weights is None else [float(weight) for weight in weights] or None
        except (TypeError, ValueError):
            raise ConfigError(f"weights must be numbers, one a model, not {weights!r:.40}") from None
        bundles = [open_model(Path(path)) for path in paths]
        # Of the models that these are: a run may have another best one in a moment.
        self.checksums = [sha256(bundle.path / SUMS) for bundle in bundles]
        for other in bundles[1:]:
            if other.vocabs.fingerprints != bundles[0].vocabs.fingerprints:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} have different vocabularies: an ensemble shares one"
                )
        given = {name: getattr(search, name) for name in search.model_fields_set}
        settings = bundles[0].search.model_copy(update=given)
        settings.check()
        self.validated_in = common_precision(bundles)
        machine = Runtime.start(runtime, validated_in=self.validated_in)
        models = [bundle.load_model(machine.device) for bundle in bundles]
        self._have(models, bundles[0].vocabs, settings, machine, shares)

    @classmethod
    def of(cls, models: list[Seq2Seq], vocabs: Vocabs, search: SearchSettings, runtime: Runtime) -> "Translator":
        """From models in memory, which stay as they are: for validation. ConfigError for settings that conflict."""
        search.check()
        models = [copy.deepcopy(model) for model in models]  # which are packed
        translator = cls.__new__(cls)
        translator._have(models, vocabs, search, runtime)
        return translator

    def _have(
        self,
        models: list[Seq2Seq],
        vocabs: Vocabs,
        search: SearchSettings,
        runtime: Runtime,
        weights: list[float] | None = None,
    ) -> None:
        self.dim = max(model.settings.dim for model in models)
        self.model = Ensemble([pack(model, runtime.dtype, search.beam > 1) for model in models], weights)
        self.recorder = None if runtime.device.type == "cpu" else Recorder()
        self.vocabs, self.settings, self.runtime = vocabs, search, runtime
        self.specials = specials_for(vocabs.tgt, search)
        searcher = copy.copy(self)  # not this object itself, which would then live for as long as its processes
        self.workers = Workers(searcher._search, 1 if runtime.device.type == "cuda" else torch.get_num_threads())

    def translate(self, lines: Iterable[str], tick: Tick | None = None) -> list[str]:
        """One target line for each source line; `tick` hears of each batch of lines done."""
        found = self._each(map(Line, count(1), texts(lines)), _PLAIN, tick, scores=False)
        return [outputs[0].text if outputs else "" for outputs in found]

    def search(
        self,
        lines: Iterable[str],
        settings: TranslateSettings = _PLAIN,
        prefixes: Iterable[str] | None = None,
        score: ScoreSettings | None = None,
    ) -> list[list[Output]]:
        """The outputs of each line, best first; none for a blank line.

        `settings` are those of the command: `nbest`, `samples` and `seed`, `mbr`, `align`, `long_lines`; files
        and formats have no say here. Each output begins with its line of `prefixes` (or with `prefix_text`). `score` has the
        options of the metric that `mbr` names.
        """
        self.check(settings)
        if score is not None:
            check_kind("score", score, ScoreSettings)
        if prefixes is not None and settings.prefix_text:
            raise ConfigError("both prefixes and prefix_text are given: give one")
        sources = list(texts(lines))
        begins = [settings.prefix_text] * len(sources) if prefixes is None else as_many(sources, prefixes, "prefixes")
        return list(self._each(map(Line, count(1), sources, begins), settings, score=score))

    def force(
        self, lines: Iterable[str], outputs: Iterable[str], settings: TranslateSettings = _PLAIN
    ) -> list[Output | None]:
        """How probable each line's given output is, as an `Output`; None for a blank line that has one (see `search`)."""
        self.check(settings)
        try:
            settings.check_forced()
        except ValueError as error:
            raise ConfigError(str(error)) from None
        sources = list(texts(lines))
        given = map(Line, count(1), sources, repeat(""), as_many(sources, outputs, "outputs"))
        return [found[0] if found else None for found in self._each(given, settings)]

    def check(self, settings: TranslateSettings) -> None:
        """ConfigError for what is no settings of `translate`, or is more than the search of this translator can give."""
        check_kind("settings", settings, TranslateSettings)
        if settings.nbest > self.settings.beam:
            raise ConfigError(f"nbest ({settings.nbest}) is more than beam ({self.settings.beam}): raise beam")

    def _each(
        self,
        lines: Iterable[Line],
        settings: TranslateSettings,
        tick: Tick | None = None,
        score: ScoreSettings | None = None,
        scores: bool = True,
    ) -> Iterator[list[Output]]:
        lines = iter(lines)
        while window := list(islice(lines, settings.flush_every)):
            yield from self.search_lines(window, settings, tick=tick, score=score, scores=scores)

    def search_lines(
        self,
        lines: Sequence[Line],
        settings: TranslateSettings = _PLAIN,
        seen: Seen | None = None,
        tick: Tick | None = None,
        score: ScoreSettings | None = None,
        scores: bool = True,
    ) -> list[list[Output]]:
        """The outputs of a window of lines; see `search`. `score` has options of the metric that `mbr` names.

        Without `scores` the outputs' numbers may mean nothing, which saves some of the work.
        """
        seen = seen if seen is not None else Seen()
        judge = utility(settings.mbr, score or ScoreSettings()) if settings.mbr != "no" else None
        units = self._units(lines, settings, seen)
        found: dict[int, list[Output]] = {}
        places = sorted(range(len(units)), key=lambda i: -_length(units[i]))
        rows = 1 if units and units[0].line.tgt is not None else settings.samples or self.settings.beam
        is_beam = rows > 1 and not settings.samples
        budget = self.settings.search_tokens or at_once(self.runtime.device.type, is_beam, self.dim, self.runtime.dtype)
        if self.recorder is None or settings.samples or (units and units[0].line.tgt is not None):
            batches = batched(places, lambda i: _length(units[i]) + 1, budget, rows, self.workers.num)
        else:
            batches = in_few_shapes(places, lambda i: lanes(_length(units[i]) + 1), budget, rows)
        scores = scores or judge is not None or settings.nbest > 1
        for number, hypotheses in self.workers.each(
            [([units[i] for i in batch], settings, scores) for batch in batches]
        ):
            batch = batches[number]
            for i, ones in zip(batch, hypotheses, strict=True):
                if not ones or math.isnan(ones[0].logp):
                    raise S2SError(
                        f"line {units[i].line.number} has no output of finite probability: the rules of search forbid all "
                        "pieces (ban, no_repeat_ngram, min_len: ask for less), or the model has diverged"
                    )
                found[i] = self._outputs(units[i], ones, settings, judge)
            if tick is not None:
                tick(sum(units[i].part == 0 for i in batch))
        results: list[list[Output]] = [[] for _ in lines]
        for index, parts in groupby(range(len(units)), key=lambda i: units[i].index):
            drawn = settings.samples > 0 and judge is None
            results[index] = join(
                [found[i] for i in parts], max(settings.nbest, settings.samples), settings.align == "words", drawn
            )
        for line, outputs in zip(lines, results, strict=True):
            if line.tgt is not None and outputs:
                seen.logp, seen.pieces = seen.logp + outputs[0].logp, seen.pieces + len(outputs[0].logps)
        return results

    def _units(self, lines: Sequence[Line], settings: TranslateSettings, seen: Seen) -> list[_Unit]:
        """What is to be searched, line by line; and the account of the lines."""
        src, tgt = self.vocabs.src, self.vocabs.tgt
        empty = [blank(line.src[len(src.tags_of(line.src)) :]) for line in lines]
        full = [i for i in range(len(lines)) if not empty[i]]
        seen.lines, seen.blank = seen.lines + len(lines), seen.blank + len(lines) - len(full)
        seen.unscored.add([line.number for line in compress(lines, empty) if line.tgt and not blank(line.tgt)])
        prefixes = tgt.encode([lines[i].prefix for i in full])
        forced = tgt.encode([lines[i].tgt or "" for i in full])
        unknown = [tgt.unk in prefix or tgt.unk in given for prefix, given in zip(prefixes, forced, strict=True)]
        seen.unknown.add([lines[i].number for i in compress(full, unknown)])
        units: list[_Unit] = []
        encoded = src.encode([lines[i].src for i in full])
        for i, ids, prefix, given in zip(full, encoded, prefixes, forced, strict=True):
            line, most = lines[i], self.settings.max_src_len
            if len(ids) > most and settings.long_lines == "split":
                seen.split.add([line.number])
                head = src.tags_of(line.src)
                units += self._parts(i, line, head, prefix, most)
                continue
            if len(ids) > most:
                seen.cut.add([line.number])
            if ids:
                units.append(_Unit(i, 0, line, Span(0, len(line.src)), "", ids[:most], prefix, given))
        return units

    def _parts(self, index: int, line: Line, head: str, prefix: list[int], most: int) -> Iterator[_Unit]:
        """The parts of a line that is longer than `most` pieces. Each begins with the line's tags, the first with its prefix."""
        src = self.vocabs.src
        body = line.src[len(head) :]
        room = max(1, most - len(src.encode([head])[0]))
        spans = split(body, room, lambda texts: [len(ids) for ids in src.encode(texts)])
        for part, (start, end) in enumerate(spans):
            ids = src.encode([head + body[start:end]])[0][:most]  # a single character may be more
            span = Span(start + len(head), end + len(head))
            yield _Unit(index, part, line, span, head, ids, prefix if part == 0 else [], [])

    def _search(self, units: list[_Unit], settings: TranslateSettings, scores: bool) -> list[list[Hypothesis]]:
        """The hypotheses of a batch, by the strategy that the settings ask for."""
        try:
            return self._found(units, settings, scores)
        except RuntimeError as error:
            if self.recorder is None or not is_out_of_memory(error) or not self.recorder.give_up():
                raise
        torch.cuda.empty_cache()
        return self._found(units, settings, scores)

    def _found(self, units: list[_Unit], settings: TranslateSettings, scores: bool) -> list[list[Hypothesis]]:
        eos, pad, device = self.vocabs.src.eos, self.vocabs.src.pad, self.runtime.device
        src_len = torch.tensor([len(unit.ids) + 1 for unit in units])
        src = pad_sequence([torch.tensor([*unit.ids, eos]) for unit in units], batch_first=True, padding_value=pad)
        if self.recorder is not None and not settings.samples and units[0].line.tgt is None:
            src = F.pad(src, (0, lanes(src.shape[1]) - src.shape[1]), value=pad)
        attention = settings.align != "no"
        with torch.inference_mode():
            memory = self.model.encode(src.to(device), src_len)
            state, step, specials = self.model.start(memory), self.model.step, self.specials
            if units[0].line.tgt is not None:
                given, rest = [unit.tgt for unit in units], (specials, self.settings)
                if attention or self.settings.coverage_penalty or max(map(len, given)) > _AT_ONCE:
                    return [[one] for one in force(step, memory, state, given, *rest, attention)]
                return [[one] for one in force_at_once(self.model, memory, given, *rest)]
            limits = limits_for([len(unit.ids) for unit in units], self.settings)
            prefixes = [unit.prefix for unit in units] if any(unit.prefix for unit in units) else None
            if settings.samples:
                seeds = [_seed(settings.seed, unit) for unit in units]
                return sample(
                    step, memory, state, limits, specials, self.settings, seeds, settings.samples, attention, prefixes
                )
            how = (settings.nbest, attention, prefixes, scores, self.recorder)
            return beam_search(step, memory, state, limits, specials, self.settings, *how)

    def _outputs(
        self, unit: _Unit, hypotheses: list[Hypothesis], settings: TranslateSettings, judge: Utility | None
    ) -> list[Output]:
        """The hypotheses of a unit as outputs, in the order that the settings ask for."""
        tgt = self.vocabs.tgt
        outputs = [
            Output(
                # A carriage return at the end would be taken for a part of the line end by whoever reads the output.
                text=tgt.decode(h.ids).rstrip("\r"),
                score=h.score,
                logp=h.logp,
                pieces=[tgt.piece(i) for i in h.ids],
                logps=h.logps,
                alignment=None if settings.align == "no" else _links(self.vocabs.src, tgt, unit, h, settings.align),
            )
            for h in hypotheses
        ]
        return by_utility(outputs, judge, settings.samples > 0) if judge is not None else outputs


def _links(src: Vocab, tgt: Vocab, unit: _Unit, hypothesis: Hypothesis, between: str) -> list[Link]:
    """The links of a hypothesis, with source positions in the whole line and target positions in the unit."""
    assert hypothesis.attention is not None  # search has asked for it, and refuses models that have none
    start, end = unit.span
    before = unit.line.src[:start]
    goes_on = bool(before and not before[-1].isspace())  # the word that the part before ends with
    if between == "pieces":
        head, text = (len(ids) for ids in src.encode([unit.head, before[len(unit.head) :].rstrip()]))
        offset = head + text - (goes_on and SPACE in map(src.piece, unit.ids[head : head + 1]))  # not in the line
        links = piece_links(hypothesis.attention)
    else:
        head, offset = len(unit.head.split()), len(before.split()) - goes_on
        words = words_of(src, unit.ids, unit.head + unit.line.src[start:end])
        links = word_links(hypothesis.attention, words, words_of(tgt, hypothesis.ids))
    return [(place if place < head else place - head + offset, at) for place, at in links]


def _length(unit: _Unit) -> int:
    return max(len(unit.ids), len(unit.tgt))


def _seed(seed: int, unit: _Unit) -> int:
    """A seed for each line, so that what is drawn for it depends on no other."""
    digest = blake2b(f"{seed} {unit.line.number} {unit.part}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
