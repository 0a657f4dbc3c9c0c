import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from corpora import beside, content, sentences

from s2s_cli.config import PreprocessSettings
from s2s_cli.data.preprocess import preprocess

Corpus = Callable[..., PreprocessSettings]

RANK = """
import sys
from s2s_cli.config import PreprocessSettings
from s2s_cli.data.preprocess import preprocess
from s2s_cli.errors import S2SError
try:
    preprocess(PreprocessSettings.model_validate_json(sys.argv[1]))
except S2SError as error:
    sys.exit(f"s2s: {error}")
"""


FULL_DISK = """
from s2s_cli.data.ranks import Ranks
with Ranks() as ranks:
    with ranks.step():
        if ranks.rank:
            raise OSError(28, "No space left on device")
    print("went on")
"""


def run_ranks(settings: PreprocessSettings, world: int) -> list[tuple[int, str]]:
    """What `preprocess` does in ranks."""
    return processes(RANK, settings.model_dump_json(), world=world)


def processes(program: str, *arguments: str, world: int) -> list[tuple[int, str]]:
    """Exit code and message of each rank, in the environment that torchrun makes for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=common | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    messages = [process.communicate(timeout=300)[1] for process in started]
    return [(process.returncode, message) for process, message in zip(started, messages, strict=True)]


def test_a_disk_that_is_full_for_one_ends_all() -> None:
    (first, quiet), (second, message) = processes(FULL_DISK, world=2)
    assert (first, second) == (2, 1)
    assert "Traceback" not in quiet
    assert "No space left on device" in message


def test_ranks_write_what_one_process_writes(corpus: Corpus, tmp_path: Path) -> None:
    src, tgt = sentences(300, 1) * 50, sentences(300, 2) * 50  # four blocks: the ranks have two and two
    src[9000] = " "
    one, two = (
        corpus(src, tgt, out=tmp_path / name, vocab_sample=300, duplicates="drop", allow_drops=True) for name in "ab"
    )
    preprocess(one)
    assert [code for code, _ in run_ranks(two, 2)] == [0, 0]
    assert content(one.out) == content(two.out)
    assert json.loads((one.out / "report.json").read_text()) == json.loads((two.out / "report.json").read_text())
    assert beside(two) == {"a", "b"}


def test_a_mistake_found_by_one_rank_ends_all(corpus: Corpus, tmp_path: Path) -> None:
    preprocess(corpus(out=tmp_path / "first"))
    settings = corpus(sentences(9000), src_vocab=tmp_path / "first")
    lines = settings.train_src[0].read_bytes().split(b"\n")
    lines[5000] += b"\xff"  # in the second block, which the second rank has
    settings.train_src[0].write_bytes(b"\n".join(lines))
    (first, quiet), (second, message) = run_ranks(settings, 2)
    assert (first, second) == (2, 1)
    assert "train.src:5001: byte 0xFF" in message
    assert "0xFF" not in quiet
    assert beside(settings) == {"first"}
