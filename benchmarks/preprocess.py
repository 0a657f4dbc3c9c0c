#!/usr/bin/env python3
"""Time and memory of `s2s preprocess` over corpora of growing size, against SentencePiece's own batch encoding.

    python benchmarks/preprocess.py [--pairs N ...] [--workers N] [--work DIR] [--json FILE]

The text is Multi30k's training set (fetched by data/multi30k.py, or the local copy that S2S_DATA names), repeated with
variation: from the second time on, one word in seven is another word of the same side. For each size it measures

- encode: SentencePiece encoding both sides in batches of 100,000 lines held in memory, with as many threads as there
  are workers; nothing is read, filtered or written in that time;
- reuse: `s2s preprocess` with that vocabulary, the whole command: start, reading, filtering, encoding, writing;
- train: the same, training the vocabulary first.

Peak memory is the greatest sum of proportional set sizes (PSS) of the command and its workers, sampled ten times a
second; it counts pages shared by several processes once. Linux only.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import sentencepiece
from conditions import ROOT, conditions

from s2s_cli.worker import cores

SIDES = {"src": "en", "tgt": "de"}
BATCH = 100_000


def varied(path: Path, num: int, seed: int) -> Iterator[str]:
    """The lines of a text again and again, `num` in all; from the second time on with other words here and there."""
    lines = path.read_bytes().decode().split("\n")[:-1]
    words = sorted({word for line in lines for word in line.split(" ")})
    rng = random.Random(seed)
    for i in range(num):
        line = lines[i % len(lines)]
        if i >= len(lines):
            line = " ".join(rng.choice(words) if rng.random() < 1 / 7 else word for word in line.split(" "))
        yield line + "\n"


def encode(folder: Path, model: Path, threads: int) -> float:
    """Seconds that SentencePiece takes for both sides."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    seconds = 0.0
    for side in SIDES:
        with open(folder / f"train.{side}", encoding="utf-8", newline="\n") as file:
            while lines := [line.removesuffix("\n") for line in islice(file, BATCH)]:
                start = time.perf_counter()
                processor.encode(lines, num_threads=threads)
                seconds += time.perf_counter() - start
    return seconds


def preprocess(folder: Path, workers: int, *flags: str) -> dict[str, float]:
    """Seconds and peak memory of the command."""
    command = [sys.executable, "-m", "s2s_cli", "preprocess", "--workers", str(workers), "-o", str(folder / "data-bin")]
    for part in ("train", "valid"):
        for side in SIDES:
            command += [f"--{part}-{side}", str(folder / f"{part}.{side}")]
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen([*command, *flags], stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"preprocess ended with exit code {process.returncode}: {' '.join([*command, *flags])}")
    return {"seconds": round(time.perf_counter() - start, 2), "peak_mb": round(peak / 1024, 1)}


def memory(pid: int) -> int:
    """KiB of a process and all below it, pages shared between them counted once."""
    total = 0
    with contextlib.suppress(OSError, StopIteration):  # it may have ended
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total = int(next(line for line in rollup.split("\n") if line.startswith("Pss:")).split()[1])
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(memory(int(child)) for child in (task / "children").read_text().split())
    return total


def measure(text: Path, num_pairs: int, workers: int, work: Path) -> dict[str, object]:
    """All measurements of one size."""
    folder = work / str(num_pairs)
    folder.mkdir(exist_ok=True)
    for seed, (side, language) in enumerate(SIDES.items()):
        with open(folder / f"train.{side}", "w", encoding="utf-8", newline="\n") as file:
            file.writelines(varied(text / f"train.{language}", num_pairs, seed))
        (folder / f"valid.{side}").write_bytes((text / f"val.{language}").read_bytes())
    megabytes = sum((folder / f"train.{side}").stat().st_size for side in SIDES) / 1e6
    train = preprocess(folder, workers)
    model = folder / "joint.model"
    model.write_bytes((folder / "data-bin" / "vocab" / "joint.model").read_bytes())
    reuse = preprocess(folder, workers, "--src-vocab", str(model))
    seconds = encode(folder, model, workers)
    for path in folder.glob("train.*"):
        path.unlink()
    return {
        "pairs": num_pairs,
        "text_mb": round(megabytes, 1),
        "encode": {"seconds": round(seconds, 2)},
        "reuse": {
            **reuse,
            "over_encode": round(reuse["seconds"] / seconds, 2),
            "pairs_per_second": round(num_pairs / reuse["seconds"]),
        },
        "train": train,
    }


def main() -> None:
    """Measure every size and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--work", type=Path, help="where the text goes (default: a temporary folder)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "preprocess.json")
    options = parser.parse_args()
    made = conditions(["sentencepiece", "numpy"])
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, ROOT / "data" / "multi30k.py", work / "text"], check=True)
        sizes = []
        for num_pairs in options.pairs:
            sizes.append(measure(work / "text", num_pairs, options.workers, work))
            print(json.dumps(sizes[-1]), flush=True)
    result = {
        "benchmark": "preprocess",
        **made,
        "workers": options.workers,
        "sizes": sizes,
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
