"""Whole commands as processes of their own, without the seconds that importing torch takes.

Run as a script, this imports everything once and then forks a process for each order on standard input, a JSON object a
line. Signals, exit codes and descriptors are those of a real `s2s`; only the interpreter's beginning and end are skipped.
"""

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int  # exit code, or minus the signal that killed it
    out: bytes
    err: str


class Zygote:
    """Starts commands; `run` waits for their end."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._count = scratch, 0
        fixed = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | fixed
        )

    def _ask(self, **order: object) -> int:
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(
        self, *argv: object, cwd: Path, stdin: bytes = b"", file_limit: int = 0, **environment: str
    ) -> tuple[int, Path]:
        """Begin a command; its process id, and the stem of the files that get its output.

        A `file_limit` in bytes makes writing larger files fail, as on a full disk.
        """
        self._count += 1
        stem = self._scratch / str(self._count)
        stem.with_suffix(".in").write_bytes(stdin)
        argv = tuple(map(str, argv))
        order = {"cwd": str(cwd), "stem": str(stem), "environment": environment, "file_limit": file_limit}
        return self._ask(argv=argv, **order), stem

    def wait(self, pid: int, stem: Path) -> Done:
        """The end of a command that was started."""
        code = self._ask(wait=pid)
        return Done(code, stem.with_suffix(".out").read_bytes(), stem.with_suffix(".err").read_text(errors="replace"))

    def run(self, *argv: object, cwd: Path, stdin: bytes = b"", file_limit: int = 0, **environment: str) -> Done:
        """A command from its beginning to its end."""
        return self.wait(*self.start(*argv, cwd=cwd, stdin=stdin, file_limit=file_limit, **environment))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def child(order: dict) -> int:
    """Become the command of an order; its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.update(order["environment"])
    if order["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], resource.RLIM_INFINITY))
    create = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, suffix, flags in ((0, ".in", os.O_RDONLY), (1, ".out", create), (2, ".err", create)):
        file = os.open(order["stem"] + suffix, flags)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = ["s2s", *order["argv"]]
    from s2s_cli.cli import main

    code = 1
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve() -> None:
    import sacrebleu  # noqa: F401
    import torch._dynamo  # noqa: F401 - the first optimizer imports it
    import typer.rich_utils  # noqa: F401

    import s2s_cli.checkpoint.average
    import s2s_cli.cli
    import s2s_cli.data.preprocess
    import s2s_cli.evaluation.score
    import s2s_cli.search.translate
    import s2s_cli.training.train  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # so that children share its memory
    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            os._exit(child(order))
        print(answer, flush=True)


if __name__ == "__main__":
    serve()
