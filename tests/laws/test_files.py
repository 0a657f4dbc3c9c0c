"""What holds for every model once it has been written to disk: it comes back as it was, and learns on as if it had stayed."""

from pathlib import Path

import pytest
import torch
from grid import GRID, Case, batch_of, sentences
from pydantic import TypeAdapter

from s2s_cli.checkpoint.average import average
from s2s_cli.checkpoint.bundle import WEIGHTS, open_bundle, save_bundle, save_tensors, sizes, weights_of
from s2s_cli.config import AverageSettings, ModelSettings, SearchSettings, TrainSettings
from s2s_cli.data.loader import Batch
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model
from s2s_cli.runtime import Runtime
from s2s_cli.training.optim import build_optimizer, set_rate
from s2s_cli.training.state import Learner

EACH = pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
BATCH = batch_of(sentences(8, seed=1), sentences(8, seed=2))


@pytest.fixture(scope="module")
def other() -> Vocab:
    """A vocabulary of another size than that of the fixture `vocabs`."""
    return Vocab.train(["a few words of another language"], size=300)


def losses(model: Seq2Seq, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack(model.eval()(batch, label_smoothing=0.1)[:2])


@EACH
def test_saved_and_averaged_with_itself_it_is_that_model(case: Case, vocabs: Vocabs, other: Vocab, tmp_path: Path):
    both = vocabs if case.shared else Vocabs(vocabs.src, other)
    torch.manual_seed(1)
    model = build_model(case.settings, sizes(both))
    save_bundle(tmp_path / "one", weights_of(model), case.settings, SearchSettings(), both, {})
    average(AverageSettings(bundle=[tmp_path / "one"] * 3, output=tmp_path / "mean"))
    for name in ("one", "mean"):
        bundle = open_bundle(tmp_path / name)
        assert bundle.model == case.settings
        assert torch.equal(losses(bundle.load_model(torch.device("cpu")), BATCH), losses(model, BATCH))


def learner(case: Case, seed: int) -> Learner:
    torch.manual_seed(seed)
    tgt = 24 if case.shared else 32
    read = TypeAdapter(ModelSettings).validate_python(case.settings.model_dump(mode="json"))
    model = build_model(read, Sizes(src=24, tgt=tgt, shared=case.shared)).train()
    return Learner(model, build_optimizer(model, TrainSettings()))


def update(learner: Learner, number: int) -> None:
    """An update whose dropout is a function of its number."""
    torch.manual_seed(number)
    learner.model(BATCH).total.backward()
    set_rate(learner.optimizer, 1e-3)
    learner.optimizer.step()
    learner.optimizer.zero_grad()


@EACH
def test_resumed_is_straight(case: Case, tmp_path: Path):
    """With dropout, to the bit: a model keeps nothing but its weights from one batch to the next."""
    straight, resumed = learner(case, seed=1), learner(case, seed=2)
    for number in (1, 2):
        update(straight, number)
    (tmp_path / "training").mkdir()
    for file, tensors in straight.snapshot(Runtime(torch.device("cpu"), torch.float32)).items():
        save_tensors(tensors, tmp_path / ("" if file == WEIGHTS else "training") / file)
    resumed.load(tmp_path)
    for each in (straight, resumed):
        update(each, 3)
    wanted = weights_of(straight.model)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights_of(resumed.model).items())
    assert not torch.equal(*(next(iter(weights_of(m).values())) for m in (straight.model, learner(case, 1).model)))
