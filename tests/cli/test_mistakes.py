"""The user's mistakes: exit code 2, one message that says what and where, nothing on stdout, no traceback."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from samples import TINY, write_corpus
from zygote import Done, Zygote


def check(done: Done, *words: str) -> None:
    assert done.code == 2, done.err
    assert done.out == b""
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, done.err


# Arguments in a folder with a dataset and a run, and what the message says.
MISTAKES: dict[str, tuple[list[object], list[str]]] = {
    "no such command": (["trian"], ["No such command 'trian'"]),
    "no such flag": (["train", "--learning-rate", 1], ["No such option", "--learning-rate"]),
    "flag of another command": (["score", "--beam", 3], ["No such option"]),
    "stray argument": (["train", "run"], ["unexpected extra argument"]),
    "no number": (["train", "--lr", "fast"], ["--lr"]),
    "out of range": (["train", "--lr", -1], ["train.lr", "greater than 0", "--lr"]),
    "no choice": (["train", "--schedule", "cosin"], ["train.schedule", "cosine"]),
    "search in conflict": (["train", "--min-len", 600], ["min_len (600) is more than max_len (512)"]),
    "in conflict with the model": (["translate", "--min-len", 50], ["min_len (50) is more than max_len (24)"]),
    "unknown preset": (["train", "--preset", "tinny"], ["no preset tinny; did you mean tiny?"]),
    "preset of the other family": (
        ["train", "--preset", "rnn", "--heads", 2],
        ["model.heads is no setting of the rnn family"],
    ),
    "unknown key": (["train", "--set", "train.warmpu=3"], ["train.warmpu is no setting", "did you mean warmup?"]),
    "malformed set": (["train", "--set", "lr=3"], ["section.key=value"]),
    "no such settings file": (["train", "-c", "nothing.yaml"], ["nothing.yaml cannot be read: No such file"]),
    "two faults": (["train", "--lr", -1, "--clip", -1], ["train.lr", "train.clip"]),
    "two readings that are one": (
        ["train", *TINY, "--run", "r", "--consistency", "rdrop", "--dropout", 0],
        ["set model.dropout above 0"],
    ),
    "no such dataset": (["train", "--data", "nowhere"], ["nowhere", "s2s preprocess"]),
    "dataset that is a file": (["train", "--data", "train.src"], ["train.src", "s2s preprocess"]),
    "run folder that is a file": (["train", *TINY, "--run", "train.src"], ["train.src cannot be made a run folder"]),
    "no CUDA": (["train", *TINY, "--run", "r", "--device", "cuda"], ["no CUDA device"]),
    "nothing to compile": (
        ["train", *TINY, "--run", "r", "--device", "cpu", "--compile"],
        ["compile is for CUDA devices"],
    ),
    "no CUDA to translate": (["translate", "--device", "cuda"], ["no CUDA device"]),
    "init from nothing": (["train", *TINY, "--run", "r2", "--init-from", "nowhere"], ["nowhere is neither a run"]),
    "init from another shape": (
        ["train", *TINY, "--run", "r3", "--dim", 16, "--init-from", "run"],
        ["give this model the settings of that one"],
    ),
    "no such model": (["translate", "-m", "nowhere"], ["nowhere is neither a run folder nor a bundle"]),
    "a model that is none": (["translate", "-m", "data-bin"], ["data-bin is neither a run folder nor a bundle"]),
    "no such input": (["translate", "-i", "nowhere.src"], ["nowhere.src: no such file"]),
    "input that is a folder": (["translate", "-i", "run"], ["run", "directory"]),
    "output that is a folder": (["translate", "-i", "test.src", "-o", "run"], ["run is a folder"]),
    "output without a name": (
        ["translate", "-i", "test.src", "-o", "."],
        ["translate.output (--output)", "has no name"],
    ),
    "output that is this folder": (
        ["translate", "-i", "test.src", "-o", "."],
        ["translate.output (--output)", "has no name"],
    ),
    "alignments without a name": (
        ["translate", "--alignments", "."],
        ["translate.alignments (--alignments)", "has no name"],
    ),
    "average without a name": (["average", "-o", "."], ["average.output (--output)", "has no name"]),
    "plot without a name": (["plot", "run", "-o", "."], ["plot.output (--output)", "has no name"]),
    "page without a name": (
        ["score", "-i", "test.tgt", "--analyze", "."],
        ["score.analyze (--analyze)", "has no name"],
    ),
    "output over the source": (
        ["translate", "-i", "test.src", "-o", "run/../test.src"],
        ["-o would write over run/../test.src"],
    ),
    "output over the prefixes": (
        ["translate", "-i", "test.src", "--prefix", "test.tgt", "-o", "test.tgt"],
        ["-o would write over test.tgt"],
    ),
    "output over what is scored": (
        ["translate", "-i", "test.src", "--force", "test.tgt", "-o", "test.tgt"],
        ["-o would write over test.tgt"],
    ),
    "output over the alignments": (
        ["translate", "-i", "test.src", "-o", "both", "--alignments", "./both"],
        ["--alignments would write over both"],
    ),
    "output that would be plain": (
        ["translate", "-i", "test.src", "-o", "out.gz"],
        ["-o out.gz: what is written is not compressed: leave out .gz"],
    ),
    "output in no folder": (["translate", "-i", "test.src", "-o", "no/where"], ["no/where could not be written"]),
    "n-best as text": (["translate", "-i", "test.src", "--nbest", 2], ["--format tsv or jsonl"]),
    "n-best beyond the beam": (["translate", "--nbest", 7, "--format", "tsv"], ["nbest (7) is more than beam (3)"]),
    "no reference": (["score", "-i", "test.tgt", "-r", "nowhere"], ["nowhere"]),
    "lengths that differ": (["score", "-i", "train.tgt", "-r", "test.tgt"], ["300", "24"]),
    "average of nothing": (["average", "-m", "nowhere"], ["nowhere is no run folder"]),
    "average of too many": (["average", "--last", 9], ["run keeps 3 validated checkpoints, 9 are wanted"]),
    "best and last": (["average", "--last", 2, "--best", 2], ["name one of last and best"]),
    "average over other things": (["average", "-o", "data-bin"], ["data-bin is there already and is no bundle"]),
    "average over its own run": (["average", "-o", "run"], ["run is there already and is no bundle"]),
    "time without a unit": (["train", "--max-time", "50"], ["train.max_time", "such as 90s, 50m, 3h", "--max-time"]),
    "cutoff of nothing": (["train", "--cutoff", 0.2], ["cutoff needs consistency simcut"]),
    "ramp of nothing": (["train", "--sampling-ramp", 9], ["sampling_ramp needs scheduled_sampling"]),
    "momentum of nothing": (["train", "--momentum", 0.9], ["momentum needs optimizer sgd"]),
    "beta2 of nothing": (["train", "--optimizer", "sgd", "--beta2", 0.9], ["beta2 needs optimizer adam or adamw"]),
    "rate of another optimizer": (
        ["train", "--optimizer", "adafactor", "--lr", 7e-4],
        ["share of each parameter's size", "such as 0.01"],
    ),
    "two readings alike": (
        ["train", "--consistency", "rdrop", "--dropout", 0, "--layer-drop", 0.2],
        ["set model.dropout"],
    ),
    "beta1 of nothing": (
        ["train", "--optimizer", "adafactor", "--lr", 0.01, "--beta1", 0.8],
        ["beta1 needs optimizer adam or adamw"],
    ),
    "factor of nothing": (["train", "--plateau-factor", 0.9], ["plateau_factor needs schedule plateau"]),
    "end of nothing": (["train", "--min-lr", 1e-6], ["min_lr needs max_time, or schedule cosine, linear or plateau"]),
    "spans of nothing": (
        ["train", "--denoise", "mask", "--span-length", 5],
        ["span_length needs denoise infill or span"],
    ),
    "share of nothing": (["train", "--denoise-rate", 0.5], ["denoise_rate needs denoise"]),
    "plot of nothing": (["plot", "nowhere"], ["nowhere/metrics.jsonl: No such file", "s2s train"]),
    "plot of what no run has": (["plot", "-y", "rouge1"], ["rouge1 was not recorded", "there are loss, ppl"]),
    "plot as a table": (["plot", "run", "-o", "x.csv"], ["let its name end in .svg, .png or .pdf"]),
    "plot in no folder": (["plot", "run", "-o", "no/where.svg"], ["no/where.svg could not be written: No such file"]),
    "no training text": (["preprocess", "--train-src", "nowhere", "-o", "x"], ["nowhere"]),
    "sides of other lengths": (["preprocess", "--train-src", "test.src", "-o", "x"], ["24", "300"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_told(name: str, s2s: Zygote, home: Path, run: Path) -> None:
    if name.startswith("no CUDA") and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    arguments, words = MISTAKES[name]
    before = sorted(path.name for path in home.iterdir())
    check(s2s.run(*arguments, cwd=home), *words)
    left = {path.name for path in home.iterdir()} - {*before, "r2", "r3"}  # runs that had begun have their folder
    assert not left


def test_faults_of_a_settings_file_have_their_line(s2s: Zygote, tmp_path: Path) -> None:
    (tmp_path / "s2s.yaml").write_text("train:\n  lr: fast\n  sede: 3\nmodel:\n  dim: 7\n")
    done = s2s.run("config", cwd=tmp_path)
    check(done, "train.lr = 'fast' (s2s.yaml:2)", "train.sede is no setting (s2s.yaml:3); did you mean seed?")
    (tmp_path / "s2s.yaml").write_text("train: [\n")
    check(s2s.run("translate", cwd=tmp_path), "s2s.yaml:2 is no YAML")
    (tmp_path / "s2s.yaml").write_text("search: {min_len: 600}\n")
    done = s2s.run("config", cwd=tmp_path)
    assert done.code == 0, "a model's settings may complete it"
    assert "min_len (600) is more than max_len (512)" in done.err


def test_nothing_there_at_all(s2s: Zygote, tmp_path: Path) -> None:
    """Each bare command in an empty folder says what it lacks and which command makes it."""
    check(s2s.run("preprocess", cwd=tmp_path), "train.src")
    check(s2s.run("train", cwd=tmp_path), "data-bin: no dataset here; make one with: s2s preprocess")
    check(s2s.run("translate", cwd=tmp_path), "run is neither a run folder nor a bundle", "s2s train")
    check(s2s.run("score", cwd=tmp_path), "test.tgt")
    check(s2s.run("average", cwd=tmp_path), "run is no run folder")
    assert list(tmp_path.iterdir()) == []


def test_empty_text(s2s: Zygote, tmp_path: Path) -> None:
    home = write_corpus(tmp_path / "home", num_train=30)
    for name in ("train.src", "train.tgt"):
        (home / name).write_text("")
    check(s2s.run("preprocess", "--vocab-size", 300, cwd=home))
    write_corpus(home, num_train=30)
    for name in ("valid.src", "valid.tgt"):
        (home / name).write_text("")
    done = s2s.run("preprocess", "--vocab-size", 300, cwd=home)
    if done.code == 0:  # what is said then is up to train
        done = s2s.run("train", *TINY, "--max-updates", 2, cwd=home)
    check(done, "valid")


def test_altered_bundle(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree((run / "best").resolve(), tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    check(
        s2s.run("translate", "-m", tmp_path / "copy", cwd=home, stdin=b"x\n"),
        "model.safetensors is torn or was altered",
    )
    check(
        s2s.run("average", "-m", tmp_path / "copy", "-m", run, "-o", tmp_path / "mean", cwd=home), "torn or was altered"
    )
    assert not (tmp_path / "mean").exists()


def test_folder_that_may_not_be_written(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    """As root may write anywhere, a full disk stands for it: no file may grow."""
    done = s2s.run("translate", "-i", "test.src", "-o", tmp_path / "out", cwd=home, file_limit=300)
    assert done.code == 2
    done = s2s.run("average", "-o", tmp_path / "mean", cwd=home, file_limit=2000)
    check(done, "mean could not be written")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_stream_that_was_closed_is_empty(closed: str, home: Path) -> None:
    """Before the command began: it reads nothing from there, writes nothing there, and says what it would have said."""
    line = f"exec {shlex.quote(sys.executable)} -m s2s_cli translate -m nowhere {closed}"
    done = subprocess.run(["sh", "-c", line], cwd=home, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nowhere is neither a run folder nor a bundle" in done.stderr or "2>&-" in closed
