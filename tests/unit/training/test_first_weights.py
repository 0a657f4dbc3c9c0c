"""What a run begins with: word vectors in their place at update 0, and parts that stay as they began, to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from samples import WORDS, sentences

from s2s_cli.checkpoint.bundle import open_bundle, save_bundle, sizes, weights_of
from s2s_cli.config import Config, Part, RnnSettings, SearchSettings, TransformerSettings
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.errors import ConfigError, DataError, Interrupted
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.embeddings import load_embeddings
from s2s_cli.runtime import Runtime, StopSignal
from s2s_cli.training.init_from import first_weights, init_from
from s2s_cli.training.log import Log
from s2s_cli.training.optim import freeze, moments_of
from s2s_cli.training.state import Progress
from s2s_cli.training.train import _fresh_learner, train
from s2s_cli.training.trainer import Trainer

CPU = Runtime(torch.device("cpu"), torch.float32)
PARTS: list[Part] = list(get_args(Part))
SIZES = {"dim": 16, "heads": 2, "ffn_dim": 24, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.1}


def config(home: Path, run: Path, model: dict | None = None, **train: object) -> Config:
    train = {"data": home / "data-bin", "run": run, "batch_tokens": 256, "warmup": 2, "max_updates": 6} | train
    return Config.model_validate(
        {
            "model": {"family": "transformer", "tie": "none", **SIZES, **(model or {})},
            "train": train,
            "search": {"beam": 2, "max_len": 8},
            "runtime": {"device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture(scope="module")
def dataset(home: Path) -> Dataset:
    return Dataset.open(home / "data-bin")


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A vector for each word of both languages, 16 wide."""
    path = tmp_path / "vectors.txt"
    words = [*WORDS, *WORDS.values()]
    path.write_text(
        "".join(f"{w} {' '.join(str((i * 7 + j) % 5 - 2) for j in range(16))}\n" for i, w in enumerate(words))
    )
    return path


def covered(path: Path, dataset: Dataset, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the pieces that have a vector in the file, and these vectors: what chance draws differs from call to call."""
    matrices = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        matrices.append(load_embeddings(path, getattr(dataset.vocabs, side))[0])
    ids = (matrices[0] == matrices[1]).all(dim=1).nonzero().squeeze(1)
    assert 10 < len(ids) < len(matrices[0])
    return ids, matrices[0][ids]


# What differs in its modules.
MODELS = [
    TransformerSettings(),
    TransformerSettings(positions="learned", head="copy", coverage=True, tie="none"),
    TransformerSettings(positions="relative", norm="post", autoregression="ssru"),
    RnnSettings(),
    RnnSettings(
        attention="none", bridge="linear", bidirectional=False, encoder_layers=3, residual=True, layer_norm=True
    ),
    RnnSettings(attention="additive", attention_place="before", head="copy", coverage=True, tie="none"),
]


@pytest.mark.parametrize("settings", MODELS)
def test_each_parameter_is_of_a_part_and_tied_ones_of_several(settings: TransformerSettings | RnnSettings) -> None:
    def frozen(*parts: Part) -> set[str]:
        with torch.device("meta"):
            model = build_model(settings, Sizes(64, 64, True))
        freeze(model, parts)
        return {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}

    assert not frozen()
    of = {part: frozen(part) for part in PARTS}
    assert all(of.values())
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        frozen(*PARTS)
    assert frozen(*PARTS[:-1]) == set().union(*(of[part] for part in PARTS[:-1]))
    assert "head.bias" in of["output"] - frozen(*PARTS[:-1])
    apart = settings.tie == "none"
    for part in ("src-embedding", "tgt-embedding", "output"):
        names = {"src_embedding.weight", "tgt_embedding.weight", "head.weight"} & of[part]
        assert len(names) == (1 if apart else 3)
    assert not of["encoder"] & of["decoder"]


@pytest.mark.parametrize(
    "optimizer", [{}, {"optimizer": "adafactor", "lr": 0.01}, {"optimizer": "sgd", "momentum": 0.9}]
)
@pytest.mark.parametrize("part", PARTS)
def test_frozen_parts_stay_and_all_else_moves(
    part: Part, optimizer: dict, home: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """For all that weight decay, momentum, clipping and the moving average would do to them."""
    options = {"freeze": [part], "weight_decay": 0.1, "ema": 0.9, "clip": 0.5, "lr": 0.1} | optimizer
    settings = config(home, tmp_path / "run", **options)
    settings.train.run.mkdir()
    learner = _fresh_learner(settings, dataset, CPU)
    frozen = {name for name, p in learner.model.named_parameters() if not p.requires_grad}
    assert {name.partition(":")[2] for name in moments_of(learner.model, learner.optimizer)} == set(
        weights_of(learner.model)
    ) - frozen
    held = {p for group in learner.optimizer.param_groups for p in group["params"]}
    assert held == {p for p in learner.model.parameters() if p.requires_grad}
    before = {name: tensor.clone() for name, tensor in weights_of(learner.model).items()}
    no_checkpoints = type("None", (), {"costs": lambda self, history: []})()
    loop = Trainer(settings, dataset, learner, no_checkpoints, Progress(), CPU, Log(settings.train.run))
    learner.model.train()
    for _ in range(3):
        loop._update(StopSignal())
    loop.stream.close()
    for weights in (weights_of(learner.model), learner.average.weights):
        assert {name for name in before if torch.equal(before[name], weights[name])} == frozen
    with learner.averaged() as model:
        assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}])
def test_resumed_is_straight_and_reads_no_vectors_again(
    more: dict, home: Path, dataset: Dataset, vectors: Path, tmp_path: Path
) -> None:
    """Frozen vectors are those of the file in every checkpoint, the moving average's too."""
    options = {"freeze": ["tgt-embedding", "encoder"], "weight_decay": 0.1, "valid_every": 3, "tgt_embeddings": vectors}
    straight, resumed = (config(home, tmp_path / name, **options, **more) for name in ("straight", "resumed"))
    train(straight)
    train(resumed.model_copy(update={"train": resumed.train.model_copy(update={"max_updates": 3})}))
    ids, expected = covered(vectors, dataset, "tgt")
    vectors.unlink()
    train(resumed)
    ours, theirs = (tmp_path / name / "checkpoints" for name in ("straight", "resumed"))
    files = sorted(str(path.relative_to(ours)) for path in ours.rglob("*.safetensors"))
    assert len(files) == 2 * (3 if more else 2)
    for file in files:
        assert (ours / file).read_bytes() == (theirs / file).read_bytes(), file
    from safetensors.torch import load_file

    weights = [load_file(ours / file) for file in files if "optimizer" not in file]
    for of in weights:
        assert torch.equal(of["tgt_embedding.weight"][ids], expected)
        assert torch.equal(of["encoder.0.feed_forward.up.weight"], weights[0]["encoder.0.feed_forward.up.weight"])
    assert not torch.equal(weights[0]["head.bias"], weights[-1]["head.bias"])


def test_vectors_are_in_place_before_the_first_update(
    home: Path, dataset: Dataset, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """In the model and in its moving average; all other weights are those of a run without them."""
    seen: list[dict[str, torch.Tensor]] = []

    def begin(loop: Trainer, _stop: object) -> None:
        learner = loop.learner
        assert all(torch.equal(tensor, learner.average.weights[n]) for n, tensor in weights_of(learner.model).items())
        seen.append({name: tensor.clone() for name, tensor in weights_of(learner.model).items()})
        raise Interrupted(15, "seen enough")

    monkeypatch.setattr(Trainer, "run", begin)
    for options in ({}, {"src_embeddings": vectors}, {"src_embeddings": vectors, "tgt_embeddings": vectors}):
        with pytest.raises(Interrupted):
            train(config(home, tmp_path / str(len(seen)), ema=0.9, **options))
    log = capsys.readouterr().err
    assert log.count("source embedding from") == 2
    assert log.count("target embedding from") == 1
    plain, source, both = seen
    assert {name for name in plain if not torch.equal(plain[name], source[name])} == {"src_embedding.weight"}
    assert {name for name in source if not torch.equal(source[name], both[name])} == {"tgt_embedding.weight"}
    for side in ("src", "tgt"):
        ids, expected = covered(vectors, dataset, side)
        assert torch.equal(both[f"{side}_embedding.weight"][ids], expected)


@pytest.mark.parametrize(
    ("model", "options", "error", "words"),
    [
        ({}, {"src_embeddings": Path("nowhere.vec")}, DataError, "nowhere.vec: no such file"),
        ({"dim": 8}, {"tgt_embeddings": True}, ConfigError, "16 wide, the tgt embedding is 8"),
        ({"tie": "all"}, {"src_embeddings": True}, ConfigError, "share one embedding"),
        ({}, {"freeze": PARTS}, ConfigError, "leaves nothing to train"),
    ],
)
def test_a_mistake_is_named_and_can_be_put_right(
    model: dict, options: dict, error: type, words: str, home: Path, vectors: Path, tmp_path: Path
) -> None:
    options = {key: vectors if value is True else value for key, value in options.items()}
    with pytest.raises(error, match=words):
        train(config(home, tmp_path / "run", model, **options))
    train(config(home, tmp_path / "run", max_updates=1))  # the same run folder, nothing of it begun


def test_vectors_follow_the_weights_of_a_bundle(bundle: Path, vocabs: Vocabs, vectors: Path, tmp_path: Path) -> None:
    """Named together, a bundle gives all but the embedding that the vectors are for."""
    from samples import MODEL, random_model

    model = build_model(MODEL, sizes(vocabs))
    settings = Config.model_validate({"train": {"init_from": bundle, "tgt_embeddings": vectors}}).train
    reports = first_weights(model, vocabs, settings)
    assert [report.split(" from ")[0] for report in reports] == ["weights", "target embedding"]
    given, found = weights_of(random_model(vocabs)), weights_of(model)
    assert {name for name in given if not torch.equal(given[name], found[name])} == {"tgt_embedding.weight"}


@pytest.mark.parametrize(
    "plain", [TransformerSettings(tie="all"), RnnSettings(attention="additive", tie="all")], ids=["transformer", "rnn"]
)
def test_a_copy_head_may_be_new(plain: TransformerSettings | RnnSettings, vocabs: Vocabs, tmp_path: Path) -> None:
    """It and coverage stay as initialised, all else is the bundle's; told by name, as is what a bundle has too much."""
    copying = plain.model_copy(update={"head": "copy", "coverage": True})
    models = {}
    for seed, settings in enumerate((plain, copying)):
        torch.manual_seed(seed)
        models[settings.head] = build_model(settings, sizes(vocabs))
        save_bundle(tmp_path / settings.head, weights_of(models[settings.head]), settings, SearchSettings(), vocabs, {})
    fresh = {name: tensor.clone() for name, tensor in weights_of(models["copy"]).items()}
    given = weights_of(models["softmax"])
    added = fresh.keys() - given.keys()
    assert {"head.generate.weight", "head.generate.bias"} < added
    told = init_from(models["copy"], vocabs, open_bundle(tmp_path / "softmax"))
    assert "settings that differ" not in told
    assert all(torch.equal(t, (fresh if n in added else given)[n]) for n, t in weights_of(models["copy"]).items())
    assert "new, as that model has no such part: " in told
    assert "head.generate.weight" in told
    assert "left out" not in told
    told = init_from(models["softmax"], vocabs, open_bundle(tmp_path / "copy"))
    assert "left out, as this model has no such part: " in told
    assert all(torch.equal(t, fresh[n]) for n, t in weights_of(models["softmax"]).items())


@pytest.mark.parametrize("plain", [TransformerSettings(), RnnSettings(dim=64, emb_dim=64)])
def test_one_table_fills_those_of_both_sides(
    plain: TransformerSettings | RnnSettings, vocabs: Vocabs, tmp_path: Path
) -> None:
    """A model with one vocabulary begins one with a vocabulary for each side, or with an output layer of its own."""
    tied, apart = (plain.model_copy(update={"tie": tie}) for tie in ("all", "none"))
    shared = build_model(tied, sizes(vocabs))
    save_bundle(tmp_path / "shared", weights_of(shared), tied, SearchSettings(), vocabs, {})
    model = build_model(apart, replace(sizes(vocabs), shared=False))
    init_from(model, vocabs, open_bundle(tmp_path / "shared"))
    for table in (model.src_embedding, model.tgt_embedding, model.head):
        assert torch.equal(table.weight, shared.tgt_embedding.weight)


def test_one_table_takes_from_those_of_both_sides(vocabs: Vocabs, tmp_path: Path) -> None:
    """Each piece from the target's, and what only the source's vocabulary has from that."""
    plain = TransformerSettings(tie="target")
    texts = [[pair[side] for pair in sentences(200, seed=9)] for side in (0, 1)]
    apart = Vocabs(*(Vocab.train(text, size=400) for text in texts))
    given = build_model(plain, sizes(apart))
    save_bundle(tmp_path / "apart", weights_of(given), plain, SearchSettings(), apart, {})
    model = build_model(TransformerSettings(tie="all"), sizes(vocabs))
    told = init_from(model, vocabs, open_bundle(tmp_path / "apart"))
    assert "left out" not in told
    counts = {"tgt": 0, "src": 0}
    for i in range(len(vocabs.tgt)):
        piece = vocabs.tgt.piece(i)
        side = "tgt" if piece in apart.tgt else "src" if piece in apart.src else None
        if side is not None:
            table = getattr(given, f"{side}_embedding").weight
            assert torch.equal(model.tgt_embedding.weight[i], table[getattr(apart, side).id(piece)])
            counts[side] += 1
    assert min(counts.values()) > 10


def test_settings_that_no_shape_tells_are_told(bundle: Path, vocabs: Vocabs) -> None:
    from samples import MODEL

    other = MODEL.model_copy(update={"activation": "gelu", "positions": "rotary", "dropout": 0.4})
    told = init_from(build_model(other, sizes(vocabs)), vocabs, open_bundle(bundle))
    assert "settings that differ, there and here: activation relu and gelu, positions sinusoidal and rotary" in told
