#!/usr/bin/env python3
"""How time and memory grow: of a training update, and of translating; with sentence length, batch, vocabulary, corpus, processes.

    python benchmarks/growth.py [--only length batch vocabulary corpus processes] [--work DIR] [--out benchmarks/results]

The model is `tiny`, in the precision that `auto` chooses. Every point is a process of its own, so that its peak memory, all it
has ever held resident, interpreter and libraries included, is its own.

    length       sentences of 10 to 2,000 random pieces on both sides; updates of 4,096 tokens, batches of 32 to translate
    batch        sentences of 14 pieces; updates of 512 to 32,768 tokens, batches of 8 to 512 to translate
    vocabulary   1,000 to 64,000 pieces, at 4,096 tokens of such sentences, and 64 of them to translate
    corpus       `s2s train` on Multi30k repeated to 0.03 to 3 million pairs (fetched by data/multi30k.py)
    processes    the same, one process with one thread and with two, and two under torchrun with one each

Translating is by a beam of 5 and has as many pieces as the source has, at most 64, in batches of one length. Writes
growth_QUESTION.json, and growth_QUESTION.svg (needs matplotlib) with times above and memory below.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from conditions import ROOT, conditions

from s2s_cli.worker import cores

MODEL = {"encoder_layers": 4, "decoder_layers": 4, "dim": 128, "heads": 4, "ffn_dim": 256, "dropout": 0.3}
POINTS = {
    "length": (10, 20, 50, 100, 200, 500, 1000, 2000),
    "batch": (512, 1024, 2048, 4096, 8192, 16384, 32768),
    "vocabulary": (1000, 2000, 4000, 8000, 16000, 32000, 64000),
    "corpus": (29_000, 290_000, 1_000_000, 3_000_000),
    "processes": (1, 2),
}
AXES = {
    "length": "pieces in a sentence",
    "batch": "tokens an update, or 64 times the sentences translated at once",
    "vocabulary": "pieces in the vocabulary",
    "corpus": "training pairs",
    "processes": "processes × threads of each",
}
SENTENCE, VOCAB, TOKENS, BEAM, LONGEST = 14, 8000, 4096, 5, 64
Row = dict[str, Any]


def peak_mb() -> int:
    """The most resident memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def model_of(vocab: int):
    """The model, with weights as they begin."""
    import torch

    from s2s_cli.config import TransformerSettings
    from s2s_cli.models.base import Sizes
    from s2s_cli.models.build import build_model

    torch.manual_seed(1)
    return build_model(TransformerSettings(**MODEL), Sizes(vocab, vocab, True))


def update(length: int, tokens: int, vocab: int) -> Row:
    """Updates of about so many tokens: milliseconds by 1,000 of them."""
    import torch

    from s2s_cli.config import RuntimeSettings, TrainSettings
    from s2s_cli.data.loader import Batch
    from s2s_cli.runtime import Runtime
    from s2s_cli.training.optim import build_optimizer
    from s2s_cli.training.state import Learner
    from s2s_cli.training.update import Updater

    runtime, settings, model = Runtime.start(RuntimeSettings()), TrainSettings(), model_of(vocab)
    updater = Updater(Learner(model.train(), build_optimizer(model, settings)), settings, runtime)
    rows = max(1, tokens // length)
    ids, lengths = torch.randint(4, vocab, (rows, length)), torch.full((rows,), length)
    batch = Batch(ids, lengths, ids, ids, lengths, torch.arange(rows).numpy(), ids.numel())
    return timed(lambda: updater.update([batch], 1, 1e-4), ids.numel())


def translate(length: int, sentences: int, vocab: int) -> Row:
    """Translating so many at once: milliseconds by 1,000 pieces of output."""
    import torch

    from s2s_cli.config import RuntimeSettings, SearchSettings
    from s2s_cli.models.pack import pack
    from s2s_cli.runtime import Runtime
    from s2s_cli.search.logprobs import Ensemble
    from s2s_cli.search.strategies import Specials, beam_search, limits_for

    runtime, pieces = Runtime.start(RuntimeSettings()), min(length, LONGEST)
    ensemble = Ensemble([pack(model_of(vocab).eval(), runtime.dtype, BEAM > 1)])
    settings = SearchSettings(beam=BEAM, min_len=pieces, max_len=pieces)
    src, src_len = torch.randint(4, vocab, (sentences, length)), torch.full((sentences,), length)
    specials = Specials(bos=1, eos=2, banned=(3, 0, 1))

    @torch.inference_mode()
    def search() -> None:
        memory = ensemble.encode(src, src_len)
        limits = limits_for([length] * sentences, settings)
        beam_search(ensemble.step, memory, ensemble.start(memory), limits, specials, settings)

    return timed(search, sentences * pieces)


def timed(work: Callable[[], object], num_tokens: int) -> Row:
    """The best of some seconds' runs, after one to warm up: somebody else's work on the machine makes times longer."""
    work()
    times: list[float] = []
    begun, cpu = time.perf_counter(), time.process_time()
    while len(times) < 3 or (sum(times) < 3.0 and len(times) < 20):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    cores = (time.process_time() - cpu) / (time.perf_counter() - begun)
    return {
        "ms_per_1000_tokens": round(1e6 * min(times) / num_tokens, 2),
        "peak_mb": peak_mb(),
        "cores_used": round(cores, 2),
    }


def point(question: str, value: int, task: str) -> Row:
    """One measurement."""
    if task == "update":
        sizes = {"length": (value, TOKENS, VOCAB), "batch": (SENTENCE, value, VOCAB)}
        return update(*sizes.get(question, (SENTENCE, TOKENS, value)))
    sizes = {"length": (value, 32, VOCAB), "batch": (SENTENCE, value // 64, VOCAB)}
    return translate(*sizes.get(question, (SENTENCE, 64, value)))


def fresh(question: str, value: int, task: str) -> Row:
    """The same in a process of its own; up to three times, where it did not have all cores, and then the best."""
    command = [sys.executable, __file__, "--point", question, str(value), task]
    rows: list[Row] = []
    while len(rows) < 3 and (not rows or rows[-1]["cores_used"] < 0.9 * cores()):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment())
        rows.append(json.loads(done.stdout))
    return min(rows, key=lambda row: row["ms_per_1000_tokens"])


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def dataset(work: Path, num_pairs: int) -> Path:
    """The dataset folder of a corpus of so many pairs, with the vocabulary of the first one."""
    raw, folder = work / "raw", work / f"data-{num_pairs}"
    if not raw.exists():
        subprocess.run([sys.executable, ROOT / "data" / "multi30k.py", raw], check=True)
    command = [sys.executable, "-m", "s2s_cli", "preprocess", "-o", folder]
    for side, language in (("src", "en"), ("tgt", "de")):
        text = (raw / f"train.{language}").read_bytes()
        num_lines = text.count(b"\n")
        whole, rest = divmod(num_pairs, num_lines)
        head = b"".join(line + b"\n" for line in text.split(b"\n")[:rest])
        with open(work / f"train.{side}", "wb") as file:
            for _ in range(whole):
                file.write(text)
            file.write(head)
        command += [f"--train-{side}", work / f"train.{side}", f"--valid-{side}", raw / f"val.{language}"]
    first = work / f"data-{POINTS['corpus'][0]}"
    if folder != first and first.exists():
        command += ["--src-vocab", first]
    subprocess.run(command, check=True, env=_environment(), stderr=subprocess.DEVNULL)
    return folder


def train(work: Path, data: Path, processes: int, threads: int, updates: int) -> Row:
    """`s2s train`: the time to its first update, tokens a second by its own log from then on, peak memory of all processes."""
    from peers.environments import watch

    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    config = {"model": {"family": "transformer", **MODEL}, "runtime": {"threads": threads}}
    config["train"] = {
        "data": str(data),
        "run": str(run),
        "max_updates": updates + 10,
        "log_every": 10,
        "preset": "tiny",
    }
    config["train"] |= {"valid_metric": "loss"}
    (work / "s2s.yaml").write_text(json.dumps(config), encoding="utf-8")
    launch = (
        ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "--"] if processes > 1 else ["-m"]
    )
    command = [sys.executable, *launch, "s2s_cli", "train", "-c", work / "s2s.yaml"]
    settings = _environment() | {"OMP_NUM_THREADS": str(threads)}
    begun = time.time()
    process = subprocess.Popen(command, env=settings, stderr=subprocess.DEVNULL)
    peak = watch(process, limit=600)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().split("\n")[:-1]]
    logged = [record for record in records if record["kind"] == "train"]
    speed = median(record["tokens_per_second"] for record in logged[1:])
    first = (run / "config.yaml").stat().st_mtime - begun
    return {
        "ms_per_1000_tokens": round(1e6 / speed, 2),
        "tokens_per_second": round(speed),
        "seconds_to_begin": round(first, 2),
        "peak_mb": round(peak / 2**20),
    }


def of_corpora(work: Path) -> dict[str, Row]:
    """By the number of training pairs."""
    rows = {}
    for num_pairs in POINTS["corpus"]:
        rows[str(num_pairs)] = told("corpus", num_pairs, train(work, dataset(work, num_pairs), 1, 0, 40))
    return rows


def of_processes(work: Path) -> dict[str, Row]:
    """By the number of processes."""
    data = dataset(work, POINTS["corpus"][0])
    rows = {}
    for name, processes, threads in (("1 × 1 thread", 1, 1), ("1 × 2 threads", 1, 2), ("2 × 1 thread", 2, 1)):
        rows[name] = told("processes", name, train(work, data, processes, threads, 60))
    return rows


def told(question: str, value: object, row: Row) -> Row:
    """Print a row and pass it on."""
    print(f"{question:12} {value!s:>14}  {json.dumps(row)}", flush=True)
    return row


def plot(question: str, found: dict[str, dict[str, Row]], path: Path) -> None:
    """Time above, memory below."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 1, figsize=(7, 6), sharex=True)
    counted = question != "processes"  # which are three ways, and no axis of numbers
    for task, rows in found.items():
        for axes, key in zip(panels, ("ms_per_1000_tokens", "peak_mb"), strict=True):
            heights = [row[key] for row in rows.values()]
            if counted:
                axes.plot([int(value) for value in rows], heights, marker="o", markersize=3, label=task)
            else:
                axes.bar(list(rows), heights, width=0.4, label=task)
    for axes, label in zip(panels, ("ms by 1,000 target tokens", "peak memory, MB"), strict=True):
        axes.set(ylabel=label)
        axes.grid(linewidth=0.3, which="both", axis="both" if counted else "y")
        if not counted:
            continue
        axes.set(xscale="log", yscale="log")
        low, high = axes.get_ylim()
        room = max(1.0, (10 * low / high) ** 0.5)  # an axis of one power of ten at least: noise is no growth
        axes.set_ylim(low / room, high * room)
    panels[1].set(xlabel=AXES[question])
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure, and write what there is after each question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--work", type=Path, help="where corpora and runs go (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw again what the files of --out have")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        question, value, task = options.point
        print(json.dumps(point(question, int(value), task)))
        return
    if options.draw:
        for question in options.only:
            name = options.out / f"growth_{question}"
            plot(
                question,
                json.loads(name.with_suffix(".json").read_text(encoding="utf-8"))["found"],
                name.with_suffix(".svg"),
            )
        return
    made = conditions(["torch", "numpy"])
    for question in options.only:
        with tempfile.TemporaryDirectory() as temporary:
            work = options.work or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            found: dict[str, dict[str, Row]]
            if question == "corpus":
                found = {"update": of_corpora(work)}
            elif question == "processes":
                found = {"update": of_processes(work)}
            else:
                found = {
                    task: {
                        str(value): told(f"{question} {task}", value, fresh(question, value, task))
                        for value in POINTS[question]
                    }
                    for task in ("update", "translate")
                }
        name = options.out / f"growth_{question}"
        result = {"benchmark": f"growth_{question}", **made, "model": MODEL, "found": found}
        name.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        plot(question, found, name.with_suffix(".svg"))


if __name__ == "__main__":
    main()
