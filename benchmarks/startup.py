#!/usr/bin/env python3
"""How long a command takes that has little to do: --help, the score of 1,000 lines, the translation of one line.

    python benchmarks/startup.py [--repeats 7] [--folder DIR] [--json FILE]

Ours beside the commands of other toolkits, in turns: each command once a round, as a fresh process; its time is the wall clock's,
from start to exit. Environments and text are those of train.py. The lines that are scored are the test references of
Multi30k, one word of each left out. What translates has weights as they begin, `tiny` in size, and writes at most 16 pieces by
a beam of 5; transformers has no command for that and no vocabulary of ours, so that a script loads it and hands it ids. *Phases*
are what ours spends its time in when it translates a line, by a script of the same calls.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from conditions import ROOT, conditions
from peers.clock import Task
from peers.environments import default_folder, environment, install, python, run, versions
from peers.text import prepare

TOOLKITS = ("transformers", "fairseq", "marian", "opennmt", "eole", "joeynmt", "sockeye")
LINE = "A dog runs over the green grass.\n"
SAVE = """from peers.clock import SPECIALS, Task
from peers.transformers import build
task = Task.given()
build(task.size, len(task.vocabulary()) + SPECIALS).save_pretrained("model")
"""
GENERATE = """import torch
from transformers import MarianMTModel
model = MarianMTModel.from_pretrained("model").eval()
print(model.generate(torch.tensor([[5, 6, 7, 8, 9, 10, 3]]), num_beams=5, max_new_tokens=16).tolist())
"""
PHASES = """import json, time
times = {}
def passed(name):
    times[name] = time.perf_counter() - begun - sum(times.values())
begun = time.perf_counter()
import torch
passed("import torch")
import s2s_cli.search.translate
passed("import s2s")
translator = s2s_cli.search.translator.Translator("run")
passed("load")
translator.translate(["A dog runs over the green grass."])
passed("the first line")
translator.translate(["A dog runs over the green grass."])
passed("the second line")
print(json.dumps(times))
"""
Command = tuple[list, Path, str]  # arguments, folder, standard input


def helps(folder: Path) -> dict[str, Command]:
    """The help of the command that translates."""

    def program(name: str, *arguments: str) -> Command:
        return [python(folder, name).parent / arguments[0], *arguments[1:], "--help"], folder, ""

    return {
        "s2s": ([sys.executable, "-m", "s2s_cli", "--help"], ROOT, ""),
        "s2s translate": ([sys.executable, "-m", "s2s_cli", "translate", "--help"], ROOT, ""),
        "fairseq-generate": program("fairseq", "fairseq-generate"),
        "pymarian decode": program("marian", "pymarian", "decode"),
        "onmt_translate": program("opennmt", "onmt_translate"),
        "eole predict": program("eole", "eole", "predict"),
        "python -m joeynmt": ([python(folder, "joeynmt"), "-m", "joeynmt", "--help"], folder, ""),
        "sockeye-translate": program("sockeye", "sockeye-translate"),
    }


def scores(folder: Path, work: Path, text: Path) -> dict[str, Command]:
    """BLEU of 1,000 lines."""
    lines = (text / "raw" / "test_2016_flickr.de").read_text(encoding="utf-8").split("\n")[:1000]
    (work / "ref").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (work / "hyp").write_text("".join(f"{line.partition(' ')[2]}\n" for line in lines), encoding="utf-8")
    fairseq = python(folder, "fairseq").parent / "fairseq-score"
    return {
        "s2s score --bleu": ([sys.executable, "-m", "s2s_cli", "score", "-i", "hyp", "-r", "ref", "--bleu"], work, ""),
        "sacrebleu": ([sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp"], work, ""),
        "fairseq-score": ([fairseq, "--sys", "hyp", "--ref", "ref"], work, ""),
    }


def translations(folder: Path, work: Path, task: Task) -> dict[str, Command]:
    """One line; the models are made first."""
    config = {
        "model": {
            "family": "transformer",
            "encoder_layers": 4,
            "decoder_layers": 4,
            "dim": 128,
            "heads": 4,
            "ffn_dim": 256,
        },
        "train": {"data": str(Path(task.text) / "data-bin"), "run": "run", "max_updates": 1, "valid_metric": "loss"},
        "search": {"beam": 5, "max_len": 16},
    }
    (work / "s2s.yaml").write_text(json.dumps(config), encoding="utf-8")
    settings = environment(task)
    if not (work / "run" / "last").exists():
        subprocess.run([sys.executable, "-m", "s2s_cli", "train"], cwd=work, check=True, env=settings)
    program = python(folder, "transformers")
    if not (work / "model").exists():
        given = replace(task, peer="transformers", work=str(work / "transformers")).dump()
        subprocess.run([program, "-c", SAVE, given], cwd=work, check=True, env=settings)
    task = replace(task, peer="marian", work=str(folder / "work" / "marian" / "tiny"))
    if not (Path(task.work) / "model.npz").exists():
        run(folder, task, limit=300)
    marian = [python(folder, "marian").parent / "pymarian", "decode", "-m", "model.npz", "-v", "vocab.yml", "vocab.yml"]
    marian += ["-b", "5", "--max-length-factor", "2", "--cpu-threads", "2", "--quiet"]
    ours = [sys.executable, "-m", "s2s_cli", "translate", "-m", "run"]
    return {
        "s2s translate": (ours, work, LINE),
        "transformers in a script": ([program, "-c", GENERATE], work, ""),
        "pymarian decode": (marian, Path(task.work), "▁A ▁dog ▁runs ▁over ▁the ▁green ▁grass .\n"),
    }


def phases(work: Path, settings: dict[str, str]) -> dict[str, float]:
    """Seconds of each part of translating a line."""
    command = [sys.executable, "-c", PHASES]
    done = subprocess.run(command, cwd=work, env=settings, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def seconds(command: Command, settings: dict[str, str]) -> float:
    """Wall-clock time of a process."""
    arguments, folder, given = command
    begun = time.perf_counter()
    done = subprocess.run(arguments, cwd=folder, input=given, env=settings, capture_output=True, text=True)
    spent = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{arguments} ended with exit code {done.returncode}\n{done.stderr[-2000:]}")
    return spent


def main() -> None:
    """Measure all commands in turns, print medians and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="environments, text, files of toolkits")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "startup.json")
    options = parser.parse_args()
    made, folder = conditions(["s2s-cli", "torch", "sacrebleu"]), options.folder.resolve()
    for name in TOOLKITS:
        install(folder, name)
    text, work = prepare(folder), folder / "work" / "startup"
    work.mkdir(parents=True, exist_ok=True)
    task = Task(peer="s2s", shape="tiny", text=str(text), work=str(work))
    settings = environment(task)
    groups = {
        "help": helps(folder),
        "score": scores(folder, work, text),
        "translate": translations(folder, work, task),
    }
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(options.repeats + 1):  # the first round brings files into memory
        for group, commands in groups.items():
            for name, command in commands.items():
                spent = seconds(command, settings)
                if number:
                    times.setdefault((group, name), []).append(round(spent, 3))
        for name, spent in phases(work, settings).items() if number else ():
            times.setdefault(("phases", name), []).append(round(spent, 3))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (group, name), values in times.items():
        row = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        found.setdefault(group, {})[name] = row
        print(f"{group:10} {name:26} {row['median']:7.3f} s  ({row['min']:.3f} to {row['max']:.3f})")
    result = {
        "benchmark": "startup",
        **made,
        "toolkits": {name: versions(folder, name) for name in TOOLKITS},
        "repeats": options.repeats,
        "seconds": found,
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
