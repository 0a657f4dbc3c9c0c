"""The main road as real processes: preprocess, train, translate, score, average, and what stands between them."""

import contextlib
import fcntl
import json
import math
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from samples import TINY, write_corpus
from zygote import Zygote


def lines(data: bytes) -> list[bytes]:
    """Lines of output, each of which has its end."""
    assert not data or data.endswith(b"\n")
    return data[:-1].split(b"\n") if data else []


def test_run_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "train.log", "checkpoints", "best", "last"} <= names
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["update"] for r in records if r["kind"] == "valid"] == [40, 80, 120]
    assert [r["update"] for r in records if r["kind"] == "train"] == [50, 100]
    assert all(r["signature"].startswith("nrefs:1") for r in records if r["kind"] == "valid")


def test_bare_commands_on_defaults(s2s: Zygote, home: Path, run: Path) -> None:
    """`s2s translate -i test.src`, `s2s score --bleu` and `s2s average` find everything where the others left it."""
    done = s2s.run("translate", "-i", "test.src", cwd=home)
    assert done.code == 0, done.err
    assert len(lines(done.out)) == 24
    scored = s2s.run("score", "--bleu", cwd=home, stdin=done.out)
    assert scored.code == 0, scored.err
    assert b"BLEU" in scored.out
    averaged = s2s.run("average", cwd=home)
    assert averaged.code == 0, averaged.err
    assert "averaged 3 checkpoints into averaged: step-0000120, step-0000080, step-0000040" in averaged.err
    assert averaged.out == b""
    assert len(lines(s2s.run("translate", "-m", "averaged", "-i", "test.src", cwd=home).out)) == 24


def test_bare_commands_on_a_settings_file(s2s: Zygote, tmp_path: Path) -> None:
    """With an s2s.yaml beside the data, no command needs a flag."""
    home = write_corpus(tmp_path / "home", num_train=60, num_valid=4)
    for name in ("train", "valid"):
        for side in ("src", "tgt"):
            (home / f"{name}.{side}").rename(home / f"my.{name}.{side}")
    (home / "s2s.yaml").write_text(
        "preprocess:\n"
        + "".join(f"  {n}_{s}: [my.{n}.{s}]\n" for n in ("train", "valid") for s in ("src", "tgt"))
        + "  vocab_size: 400\n  out: made\n"
        "model: {family: rnn, emb_dim: 16, dim: 16}\n"
        "train: {data: made, run: exp, preset: rnn, max_updates: 4, batch_tokens: 200, valid_every: 2}\n"
        "search: {beam: 2, max_len: 6}\n"
        "translate: {model: [exp], input: test.src, output: out.txt}\n"
        "score: {input: [out.txt], chrf: true}\n"
        "average: {bundle: [exp], last: 2, output: mean}\n"
        "runtime: {precision: fp32}\n"
    )
    for command in ("preprocess", "train", "translate", "average"):
        done = s2s.run(command, cwd=home)
        assert (done.code, done.out) == (0, b""), done.err
    assert len(lines((home / "out.txt").read_bytes())) == 4
    assert (home / "mean" / "model.safetensors").exists()
    scored = s2s.run("score", cwd=home)
    assert scored.code == 0, scored.err
    assert b"chrF" in scored.out
    assert b"BLEU" not in scored.out
    shown = s2s.run("config", cwd=home).out.decode()
    assert "run: exp  # s2s.yaml:9" in shown


def test_config_shows_what_train_would_take(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """The preset too, once there is a corpus, whose size chooses it."""
    shown = s2s.run("config", cwd=home)
    assert "preset: tiny  # chosen by corpus size" in shown.out.decode()
    assert "dim: 128  # preset tiny" in shown.out.decode()
    before = s2s.run("config", cwd=tmp_path)
    assert (before.code, "dim: 512  # default" in before.out.decode()) == (0, True)
    assert "without the preset" in before.err


def test_the_settings_of_a_run_begin_it_again(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    """`-c RUN/config.yaml`: that very run, which is done; and with another folder another run, of the same bits."""
    done = s2s.run("train", "-c", run / "config.yaml", cwd=home)
    assert (done.code, "nothing left to do" in done.err) == (0, True), done.err
    done = s2s.run("train", "-c", run / "config.yaml", "--run", tmp_path / "again", cwd=home)
    assert done.code == 0, done.err
    first, again = ((path / "last" / "model.safetensors").read_bytes() for path in (run, tmp_path / "again"))
    assert first == again
    done = s2s.run("preprocess", "--src-vocab", run, "-o", tmp_path / "data", cwd=home)
    assert done.code == 0, done.err
    assert "reused" in done.err


def test_losses_are_one_quantity(run: Path) -> None:
    """Cross-entropy in nats a token, whose exponential is the perplexity; the criterion, with its smoothing, is another."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {record["kind"] for record in records} >= {"train", "valid"}
    for record in records:
        assert record["ppl"] == pytest.approx(math.exp(record["loss"]))
        assert record["kind"] != "train" or record["criterion"] != record["loss"]


@pytest.mark.parametrize("which", ["best", "checkpoints/step-0000120"])
def test_validation_score_is_that_of_translate_and_score(s2s: Zygote, home: Path, run: Path, which: str) -> None:
    """To the last digit, with the same signature."""
    origin = json.loads((run / which / "config.json").read_text())["origin"]
    out = s2s.run("translate", "-m", run / which, "-i", "valid.src", cwd=home).out
    done = s2s.run("score", "--bleu", "--json", "-r", "valid.tgt", cwd=home, stdin=out)
    text = done.out.decode()
    assert origin["bleu"] > 0
    assert origin["precision"] == "fp32", "which translate takes from there"
    assert json.dumps(origin["bleu"]) in text
    assert json.dumps(origin["signature"]) in text


def test_validation_by_every_metric_is_that_of_score(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    names = ["chrf", "ter", "wer", "exact", "rouge1", "rouge2", "rougeL", "rougeLsum"]
    also = [part for name in names for part in ("--valid-also", name)]
    options = ["--max-updates", 60, "--valid-every", 60, "--valid-metric", "wer", *also, "--run", tmp_path / "run"]
    done = s2s.run("train", *TINY, *options, cwd=home)
    assert done.code == 0, done.err
    origin = json.loads((tmp_path / "run/best/config.json").read_text())["origin"]
    out = s2s.run("translate", "-m", tmp_path / "run", "-i", "valid.src", cwd=home).out
    flags = [f"--{name}" for name in ("chrf", "ter", "wer", "exact", "rouge")]
    text = s2s.run("score", *flags, "--json", "-r", "valid.tgt", cwd=home, stdin=out).out.decode()
    for name in names:
        assert json.dumps(origin[name]) in text, name
    assert json.dumps(origin["signature"]) in text


def test_validation_in_bf16_is_that_of_translate_and_score(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    options = ["--precision", "bf16", "--max-updates", 60, "--valid-every", 60, "--run", tmp_path / "run"]
    done = s2s.run("train", *TINY, *options, cwd=home)
    assert done.code == 0, done.err
    origin = json.loads((tmp_path / "run/best/config.json").read_text())["origin"]
    assert origin["precision"] == "bf16"
    options = ["-m", tmp_path / "run", "-i", "valid.src", "--precision", "bf16", "--search-tokens", 200]
    out = s2s.run("translate", *options, cwd=home).out
    text = s2s.run("score", "--bleu", "--json", "-r", "valid.tgt", cwd=home, stdin=out).out.decode()
    assert origin["bleu"] > 0
    assert json.dumps(origin["bleu"]) in text


def test_a_terminal_shows_a_live_line(home: Path, tmp_path: Path) -> None:
    """What training does now, rewritten in place, with the time that is left."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 180, 0, 0))
    options = [*TINY, "--max-updates", 40, "--valid-every", 40, "--log-every", 10, "--run", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "s2s_cli", "train", *map(str, options)], cwd=home, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends on Linux
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    live = [line for line in shown.decode().split("\r") if "tok/s" in line]
    assert any(
        re.search(r"epoch \d+: .*\d+/40, loss \d\.\d+ ppl \S+ lr \S+ norm \S+ \d+ tok/s ETA 0:00:0\d", line)
        for line in live
    ), shown.decode()
    assert shown.decode().count("valid loss") == 1


def test_validation_is_the_same_with_other_search_settings_given(s2s: Zygote, home: Path, run: Path) -> None:
    """A bundle remembers how it was validated; flags change that."""
    plain = s2s.run("translate", "-i", "valid.src", cwd=home).out
    assert s2s.run("translate", "-i", "valid.src", "--beam", 3, cwd=home).out == plain
    other = s2s.run("translate", "-i", "valid.src", "--beam", 1, "--max-len", 2, cwd=home).out
    assert other != plain


def test_average_of_one_checkpoint_translates_as_it_does(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    step = run / "checkpoints" / "step-0000080"
    done = s2s.run("average", "-m", step, "-m", step, "-o", tmp_path / "same", cwd=home)
    assert done.code == 0, done.err
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (step / "model.safetensors").read_bytes()


def test_translation_does_not_depend_on_batches(s2s: Zygote, home: Path, run: Path) -> None:
    text = (home / "test.src").read_bytes()
    expected = s2s.run("translate", cwd=home, stdin=text).out
    for options in (["--search-tokens", 1], ["--flush-every", 5], ["--search-tokens", 100_000, "--flush-every", 1]):
        assert s2s.run("translate", *options, cwd=home, stdin=text).out == expected
    order = list(range(24))
    random.Random(3).shuffle(order)
    shuffled = b"".join(lines(text)[i] + b"\n" for i in order)
    found = s2s.run("translate", cwd=home, stdin=shuffled).out
    assert lines(found) == [lines(expected)[i] for i in order]


NASTY = {
    "empty": b"",
    "whitespace": b" \t ",
    "no-break space alone": "\u00a0".encode(),
    "ideographic space alone": "\u3000\u2003".encode(),
    "NUL": b"the \0 dog",
    "NUL alone": b"\0",
    "carriage return inside": b"the\rdog",
    "carriage return before the end": b"the dog\r",
    "line separator": "the\u2028dog".encode(),
    "line separators alone": "\u2028\u2029\x85".encode(),
    "next line": "the\u0085dog".encode(),
    "vertical tab, form feed, file separator": b"the\x0bdog\x0c\x1c\x1d\x1e",
    "byte order mark": b"\xef\xbb\xbfthe dog",
    "zero width": "\u200b\u200d\ufeff".encode(),
    "bad UTF-8": b"the \xff\xfe dog",
    "cut UTF-8": b"dog \xe2\x82",
    "surrogate": b"\xed\xa0\x80",
    "end piece": b"</s> <s> <pad> <unk>",
    "word mark": "▁the▁dog ▁".encode(),
    "escape mark": "␛␛_".encode(),
    "very long": b"the dog " * 2500,
    "one long word": b"x" * 3000,
    "emoji": "👩‍👩‍👧‍👦🇩🇪".encode(),
    "right to left": "הכלב رأى".encode(),
    "tabs": b"the\tdog\t",
}


@pytest.mark.parametrize("end", [b"\n", b""])
def test_as_many_lines_out_as_in_for_any_bytes(s2s: Zygote, home: Path, run: Path, end: bytes) -> None:
    """Blank ones stay blank, the others come out as they would alone, and what was done to them is told."""
    options = ["--max-src-len", 60, "--max-len", 5]
    text = b"\n".join([*NASTY.values(), b"the old dog"]) + end
    done = s2s.run("translate", *options, cwd=home, stdin=text)
    assert done.code == 0, done.err
    found = lines(done.out)
    assert len(found) == len(NASTY) + 1
    for name, line in zip(NASTY, found, strict=False):
        if ("alone" in name and "NUL" not in name) or name in ("empty", "whitespace"):
            assert line == b"", name
        line.decode()
    assert lines(s2s.run("translate", *options, cwd=home, stdin=b"the old dog\n").out) == found[-1:]
    numbers = {name: number for number, name in enumerate(NASTY, start=1)}
    cut = [line for line in done.err.split("\n") if "--max-src-len" in line]
    assert len(cut) == 1
    assert f"{numbers['very long']}, {numbers['one long word']}" in cut[0]
    bad = [line for line in done.err.split("\n") if "not valid UTF-8" in line]
    assert f"line {numbers['bad UTF-8']}, {numbers['cut UTF-8']}, {numbers['surrogate']}" in bad[0]


@pytest.mark.parametrize(("text", "num"), [(b"", 0), (b"\n", 1), (b"\n\n\n", 3), (b" ", 1)])
def test_nothing_to_translate(s2s: Zygote, home: Path, run: Path, text: bytes, num: int) -> None:
    done = s2s.run("translate", cwd=home, stdin=text)
    assert (done.code, done.out) == (0, b"\n" * num)


def test_formats_are_parsable(s2s: Zygote, home: Path, run: Path) -> None:
    text = b"the dog\n\nthe old cat\n"
    plain = lines(s2s.run("translate", cwd=home, stdin=text).out)
    options = ["--nbest", 2]
    rows = [
        row.split(b"\t") for row in lines(s2s.run("translate", "--format", "tsv", *options, cwd=home, stdin=text).out)
    ]
    assert [(int(r[0]), int(r[1])) for r in rows] == [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)]
    assert [r[3] for r in rows if r[1] == b"1"] == plain
    found = s2s.run("translate", "--format", "jsonl", *options, cwd=home, stdin=text).out
    records = [json.loads(line) for line in lines(found)]
    assert [len(r["hypotheses"]) for r in records] == [2, 0, 2]
    assert records[0]["hypotheses"][0]["text"].encode() == plain[0]
    assert records[0]["hypotheses"][0]["score"] >= records[0]["hypotheses"][1]["score"]


def test_dry_run_writes_nothing(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    done = s2s.run("train", *TINY, "--data", home / "data-bin", "--dry-run", "--max-epochs", 3, cwd=tmp_path)
    assert done.code == 0, done.err
    assert list(tmp_path.iterdir()) == []
    for word in (
        b"parameters",
        b"optimizer",
        b"activations of the hardest batch about ",
        b"target tokens",
        b"updates, about",
        b"3.0 epochs",
    ):
        assert word in done.out


def test_a_dry_run_reads_what_the_run_would_begin_with(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    options = ["train", *TINY, "--data", home / "data-bin", "--dry-run", "--init-from"]
    done = s2s.run(*options, run, cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"\nbegins with weights from {run.resolve()}".encode() in done.out, done.out
    wrong = s2s.run(*options, run, "--dim", 16, cwd=tmp_path)
    assert wrong.code == 2
    assert "give this model the settings of that one" in wrong.err


def test_init_from(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    """With the same vocabulary, the run begins with the other's weights; with another one, with those of common pieces."""
    options = [*TINY, "--max-updates", 1, "--lr", 1e-9, "--init-from", run]
    done = s2s.run("train", *options, "--run", tmp_path / "same", cwd=home)
    assert done.code == 0, done.err
    assert "the vocabularies are the same" in done.err
    score = json.loads((run / "best" / "config.json").read_text())["origin"]["bleu"]
    assert json.loads((tmp_path / "same/best/config.json").read_text())["origin"]["bleu"] == score
    other = write_corpus(tmp_path / "other", num_train=200)
    text = (other / "train.src").read_text()
    (other / "train.src").write_text(text.replace("dog", "elephant"))
    done = s2s.run("preprocess", "--vocab-size", 360, cwd=other)
    assert done.code == 0
    assert done.err.endswith("written to data-bin\n")
    assert "LF" in json.loads((other / "data-bin" / "dataset.json").read_text())["line_rule"]
    done = s2s.run("preprocess", "--vocab-size", 360, "--dry-run", "-o", "dry", cwd=other)
    assert done.code == 0
    assert done.err.endswith("dry run: nothing is written\n")
    assert not (other / "dry").exists()
    done = s2s.run("train", *options, cwd=other)
    assert done.code == 0, done.err
    assert "source vocabulary: " in done.err
    assert " pieces reused, " in done.err
    again = s2s.run("train", *options[:-2], cwd=other)
    assert again.code == 2
    assert "train.init_from: the run has" in again.err


# Real processes from here on: what the interpreter does at its beginning and end is what is tested.


def real(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "s2s_cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=300, **options)


def test_help_and_score_import_no_torch(home: Path) -> None:
    program = (
        "import sys; sys.argv[1:] = {}\n"
        "from s2s_cli.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    heavy = {"torch", "numpy", "safetensors", "sentencepiece", "sacrebleu", "rouge_score"}
    cases = [(["--help"], heavy), (["train", "--help"], heavy), (["--version"], heavy)]
    cases.append((["config"], heavy - {"numpy", "sentencepiece"}))
    cases.append((["score", "--bleu", "-i", "test.tgt"], {"torch", "safetensors", "sentencepiece"}))
    for arguments, unwanted in cases:
        done = subprocess.run(
            [sys.executable, "-c", program.format(arguments)], cwd=home, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
        assert not unwanted & set(done.stderr.split()), arguments


def test_reader_that_has_enough(home: Path, run: Path) -> None:
    """`s2s translate | head -1`: no word on stderr, and no failure."""
    shell = f"{sys.executable} -m s2s_cli translate --flush-every 1 --max-len 3 | head -1; echo ${{PIPESTATUS[0]}}"
    text = (home / "test.src").read_bytes() * 20
    done = subprocess.run(["bash", "-c", shell], cwd=home, input=text, capture_output=True, timeout=300)
    assert done.stderr == b""
    out = lines(done.stdout)
    assert len(out) == 2
    assert out[1] == b"0"


def test_ctrl_c_while_translating(home: Path, run: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "s2s_cli", "translate", "--flush-every", "1"],
        **{"cwd": home, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
        # A shell's background job, which these tests may be part of, ignores SIGINT and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        process.stdin.write(b"the dog\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"\n"), "a line in gives a line out, before the input ends"
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        process.wait(60)
        assert process.returncode == 130
        assert process.stderr.read() == b"s2s: interrupted\n"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_checkpoints_can_be_checked_without_us(run: Path) -> None:
    for folder in [*(run / "checkpoints").iterdir(), *(run / "checkpoints").glob("*/training")]:
        assert os.system(f"cd '{folder}' && sha256sum --quiet --check SHA256SUMS") == 0
