"""`s2s translate` as a process: scoring, choosing, aligning, going on after a kill, sharing work; each option with the others."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from zygote import Done, Zygote

from s2s_cli.checkpoint.bundle import write_sums

FP32 = ["--precision", "fp32"]
LONG = "the dog sees the cat. the man hears the old dog! the young man knows the cat. " * 4


def lines(data: bytes) -> list[str]:
    assert not data or data.endswith(b"\n")
    return data.decode()[:-1].split("\n") if data else []


Translate = Callable[..., Done]


@pytest.fixture
def translate(s2s: Zygote, home: Path, run: Path) -> Translate:
    def call(*options: object, stdin: bytes = b"", **environment: str) -> Done:
        done = s2s.run("translate", *FP32, *options, cwd=home, stdin=stdin, **environment)
        assert done.code == 0, done.err
        return done

    return call


def test_given_outputs_are_scored(translate: Translate, home: Path, tmp_path: Path) -> None:
    """Each by its log-probability; the perplexity of all is that of their sum; a better text is more probable."""
    done = translate("-i", "test.src", "--force", "test.tgt")
    logps = [float(row) for row in lines(done.out)]
    assert len(logps) == 24
    rows = [row.split("\t") for row in lines(translate("-i", "test.src", "--force", "test.tgt", "--format", "tsv").out)]
    assert [float(row[1]) for row in rows] == pytest.approx(logps, abs=1e-4)
    assert [row[4] for row in rows] == (home / "test.tgt").read_text().split("\n")[:-1]
    pieces = sum(int(row[2]) for row in rows)
    assert float(rows[0][3]) == pytest.approx(math.exp(-logps[0] / int(rows[0][2])), rel=1e-3)
    assert f"24 outputs of {pieces} pieces" in done.err
    assert float(done.err.rstrip().rpartition(" ")[2]) == pytest.approx(math.exp(-sum(logps) / pieces), rel=1e-4)
    (tmp_path / "worse").write_text("".join(reversed((home / "test.tgt").read_text().splitlines(keepends=True))))
    worse = [float(row) for row in lines(translate("-i", "test.src", "--force", tmp_path / "worse").out)]
    assert sum(worse) < sum(logps)
    records = [
        json.loads(row) for row in lines(translate("-i", "test.src", "--force", "test.tgt", "--format", "jsonl").out)
    ]
    assert [r["hypotheses"][0]["logp"] for r in records] == pytest.approx(logps, abs=1e-4)
    assert sum(records[0]["hypotheses"][0]["logps"]) == pytest.approx(logps[0], abs=1e-3)


def test_scores_come_with_their_formula(translate: Translate) -> None:
    """On standard error, where scores are written; and settings of no effect are named."""
    told = "score = log p / ((5 + length) / 6)^0.6, in nats, length in pieces with the end"
    gnmt = ["--length-penalty", "gnmt", "--alpha", 0.6]
    for form, expected in (("text", False), ("tsv", True), ("jsonl", True)):
        assert (told in translate(*gnmt, "--format", form, stdin=b"the dog\n").err) == expected
    plain = "score = log p / length^1, in nats"
    once = ["--repetition-penalty", 1.2, "--format", "jsonl"]
    assert "log p [× 1.2 where repeated]" in translate(*once, stdin=b"the dog\n").err
    assert plain in translate(*once, "--samples", 2, stdin=b"the dog\n").err
    forced = translate(*once, "-i", "test.src", "--force", "test.tgt").err
    assert plain in forced
    assert "repetition_penalty: for search alone, and of no effect with --force" in forced
    drawn = translate("--samples", 2, "--beam", 3, "--format", "tsv", stdin=b"the dog\n")
    assert "seed: for sampling alone" in translate("--seed", 2, stdin=b"the dog\n").err
    assert "beam: for search alone, and of no effect with --samples" in drawn.err
    assert (
        "alpha, length_penalty: for choosing in a beam, and of no effect"
        in translate(*gnmt, "--beam", 1, stdin=b"a\n").err
    )
    assert "temperature: for sampling alone" in translate("--temperature", 2, stdin=b"the dog\n").err


def test_blank_lines_are_not_scored(translate: Translate, tmp_path: Path) -> None:
    (tmp_path / "tgt").write_text("\nHund\n\nder Hund\n")
    done = translate("--force", tmp_path / "tgt", stdin=b"\n \nthe dog\nthe dog")
    first, second, third, fourth = lines(done.out)
    assert (first, second) == ("", "")
    assert float(third) < 0
    assert float(fourth) < 0
    assert "1 outputs of blank source lines were not scored: line 2" in done.err
    assert "2 outputs of " in done.err


def test_formats_hold_the_same(translate: Translate, home: Path, tmp_path: Path) -> None:
    text = b"the dog\n\nthe old cat sees\n"
    options = ["--align", "words", "--nbest", 2]
    plain = translate("--alignments", tmp_path / "links", stdin=text)
    rows = [row.split("\t") for row in lines(translate("--format", "tsv", *options, stdin=text).out)]
    records = [json.loads(row) for row in lines(translate("--format", "jsonl", *options, stdin=text).out)]
    assert [len(row) for row in rows] == [5] * 5
    assert [row[4] for row in rows if row[1] == "1"] == lines(plain.out)
    assert [row[3] for row in rows if row[1] == "1"] == lines((tmp_path / "links").read_bytes())
    for row, output in zip([r for r in rows if r[4]], [o for r in records for o in r["hypotheses"]], strict=True):
        assert output["text"] == row[4]
        assert " ".join(f"{i}-{j}" for i, j in output["alignment"]) == row[3]
        assert f"{output['score']:.4f}" == row[2]
        assert sum(output["logps"]) == pytest.approx(output["logp"], abs=1e-4)
        assert len(output["logps"]) == len(output["pieces"]) + 1
    assert not list(tmp_path.glob("*.part*"))


def test_one_sample_a_line_and_the_best_of_several(translate: Translate, home: Path) -> None:
    drawn = translate("-i", "test.src", "--samples", 1).out
    assert translate("-i", "test.src", "--samples", 1, "--flush-every", 5).out == drawn
    assert translate("-i", "test.src", "--samples", 1, "--seed", 2).out != drawn
    rows = [
        row.split("\t")
        for row in lines(translate("-i", "test.src", "--samples", 6, "--mbr", "chrf", "--format", "tsv").out)
    ]
    best = [row[3] for row in rows if row[1] == "1"]
    assert lines(translate("-i", "test.src", "--samples", 6, "--mbr", "chrf").out) == best
    assert all(0 <= float(row[2]) <= 100 for row in rows)
    for metric in ("bleu", "rouge"):
        assert len(lines(translate("-i", "test.src", "--nbest", 3, "--mbr", metric).out)) == 24


def test_prefixes(translate: Translate, home: Path, tmp_path: Path) -> None:
    plain = lines(translate("-i", "test.src").out)
    (tmp_path / "prefix").write_text("\n" * 3 + "ein alte\n" * 21)
    found = lines(translate("-i", "test.src", "--prefix", tmp_path / "prefix").out)
    assert found[:3] == plain[:3]
    assert all(line.startswith("ein alte") for line in found[3:])
    assert lines(translate("-i", "test.src", "--prefix-text", "ein alte").out)[3:] == found[3:]
    assert lines(translate("--prefix-text", "ein", stdin=b"\nthe dog\n").out)[0] == ""


def test_long_lines(translate: Translate) -> None:
    text = f"the dog\n{LONG}\n".encode()
    cut = translate("--max-src-len", 40, stdin=text)
    assert "1 lines were cut to 40 pieces (--max-src-len): line 2" in cut.err
    done = translate("--max-src-len", 40, "--long-lines", "split", stdin=text)
    assert (
        "1 lines of more than 40 pieces (--max-src-len) were split, translated in parts and joined: line 2" in done.err
    )
    assert lines(done.out)[0] == lines(cut.out)[0]
    assert len(lines(done.out)[1]) > 2 * len(lines(cut.out)[1])


def test_a_model_without_attention(translate: Translate, s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """It does all but align; and joins an ensemble with another kind of model, by weight."""
    model = [
        "--preset",
        "rnn-basic",
        "--family",
        "rnn",
        "--emb-dim",
        16,
        "--dim",
        16,
        "--max-updates",
        2,
        "--valid-every",
        2,
    ]
    done = s2s.run("train", *model, *FP32, "--batch-tokens", 200, "--max-len", 9, "--run", tmp_path / "rnn", cwd=home)
    assert done.code == 0, done.err
    text = b"the dog\n\nthe old cat sees\n"
    options = ["-m", tmp_path / "rnn", "--max-len", 9]
    assert len(lines(translate(*options, "--samples", 3, "--mbr", "chrf", stdin=text).out)) == 3
    scored = s2s.run("translate", *options, "-i", "test.src", "--force", "test.tgt", cwd=home)
    assert len(lines(scored.out)) == 24
    for extra in (["--align", "words"], ["--align", "pieces", "--force", "test.tgt"]):
        refused = s2s.run("translate", *options, "-i", "test.src", *extra, "--format", "tsv", cwd=home)
        assert (refused.code, refused.out) == (2, b"")
        assert "attention" in refused.err
    both = ["-m", home / "run", "-m", tmp_path / "rnn", "--max-len", 24]
    plain = translate("-m", home / "run", "-i", "test.src").out
    assert translate(*both, "--weight", 1, "--weight", 0, "-i", "test.src").out == plain
    assert translate(*both, "--weight", 1, "--weight", 5, "-i", "test.src").out != plain


def test_output_goes_where_its_name_leads(translate: Translate, home: Path, tmp_path: Path) -> None:
    plain = translate("-i", "test.src").out
    (tmp_path / "stdout").symlink_to("/dev/stdout")  # a link, so that no mistake of ours can put a file in its place
    assert translate("-i", "test.src", "-o", tmp_path / "stdout").out == plain
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    translate("-i", "test.src", "-o", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "stdout").is_symlink()
    assert (tmp_path / "file").read_bytes() == plain
    assert len(list(tmp_path.iterdir())) == 3


def test_a_line_in_gives_a_line_out(s2s: Zygote, home: Path, run: Path) -> None:
    """With `--flush-every 1`, before the input ends."""
    fifo = home / "lines.fifo"
    os.mkfifo(fifo)
    try:
        process, stem = s2s.start("translate", *FP32, "-i", fifo, "--flush-every", 1, cwd=home)
        with open(fifo, "wb") as pipe:
            for number in (1, 2):
                pipe.write(b"the dog\n")
                pipe.flush()
                wait_until(lambda n=number: stem.with_suffix(".out").read_bytes().count(b"\n") == n)
        assert s2s.wait(process, stem).code == 0
    finally:
        fifo.unlink()


def test_a_large_file_needs_no_more_memory_than_a_small_one(run: Path, tmp_path: Path) -> None:
    """Blank lines, which need no model: what is left is reading and writing. A small process starts ours, and knows its peak."""
    measured = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    peaks = []
    for num_lines in (1, 100_000):
        with open(tmp_path / "src", "wb") as file:
            file.writelines(b" " * 999 + b"\n" for _ in range(num_lines))
        command = ["-m", "s2s_cli", "translate", "-m", run, "-i", "src", "-o", "out", "--device", "cpu"]
        arguments = [sys.executable, "-c", measured, sys.executable, *map(str, command)]
        peak = subprocess.run(arguments, cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout
        assert (tmp_path / "out").read_bytes() == b"\n" * num_lines
        peaks.append(int(peak) * (1 if sys.platform == "darwin" else 1024))
    assert peaks[0] > 50e6, "it counts what it should"
    assert peaks[1] - peaks[0] < 40e6, "of 100 MB"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.fixture
def many(home: Path, tmp_path: Path) -> Path:
    """Text that takes long enough to be interrupted in."""
    (tmp_path / "many").write_text((home / "test.src").read_text() * 40 + f"\n{LONG}\n")
    return tmp_path / "many"


def is_begun(journal: Path) -> bool:
    """Whether a command has written some lines, and noted it."""
    return journal.exists() and json.loads(journal.read_text())["lines"] > 0


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--format", "tsv", "--nbest", 2, "--alignments", "links"],
        ["--force", "many.tgt", "--flush-every", 8],
        ["--samples", 3, "--seed", 7, "--format", "jsonl"],
        ["--samples", 4, "--mbr", "chrf", "--flush-every", 8],
    ],
    ids=["text", "tsv and alignments", "force", "samples and jsonl", "mbr"],
)
def test_killed_it_goes_on(s2s: Zygote, home: Path, run: Path, many: Path, tmp_path: Path, extra: list[object]) -> None:
    """After `kill -9`: byte for byte what an uninterrupted command writes, and the same report."""
    (tmp_path / "many.tgt").write_text("der Hund\n" * many.read_text().count("\n"))
    arguments = ["translate", *FP32, "-m", run, "-i", many, "--flush-every", 20, "--max-src-len", 60, *extra]
    whole = s2s.run(*arguments, "-o", "whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    links = (tmp_path / "links").read_bytes() if "--alignments" in extra else b""
    process, stem = s2s.start(*arguments, "-o", "out", cwd=tmp_path)
    wait_until(lambda: is_begun(tmp_path / "out.part.json"))
    os.kill(process, signal.SIGKILL)
    assert s2s.wait(process, stem).code == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    with open(tmp_path / "out.part", "ab") as file:  # half a line, as a kill may leave it
        file.write(b"der ha")
    again = s2s.run(*arguments, "-o", "out", cwd=tmp_path)
    assert again.code == 0
    assert "going on after line " in again.err
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert again.err.split("\n")[1:] == whole.err.split("\n")
    if links:
        assert (tmp_path / "links").read_bytes() == links
    assert not list(tmp_path.glob("*.part*"))


def test_interrupted_it_says_how_to_go_on(s2s: Zygote, home: Path, run: Path, many: Path, tmp_path: Path) -> None:
    """By Ctrl-C, and by a scheduler."""
    arguments = ["translate", *FP32, "-m", run, "-i", many, "--flush-every", 20, "-o", "out"]
    for signum in (signal.SIGTERM, signal.SIGINT):
        process, stem = s2s.start(*arguments, cwd=tmp_path)
        wait_until(lambda: is_begun(tmp_path / "out.part.json"))
        os.kill(process, signum)
        done = s2s.wait(process, stem)
        assert done.code == 128 + signum
        assert "out.part keeps what was done, up to line " in done.err
        assert "Traceback" not in done.err
        if signum == signal.SIGTERM:  # so that the next one begins anew
            (tmp_path / "out.part").unlink()
            (tmp_path / "out.part.json").unlink()
    other = s2s.run(*arguments, "--beam", 1, cwd=tmp_path)
    assert other.code == 0
    assert "out.part was begun with other search.beam: starting anew" in other.err
    process, stem = s2s.start(*arguments, cwd=tmp_path)
    wait_until(lambda: is_begun(tmp_path / "out.part.json"))
    busy = s2s.run(*arguments, cwd=tmp_path)
    assert busy.code == 2
    assert "out is being written by another process" in busy.err
    os.kill(process, signal.SIGKILL)
    s2s.wait(process, stem)
    with open(many, "a") as file:
        file.write("the dog\n")
    done = s2s.run(*arguments, cwd=tmp_path)
    assert "out.part was begun with other input: starting anew" in done.err
    assert len(lines((tmp_path / "out").read_bytes())) == 24 * 40 + 3


def test_what_another_command_has_left_is_not_gone_on_with(
    s2s: Zygote, home: Path, run: Path, many: Path, tmp_path: Path
) -> None:
    """Killed, and then killed with another text from a pipe, of which nothing is known afterwards."""
    arguments = ["translate", *FP32, "-m", run, "-i", many, "--flush-every", 20, "-o", "out"]
    process, stem = s2s.start(*arguments, cwd=tmp_path)
    wait_until(lambda: is_begun(tmp_path / "out.part.json"))
    os.kill(process, signal.SIGKILL)
    s2s.wait(process, stem)
    os.mkfifo(tmp_path / "pipe")
    process, stem = s2s.start(*arguments[:-4], "--flush-every", 1, "-i", "pipe", "-o", "out", cwd=tmp_path)
    with open(tmp_path / "pipe", "wb") as pipe:
        pipe.write(b"the cat\n" * 40)
        pipe.flush()
        wait_until(lambda: (tmp_path / "out.part").read_bytes().count(b"\n") > 4)
        os.kill(process, signal.SIGKILL)
    s2s.wait(process, stem)
    done = s2s.run(*arguments, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert len(lines((tmp_path / "out").read_bytes())) == len(lines(many.read_bytes()))
    assert not list(tmp_path.glob("*.part*"))


def test_no_file_of_another_name_is_lost(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    """The names beside the output are the user's too."""
    (tmp_path / "doc.part").write_text("the dog\n")
    for flags, message in (
        (["-i", "doc.part", "-o", "doc"], "-o would write over doc.part"),
        (["-i", home / "test.src", "-o", "doc"], "doc.part is there already, and no interrupted command left it"),
        (["-i", home / "test.src", "-o", "o", "--alignments", "o.part"], "--alignments would write over o.part"),
        (["-i", home / "test.src", "-o", "o", "--alignments", "o.part.json"], "would write over o.part.json"),
    ):
        done = s2s.run("translate", "-m", run, *flags, cwd=tmp_path)
        assert done.code == 2
        assert message in done.err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("doc.part", "the dog\n")]


def start_ranks(
    s2s: Zygote, cwd: Path, *arguments: object, world: int = 2, models: Sequence[Path] = ()
) -> list[tuple[int, Path]]:
    """What torchrun does: as many processes, told of each other by their environment; of `models`, each takes one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    return [
        s2s.start(
            *("translate", *FP32, *(["-m", models[rank]] if models else []), *arguments),
            cwd=cwd,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            **common,
        )
        for rank in range(world)
    ]


def test_processes_that_find_other_models_write_nothing(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    """A run that is trained meanwhile may have another best one when the second process looks."""
    shutil.copytree((run / "best").resolve(), tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"more": 1}))
    (tmp_path / "other" / "SHA256SUMS").unlink()
    write_sums(tmp_path / "other")
    models = [run, tmp_path / "other"]
    ours = start_ranks(s2s, tmp_path, "-i", home / "test.src", "-o", "out", models=models)
    main, other = (s2s.wait(*process) for process in ours)
    assert (main.code, other.code) == (2, 2)
    assert "a model was replaced while processes read it" in main.err
    assert other.err == ""
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--format", "tsv", "--nbest", 2, "--alignments", "links"],
        ["--samples", 3, "--seed", 7, "--format", "jsonl", "--align", "words"],
        ["--samples", 4, "--mbr", "chrf", "--format", "tsv"],
    ],
    ids=["text", "tsv", "samples and jsonl", "mbr"],
)
def test_two_processes_write_one_file(s2s: Zygote, home: Path, run: Path, tmp_path: Path, extra: list[object]) -> None:
    (tmp_path / "src").write_text((home / "test.src").read_text() + f"\n{LONG}\nthe dog\n")
    arguments = ["-m", run, "-i", "src", "--max-src-len", 60, *extra]
    one = s2s.run("translate", *FP32, *arguments, "-o", "one", cwd=tmp_path)
    assert one.code == 0, one.err
    links = (tmp_path / "links").read_bytes() if "--alignments" in extra else b""
    main, other = (s2s.wait(*p) for p in start_ranks(s2s, tmp_path, *arguments, "-o", "two", "--flush-every", 7))
    assert (main.code, other.code) == (0, 0), main.err + other.err
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    assert main.err == one.err
    assert other.err == ""
    assert "--alignments" not in extra or (tmp_path / "links").read_bytes() == links
    assert not list(tmp_path.glob("*.part*"))


def test_processes_go_on_and_fail_together(s2s: Zygote, home: Path, run: Path, many: Path, tmp_path: Path) -> None:
    arguments = ["-m", run, "-i", many, "--flush-every", 10]
    assert s2s.run("translate", *FP32, *arguments, "-o", "one", cwd=tmp_path).code == 0
    processes = start_ranks(s2s, tmp_path, *arguments, "-o", "two")
    wait_until(lambda: all(is_begun(tmp_path / f"two.part-{rank}.json") for rank in (0, 1)))
    for process, _ in processes:
        os.kill(process, signal.SIGKILL)
    assert [s2s.wait(*p).code for p in processes] == [-signal.SIGKILL] * 2
    main, other = (s2s.wait(*p) for p in start_ranks(s2s, tmp_path, *arguments, "-o", "two"))
    assert (main.code, other.code) == (0, 0), main.err + other.err
    assert "going on after line " in main.err
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    for extra, message in (
        (["-i", many], "several processes share files"),
        (["-i", "x", "-o", "y"], "x: no such file"),
    ):
        ranks = [s2s.wait(*p) for p in start_ranks(s2s, tmp_path, "-m", run, *extra)]
        assert [done.code for done in ranks] == [2, 2]
        assert all("Traceback" not in done.err for done in ranks)
        assert message in ranks[0].err


MISTAKES: dict[str, tuple[list[object], list[str]]] = {
    "mbr of one": (["--mbr", "chrf"], ["mbr chooses among candidates", "--samples 32"]),
    "samples and n-best": (["--samples", 3, "--nbest", 2], ["leave out one of them"]),
    "several samples as text": (["--samples", 3], ["--format tsv or jsonl"]),
    "alignments as text": (["--align", "words"], ["--alignments FILE"]),
    "two prefixes": (["--prefix", "test.tgt", "--prefix-text", "der"], ["leave out one of them"]),
    "force and others": (
        ["--force", "test.tgt", "--nbest", 2, "--long-lines", "split", "--format", "tsv"],
        ["force scores the outputs that it is given: leave out nbest, long_lines"],
    ),
    "force and mbr": (["--force", "test.tgt", "--mbr", "chrf", "--samples", 2], ["leave out samples, mbr"]),
    "standard input twice": (["-i", "-", "--force", "-"], ["standard input is named twice"]),
    "no such prefix file": (["--prefix", "nowhere"], ["nowhere: no such file"]),
    "fewer outputs": (["-i", "train.src", "--force", "test.tgt"], ["test.tgt ends after line 24", "train.src goes on"]),
    "more prefixes": (
        ["-i", "test.src", "--prefix", "train.tgt"],
        ["test.src ends after line 24", "train.tgt goes on"],
    ),
    "weights for other models": (["--weight", 1, "--weight", 2], ["2 weights for 1 models"]),
    "weight of nothing": (["--weight", 0], ["weights of an ensemble", "at least one above"]),
    "alignments over the source": (["-i", "test.src", "--alignments", "test.src"], ["would write over test.src"]),
    "unknown utility": (["--mbr", "comet"], ["translate.mbr", "'chrf', 'bleu' or 'rouge'"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_told(s2s: Zygote, home: Path, run: Path, name: str) -> None:
    options, words = MISTAKES[name]
    done = s2s.run("translate", *(options if "-i" in options else ["-i", "test.src", *options]), cwd=home)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
