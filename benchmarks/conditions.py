"""What a result file says of its making: command, commit, machine, versions."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def conditions(packages: Iterable[str]) -> dict[str, Any]:
    """To be called before measuring: on a machine that is busy with other things, times say little."""
    arguments = [argument.removeprefix(f"{ROOT}/") for argument in sys.argv[1:]]
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments]),
        "commit": commit(),
        "machine": {
            "cpu": cpu(),
            "cores": os.cpu_count(),
            "busy_before": busy(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }


def busy(seconds: float = 2.0) -> float | None:
    """How many cores were at work over this time, which passes here; None where Linux does not tell."""
    path = Path("/proc/stat")
    if not path.exists():
        return None

    def idle() -> float:
        fields = path.read_text().split("\n", 1)[0].split()[1:]
        return (int(fields[3]) + int(fields[4])) / os.sysconf("SC_CLK_TCK")

    before, begun = idle(), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    return round(max(0.0, (os.cpu_count() or 1) - (idle() - before) / passed), 2)


def commit() -> str:
    """The commit of this checkout; "+" after it where files other than results differ from it; empty outside of git."""
    head = _git("rev-parse", "HEAD")
    return head + "+" if _git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results") else head


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def cpu() -> str:
    """The name of the processor, and where Linux tells them its family and model, since many are named alike."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n") if path.exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in said:
        return platform.processor()
    return f"{said['model name']}, family {said.get('cpu family', '?')}, model {said.get('model', '?')}"
