"""What a line was translated to, as Python has it and as files show it.

A line has several outputs where several are asked for, and none if it is blank. This room knows no models and no search.
"""

import heapq
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from s2s_cli.config import TranslateSettings
from s2s_cli.search.alignment import Link, pharaoh
from s2s_cli.search.sentences import separator


@dataclass(frozen=True)
class Output:
    """One output of a line: its text, and how sure the model is of it. Log-probabilities are natural ones.

    `score` is what search ranks by: `logp`, in beam search after the penalty of repetition, divided by the length penalty, plus
    the coverage penalty. `logps` are those of the `pieces` and of the end of the output, which comes last. `alignment` has links
    (source, target) from 0 where it was asked for; `utility` is the expected one of MBR, 0 to 100. A line that was split has the
    pieces and log-probabilities of its parts one after another, an end after each, and the mean of their scores.
    """

    text: str
    score: float
    logp: float
    pieces: list[str]
    logps: list[float]
    alignment: list[Link] | None = None
    utility: float | None = None

    @property
    def perplexity(self) -> float:
        """exp(-logp / pieces), the ends counted; infinite where that overflows."""
        return perplexity(self.logp, len(self.logps))


def perplexity(logp: float, num_pieces: int) -> float:
    """exp(-logp / num_pieces), infinite where that overflows."""
    mean = -logp / max(1, num_pieces)
    return math.exp(mean) if mean < 700 else math.inf


def join(parts: list[list[Output]], num_best: int, words: bool, drawn: bool) -> list[Output]:
    """The outputs of a line from those of its parts, each best first.

    The best ones have the best sums of scores over all ways to choose an output of each part (of utilities under MBR). Where
    they were `drawn`, each is made of one sample of each part. `words` says what links are between.
    """
    if len(parts) == 1:
        return parts[0]
    if drawn:  # samples come sorted: without this, the best of one part would always meet the best of the others
        mixed = [random.Random(seed).sample(part, len(part)) for seed, part in enumerate(parts)]
        # Rules may leave some samples of a part no way to end.
        joined = [_joined(chosen, words) for chosen in zip(*mixed, strict=False)]
        return sorted(joined, key=lambda output: -output.score)
    best: list[tuple[float, tuple[Output, ...]]] = [(0.0, ())]
    for part in parts:
        longer = (
            (total + (o.score if o.utility is None else o.utility), (*chosen, o))
            for total, chosen in best
            for o in part
        )
        best = heapq.nlargest(num_best, longer, key=lambda candidate: candidate[0])
    return [_joined(chosen, words) for _, chosen in best]


def _joined(parts: Sequence[Output], words: bool) -> Output:
    """The parts as one output. Its score, and its utility, are the mean of theirs."""
    whole = parts[0]
    for part in parts[1:]:
        space = separator(whole.text, part.text) if whole.text and part.text else ""
        offset = len(whole.text.split()) - (words and not space and bool(whole.text and part.text))
        links = [(src, tgt + (offset if words else len(whole.pieces))) for src, tgt in part.alignment or []]
        whole = Output(
            text=whole.text + space + part.text,
            score=whole.score + part.score,
            logp=whole.logp + part.logp,
            pieces=whole.pieces + part.pieces,
            logps=whole.logps + part.logps,
            alignment=None if whole.alignment is None else list(dict.fromkeys(whole.alignment + links)),
            utility=None if whole.utility is None or part.utility is None else whole.utility + part.utility,
        )
    mean = None if whole.utility is None else whole.utility / len(parts)
    return replace(whole, score=whole.score / len(parts), utility=mean)


def rows(number: int, outputs: list[Output], settings: TranslateSettings) -> Iterator[str]:
    """The rows of a line under its number, from 1, in the format of the settings."""
    if settings.format == "jsonl":
        yield json.dumps({"line": number, "hypotheses": [_record(o) for o in outputs]}, ensure_ascii=False) + "\n"
    elif settings.format == "text":
        best = outputs[0] if outputs else None
        yield ("" if best is None else f"{best.logp:.6f}" if settings.force else best.text) + "\n"
    else:
        for rank, o in enumerate(outputs, start=1):
            links = "" if o.alignment is None else f"{pharaoh(o.alignment)}\t"
            score = f"{rank}\t{o.score if o.utility is None else o.utility:.4f}"
            if settings.force:
                score = f"{o.logp:.6f}\t{len(o.logps)}\t{o.perplexity:.4f}"
            yield f"{number}\t{score}\t{links}{_cell(o)}\n"
        if not outputs:
            score = "0.000000\t0\t1.0000" if settings.force else "1\t0.0000"
            yield f"{number}\t{score}\t" + ("\n" if settings.align == "no" else "\t\n")


def _cell(output: Output) -> str:
    """The text where tabs part columns: a tab in it, which a vocabulary may spell in bytes, is a space there."""
    return output.text.replace("\t", " ")


def _record(output: Output) -> dict[str, object]:
    record = asdict(output)
    return {name: value for name, value in record.items() if value is not None}
