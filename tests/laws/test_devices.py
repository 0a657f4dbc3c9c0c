"""On a GPU every model computes what it does on a CPU, and no step of a search has the host wait: on a pretended device.

But for banned words, which the host looks for in what was said so far.
"""

import copy
import math

import pytest
import torch
from grid import BOS, EOS, GRID, PAD, Case, batch_of, pad, sentences
from pretended_cuda import There, pretended_cuda
from torch import nn

from s2s_cli.config import SearchSettings
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.pack import pack
from s2s_cli.search.hypotheses import Hypothesis
from s2s_cli.search.sampling import sample
from s2s_cli.search.strategies import Specials, beam_search, limits_for

pytestmark = [
    pytest.mark.skipif(torch.backends.cuda.is_built(), reason="a build of torch with CUDA asks its driver"),
    pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN"),
]
EACH = pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
SRC, TGT = sentences(4, seed=1), sentences(4, seed=2)
SPECIALS = Specials(bos=BOS, eos=EOS, banned=(PAD, BOS))


def found(model: Seq2Seq, device: str, way: str, **options: object) -> list[list[Hypothesis]]:
    settings = SearchSettings(**{"beam": 1 if way == "greedy" else 3, "max_len": 3} | options)
    src, src_len = pad(SRC)
    memory = model.encode(src.to(device), src_len)
    limits = limits_for([len(ids) for ids in SRC], settings)
    given = (model.step, memory, model.start(memory), limits, SPECIALS, settings)
    return sample(*given, seeds=[1, 2, 3, 4], num_samples=3) if way == "sampling" else beam_search(*given, num_best=1)


@torch.no_grad()
@EACH
def test_a_gpu_is_given_what_it_needs(case: Case) -> None:
    model, batch = case.build(), batch_of(SRC, TGT)
    loss = float(model(batch).total)
    wanted = {way: found(model, "cpu", way) for way in ("greedy", "beam", "sampling")}
    with pretended_cuda():
        there = copy.deepcopy(model).to("cuda")
        assert all(isinstance(parameter, There) for parameter in there.parameters())
        assert math.isclose(float(there(batch.to("cuda")).total), loss, rel_tol=1e-4)
        for way, each in wanted.items():
            for ours, theirs in zip(found(there, "cuda", way), each, strict=True):
                assert [h.ids for h in ours] == [h.ids for h in theirs]
                assert all(math.isclose(a.logp, b.logp, rel_tol=1e-3) for a, b in zip(ours, theirs, strict=True))


@torch.no_grad()
@EACH
def test_a_packed_model_has_operands_of_one_type(case: Case) -> None:
    """In bf16, of which each product makes up to half a percent of error; search goes through whatever the model has."""
    model = case.build()
    with pretended_cuda():
        there = pack(copy.deepcopy(model).to("cuda"), torch.bfloat16)
        assert not any(isinstance(module, nn.Linear) for module in there.modules())
        assert all(
            math.isfinite(h.logp) for way in ("greedy", "beam") for one in found(there, "cuda", way) for h in one
        )
        logps = []
        for each, device in ((model, "cpu"), (there, "cuda")):
            src, src_len = pad(SRC)
            memory = each.encode(src.to(device), src_len)
            tokens = torch.full((len(SRC),), BOS).to(device)
            logps.append(each.step(tokens, memory, each.start(memory)).logp.to("cpu"))
    assert (logps[0] - logps[1]).abs().max() < 0.1


@pytest.mark.parametrize("way", ["greedy", "beam", "sampling"])
@pytest.mark.parametrize(
    "options", [{}, {"no_repeat_ngram": 2, "repetition_penalty": 1.2}, {"coverage_penalty": 0.2}], ids=str
)
@pytest.mark.parametrize("family", ["tra:", "rnn:"])
def test_no_step_of_a_search_waits(family: str, options: dict[str, float], way: str) -> None:
    """Twice the steps, and no wait more. All outputs are as long as they may be, so that all sentences end together."""
    case = next(
        case for case in GRID if case.name.startswith(family) and getattr(case.settings, "attention", "") != "none"
    )
    with pretended_cuda() as waits:
        model, num = copy.deepcopy(case.build()).to("cuda"), []
        for length in (4, 8):
            before = len(waits)
            outputs = found(model, "cuda", way, min_len=length, max_len=length, max_len_ratio=10.0, **options)
            assert all(len(h.ids) == length for each in outputs for h in each)
            num.append(len(waits) - before)
    assert num[0] == num[1] > 0
