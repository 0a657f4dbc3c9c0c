"""The models that the laws are tried on: every option of every family, each pair of values of two options in some model.

The options are read off the settings themselves, so that a new one is in the grid as soon as it is a field.
"""

import random
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError

from s2s_cli.config import ModelSettings, RnnSettings, TransformerSettings
from s2s_cli.data.loader import Batch
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model, check

BOS, EOS, PAD = 1, 2, 0
VOCAB = 24
# What no type tells: the values of numbers that make a difference.
NUMBERS: dict[type, dict[str, list[Any]]] = {
    TransformerSettings: {
        "encoder_layers": [1, 2],
        "decoder_layers": [1, 2],
        "kv_heads": [None, 2, 1],
        "layer_drop": [0.0, 0.5],
        "coverage_loss": [0.0, 0.5],
    },
    RnnSettings: {"encoder_layers": [1, 3], "decoder_layers": [1, 3], "coverage_loss": [0.0, 0.5]},
}
TINY: dict[type, dict[str, Any]] = {
    TransformerSettings: {"dim": 16, "heads": 4, "ffn_dim": 24},
    RnnSettings: {"dim": 16, "emb_dim": 12},
}


@dataclass(frozen=True)
class Case:
    """One model of the grid, and whether its two sides share a vocabulary."""

    name: str
    settings: ModelSettings
    shared: bool

    @cache  # noqa: B019 - the grid lives as long as the tests
    def build(self) -> Seq2Seq:
        """The model, ready to translate, with no weight at the value where initialisation leaves it."""
        torch.manual_seed(1)
        model = build_model(
            self.settings, Sizes(src=VOCAB, tgt=VOCAB if self.shared else VOCAB + 8, shared=self.shared)
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return model.eval()


def options(family: type[ModelSettings]) -> dict[str, list[Any]]:
    """Each option of a family and its values, the default first."""
    found: dict[str, list[Any]] = {"shared": [True, False]}
    for name, field in family.model_fields.items():
        if name == "family":
            continue
        kinds = [field.annotation, *get_args(field.annotation)]
        values = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        if field.annotation is bool:
            values = [False, True]
        values = NUMBERS[family].get(name, values)
        if values:
            start = field.default if name not in NUMBERS[family] else values[0]
            found[name] = [start, *(value for value in values if value != start)]
    return found


def make(family: type[ModelSettings], choice: dict[str, Any]) -> Case | None:
    """The case of these values, or None where they are refused together."""
    defaults = {name: values[0] for name, values in options(family).items()}
    rest = {name: value for name, value in choice.items() if name != "shared"}
    told = [f"{name}={value}" for name, value in choice.items() if value != defaults[name]]
    try:
        settings = family(**TINY[family], **rest)
        check(settings, Sizes(src=VOCAB, tgt=VOCAB, shared=choice["shared"]))
    except (ValidationError, ConfigError):
        return None
    return Case(f"{family.__name__[:3].lower()}:{','.join(told)}", settings, choice["shared"])


def drawn_around(wanted: dict[str, Any], values: dict[str, list[Any]], chance: random.Random) -> dict[str, Any]:
    """A value of each option: what is wanted; of the rest some by chance, now more, now fewer, and the others by default.

    Values that few others go with would hardly ever be met if all the rest were left to chance.
    """
    share = chance.random()
    return {
        name: wanted[name] if name in wanted else chance.choice(of) if chance.random() < share else of[0]
        for name, of in values.items()
    }


def pairwise(family: type[ModelSettings]) -> list[Case]:
    """Few cases in which every pair of values that goes together stands at least once."""
    chance = random.Random(1)
    values = options(family)
    todo = {frozenset([(a, x), (b, y)]) for a, b in combinations(values, 2) for x in values[a] for y in values[b]}

    def draw(wanted: dict[str, Any]) -> tuple[int, dict[str, Any], Case] | None:
        choice = drawn_around(wanted, values, chance)
        case = make(family, choice)
        return (sum(pair <= choice.items() for pair in todo), choice, case) if case else None

    drawn = draw({name: options[0] for name, options in values.items()})
    cases = []
    while drawn:
        _, choice, case = drawn
        cases.append(case)
        todo = {pair for pair in todo if not pair <= choice.items()}
        drawn = None
        while todo and not drawn:
            wanted = min(todo, key=lambda pair: sorted(map(repr, pair)))
            drawn = max(filter(None, [draw(dict(wanted)) for _ in range(200)]), key=lambda d: d[0], default=None)
            if not drawn:
                todo.remove(wanted)
    return cases


GRID = [*pairwise(TransformerSettings), *pairwise(RnnSettings)]


def sentences(num: int, seed: int = 1, vocab: int = VOCAB) -> list[list[int]]:
    """Random ids of 1 to 7 pieces, each followed by EOS."""
    chance = random.Random(seed)
    return [[*(chance.randrange(3, vocab) for _ in range(chance.randint(1, 7))), EOS] for _ in range(num)]


def pad(rows: list[list[int]], extra: int = 0, fill: int = PAD) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as one padded tensor, `extra` columns wider than need be, and their lengths."""
    lengths = [len(row) for row in rows]
    width = max(lengths) + extra
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows]), torch.tensor(lengths)


def batch_of(src: list[list[int]], tgt: list[list[int]]) -> Batch:
    """Sources and targets, both ending with EOS, as training sees them."""
    src_ids, src_len = pad(src)
    tgt_out, tgt_len = pad(tgt)
    tgt_in, _ = pad([[BOS, *row[:-1]] for row in tgt])
    lines = torch.arange(len(src)).numpy()
    return Batch(src_ids, src_len, tgt_in, tgt_out, tgt_len, lines, int(tgt_len.sum()))
