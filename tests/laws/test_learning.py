"""Small models of every kind learn small tasks to the last token: what reads, attends, remembers and writes does so."""

import random

import pytest
import torch
from grid import BOS, EOS, PAD, batch_of, pad

from s2s_cli.config import ModelSettings, RnnSettings, SearchSettings, TransformerSettings
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model
from s2s_cli.search.strategies import Specials, beam_search, limits_for

DIGITS = 8  # pieces of the tasks, after PAD, BOS and EOS
TASKS = {"copy": list, "reverse": lambda digits: digits[::-1], "sort": sorted}


def transformer(**more) -> TransformerSettings:
    return TransformerSettings(encoder_layers=1, decoder_layers=2, dim=32, heads=2, ffn_dim=64, dropout=0, **more)


def rnn(**more) -> RnnSettings:
    return RnnSettings(emb_dim=32, dim=48, dropout=0, **more)


MODELS: dict[str, ModelSettings] = {
    "transformer": transformer(),
    "gru with attention": rnn(),
    "lstm without attention": rnn(cell="lstm", attention="none"),
}


def pairs(task: str, num: int = 48) -> tuple[list[list[int]], list[list[int]]]:
    """Lists of one to four digits as source, and what the task makes of them as target."""
    chance = random.Random(1)
    lists = [[chance.randrange(3, 3 + DIGITS) for _ in range(1 + i % 4)] for i in range(num)]
    return [[*digits, EOS] for digits in lists], [[*TASKS[task](digits), EOS] for digits in lists]


def greedy(model: Seq2Seq, src: list[list[int]]) -> list[list[int]]:
    settings = SearchSettings(beam=1, max_len=8)
    memory = model.encode(*pad(src))
    limits = limits_for([len(row) - 1 for row in src], settings)
    found = beam_search(
        model.step, memory, model.start(memory), limits, Specials(bos=BOS, eos=EOS, banned=(PAD, BOS)), settings
    )
    return [[*hypotheses[0].ids, EOS] for hypotheses in found]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS.keys())
def test_a_small_model_learns_a_task_by_heart(settings: ModelSettings, task: str):
    torch.manual_seed(1)
    model = build_model(settings, Sizes(src=3 + DIGITS, tgt=3 + DIGITS, shared=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    src, tgt = pairs(task)
    batch = batch_of(src, tgt)
    for update in range(1, 401):
        loss = model(batch)
        optimizer.zero_grad()
        (loss.total / loss.num_tokens).backward()
        optimizer.step()
        if update % 25 == 0 and float(loss.nll) / loss.num_tokens < 0.02:
            break
    assert greedy(model.eval(), src) == tgt
