"""A scripted model: a table of log-probabilities that depend on a row's sentence and own prefix alone, in exact arithmetic."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.models.base import Rows, State, StepOut
from s2s_cli.search.sampling import sample
from s2s_cli.search.strategies import Hypothesis, Limits, Specials, beam_search

PAD, BOS, EOS, PIECES = 0, 1, 2, (3, 4, 5)
SPECIALS = Specials(BOS, EOS, banned=(PAD, BOS))
SIZE = 4  # source positions of the longest sentence


@dataclass(frozen=True)
class Sentences(Rows):
    ids: Tensor  # [B]
    mask: Tensor  # [B, S]


@dataclass(frozen=True)
class Prefix(State):
    ids: Tensor  # [N]
    code: Tensor  # [N] a number for the pieces so far


class Scripted:
    """p(piece | sentence, prefix) out of a random table; `sharpness` makes long or short outputs stand out."""

    def __init__(self, seed: int, num_sentences: int, sharpness: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(num_sentences, 101, len(PIECES) + 3, generator=generator) * sharpness
        self.table = logits.log_softmax(dim=-1)
        self.mask = torch.arange(SIZE) <= torch.arange(num_sentences)[:, None] % SIZE
        looks = torch.randn(num_sentences, 101, SIZE, generator=generator) * 2
        self.looks = looks.masked_fill(~self.mask[:, None], -torch.inf).softmax(dim=-1)

    def memory(self, ids: list[int]) -> Sentences:
        return Sentences(torch.tensor(ids), self.mask[ids])

    def start(self, memory: Sentences) -> Prefix:
        return Prefix(memory.ids, torch.zeros_like(memory.ids))

    def step(self, tokens: Tensor, memory: Sentences, state: Prefix, attention: bool = False) -> StepOut:
        assert torch.equal(memory.ids.repeat_interleave(len(tokens) // len(memory.ids)), state.ids)
        code = (state.code * 31 + tokens) % 101
        looks = self.looks[state.ids, code] if attention else None
        return StepOut(self.table[state.ids, code], looks, Prefix(state.ids, code))

    def forced(self, sentence: int, pieces: list[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [T+1] of an output and its end, and where the model looks [T+1, S]."""
        logps, looks, code = [], [], 0
        for before, piece in zip([BOS, *pieces], [*pieces, EOS], strict=True):
            code = (code * 31 + before) % 101
            logps.append(self.table[sentence, code, piece])
            looks.append(self.looks[sentence, code, : int(self.mask[sentence].sum())])
        return torch.stack(logps), torch.stack(looks)

    def search(
        self,
        ids: list[int],
        limits: Limits,
        options: SearchSettings,
        num_best: int = 1,
        attention: bool = False,
        prefixes: list[list[int]] | None = None,
        specials: Specials = SPECIALS,
    ) -> list[list[Hypothesis]]:
        memory = self.memory(ids)
        start = self.start(memory)
        return beam_search(self.step, memory, start, limits, specials, options, num_best, attention, prefixes)

    def sample(
        self,
        ids: list[int],
        limits: Limits,
        options: SearchSettings,
        seeds: list[int],
        num_samples: int = 1,
        prefixes: list[list[int]] | None = None,
        specials: Specials = SPECIALS,
    ) -> list[list[Hypothesis]]:
        memory = self.memory(ids)
        start = self.start(memory)
        return sample(
            self.step, memory, start, limits, specials, options, seeds, num_samples, attention=True, prefixes=prefixes
        )


def every_output(shortest: int, longest: int) -> list[list[int]]:
    return [list(pieces) for n in range(shortest, longest + 1) for pieces in product(PIECES, repeat=n)]
