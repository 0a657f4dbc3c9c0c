"""Which rules hold at which step of a search, and for which of its sentences. What a rule does is in `logprobs.py`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.search import logprobs


@dataclass(frozen=True)
class Specials:
    """Ids that search must know: what begins and ends an output, and what never stands in one.

    Pieces of `may_repeat` are exempt from the rules against repetition. `completing`, where there is one, tells which
    pieces may not follow what was said so far: those that complete a banned phrase (see `phrases.py`).
    """

    bos: int
    eos: int
    banned: tuple[int, ...]
    may_repeat: tuple[int, ...] = ()
    completing: Callable[[list[int]], list[int]] | None = None


class Rules:
    """The rules of a search over B sentences, applied at each step. A rule that is off costs nothing.

    `most` [B] is how many pieces an output may have: its limit, or its target prefix if that is longer.
    """

    def __init__(
        self,
        specials: Specials,
        settings: SearchSettings,
        min_len: list[int],
        max_len: list[int],
        prefixes: list[list[int]] | None,
        device: torch.device,
    ) -> None:
        self.specials, self.settings = specials, settings
        prefixes = prefixes or [[] for _ in max_len]
        self.most = [max(n, len(ids)) for n, ids in zip(max_len, prefixes, strict=True)]
        self.read_prefix = bool(settings.no_repeat_ngram or settings.repetition_penalty > 1.0 or specials.completing)
        self._fewest = max(min_len, default=0)
        self._longest_prefix = max(map(len, prefixes), default=0)
        self._min_len = torch.tensor(min_len, device=device)
        self._max_len = torch.tensor(self.most, device=device)
        self._forced = torch.tensor([ids + [-1] * (self._longest_prefix - len(ids)) for ids in prefixes], device=device)
        self._banned = torch.tensor([specials.bos, *specials.banned], device=device)
        self._may_repeat = torch.tensor(specials.may_repeat, dtype=torch.long, device=device)

    @property
    def limits(self) -> tuple[Tensor, Tensor] | None:
        """What differs between searches of one shape, [B] each, where there is no more than that, and the rest is of the device;
        else None.
        """
        if self._longest_prefix or self.specials.completing is not None:
            return None
        return self._min_len, self._max_len

    def __call__(
        self, model: Tensor, prefix: Tensor | None, alive: list[int] | None, number: Tensor, length: int
    ) -> Tensor:
        """The model's log-probabilities [b, K, V] after the rules, changed in place except by a repetition penalty.

        `prefix` [b·K, length] has the pieces so far, where `read_prefix` is true. `alive` and `number` [b] are both the places
        of the sentences in the batch, on the host and on the device. Without `alive`, what is done depends on the settings alone,
        and not on the sentences' limits.
        """
        settings, specials = self.settings, self.specials
        forced = self._forced[number, length] if length < self._longest_prefix else None
        theirs = None if forced is None else _of(model, forced)
        logp = model
        if prefix is not None:
            if settings.repetition_penalty > 1.0:
                logp = model.clone()
                logprobs.penalise_repetition(logp, prefix, settings.repetition_penalty, self._may_repeat)
            if settings.no_repeat_ngram:
                logprobs.no_repeat_ngram(logp, prefix, settings.no_repeat_ngram, self._may_repeat, specials.bos)
            if specials.completing is not None:
                logprobs.ban_completions(logp, prefix, specials.completing)
        logprobs.ban(logp, self._banned)
        if length < self._fewest if alive is not None else settings.min_len or settings.min_len_ratio:
            logprobs.no_eos_at(logp, length < self._min_len[number], specials.eos)
        if alive is None or any(length >= self.most[sentence] for sentence in alive):
            logprobs.only_eos_at(logp, length >= self._max_len[number], specials.eos)
        if forced is not None and theirs is not None:
            logprobs.only(logp, forced, theirs)
        return logp


def _of(logp: Tensor, pieces: Tensor) -> Tensor:
    """The log-probabilities [b, K] of one piece a sentence [b]."""
    return logp.gather(2, pieces.clamp(min=0)[:, None, None].expand(-1, logp.shape[1], 1)).squeeze(2)
