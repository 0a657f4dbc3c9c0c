"""Translating: text to text by a trained model, outputs of their own length, and the whole command from a file to a file."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from on_gpu.turns import Row, all_made, in_turns, now, spread
from s2s_cli.config import RuntimeSettings, SearchSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.search.translator import Translator

ENGINES = ("s2s", "s2s, graphs", "command")
WARM_UPS = 1
Run = Callable[[list[str]], list[str]]


def by_translator(model: Path, device: str, beam: int, graphs: bool) -> Run:
    """`Translator.translate`; SWITCH: with `graphs` steps are recorded, as they are by itself on a GPU."""
    translator = Translator(model, search=SearchSettings(beam=beam), runtime=RuntimeSettings(device=device))
    if not graphs:
        translator.recorder = None
    return translator.translate


def by_command(model: Path, device: str, beam: int) -> Run:
    """`s2s translate`, a new process at each turn."""

    def run(lines: list[str]) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "source", Path(folder) / "target"
            source.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            files = ["-m", model, "-i", source, "-o", target]
            command = [sys.executable, "-m", "s2s_cli", "translate", *files, "--beam", beam, "--device", device]
            subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)
            return target.read_text(encoding="utf-8").split("\n")[:-1]

    return run


def cases(options: argparse.Namespace) -> Iterator[tuple[list[Row], list[Row]]]:
    """Rows and failures, case by case."""
    every = [line for line in read_lines(options.src) if line.strip()]
    for num in options.lines:
        lines = list(islice(every, num))
        for beam in options.beam:

            def make(name: str, beam: int = beam) -> Run:
                if name == "command":
                    return by_command(options.model, options.device, beam)
                return by_translator(options.model, options.device, beam, graphs=name.endswith("graphs"))

            engines, failed = all_made(make, options)
            seconds: dict[str, list[float]] = {name: [] for name in engines}
            first: dict[str, float] = {}
            outputs: dict[str, list[str]] = {}

            def turn(name: str, warms_up: bool, lines: list[str] = lines) -> None:
                begun = now(options.runtime.device)
                outputs[name] = engines[name](lines)  # noqa: B023 - called in this round alone
                spent = now(options.runtime.device) - begun
                if warms_up:
                    first[name] = round(spent, 2)  # noqa: B023
                else:
                    seconds[name].append(spent)  # noqa: B023

            failed |= in_turns(engines, turn, options, WARM_UPS)
            case = {"card": options.card, "model": options.model.name, "lines": len(lines), "beam": beam}
            rows = []
            for name, spent in seconds.items():
                if spent and name not in failed:
                    same = sum(a == b for a, b in zip(outputs[name], outputs["s2s"], strict=True)) / len(lines)
                    row = case | {"engine": name, "rounds": len(spent), "first_seconds": first[name]}
                    row |= {"lines_per_second": spread([len(lines) / x for x in spent]), "same_as_s2s": round(same, 4)}
                    rows.append(row | {"seconds": spread(spent, 3)})
            yield rows, [case | {"engine": name, "why": why} for name, why in failed.items()]
