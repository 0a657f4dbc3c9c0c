"""Recipes: their settings are settings, their scripts are scripts, and one goes all the way from text to results.json.

The smoke runs of all others need their data and some minutes: S2S_RECIPES=all pytest tests/cli/test_recipes.py makes them,
with S2S_DATA naming a local copy.
"""

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
SELF_MADE = "wmt-en-de"  # its smoke run makes its own text
ENV = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GPUS": "1"}
ENV["PATH"] = f"{Path(sys.executable).parent}:{ENV['PATH']}"


def recipe(script: Path, *args: object) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", script, *map(str, args)], capture_output=True, encoding="utf-8", env=ENV)


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
    others = {"--smoke", "--data", "--work", "--help", "--json", "--refs", "--flags", "--output", "--seeds", "--task"}
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
    """Outside a smoke run too, which is all that is run here of most recipes."""
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


@pytest.mark.parametrize("script", [s for s in SCRIPTS if "common.sh" in s.read_text()], ids=name_of)
def test_help_and_mistakes(script: Path, tmp_path: Path) -> None:
    done = recipe(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(option in done.stdout for option in ("--smoke", "--work DIR", f"recipes/{script.parent.name}/run.sh"))
    done = recipe(script, "--smokey")
    assert done.returncode == 2
    assert "--smokey" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_from_text_to_results_and_nothing_twice(tmp_path: Path) -> None:
    script = RECIPES / SELF_MADE / "run.sh"
    done = recipe(script, "--smoke", "--work", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "work-smoke"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["command"].startswith(f"GPUS=1 bash recipes/{SELF_MADE}/run.sh --smoke")
    assert results["machine"]
    [system] = results["systems"]
    assert [score["name"] for score in system["scores"]] == ["BLEU", "chrF2"]
    assert all("version" in score["signature"] for score in system["scores"])
    assert (system["runs"][0]["seed"], system["runs"][0]["updates"]) == (1, 4)
    assert f"| {system['system']} " in done.stdout
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".hyp", ".safetensors")}
    again = recipe(script, "--smoke", "--work", tmp_path / "work")
    assert again.returncode == 0, again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert done.stdout.endswith(again.stdout)


@pytest.mark.skipif(os.environ.get("S2S_RECIPES") != "all", reason="set S2S_RECIPES=all, and S2S_DATA")
@pytest.mark.parametrize("script", [s for s in SCRIPTS if "common.sh" in s.read_text()], ids=name_of)
def test_smoke_runs(script: Path, tmp_path: Path) -> None:
    done = recipe(script, "--smoke", "--work", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "work-smoke").glob("*results.json"))
