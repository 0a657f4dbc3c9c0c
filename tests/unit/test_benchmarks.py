"""The benchmarks' own arithmetic, on made-up results: what is a rate, what is counted, who is the best, what a table says."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import table
import train
import translate
from peers.clock import SHAPES, Clock, Task
from peers.environments import PEERS, peer
from tables import decoding


def row(engine: str, speed: float, peak: int, cores: float = 2.0) -> train.Row:
    return {
        "engine": engine,
        "round": 1,
        "seconds_per_update": 1.0,
        "src_tokens_per_update": 100.0,
        "tgt_tokens_per_update": speed,
        "tgt_tokens_per_second": speed,
        "cores_used": cores,
        "peak_mb": peak,
    }


ROWS = [
    row("s2s:fp32", 300.0, 90),
    row("fairseq:fp32", 200.0, 100),
    row("eole:fp32", 150.0, 80),
    row("marian:fp32", 100.0, 9),
]


def task(**fields: object) -> Task:
    return Task(**{"peer": "s2s", "shape": "tiny", "text": "text", "work": "work", **fields})  # type: ignore[arg-type]


def test_clock_leaves_the_first_updates_and_the_tokens_of_the_last_tick_out() -> None:
    clock = Clock(task())
    warm_up = SHAPES["tiny"].warm_up
    clock.ticks = [(10.0 * i, 15.0 * i, 1000, 1000) for i in range(warm_up)]
    clock.ticks += [(100.0 + 2 * i, 100.0 + 3 * i, 10, 20) for i in range(5)] + [(110.0, 115.0, 1000, 1000)]
    found = clock.summary()
    assert found["updates"] == 5
    assert found["tgt_tokens_per_second"] == pytest.approx(20 / 2)
    assert found["cores_used"] == pytest.approx(1.5)


def test_task_crosses_a_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = task(work=str(tmp_path / "work"), precision="bf16")
    monkeypatch.setattr(sys, "argv", ["module", given.dump()])
    assert Task.given() == given
    assert (tmp_path / "work").is_dir()


@pytest.mark.parametrize("name", PEERS)
def test_every_toolkit_says_how_it_is_installed_and_what_it_trains(name: str) -> None:
    module = peer(name)
    assert module.PACKAGE
    assert {shape.family for shape in SHAPES.values()} >= set(module.FAMILIES) > set()
    assert "fp32" in module.PRECISIONS
    assert callable(module.train)


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(table.__file__).parent.glob("*.py")))
def test_every_benchmark_finds_what_it_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", sorted({engine.partition(":")[0] for engine in translate.ENGINES}))
def test_every_toolkit_that_translates_can_make_a_model_for_it(name: str) -> None:
    assert callable(peer(name).begin)
    assert callable(peer(name).translate)


def translated(engine: str, beam: int, speed: float, whole: float) -> translate.Row:
    return {"engine": engine, "beam": beam, "pieces_per_second": speed, "whole_seconds": whole, "peak_mb": 100}


def test_what_ours_translates_is_held_to_the_best_in_pytorch() -> None:
    rows = [
        translated("s2s:fp32", 5, 900.0, 4.0),
        translated("s2s:fp32", 5, 1100.0, 2.0),
        translated("ctranslate2:fp32", 5, 2000.0, 1.0),  # not in PyTorch
        translated("fairseq", 5, 500.0, 9.0),
        translated("eole", 5, 250.0, 6.0),
        translated("fairseq", 1, 5000.0, 1.0),  # another beam
    ]
    summed = translate.summary(rows)
    assert [(row["engine"], row["beam"], row["rounds"]) for row in summed][:2] == [
        ("fairseq", 1, 1),
        ("s2s:fp32", 5, 2),
    ]
    found = translate.ratios(summed)
    assert found == [
        {"engine": "s2s:fp32", "beam": 5, "speed": 2.0, "beside": "fairseq", "whole": 2.0, "whole_beside": "eole"}
    ]
    results = {"translate_tiny": {"benchmark": "translate", "engines": summed, "ratios": found}}
    assert (
        decoding.translate(results)[3]
        == "| tiny | 5 | s2s, fp32 | 1,000 (900 to 1,100) | 3.0 (2.0 to 4.0) s | 100 MB | 2 |"
    )
    assert decoding.translate_ratios(results)[2] == "| tiny | 5 | fp32 | 2.00 × fairseq | 2.00 × eole | 0.50 | 0.33 |"


def test_engines_are_those_that_have_the_shape() -> None:
    assert "transformers:fp32" not in train.engines_for("lstm", [])
    assert train.engines_for("tiny", ["s2s", "transformers:bf16"]) == ["s2s:fp32", "transformers:bf16"]
    for wrong in (["transformers"], ["fairseq:bf16"], ["nobody"]):
        with pytest.raises(SystemExit):
            train.engines_for("lstm", wrong)


def test_a_disturbed_round_counts_in_no_median() -> None:
    rows = [*ROWS, row("s2s:fp32", 30.0, 90, cores=1.0), row("s2s:fp32", 310.0, 90, cores=1.95)]
    found = train.summary(rows)["s2s:fp32"]
    assert (found["rounds"], found["disturbed"]) == (2, 1)
    assert found["tgt_tokens_per_second"] == {"median": 305.0, "min": 300.0, "max": 310.0}
    assert found["tokens_per_second"]["min"] == 400.0


def test_ours_is_held_to_the_best_of_each_kind() -> None:
    found = train.ratios(train.summary(ROWS))["s2s:fp32"]
    assert found["tgt_tokens_per_second"] == {"ratio": 1.5, "beside": "fairseq:fp32"}
    assert found["peak_mb"] == {"ratio": round(90 / 80, 2), "beside": "eole:fp32"}  # Marian is not in PyTorch


def test_tables_are_written_between_their_marks_and_again_the_same() -> None:
    text = "before\n<!-- train-ratios -->\nold\n<!-- end -->\nafter\n"
    results = {"train_tiny": {"benchmark": "train", "rows": ROWS}}
    once = table.filled(text, results)
    assert "| tiny | fp32 | 1.50 × fairseq |" in once
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert table.filled(once, results) == once
    with pytest.raises(KeyError):
        table.filled("<!-- nothing -->\n<!-- end -->", results)


@pytest.mark.parametrize("path", table.READMES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_readme_says_what_the_results_say(path: Path) -> None:
    found = table.results()
    text = path.read_text(encoding="utf-8")
    assert table.filled(text, found) == text
    assert text.count("<!-- end -->") >= 1
