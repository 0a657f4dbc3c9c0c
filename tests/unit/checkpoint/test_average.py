"""Averages of bundles: the mean of each weight, of models that belong together."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import MODEL, random_model

from s2s_cli.checkpoint.average import average
from s2s_cli.checkpoint.bundle import open_bundle, rank, save_bundle, sizes, weights_of
from s2s_cli.config import AverageSettings, SearchSettings
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.errors import BundleError, ConfigError, S2SError
from s2s_cli.models.build import build_model

CPU = torch.device("cpu")


def save(path: Path, vocabs: Vocabs, seed: int, **origin: object) -> Path:
    save_bundle(path, weights_of(random_model(vocabs, seed)), MODEL, SearchSettings(beam=seed + 1), vocabs, origin)
    return path


def average_of(tmp_path: Path, *paths: Path, **settings: object) -> dict[str, torch.Tensor]:
    average(AverageSettings(bundle=list(paths), output=tmp_path / "mean", **settings))
    return weights_of(open_bundle(tmp_path / "mean").load_model(CPU))


def test_average_with_itself_is_itself(tmp_path: Path, vocabs: Vocabs) -> None:
    path = save(tmp_path / "a", vocabs, 1)
    ours = weights_of(random_model(vocabs, 1))
    for paths in ([path, path, path], [path]):
        mean = average_of(tmp_path, *paths)
        assert all(torch.equal(ours[name], mean[name]) for name in ours)


def test_an_average_takes_the_place_of_nothing_that_is_needed(tmp_path: Path, vocabs: Vocabs) -> None:
    """Neither of what is averaged, by whatever name, nor of a checkpoint that a run goes on from."""
    one, two = (save(tmp_path / str(seed), vocabs, seed) for seed in (1, 2))
    (tmp_path / "link").symlink_to(two)
    checkpoint = save(tmp_path / "step-0000007", vocabs, 3)
    (checkpoint / "training").mkdir()
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    save(run / "checkpoints" / "averaged", vocabs, 4)
    for output in (one, tmp_path / "link", tmp_path / "2" / "..", checkpoint, run / "checkpoints" / "averaged"):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises((ConfigError, S2SError)):
            average(AverageSettings(bundle=[one, two], output=output))
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    average(AverageSettings(bundle=[one, two], output=tmp_path / "mean"))
    average(AverageSettings(bundle=[one, one], output=tmp_path / "mean"))


def test_average_is_the_mean_and_order_is_nothing(tmp_path: Path, vocabs: Vocabs) -> None:
    paths = [save(tmp_path / str(seed), vocabs, seed) for seed in (1, 2, 3)]
    mean = average_of(tmp_path, *paths)
    models = [weights_of(random_model(vocabs, seed)) for seed in (1, 2, 3)]
    for name, tensor in mean.items():
        assert torch.allclose(tensor, torch.stack([m[name] for m in models]).mean(dim=0), atol=1e-6)
    again = average_of(tmp_path, *reversed(paths))
    assert all(torch.equal(mean[name], again[name]) for name in mean)
    assert open_bundle(tmp_path / "mean").search.beam == 4, "the first one's search settings"


def test_settings_that_change_no_shape_may_differ(tmp_path: Path, vocabs: Vocabs) -> None:
    first = save(tmp_path / "a", vocabs, 1)
    other = MODEL.model_copy(update={"dropout": 0.5, "attention_dropout": 0.2, "layer_drop": 0.1, "init": "depth"})
    save_bundle(tmp_path / "b", weights_of(random_model(vocabs, 2)), other, SearchSettings(), vocabs, {})
    assert average_of(tmp_path, first, tmp_path / "b").keys() == weights_of(random_model(vocabs, 1)).keys()


def test_different_models_are_refused(tmp_path: Path, vocabs: Vocabs) -> None:
    first = save(tmp_path / "a", vocabs, 1)
    wider = MODEL.model_copy(update={"ffn_dim": 32})
    weights = weights_of(build_model(wider, sizes(vocabs)))
    save_bundle(tmp_path / "b", weights, wider, SearchSettings(), vocabs, {})
    with pytest.raises(BundleError, match="different shapes: ffn_dim 24 and 32"):
        average_of(tmp_path, first, tmp_path / "b")
    vocab = Vocab.train(["another text"], size=300)
    save(tmp_path / "c", Vocabs(vocab, vocab), 1)
    with pytest.raises(BundleError, match="different vocabularies"):
        average_of(tmp_path, first, tmp_path / "c")
    assert not (tmp_path / "mean").exists()


def make_run(tmp_path: Path, vocabs: Vocabs, metric: str, values: list[float]) -> Path:
    """A run whose checkpoint of update i has seed i as its weights; the last one was saved by a signal."""
    for i, value in enumerate(values, start=1):
        scores = {"loss": 1.0} | {metric: value} | {"metric": metric}
        save(tmp_path / f"run/checkpoints/step-{i:07d}", vocabs, i, update=i, **scores)
    save(tmp_path / f"run/checkpoints/step-{len(values) + 1:07d}", vocabs, 99, update=len(values) + 1)
    (tmp_path / "run/checkpoints/.step-0000001.gone").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("metric", "wanted", "seeds"),
    [
        ("bleu", {"best": 2}, {2, 4}),
        ("ter", {"best": 2}, {1, 3}),
        ("loss", {"best": 1}, {3}),
        ("bleu", {"last": 2}, {3, 4}),
        ("bleu", {}, {1, 2, 3, 4}),
    ],
)
def test_best_last_and_all_of_a_run(tmp_path: Path, vocabs: Vocabs, metric: str, wanted: dict, seeds: set) -> None:
    run = make_run(tmp_path, vocabs, metric, [2.0, 5.0, 1.0, 5.0])
    chosen = [tmp_path / f"run/checkpoints/step-{seed:07d}" for seed in seeds]
    mean = average_of(tmp_path, run, **wanted)
    averaged = {item["bundle"] for item in open_bundle(tmp_path / "mean").origin["averaged"]}
    assert averaged == {path.name for path in chosen}
    if len(chosen) > 1:
        again = average_of(tmp_path, *chosen)
        assert all(torch.equal(mean[name], again[name]) for name in mean)


def test_mistakes_are_named(tmp_path: Path, vocabs: Vocabs) -> None:
    run = make_run(tmp_path, vocabs, "bleu", [1.0, 2.0])
    with pytest.raises(ConfigError, match="keeps 2 validated checkpoints, 3 are wanted"):
        average_of(tmp_path, run, last=3)
    with pytest.raises(ConfigError, match="2 checkpoints are averaged, and --weight is given 1 times"):
        average_of(tmp_path, run, best=2, weight=[2.0])
    with pytest.raises(ConfigError, match="name one run"):
        average_of(tmp_path, run, run, best=2)
    with pytest.raises(BundleError, match="no run folder with checkpoints"):
        average_of(tmp_path, tmp_path / "nothing")
    with pytest.raises(BundleError, match="neither a run folder nor a bundle"):
        average_of(tmp_path, tmp_path / "nothing", run)
    (tmp_path / "mean").mkdir()
    (tmp_path / "mean" / "thesis.txt").write_text("years of work")
    with pytest.raises(S2SError, match="is no bundle"):
        average_of(tmp_path, run)
    assert (tmp_path / "mean" / "thesis.txt").read_text() == "years of work"


def test_a_weight_counts_as_so_many_copies(tmp_path: Path, vocabs: Vocabs) -> None:
    first, second = (save(tmp_path / str(seed), vocabs, seed) for seed in (1, 2))
    weighted = average_of(tmp_path, first, second, weight=[1.0, 3.0])
    assert [item["weight"] for item in open_bundle(tmp_path / "mean").origin["averaged"]] == [1.0, 3.0]
    copies = average_of(tmp_path, first, second, second, second)
    assert all(torch.allclose(weighted[name], copies[name], atol=1e-7) for name in copies)
    assert not all(
        torch.allclose(weighted[name], tensor) for name, tensor in weights_of(random_model(vocabs, 1)).items()
    )


def test_best_by_another_metric_than_the_run_was_validated_by(tmp_path: Path, vocabs: Vocabs) -> None:
    for i, (bleu, ter) in enumerate([(3.0, 1.0), (2.0, 5.0), (1.0, 2.0)], start=1):
        scores = {"loss": 1.0, "bleu": bleu, "ter": ter, "metric": "bleu"}
        save(tmp_path / f"run/checkpoints/step-{i:07d}", vocabs, i, update=i, **scores)
    average_of(tmp_path, tmp_path / "run", best=2, metric="ter")
    averaged = [item["bundle"] for item in open_bundle(tmp_path / "mean").origin["averaged"]]
    assert averaged == ["step-0000001", "step-0000003"]
    with pytest.raises(ConfigError, match="no chrf: train with --valid-also chrf"):
        average_of(tmp_path, tmp_path / "run", best=2, metric="chrf")


@given(st.permutations([(math.nan, 1), (2.0, 2), (1.0, 3), (1.0, 4)]))
def test_what_is_no_number_is_the_worst(scored: list[tuple[float, int]]) -> None:
    for metric, wanted in (("loss", [3, 4, 2, 1]), ("bleu", [2, 3, 4, 1])):
        records = [{"loss": 1.0, "update": update} | {metric: value} for value, update in scored]
        assert [record["update"] for record in sorted(records, key=lambda r: rank(r, metric))] == wanted


def test_weights_whose_sum_is_no_number(tmp_path: Path, vocabs: Vocabs) -> None:
    paths = [save(tmp_path / str(seed), vocabs, seed) for seed in (1, 2)]
    plain, huge = average_of(tmp_path, *paths), average_of(tmp_path, *paths, weight=[1e308, 1e308])
    assert all(torch.equal(plain[name], huge[name]) for name in plain)
