#!/usr/bin/env python3
"""What attention is for: how much of a sentence comes out right, by its length, with one vector, attention, or only attention.

    python benchmarks/attention_length.py --longest 80
    python benchmarks/attention_length.py --longest 80 --task sort

A sentence is random words; its translation is other words (one for each), in reversed order, so that nothing can be
guessed from its neighbours and every word must come through; or sorted, where each also depends on all. Three models of
like size read the same stream of fresh sentences of 1 to `--longest` words, as many updates, and then translate fresh
ones of each length by greedy search:

    rnn-basic    a GRU reads, a GRU writes, one vector between them (Cho et al. 2014)
    rnn          the same two with attention in between (Bahdanau et al. 2015, Luong et al. 2015)
    transformer  attention alone (Vaswani et al. 2017)

Writes attention_length_TASK.json, with all conditions, and attention_length_TASK.svg (needs matplotlib). The same
question on real text, where neighbours do help, is asked of runs that were trained on it, by chrF:

    python benchmarks/attention_length.py --runs basic=RUN gru=RUN transformer=RUN --src test.en --ref test.de
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from conditions import conditions

from s2s_cli import Translator
from s2s_cli.config import ModelSettings, RnnSettings, SearchSettings, TransformerSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.data.loader import Batch
from s2s_cli.evaluation.metrics import corpus_score
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model, num_parameters
from s2s_cli.search.strategies import Specials, beam_search, limits_for

PAD, BOS, EOS, FIRST = 0, 1, 2, 3
NUM_WORDS = 32
SIZES = Sizes(src=FIRST + NUM_WORDS, tgt=FIRST + NUM_WORDS, shared=True)
SPECIALS = Specials(bos=BOS, eos=EOS, banned=(PAD, BOS))


def models(dim: int) -> dict[str, ModelSettings]:
    """The three models; their widths are chosen so that they have about as many weights."""
    return {
        "rnn-basic": RnnSettings(emb_dim=dim, dim=2 * dim, bidirectional=False, attention="none", dropout=0.0),
        "rnn": RnnSettings(emb_dim=dim, dim=2 * dim, attention="general", dropout=0.0),
        "transformer": TransformerSettings(
            dim=dim, heads=4, ffn_dim=2 * dim, encoder_layers=3, decoder_layers=2, dropout=0.0
        ),
    }


class Language:
    """Words and their translations, and a stream of sentences."""

    def __init__(self, task: str, seed: int) -> None:
        self.order = sorted if task == "sort" else reversed
        self.chance = random.Random(seed)
        words = list(range(FIRST, FIRST + NUM_WORDS))
        self.translation = dict(zip(words, random.Random(0).sample(words, len(words)), strict=True))

    def pair(self, length: int) -> tuple[list[int], list[int]]:
        """A sentence and its translation, each ending with EOS."""
        src = [self.chance.randrange(FIRST, FIRST + NUM_WORDS) for _ in range(length)]
        return [*src, EOS], [*self.order([self.translation[word] for word in src]), EOS]

    def batch(self, num: int, longest: int) -> Batch:
        """Pairs of one random length and the seven below it, so that little is padding."""
        top = self.chance.randint(1, longest + 7)  # so that the longest are drawn as often as others
        pairs = [self.pair(min(longest, max(1, top - self.chance.randrange(8)))) for _ in range(num)]
        src, src_len = padded([src for src, _ in pairs])
        tgt_out, tgt_len = padded([tgt for _, tgt in pairs])
        tgt_in, _ = padded([[BOS, *tgt[:-1]] for _, tgt in pairs])
        return Batch(src, src_len, tgt_in, tgt_out, tgt_len, torch.arange(num).numpy(), int(tgt_len.sum()))


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids as one tensor, and lengths."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows]), torch.tensor([len(row) for row in rows])


def train(model: Seq2Seq, options: argparse.Namespace) -> None:
    """Adam with a short warm-up and a linear fall to zero."""
    language = Language(options.task, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, betas=(0.9, 0.98))
    nll, num_tokens = 0.0, 0
    for update in range(1, options.updates + 1):
        rise, fall = update / options.warmup, (options.updates - update) / (options.updates - options.warmup)
        optimizer.param_groups[0]["lr"] = options.lr * min(rise, fall)
        loss = model(language.batch(options.batch, options.longest))
        optimizer.zero_grad()
        (loss.total / loss.num_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        nll, num_tokens = nll + float(loss.nll), num_tokens + loss.num_tokens
        if update % 250 == 0:
            print(f"  update {update}: {nll / num_tokens:.3f} nats a word", flush=True)
            nll, num_tokens = 0.0, 0


def right_words(model: Seq2Seq, task: str, length: int, num: int) -> float:
    """The share of words in place among translations of `num` fresh sentences of a length."""
    language = Language(task, seed=1000 + length)
    pairs = [language.pair(length) for _ in range(num)]
    settings = SearchSettings(beam=1, max_len=length)
    with torch.inference_mode():
        memory = model.encode(*padded([src for src, _ in pairs]))
        limits = limits_for([length] * num, settings)
        found = beam_search(model.step, memory, model.start(memory), limits, SPECIALS, settings)
    right = sum(
        word == wanted
        for hypotheses, (_, tgt) in zip(found, pairs, strict=True)
        for word, wanted in zip(hypotheses[0].ids, tgt[:-1], strict=False)
    )
    return right / (num * length)


def chrf_by_length(bundle: str, src: list[str], ref: list[str], width: int = 5) -> dict[int, float]:
    """chrF of a bundle's translations, as a share, of the sentences of 1 to 5, 6 to 10, … source words; by the last of each."""
    output = Translator(bundle).translate(src)
    groups: dict[int, list[int]] = {}
    for line, text in enumerate(src):
        groups.setdefault(-(-len(text.split()) // width) * width, []).append(line)
    return {
        words: corpus_score("chrf", [output[i] for i in lines], [[ref[i] for i in lines]]).value / 100
        for words, lines in sorted(groups.items())
        if len(lines) >= 20
    }


def plot(result: dict, path: Path) -> None:
    """One line a model."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, found in result["models"].items():
        lengths = [int(length) for length in found["right"]]
        axes.plot(lengths, [100 * share for share in found["right"].values()], marker="o", markersize=3, label=name)
    if result["of"] == "words":
        if result["options"]["task"] == "reverse":
            axes.axhline(100 / NUM_WORDS, color="grey", linestyle=":", label="guessing")
        axes.axvline(result["options"]["longest"], color="grey", linewidth=0.5)
        axes.set(xlabel="words in the sentence (trained up to the line)", ylabel="words right, %", ylim=(0, 102))
    else:
        axes.set(xlabel="words in the source sentence, up to", ylabel="chrF")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Train or load, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--task", choices=("reverse", "sort"), default="reverse", help="order of the translated words")
    parser.add_argument("--longest", type=int, default=32, help="words in the longest training sentence")
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64, help="sentences a batch")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--sentences", type=int, default=100, help="test sentences of each length")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", nargs="+", metavar="NAME=RUN", help="measure these runs on real text instead")
    parser.add_argument("--src", type=Path, help="source text, with --runs")
    parser.add_argument("--ref", type=Path, help="reference, with --runs")
    options = parser.parse_args()
    if options.runs and not (options.src and options.ref):
        parser.error("--runs needs --src and --ref")
    torch.set_num_threads(options.threads)
    about = {"benchmark": "attention_length"} | conditions(["s2s-cli", "torch"])
    result: dict = {
        **about,
        "of": "chrf" if options.runs else "words",
        "options": {n: str(v) if isinstance(v, Path) else v for n, v in vars(options).items() if n != "out"},
        "models": measure_runs(options) if options.runs else measure_fresh(options),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"attention_length_{'text' if options.runs else options.task}"
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot(result, options.out / f"{name}.svg")


def measure_runs(options: argparse.Namespace) -> dict[str, dict]:
    """Runs trained elsewhere, on real text."""
    src, ref = (list(read_lines(path)) for path in (options.src, options.ref))
    runs = dict(item.split("=", 1) for item in options.runs)
    return {name: {"right": told(chrf_by_length(path, src, ref), name)} for name, path in runs.items()}


def measure_fresh(options: argparse.Namespace) -> dict[str, dict]:
    """Models trained here, on the made-up language."""
    found = {}
    for name, settings in models(options.dim).items():
        torch.manual_seed(1)
        model = build_model(settings, SIZES)
        print(f"{name}, {num_parameters(model):,} parameters", flush=True)
        begun = time.monotonic()
        train(model, options)
        seconds = round(time.monotonic() - begun)
        model.eval()
        lengths = range(2, options.longest * 5 // 4 + 1, 2)
        right = told({length: right_words(model, options.task, length, options.sentences) for length in lengths}, name)
        found[name] = {"parameters": num_parameters(model), "seconds": seconds, "right": right}
    return found


def told(right: dict[int, float], name: str) -> dict[int, float]:
    """Print a row of the result and pass it on."""
    print(f"{name}  " + "  ".join(f"{length}: {100 * share:.0f}" for length, share in right.items()), flush=True)
    return right


if __name__ == "__main__":
    main()
