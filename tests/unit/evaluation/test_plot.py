"""Learning curves: what is drawn is what was recorded."""

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from s2s_cli.config import PlotSettings
from s2s_cli.errors import ConfigError, DataError, S2SError
from s2s_cli.evaluation.plot import _smoothed, plot, read_run

SVG = "{http://www.w3.org/2000/svg}"


def write_run(path: Path, num: int = 30, **more: Any) -> Path:
    path.mkdir(parents=True)
    records = []
    for update in range(10, 10 * num + 1, 10):
        common = {"update": update, "epoch": update / 100, "elapsed": update * 36.0}
        speed = {"lr": 1e-4 * update, "grad_norm": 1.0, "tokens_per_second": 900.0 + update}
        records.append({"kind": "train", **common, "loss": 3.0, "ppl": 2.0 + 100 / update, **speed})
        if update % 50 == 0:
            records.append(
                {"kind": "valid", **common, "loss": 1 + 10 / update, "bleu": update / 10, "ter": 50.0, **more}
            )
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def texts(picture: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ET.parse(picture).iter(f"{SVG}text")]


def test_every_run_has_its_curves_names_and_best_score(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a" / "tiny"), write_run(tmp_path / "b" / "tiny", num=20), write_run(tmp_path / "rnn")]
    out = tmp_path / "curves.svg"
    plot(PlotSettings(runs=runs, output=out))
    found = texts(out)
    for label in ("cross-entropy (nats per token)", "BLEU", "TER (%)", "learning rate", "target tokens per second"):
        assert label in found
    assert f"{runs[0]}, best BLEU 30.00" in found, "two of one name are told apart"
    assert f"{runs[1]}, best BLEU 20.00" in found
    assert "rnn, best BLEU 30.00" in found
    for colour in ("#0072b2", "#d55e00", "#009e73"):
        assert colour in out.read_text().lower()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["curves.svg"], "nothing is left beside it"


def test_the_same_numbers_are_the_same_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("a.svg", "b.svg"):
        plot(PlotSettings(runs=[run], output=tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(("name", "magic"), [("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.SVG", b"<?xml")])
def test_formats(name: str, magic: bytes, tmp_path: Path) -> None:
    plot(PlotSettings(runs=[write_run(tmp_path / "run")], output=tmp_path / name, y=["bleu"]))
    assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize(("x", "last"), [("updates", 300), ("epochs", 3.0), ("hours", 3.0)])
def test_points_are_those_of_the_records(x: str, last: float, tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    at, losses = run.points("train", "loss", x)
    assert len(at) == 30
    assert at[-1] == last
    assert losses[0] == pytest.approx(math.log(12.0)), "what compares with validation: the log of the perplexity"
    at, bleu = run.points("valid", "bleu", x)
    assert at[-1] == last
    assert bleu == [5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
    assert run.points("valid", "ppl", x)[1][0] == pytest.approx(math.exp(1.2))
    assert run.points("train", "criterion", x)[1] == [3.0] * 30
    assert run.points("valid", "criterion", x) == ([], [])


def test_panels_are_those_asked_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    plot(PlotSettings(runs=[run], output=tmp_path / "c.svg", y=["grad_norm", "ppl"], x="hours"))
    found = texts(tmp_path / "c.svg")
    assert "norm of the gradient" in found
    assert "perplexity" in found
    assert found.count("hours") == 2
    assert not any(re.search("BLEU|learning", text) for text in found)


def test_a_run_that_goes_on_is_drawn_so_far(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num=2)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "upd')
    plot(PlotSettings(runs=[run], output=tmp_path / "c.svg"))
    assert "BLEU" not in texts(tmp_path / "c.svg"), "nothing was validated yet"


def test_mistakes(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "c.svg"
    with pytest.raises(DataError, match="No such file"):
        plot(PlotSettings(runs=[tmp_path / "nothing"], output=out))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="no numbers yet"):
        plot(PlotSettings(runs=[tmp_path / "empty"], output=out))
    with pytest.raises(ConfigError, match=r"let its name end in \.svg"):
        plot(PlotSettings(runs=[run], output=tmp_path / "c.gif"))
    with pytest.raises(ConfigError, match="rouge1 was not recorded by any of the runs; there are loss, ppl"):
        plot(PlotSettings(runs=[run], output=out, y=["loss", "rouge1"]))
    with pytest.raises(ValidationError):
        PlotSettings(runs=[])
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace(', "elapsed"', ', "old"'))
    with pytest.raises(DataError, match="without hours"):
        plot(PlotSettings(runs=[run], output=out, x="hours"))
    (run / "metrics.jsonl").write_text("[1]\n" + text)
    with pytest.raises(DataError, match=r"metrics\.jsonl:1 is no record"):
        plot(PlotSettings(runs=[run], output=out))
    assert not out.exists()


def test_it_is_written_where_its_name_leads(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "link.svg").symlink_to("picture")
    plot(PlotSettings(runs=[run], output=tmp_path / "link.svg"))
    assert (tmp_path / "link.svg").is_symlink()
    assert "BLEU" in texts(tmp_path / "picture")
    with pytest.raises(S2SError, match=r"run/metrics\.jsonl/c\.svg could not be written: Not a directory"):
        plot(PlotSettings(runs=[run], output=run / "metrics.jsonl" / "c.svg"))


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 's2s-cli\[plot\]'"):
        plot(PlotSettings(runs=[write_run(tmp_path / "run")]))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1), st.sampled_from([0.0, 0.5, 0.95]))
def test_smoothing_stays_within_its_points_and_treats_both_ends_alike(values: list[float], share: float) -> None:
    smooth = _smoothed(values, share)
    assert len(smooth) == len(values)
    assert all(min(values) - 1e-6 <= value <= max(values) + 1e-6 for value in smooth)
    assert _smoothed(values[::-1], share)[::-1] == pytest.approx(smooth)
    if not share:
        assert smooth == pytest.approx(values)


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    write_run(tmp_path / "a$x_$b")
    plot(PlotSettings(runs=[tmp_path / "a$x_$b"], output=tmp_path / "curves.svg"))
    assert any(text.startswith("a$x_$b, best") for text in texts(tmp_path / "curves.svg"))
