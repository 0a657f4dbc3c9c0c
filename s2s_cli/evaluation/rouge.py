"""ROUGE (Lin 2004) through rouge-score, with what it leaves open made explicit and named in a signature.

rouge-score gives precision, recall and F1 of one text; the corpus score is the plain mean of F1 over lines. Its own
tokenizer erases every letter but a-z, so `UnicodeTokenizer` stands beside it for all other languages. This file must
not know files or tables.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import regex  # type: ignore[import-untyped]

from s2s_cli.config import ScoreSettings
from s2s_cli.data.scripts import SENTENCE_END, UNSPACED

NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}

# Where no spaces stand between words, each character with its marks is a token.
UNICODE_WORD = rf"[{UNSPACED}--\p{{M}}--\p{{P}}]\p{{M}}*|[\p{{L}}\p{{M}}\p{{N}}--[{UNSPACED}--\p{{M}}]]+"
_UNICODE_TOKEN = regex.compile(UNICODE_WORD, regex.V1)
_SENTENCE_END = regex.compile(rf"({SENTENCE_END.pattern})\s*")
_QUANTUM = 2.0**32


class UnicodeTokenizer:
    """Lowercased words of letters, marks and digits in any script; on ASCII text the same as rouge-score's own.

    Text is brought to NFKC first, so that one letter has one spelling. A script that writes no spaces between words
    is cut into characters, as is usual for Chinese.
    """

    def __init__(self, stemmer: Any = None) -> None:
        self._stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text, in order."""
        tokens = _UNICODE_TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
        return [self._stemmer.stem(t) if len(t) > 3 else t for t in tokens] if self._stemmer else tokens


@cache
def _scorer(kind: str, tokenizer: str, stem: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=build_tokenizer(tokenizer, stem))


def build_tokenizer(name: str, stem: bool) -> Any:
    """The tokenizer of that name: rouge-score's own, or `UnicodeTokenizer`; with Porter's stemmer, if wanted."""
    if name == "rouge-score":
        from rouge_score.tokenizers import DefaultTokenizer

        return DefaultTokenizer(use_stemmer=stem)
    if not stem:
        return UnicodeTokenizer()
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

    return UnicodeTokenizer(PorterStemmer())


def sentences(text: str, split: str) -> str:
    """The text with a newline where a sentence ends: at the mark that the text has, or by punctuation."""
    if split == "newline":
        return text.replace("\\n", "\n")
    if split == "q":
        return text.replace("<q>", "\n")
    return _SENTENCE_END.sub(r"\1\n", text)


class Rouge:
    """One kind of ROUGE with its references inside (see `metrics.Metric`)."""

    higher_is_better = True

    def __init__(self, kind: str, refs: list[list[str]], options: ScoreSettings) -> None:
        self.name = NAMES[kind]
        self._options = options
        self._kind = kind
        self._scorer = _scorer(kind, options.rouge_tokenizer, options.rouge_stem)
        self._refs = [[sentences(line, options.rouge_split) for line in ref] for ref in refs]

    def statistics(self, hyps: Sequence[str]) -> np.ndarray:
        """F1 of each line and the number 1: (lines, 2).

        F1 is rounded to a multiple of 2⁻³². Sums of such numbers are exact in any order, and so randomization can
        tell a difference that is equal to the observed one from a larger one.
        """
        rows = [[self._f1(hyp, line_refs), 1.0] for hyp, *line_refs in zip(hyps, *self._refs, strict=True)]
        return np.round(np.array(rows) * _QUANTUM) / _QUANTUM

    def _f1(self, hyp: str, refs: list[str]) -> float:
        text = sentences(hyp, self._options.rouge_split)
        values = [self._scorer.score(ref, text)[self._kind].fmeasure for ref in refs]
        return float(max(values) if self._options.rouge_multi_ref == "max" else np.mean(values))

    def value(self, sums: Sequence[float]) -> float:
        """Mean F1 in percent."""
        return float(100.0 * sums[0] / sums[1])

    def detail(self, sums: Sequence[float]) -> str:
        """Nothing: the value says it all."""
        return ""

    def signature(self, resampling: dict[str, int]) -> str:
        """In sacrebleu's form; `split` is where the lines of ROUGE-Lsum end, `multi` how several references count."""
        options = self._options
        facts: dict[str, Any] = {"nrefs": len(self._refs), **resampling}
        if len(self._refs) > 1:
            facts["multi"] = options.rouge_multi_ref
        facts |= {"tok": options.rouge_tokenizer, "stem": "yes" if options.rouge_stem else "no"}
        facts |= {"split": {"newline": "\\n", "q": "<q>", "sentence": "sentence"}[options.rouge_split]}
        facts |= {"measure": "f1", "agg": "mean", "version": f"rouge-score-{version('rouge-score')}"}
        return "|".join(f"{key}:{value}" for key, value in facts.items())
