"""The environments: a folder for each toolkit, made by plain pip; and how a process in one is started and watched."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from peers.clock import RESULT, Task

PEERS = ("s2s", "transformers", "fairseq", "marian", "opennmt", "eole", "joeynmt", "sockeye")
OURS = ("s2s", "ctranslate2")  # in the environment that runs this
INTERVAL = 0.1  # seconds between two looks at a process's memory


def default_folder() -> Path:
    """Where environments, texts and the peers' own files lie: PEERS, or in the folder for temporary files."""
    return Path(os.environ.get("PEERS") or Path(tempfile.gettempdir()) / "s2s-peers")


def peer(name: str) -> ModuleType:
    """The module of a toolkit."""
    return importlib.import_module(f"peers.{name}")


def python(folder: Path, name: str) -> Path:
    """The interpreter that has a toolkit; ours, which has CTranslate2 too, is the one that runs this."""
    return Path(sys.executable) if name in OURS else folder / "environments" / name / "bin" / "python"


def install(folder: Path, name: str) -> None:
    """Make the environment of a toolkit, unless it is there. All have our version of torch."""
    program, done = python(folder, name), folder / "environments" / name / "installed.json"
    if name in OURS or done.exists():
        return
    home = done.parent
    print(f"installing {name} in {home}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    torch = f"torch=={version('torch').partition('+')[0]}"
    for arguments in ([torch, "numpy", "pyyaml"], *peer(name).INSTALL):
        subprocess.run([program, "-m", "pip", "install", "--quiet", *arguments], check=True)
    names = [peer(name).PACKAGE, "torch", "numpy"]
    script = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    found = subprocess.run([program, "-c", script, *names], check=True, capture_output=True, text=True).stdout
    done.write_text(found, encoding="utf-8")


def versions(folder: Path, name: str) -> dict[str, str]:
    """Versions of a toolkit and of what it stands on."""
    if name in OURS:
        return {package: version(package) for package in (peer(name).PACKAGE, "torch", "numpy")}
    return json.loads((folder / "environments" / name / "installed.json").read_text(encoding="utf-8"))


def environment(task: Task) -> dict[str, str]:
    """The variables of a task's process: it finds `peers`, and ours this checkout; it has so many threads, and no network."""
    home = Path(__file__).parents[1]
    path = os.pathsep.join([str(home), str(home.parent)] if task.peer in OURS else [str(home)])
    return os.environ | {
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": str(task.threads),
        "MKL_NUM_THREADS": str(task.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def run(folder: Path, task: Task, limit: float) -> dict[str, Any]:
    """What a task's process found, its peak memory, and its time from start to end. Raises SystemExit, with the end of its log,
    where it fails.
    """
    command = [python(folder, task.peer), "-W", "ignore", "-m", f"peers.{task.peer}", task.dump()]
    log, begun = task.file("log"), time.perf_counter()
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment(task), cwd=task.work)
        peak = watch(process, limit)
    whole = round(time.perf_counter() - begun, 2)
    text = log.read_text(encoding="utf-8", errors="replace")
    found = [line for line in text.split("\n") if line.startswith(RESULT)]
    if not found:
        tail = "\n".join(text.split("\n")[-20:])
        sys.exit(f"{task.peer} ended with exit code {process.returncode} and without a result: {log}\n{tail}")
    return json.loads(found[-1].removeprefix(RESULT)) | {"peak_mb": round(peak / 2**20), "whole_seconds": whole}


def watch(process: subprocess.Popen, limit: float) -> int:
    """The most resident memory, in bytes, that a process and all below it have together. It does not outlive `limit` seconds,
    nor this function.
    """
    peak, begun = 0, time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - begun < limit:
            peak = max(peak, resident(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERVAL)
    finally:
        process.kill()
        process.wait()
    return peak


def resident(pid: int) -> int:
    """Bytes of a process and all below it. Linux only."""
    try:
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, IndexError):  # it has ended
        return 0
    return total + sum(map(resident, children))
