"""Small models of every kind learn small tasks to the last token: what reads, attends, remembers and writes does so."""

import random

import pytest
import torch
from grid import BOS, EOS, PAD, batch_of, pad

from s2s_cli.config import ModelSettings, RnnSettings, SearchSettings, TransformerSettings
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model
from s2s_cli.search.strategies import Specials, beam_search, limits_for

TASKS = {11: list, 12: lambda digits: digits[::-1], 13: sorted}  # by the piece that asks for it: copy, reverse, sort
DIGITS = range(3, 11)
VOCAB = 14


def transformer(**more) -> TransformerSettings:
    return TransformerSettings(encoder_layers=1, decoder_layers=2, dim=32, heads=2, ffn_dim=64, dropout=0, **more)


def rnn(**more) -> RnnSettings:
    return RnnSettings(emb_dim=32, dim=48, dropout=0, **more)


MODELS: dict[str, ModelSettings] = {
    "transformer": transformer(),
    "transformer, modern": transformer(
        norm="pre", normalization="rms", positions="rotary", activation="swiglu", kv_heads=1
    ),
    "transformer, relative positions": transformer(positions="relative", norm="post"),
    "transformer, ssru": transformer(autoregression="ssru"),
    "transformer, aan": transformer(autoregression="aan"),
    "transformer, copy": transformer(head="copy", coverage=True, coverage_loss=0.1),
    "transformer, learned positions": transformer(positions="learned", activation="gelu"),
    "gru, luong": rnn(),
    "lstm, fed": rnn(
        cell="lstm", attention="scaled", input_feeding=True, bridge="copy", encoder_layers=2, decoder_layers=2
    ),
    "gru, dot": rnn(attention="dot", bridge="zero", bidirectional=False),
    "lstm, no attention": rnn(cell="lstm", attention="none"),
    "elman, three layers": rnn(cell="elman", encoder_layers=3, decoder_layers=3, residual=True, layer_norm=True),
    "gru, bahdanau": rnn(attention="additive", attention_place="before"),
    "gru, copy": rnn(head="copy", coverage=True, coverage_loss=0.1),
}


def pairs(num: int = 15) -> tuple[list[list[int]], list[list[int]]]:
    """Lists of two to four digits as source, after the piece of a task, and what the task makes of them as target."""
    chance = random.Random(1)
    src, tgt = [], []
    for i in range(num):
        digits = [chance.choice(DIGITS) for _ in range(2 + i % 3)]
        for piece, task in TASKS.items():
            src.append([piece, *digits, EOS])
            tgt.append([*task(digits), EOS])
    return src, tgt


def greedy(model: Seq2Seq, src: list[list[int]]) -> list[list[int]]:
    settings = SearchSettings(beam=1, max_len=8)
    memory = model.encode(*pad(src))
    limits = limits_for([len(row) - 1 for row in src], settings)
    found = beam_search(
        model.step, memory, model.start(memory), limits, Specials(bos=BOS, eos=EOS, banned=(PAD, BOS)), settings
    )
    return [[*hypotheses[0].ids, EOS] for hypotheses in found]


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS.keys())
def test_a_small_model_learns_to_copy_reverse_and_sort(settings: ModelSettings):
    torch.manual_seed(1)
    model = build_model(settings, Sizes(src=VOCAB, tgt=VOCAB, shared=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    src, tgt = pairs()
    batch = batch_of(src, tgt)
    for update in range(1, 401):
        loss = model(batch)
        optimizer.zero_grad()
        (loss.total / loss.num_tokens).backward()
        optimizer.step()
        if update % 20 == 0 and float(loss.nll) / loss.num_tokens < 0.02:
            break
    assert greedy(model.eval(), src) == tgt
