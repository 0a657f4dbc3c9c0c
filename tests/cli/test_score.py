"""`s2s score` as a process: what it prints where, its exit codes, and that it needs no torch."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from s2s_cli.cli import main
from s2s_cli.config import METRICS
from s2s_cli.evaluation.score import corpus_score

REFS = [
    "The dog runs over the old bridge.",
    "",
    "A cat sleeps under the red table.",
    "Now\u2028it\x85rains\rhard here.",
]
HYPS = ["The dog ran over the bridge.", "a", "", "Now\u2028it\x85rains\rhard here."]
OTHER = ["A dog runs over the old bridge.", "", "A cat slept under the table.", "It rains here."]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def process(folder: Path, *args: str, stdin: str = "") -> Done:
    """The command as a process, where it matters that it is one."""
    command = [sys.executable, "-m", "s2s_cli", "score", *args]
    done = subprocess.run(command, cwd=folder, input=stdin.encode(), capture_output=True)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """The command inside this process: a function of its flags."""

    def call(*args: str) -> Done:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["s2s", "score", *args])
        with pytest.raises(SystemExit) as exit_:
            main()
        return Done(int(exit_.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, lines in {"test.tgt": REFS, "hyp": HYPS, "other": OTHER, "short": HYPS[:2]}.items():
        (tmp_path / name).write_bytes("".join(line + "\n" for line in lines).encode())
    return tmp_path


def test_the_bare_command_scores_stdin_against_test_tgt(folder):
    done = process(folder, "--bleu", stdin="".join(line + "\n" for line in HYPS))
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout == f"{corpus_score('bleu', HYPS, [REFS])}\n"


def test_every_metric_is_printed_as_corpus_score_gives_it(folder, run):
    done = run("-i", "hyp", "-r", "test.tgt", "-r", "other")
    expected = [str(corpus_score(name, HYPS, [REFS, OTHER])) for name in METRICS]
    assert [re.sub(r" += ", " = ", line) for line in done.stdout.split("\n")[:-1]] == expected
    assert len({line.index("=") for line in done.stdout.split("\n")[:-1]}) == 1

    printed = json.loads(run("-i", "hyp", "-r", "test.tgt", "-r", "other", "--json").stdout)
    assert printed["num_lines"] == len(REFS)
    [system] = printed["systems"]
    assert [entry["score"] for entry in system["scores"]] == [
        corpus_score(name, HYPS, [REFS, OTHER]).value for name in METRICS
    ]


def test_several_systems_make_a_table_with_the_baseline_first(folder, run):
    done = run("-i", "hyp", "-i", "other", "--baseline", "other", "--chrf", "--ter", "--digits", "4")
    header, *rows = (line.split() for line in done.stdout.split("\n")[:3])
    assert header == ["system", "chrF2", "TER", "↓"]
    scores = {
        name: [corpus_score(m, lines, [REFS]).value for m in ("chrf", "ter")]
        for name, lines in (("other", OTHER), ("hyp", HYPS))
    }
    assert rows == [[name, *(f"{value:.4f}" for value in values)] for name, values in scores.items()]
    assert f"chrF2|{corpus_score('chrf', HYPS, [REFS]).signature}" in done.stdout


def test_paired_test_and_json_tell_the_same(folder, run):
    flags = ["-i", "hyp", "-i", "other", "--rouge", "--paired", "randomization", "--confidence", "--resamples", "100"]
    text, printed = run(*flags).stdout, json.loads(run(*flags, "--json").stdout)
    assert (printed["baseline"], printed["paired"]) == ("hyp", "randomization")
    entry = printed["systems"][1]["scores"][0]
    assert "bs:100|ar:100|seed:12345" in entry["signature"]
    row = next(line for line in text.split("\n") if line.startswith("ROUGE-1 ") and "other" in line)
    numbers = [entry["score"], *(entry["interval"][key] for key in ("mean", "half", "low", "high"))]
    assert [float(n) for n in re.findall(r"\d+\.\d+", row)] == [
        *(round(n, 2) for n in numbers),
        round(entry["p_value"], 4),
    ]
    assert "p_value" not in printed["systems"][0]["scores"][0]


def test_sentence_scores_are_one_row_a_line(folder, run):
    done = run("-i", "hyp", "-i", "other", "--sentence", "--chrf", "--rouge")
    header, *rows = [line.split("\t") for line in done.stdout.split("\n")[:-1]]
    assert header == ["system", "line", "chrF2", "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"]
    assert [row[:2] for row in rows] == [[name, str(k)] for name in ("hyp", "other") for k in (1, 2, 3, 4)]
    assert rows[3][2] == "100.00"
    assert "chrF2|nrefs:1" in done.stderr
    printed = json.loads(run("-i", "hyp", "-i", "other", "--sentence", "--chrf", "--json").stdout)
    assert [f"{v:.2f}" for system in printed["systems"] for v in system["scores"][0]["sentences"]] == [
        row[2] for row in rows
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-i", "short"], r"short has 2, test\.tgt has 4"),
        (["-i", "hyp", "-s", "short", "--diff"], r"short has 2"),
        (["-i", "none"], r"none"),
        (["-i", "hyp", "-r", "empty"], r"empty has 0"),
        (["-i", "empty", "-r", "empty"], r"nothing to score: empty"),
        (["-i", "hyp", "-i", "hyp"], r"hyp is named twice"),
        (["-i", "hyp", "--paired", "bootstrap"], r"paired test needs two systems"),
        (["-i", "-", "-r", "-"], r"standard input is named twice"),
        (["-i", "hyp", "--analyze", "page.html", "--train-tgt", "-", "-s", "-"], r"standard input is named twice"),
        (["-i", "hyp", "--analyze", "test.tgt"], r"write its page over test\.tgt"),
        (["-i", "hyp", "--analyze", "link"], r"write its page over link"),
        (["-i", "hyp", "--analyze", "short", "--train-tgt", "short"], r"write its page over short"),
        (["-i", "hyp", "--tokenize", "moses"], r"tokenize.*13a"),
        (["-i", "hyp", "--sentence", "--confidence"], r"sentence scores"),
        (["-i", "hyp", "--sentence", "--diff"], r"sentence scores"),
        (["-i", "hyp", "--analyze", "test.tgt/page.html"], r"test\.tgt/page\.html could not be written"),
    ],
)
def test_mistakes_end_with_2_and_one_message(folder, run, args, message):
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to("test.tgt")
    done = run("--bleu", *args)
    assert done.returncode == 2
    assert done.stdout == "" or "--analyze" in args
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr, re.DOTALL)


@pytest.mark.parametrize("name", ["stdout", "-"])
def test_no_page_stands_among_the_scores(folder, name):
    (folder / "stdout").symlink_to("/dev/stdout")  # a link, so that no mistake of ours can put a file in its place
    done = process(folder, "--bleu", "-i", "hyp", "--analyze", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard output is for the scores" in done.stderr
    assert (folder / "stdout").is_symlink()


def test_a_page_goes_where_its_name_leads(folder):
    (folder / "place").mkdir()
    (folder / "page").symlink_to("place/page.html")
    done = process(folder, "--bleu", "-i", "hyp", "--analyze", "page")
    assert (done.returncode, done.stderr) == (0, "s2s score: wrote page\n")
    assert (folder / "place" / "page.html").read_text().rstrip().endswith("</html>")
    assert (folder / "page").is_symlink()


def test_warnings_go_to_standard_error(folder, run):
    (folder / "ru").write_text("Собака бежит.\n" * 120, encoding="utf-8")
    (folder / "spaced").write_text("Собака бежит .\n" * 120, encoding="utf-8")
    done = run("-i", "spaced", "-r", "ru")
    assert done.returncode == 0
    assert "120 lines end in a tokenized full stop" in done.stderr
    assert "--rouge-tokenizer unicode" in done.stderr
    idle = run("-i", "ru", "-r", "ru", "--bleu", "--resamples", "9", "-s", "ru", "--train-tgt", "ru")
    assert [line.split()[2] for line in idle.stderr.split("\n")[:-1]] == ["--resamples", "--train-tgt", "--src"]
    idle = run(
        "-i", "ru", "-r", "ru", "--ter", "--rouge-stem", "--smooth", "none", "--chrf-beta", "1", "--ter-no-punct"
    )
    assert [line.split()[2] for line in idle.stderr.split("\n")[:-1]] == ["--chrf-beta", "--rouge-stem", "--smooth"]
    (folder / "s2s.yaml").write_text("score: {rouge_stem: true}\n")
    assert run("-i", "ru", "-r", "ru", "--bleu").stderr == "", "what a file says may be for others"
    (folder / "s2s.yaml").unlink()
    used = run(
        "-i", "ru", "-r", "ru", "--bleu", "--confidence", "--resamples", "9", "-s", "ru", "--diff", "--smooth", "floor"
    )
    assert used.stderr == ""
    quiet = run("-i", "ru", "-r", "ru", "--rouge", "--rouge-tokenizer", "unicode")
    assert quiet.stderr == ""
    assert "= 100.00" in quiet.stdout


def test_diff_and_page(folder, run):
    done = run("-i", "hyp", "-i", "other", "-s", "test.tgt", "--chrf", "--diff", "--analyze", "page.html")
    assert done.returncode == 0
    assert "wrote page.html" in done.stderr
    blocks = done.stdout.split("\n\n")[1:]
    assert blocks[0].startswith("line 3\n")  # one system says nothing there
    assert "{slept}" in blocks[0]
    assert (folder / "page.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    printed = json.loads(run("-i", "hyp", "-i", "other", "--chrf", "--diff", "--json").stdout)
    assert printed["differences"][0]["line"] == 3
    assert printed["differences"][0]["outputs"] == {"hyp": HYPS[2], "other": OTHER[2]}


def test_equal_systems_show_no_p_value_and_no_differences(folder, run):
    (folder / "twin").write_bytes((folder / "hyp").read_bytes())
    flags = ["-i", "hyp", "-i", "twin", "-i", "other", "--chrf", "--paired", "bootstrap", "--resamples", "50"]
    ends = [line.split()[-1] for line in run(*flags).stdout.split("\n")[1:4]]
    assert ends[:2] == ["baseline", "equal"]
    assert 0 < float(ends[2].rstrip("*")) <= 1
    assert run("-i", "hyp", "-i", "twin", "--chrf", "--diff").stdout.endswith("\n\nno differences\n")


def test_diff_writes_control_characters_out_and_names_an_empty_output(folder, run):
    (folder / "hostile").write_text("\x1b]0;title\x07 & bell\n\nA\rcat\x9b31m\ttab\n\n", encoding="utf-8")
    shown = run("-i", "hostile", "--chrf", "--diff").stdout
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert all(mark in shown for mark in (r"\x1b", r"\x07", r"\x0d", r"\x9b", "\t", "(empty)"))


def test_any_locale_and_any_file_name_will_do(folder):
    name = os.fsdecode(b"h\xff")
    (folder / name).write_bytes((folder / "hyp").read_bytes())
    command = [sys.executable, "-m", "s2s_cli", "score", "-i", name, "-i", "other", "--ter", "--analyze", "page.html"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "TER ↓" in done.stdout.decode()
    assert r"h\udcff" in done.stdout.decode()
    assert r"h\udcff" in (folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_a_table(folder, colour):
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {
        "TERM": "xterm-256color",
        "COLUMNS": "100",
    }
    env |= {} if colour else {"NO_COLOR": "1"}
    command = [sys.executable, "-m", "s2s_cli", "score", "-i", "hyp", "--chrf", "--diff"]
    subprocess.run(command, cwd=folder, env=env, stdout=theirs, check=True)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # all was read
        pass
    text = shown.decode()
    assert "│ hyp" in text
    assert ("\x1b[31m" in text) == colour


def test_a_process_ends_with_2_and_says_nothing_on_standard_output(folder):
    done = process(folder, "--bleu", "-i", "short")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_no_torch(folder):
    code = (
        "import sys; from s2s_cli.evaluation.score import score; from s2s_cli.config import ScoreSettings as S;"
        "score(S(input=['hyp', 'other'], paired='bootstrap', resamples=10, analyze='page.html', diff=True));"
        "import s2s_cli.cli; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split("\n")[-2] == "False"
