"""Recipes: their settings are settings, their scripts are scripts, and each goes all the way from text to results.json.

The smoke runs are on text that is made up. S2S_RECIPES=all pytest tests/cli/test_recipes.py makes them on a corner of the real
data too, with S2S_DATA naming a local copy.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_cli import configio

RECIPES = Path(__file__).parents[2] / "recipes"
SCRIPTS = sorted(RECIPES.glob("*/run.sh"))
SMOKING = [script for script in SCRIPTS if "common.sh" in script.read_text()]
LOOKED_AT = "wmt-en-de"  # whose smoke run is looked at closely, on two processes
TOO_LARGE = ("cnn-dailymail", "iwslt14-de-en", "wmt-en-de")  # to take a corner of
ENV = {name: value for name, value in os.environ.items() if not name.startswith("S2S_")}
ENV |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GPUS": "1"}
ENV["PATH"] = f"{Path(sys.executable).parent}:{ENV['PATH']}"


def recipe(script: Path, *args: object, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", script, *map(str, args)], capture_output=True, encoding="utf-8", env=ENV | variables)


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def test_there_are_recipes_and_each_has_its_parts() -> None:
    assert len(SCRIPTS) >= 9
    for script in SCRIPTS:
        assert (script.parent / "README.md").is_file(), script
        assert list(script.parent.glob("*.yaml")), script
        assert f"({script.parent.name})" in (RECIPES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.yaml")), ids=name_of)
def test_settings_are_known_and_fit_together(path: Path) -> None:
    values = configio.gather({}, (), path)
    preset = values.get("train", "preset")
    configio.build(configio.with_preset(values, "tiny" if preset == "auto" else preset))


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_flags_are_flags(script: Path) -> None:
    """Every flag that a script gives to s2s is one; those of other programs are named here."""
    known = {
        configio.flag_of(name, info) for section in configio.Config.model_fields for name, info in _fields(section)
    }
    known |= {"--" + name.replace("_", "-") for section in configio.Config.model_fields for name, _ in _fields(section)}
    others = {"--smoke", "--data", "--work", "--help", "--json", "--src", "--refs", "--flags", "--output"}
    others |= {"--seeds", "--task", "--pairs"}
    others |= {"--suite", "--lists", "--train", "--valid", "--test", "--lang", "--from", "--split-hyphens"}
    code = "\n".join(
        line for line in script.read_text(encoding="utf-8").split("\n") if not line.lstrip().startswith("#")
    )
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code))
    assert used - known - others == set()


def _fields(section: str) -> list:
    names = dict(configio.fields_of(section))
    if section == "model":
        from s2s_cli.config import RnnSettings

        names |= RnnSettings.model_fields
    return list(names.items())


@pytest.mark.parametrize("flags", [[], ["--smoke"], ["one", "two"], ["--smoke", "one"]], ids=" ".join)
def test_what_the_scripts_share(flags: list[str], tmp_path: Path) -> None:
    """Outside a smoke run too, which is all that is run here of recipes."""
    script = tmp_path / "recipes" / "mine" / "run.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(RECIPES / "common.sh", script.parents[1])
    script.write_text(
        'set -euo pipefail\nsource "$(dirname "$0")/../common.sh"\n'
        'once made sh -c "echo first > made"\nonce made sh -c "echo second > made"\necho "$S2S_RECIPE; $(cat made); $PWD"\n'
        "state=run/last/training/state.json; mkdir -p run/last/training\n"
        'touch -t 202001010000 $state\nafter run of sh -c "echo trained >> of"\nafter run of sh -c "echo nothing >> of"\n'
        'touch -t 203801010000 $state\nafter run of sh -c "echo further >> of"\necho $(cat of)\n'
    )
    done = recipe(script, *flags, "--work", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    command = " ".join(["GPUS=1 bash recipes/mine/run.sh", *flags])
    assert done.stdout == f"{command}; first; {tmp_path / 'work'}{'-smoke' * ('--smoke' in flags)}\ntrained further\n"


def test_a_corpus_is_brought_once_and_said_where_from(tmp_path: Path) -> None:
    script = tmp_path / "recipes" / "mine" / "run.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(RECIPES / "common.sh", script.parents[1])
    (tmp_path / "data").symlink_to(RECIPES.parent / "data")
    script.write_text(
        'set -euo pipefail\nsource "$(dirname "$0")/../common.sh"\nbring text/test.tgt sgd text --suite some\n'
        "echo $S2S_ORIGIN: $(wc -l < text/test.src)\n"
    )
    made = recipe(script, "--smoke", "--work", tmp_path / "made")
    assert made.stdout == "made up by data/standin.py: 10\n", made.stderr
    assert "in the place of sgd" in made.stderr
    again = recipe(script, "--smoke", "--work", tmp_path / "made")
    assert (again.stdout, again.stderr) == (made.stdout, "")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("train.src", "train.tgt", "val.src", "val.tgt", "test.src", "test.tgt"):
        (copy / name).write_text("one\ntwo\n")
    script.write_text(script.read_text().replace(" --suite some", ""))
    for k, given in enumerate(({"S2S_DATA": str(copy)}, {})):
        args = [] if given else ["--data", copy]
        taken = recipe(script, "--smoke", *args, "--work", tmp_path / f"taken{k}", **given)
        assert taken.stdout == "local copy: 2\n", taken.stderr


def test_results_have_paired_tests_of_the_pairs_that_are_there(tmp_path: Path) -> None:
    lines = [f"the dog number {k} is sleeping" for k in range(20)]
    for name, text in (("ref", lines), ("good", lines), ("bad", [line[::-1] for line in lines])):
        (tmp_path / name).write_text("".join(line + "\n" for line in text))
    command = [sys.executable, RECIPES / "results.py", "bad=bad", "good=good", "--src", "bad", "--refs", "ref"]
    flags = ["--flags", "--bleu --paired randomization", "--pairs", "good:bad", "other:bad"]
    done = subprocess.run([*command, *flags], capture_output=True, encoding="utf-8", env=ENV, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    [pair] = results["paired"]
    assert (pair["system"], pair["baseline"]) == ("good", "bad")
    assert (pair["scores"][0]["name"], pair["scores"][0]["p_value"] < 0.01) == ("BLEU", True)
    assert pair["scores"][0]["difference"] == pytest.approx(100 - results["systems"][0]["scores"][0]["score"])
    text = results["data"]["test"]["ref"]
    assert text == {"lines": 20, "sha256": hashlib.sha256((tmp_path / "ref").read_bytes()).hexdigest()}
    unpaired = subprocess.run([*command, "--pairs", "good:bad"], capture_output=True, env=ENV, cwd=tmp_path)
    assert (unpaired.returncode, b"--paired" in unpaired.stderr) == (2, True)


@pytest.mark.parametrize("script", SMOKING, ids=name_of)
def test_help_and_mistakes(script: Path, tmp_path: Path) -> None:
    done = recipe(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(option in done.stdout for option in ("--smoke", "--work DIR", f"recipes/{script.parent.name}/run.sh"))
    done = recipe(script, "--smokey")
    assert done.returncode == 2
    assert "--smokey" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_from_text_to_results_and_nothing_twice(tmp_path: Path) -> None:
    script = RECIPES / LOOKED_AT / "run.sh"
    done = recipe(script, "--smoke", "--work", tmp_path / "work", GPUS="2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "work-smoke"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["command"].startswith(f"GPUS=2 bash recipes/{LOOKED_AT}/run.sh --smoke")
    assert "on 2 processes" in done.stderr
    assert results["machine"]
    [system] = results["systems"]
    assert [score["name"] for score in system["scores"]] == ["BLEU", "chrF2"]
    assert all("version" in score["signature"] for score in system["scores"])
    [run] = system["runs"]
    assert (run["seed"], run["updates"], run["settings"]["train"]["accumulate"]) == (1, 4, 4)  # not 8
    assert "commit" in run
    manifest = (folder / "data-bin" / "dataset.json").read_bytes()
    assert run["data"]["sha256"] == hashlib.sha256(manifest).hexdigest()
    assert run["data"]["pairs"] == run["data"]["kept"] + sum(run["data"]["dropped"].values())
    assert results["data"]["from"] == "made up by data/standin.py"
    assert [text["lines"] for text in results["data"]["test"].values()] == [10, 10]
    assert f"| {system['system']} " in done.stdout
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".hyp", ".safetensors")}
    again = recipe(script, "--smoke", "--work", tmp_path / "work", GPUS="2")
    assert again.returncode == 0, again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert done.stdout.endswith(again.stdout)


@pytest.mark.parametrize("script", [s for s in SMOKING if s.parent.name != LOOKED_AT], ids=name_of)
def test_smoke_runs(script: Path, tmp_path: Path) -> None:
    assert smoke_origin(script, tmp_path) == "made up by data/standin.py"


@pytest.mark.skipif(os.environ.get("S2S_RECIPES") != "all", reason="set S2S_RECIPES=all, and S2S_DATA")
@pytest.mark.parametrize("script", [s for s in SMOKING if s.parent.name not in TOO_LARGE], ids=name_of)
def test_smoke_runs_on_a_corner_of_a_local_copy(script: Path, tmp_path: Path) -> None:
    assert smoke_origin(script, tmp_path, S2S_DATA=os.environ["S2S_DATA"]) == "local copy"


def smoke_origin(script: Path, folder: Path, **variables: str) -> str:
    """Where the text is from that a smoke run's results are of."""
    done = recipe(script, "--smoke", "--work", folder / "work", **variables)
    assert done.returncode == 0, done.stderr
    [results] = (folder / "work-smoke").glob("*results.json")
    return json.loads(results.read_text(encoding="utf-8"))["data"]["from"]
