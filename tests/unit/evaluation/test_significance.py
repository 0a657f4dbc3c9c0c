"""Intervals and p-values: sacrebleu's to the last digit, and right where sacrebleu has none."""

import itertools
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation import significance
from s2s_cli.evaluation.compare import compare
from s2s_cli.evaluation.metrics import build_metric
from s2s_cli.evaluation.significance import bootstrap_sums, randomization_p, randomization_sums

METRICS = {"bleu": True, "chrf": True, "ter": True}


def sacrebleu(*args: str, seed: int = 12345) -> str:
    command = [sys.executable, "-m", "sacrebleu", *args, "-m", "bleu", "chrf", "ter"]
    env = os.environ | {"SACREBLEU_SEED": str(seed)}
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=env).stdout


@pytest.mark.parametrize(
    ("paired", "flags", "num_refs", "seed"),
    [
        ("bootstrap", ["--paired-bs", "--paired-bs-n", "300"], 1, 12345),
        ("randomization", ["--paired-ar", "--paired-ar-n", "500"], 2, 7),
    ],
)
def test_paired_tests_equal_sacrebleus(paired, flags, num_refs, seed, refs, noisy, write):
    systems = {"base": noisy(0.3, 1), "near": noisy(0.3, 2), "better": noisy(0.25, 3)}
    systems["same but three"] = [line + " ok" if i in (10, 20, 30) else line for i, line in enumerate(systems["base"])]
    every = [refs, noisy(0.1, 4)][:num_refs]
    paths = [write(f"ref{k}", ref) for k, ref in enumerate(every)]
    inputs = [write(name, lines) for name, lines in systems.items()]
    out = sacrebleu(*paths, "-i", *inputs, *flags, "-f", "latex", "-w", "4", "-q", seed=seed)
    rows = [line.strip("\\ ").split("&") for line in out.split("\n") if line.count("&") > 1]
    theirs = [[re.findall(r"\d+\.\d+", cell) for cell in row[1:]] for row in rows[1:]]
    theirs_signatures = re.findall(r"nrefs:\S+", out)

    resamples = int(flags[-1])
    settings = ScoreSettings(paired=paired, resamples=resamples, seed=seed, **METRICS)
    comparisons = compare(systems, every, settings)
    assert [c.results[0].score.signature for c in comparisons] == theirs_signatures
    ours = []
    for k in range(len(systems)):
        cells = []
        for result in (c.results[k] for c in comparisons):
            numbers = [result.score.value]
            numbers += [result.interval.mean, result.interval.half] if result.interval else []
            numbers += [result.p_value] if result.p_value is not None else []
            cells.append([f"{number:.4f}" for number in numbers])
        ours.append(cells)
    assert ours == theirs


def test_intervals_equal_sacrebleus(refs, noisy, write):
    hyps = noisy(0.3, 1)
    out = sacrebleu(write("ref", refs), "-i", write("hyp", hyps), "--confidence", "--confidence-n", "200", "-w", "4")
    theirs = {
        entry["name"]: (entry["signature"], entry["confidence_mean"], entry["confidence_var"])
        for entry in json.loads(out)
    }
    comparisons = compare({"hyp": hyps}, [refs], ScoreSettings(confidence=True, resamples=200, **METRICS))
    ours = {}
    for [result] in (c.results for c in comparisons):
        assert result.interval.low <= result.interval.mean <= result.interval.high
        ours[result.score.name] = (
            result.score.signature,
            round(result.interval.mean, 4),
            round(result.interval.half, 4),
        )
    assert ours == theirs


def test_rouge_intervals_are_those_of_a_mean(refs, noisy):
    [comparison] = [
        c
        for c in compare({"hyp": noisy(0.3, 1)}, [refs], ScoreSettings(rouge=True, confidence=True, resamples=4000))
        if c.metric.name == "ROUGE-1"
    ]
    f1 = 100 * comparison.stats[0][:, 0]
    expected = 1.96 * f1.std() / math.sqrt(len(f1))
    interval = comparison.results[0].interval
    assert interval.half == pytest.approx(expected, rel=0.08)
    assert interval.mean == pytest.approx(f1.mean(), abs=0.1 * expected)


def test_rouge_randomization_equals_the_exact_permutation_test(refs, noisy):
    """The share of equally likely outcomes with a difference as large; equal ones count, whatever rounding does."""
    base = noisy(0.3, 1)
    system = list(base)
    system[11], system[12], system[25] = f"{base[11]} Berlin cat", refs[12], refs[25]
    metric = build_metric("rouge1", [refs], ScoreSettings())
    stats = [metric.statistics(hyps) for hyps in (base, system)]
    gaps = (stats[1] - stats[0])[:, 0]
    gaps = gaps[gaps != 0]
    outcomes = [abs(sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)))
                for signs in itertools.product((1, -1), repeat=len(gaps))]  # fmt: skip
    exact = np.mean([outcome >= abs(gaps.sum()) - 1e-12 for outcome in outcomes])
    assert len(gaps) == 3
    assert 0 < exact < 1
    values = [metric.value(s.sum(0).tolist()) for s in stats]
    trials = 4000
    p = randomization_p(metric, *randomization_sums(*stats, trials, seed=1), abs(values[1] - values[0]), False)
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / trials) + 1 / trials)


@pytest.mark.parametrize("differing", range(6))
def test_the_fewer_lines_differ_the_less_they_prove(differing):
    """Of n lines that all speak for one system, chance has all on one side in 2 of 2^n cases."""
    refs = [f"the cat number {n} sat" for n in range(60)]
    base = [line + " not" for line in refs]
    better = [*refs[:differing], *base[differing:]]
    settings = ScoreSettings(exact=True, rouge=True, wer=True, paired="randomization", resamples=4000)
    for c in compare({"base": base, "better": better}, [refs], settings):
        exact = min(1.0, 2 * 0.5**differing)
        assert c.results[1].p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000) + 1 / 4000)


@pytest.mark.parametrize("paired", ["bootstrap", "randomization"])
@pytest.mark.parametrize("num", [20, 200])
def test_systems_that_are_alike_are_told_apart_no_more_often_than_chance_allows(paired, num):
    """Two systems, each right in half of the lines by chance: p below 0.05 in at most one of 20 pairs, and not in almost none."""
    rng = np.random.default_rng(7)
    refs = [f"line {n}" for n in range(num)]
    found = []
    for _ in range(150):
        systems = {name: [line if rng.random() < 0.5 else "no" for line in refs] for name in ("one", "other")}
        [c] = compare(systems, [refs], ScoreSettings(exact=True, paired=paired, resamples=400))
        found.append(c.results[1].p_value < 0.05)
    assert 0.0 < np.mean(found) < 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 150)


@pytest.mark.parametrize("paired", ["bootstrap", "randomization"])
def test_a_clear_difference_is_significant_and_none_is_not(paired, refs, noisy):
    systems = {"base": noisy(0.4, 1), "equal": noisy(0.4, 1), "alike": noisy(0.4, 2), "better": noisy(0.1, 3)}
    for c in compare(systems, [refs], ScoreSettings(paired=paired, resamples=400)):
        assert [result.significant for result in c.results] == [False, False, False, True], c.metric.name
        assert c.results[0].p_value is None
        assert all(0 < result.p_value <= 1 for result in c.results[1:])


def test_drawing_in_pieces_draws_the_same(monkeypatch, refs, noisy):
    metric = build_metric("ter", [refs], ScoreSettings())
    base, system = metric.statistics(noisy(0.3, 1)), metric.statistics(noisy(0.2, 2))
    whole = bootstrap_sums(base, 150, seed=3), *randomization_sums(base, system, 150, seed=3)
    monkeypatch.setattr(significance, "_CELLS", 1)  # pieces of 32 resamples
    pieces = bootstrap_sums(base, 150, seed=3), *randomization_sums(base, system, 150, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))
    assert np.array_equal(whole[1] + whole[2], np.tile(base.sum(0) + system.sum(0), (150, 1)))
