"""Decoding: searches of ours and `generate` of MarianMTModel over the same sources, outputs of one length."""

import argparse
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peers.transformers import EOS, PAD, START, UNK
from torch import Tensor

from on_gpu.turns import LONGEST, MEAN, VOCAB, Ids, Row, all_made, first_model, in_turns, marian, now, padded, spread
from s2s_cli.config import SearchSettings
from s2s_cli.models.layers import lanes
from s2s_cli.models.pack import pack
from s2s_cli.models.transformer import Transformer
from s2s_cli.search.graphs import Recorder
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.strategies import Specials, beam_search, limits_for

ENGINES = ("s2s", "s2s, graphs", "transformers", "transformers, static")
PIECES = 32  # of every output
WARM_UPS = 2  # rounds: ours records the steps of a batch whose shape comes again


class Decoder(NamedTuple):
    """An engine that decodes: outputs of a batch of sources, and how many steps these take it."""

    run: Callable[[Ids], Ids]
    steps: int


def sources_of(num: int) -> Ids:
    """Sentences of about 28 pieces, longest first."""
    chance = random.Random(1)
    lengths = sorted((min(LONGEST, max(6, round(chance.gauss(MEAN, 6)))) for _ in range(num)), reverse=True)
    return [[*(chance.randrange(EOS + 1, VOCAB) for _ in range(length - 1)), EOS] for length in lengths]


def our_decoding(model: Transformer, dtype: torch.dtype, beam: int, graphs: bool) -> Decoder:
    """Ours, as the translator has it; SWITCH: with `graphs` steps are recorded."""
    device = model.head.weight.device
    ensemble = Ensemble([pack(copy.deepcopy(model), dtype)])
    settings = SearchSettings(beam=beam, min_len=PIECES, max_len=PIECES, max_len_extra=PIECES)
    recorder, specials = Recorder() if graphs else None, Specials(bos=START, eos=EOS, banned=(UNK, PAD, START))

    @torch.inference_mode()
    def run(batch: Ids) -> Ids:
        src, src_len = padded(batch), torch.tensor([len(ids) for ids in batch])
        src = F.pad(src, (0, lanes(src.shape[1]) - src.shape[1]), value=PAD)
        memory = ensemble.encode(src.to(device), src_len)
        rest = (limits_for([len(ids) - 1 for ids in batch], settings), specials, settings)
        found = beam_search(ensemble.step, memory, ensemble.start(memory), *rest, scores=False, recorder=recorder)
        return [hypotheses[0].ids for hypotheses in found]

    return Decoder(run, PIECES + (graphs or beam > 1))  # the end of a greedy output at its limit is not asked for


def their_decoding(model: torch.nn.Module, beam: int, static: bool) -> Decoder:
    """`generate`, whose cache grows, or is static, which has it compile the steps."""
    lengths = {"min_new_tokens": PIECES, "max_new_tokens": PIECES}
    kind = {"cache_implementation": "static"} if static else {}

    @torch.inference_mode(not static)
    def run(batch: Ids) -> Ids:
        src = padded(batch).to(model.device)
        seen = (src != PAD).long()
        found = model.generate(input_ids=src, attention_mask=seen, num_beams=beam, do_sample=False, **lengths, **kind)
        return found[:, 1:].tolist()

    return Decoder(run, PIECES)


def decode_case(engines: dict[str, Decoder], batches: list[Ids], options: argparse.Namespace) -> tuple[list[Row], dict]:
    """Speed of each engine on these batches; and who fell out."""
    device, num = options.runtime.device, sum(map(len, batches))
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    warm: dict[str, float] = {}
    outputs: dict[str, Ids] = {}

    def turn(name: str, warms_up: bool) -> None:
        begun = now(device)
        found = [ids for batch in batches for ids in engines[name].run(batch)]
        spent = now(device) - begun
        if {len(ids) for ids in found} != {PIECES}:
            raise ValueError(f"outputs of other lengths than {PIECES}")
        outputs.setdefault(name, found)
        if warms_up:
            warm[name] = round(warm.get(name, 0.0) + spent, 1)
        else:
            seconds[name].append(spent)

    failed, rows = in_turns(engines, turn, options, WARM_UPS), []
    for name, spent in seconds.items():
        if name in failed or not spent:
            continue
        row = {"engine": name, "rounds": len(spent), "warm_up_seconds": warm[name], "same_as": same(outputs, name)}
        row["tokens_per_second"] = spread([num * PIECES / x for x in spent])
        row["ms_per_step"] = spread([1000 * x / len(batches) / engines[name].steps for x in spent], 3)
        row["ms_per_sentence"] = spread([1000 * x / num for x in spent], 3)
        rows.append(row)
    return rows, failed


def same(outputs: dict[str, Ids], name: str) -> dict[str, float]:
    """The share of outputs that are those of another engine, for each other one."""
    own = outputs[name]
    pairs = ((other, zip(own, theirs, strict=True)) for other, theirs in outputs.items() if other != name)
    return {other: round(sum(a == b for a, b in both) / len(own), 3) for other, both in pairs}


@torch.inference_mode()
def log_probs(model: torch.nn.Module, sources: Ids, outputs: Ids) -> Tensor:
    """What the model gives to each piece of each output, and to its end [B, PIECES + 1]."""
    src, tgt = padded(sources).to(model.device), F.pad(torch.tensor(outputs, device=model.device), (0, 1), value=EOS)
    before = F.pad(tgt[:, :-1], (1, 0), value=START)
    found = model(input_ids=src, attention_mask=(src != PAD).long(), decoder_input_ids=before).logits.log_softmax(-1)
    return found.gather(-1, tgt[..., None]).squeeze(-1)


def in_fp32(ours: Transformer, theirs: torch.nn.Module, sources: Ids, beam: int) -> Row:
    """The share of outputs that are alike; how many are not, in how many of these ours is likelier with its end, which counts
    in our ranking, and in how many theirs is without.
    """
    found = (
        our_decoding(ours, torch.float32, beam, False).run(sources),
        their_decoding(theirs, beam, False).run(sources),
    )
    others = [i for i, (a, b) in enumerate(zip(*found, strict=True)) if a != b]
    row: Row = {"same_fp32": round(1 - len(others) / len(sources), 3)}
    if others:
        chosen = [sources[i] for i in others]
        a, b = (log_probs(theirs, chosen, [of_one[i] for i in others]) for of_one in found)
        with_end, without = int((a.sum(1) > b.sum(1)).sum()), int((a[:, :-1].sum(1) < b[:, :-1].sum(1)).sum())
        row["others_fp32"] = {"all": len(others), "ours_likelier": with_end, "theirs_likelier_without_end": without}
    return row


def cases(options: argparse.Namespace) -> Iterator[tuple[list[Row], list[Row]]]:
    """Rows and failures, case by case."""
    device = options.runtime.device
    for shape in options.shape:
        first = first_model(shape).eval()
        theirs = marian(shape, first, device).eval()
        ours = first.to(device)
        sources = sources_of(max(options.batch))
        agree = {beam: in_fp32(ours, theirs, sources, beam) for beam in options.beam}
        theirs = theirs.to(torch.bfloat16)
        for batch in options.batch:
            chosen = sources_of(batch if batch > 1 else options.sentences)
            batches = [chosen[i : i + batch] for i in range(0, len(chosen), batch)]
            for beam in options.beam:

                def make(name: str, beam: int = beam, ours: Transformer = ours, theirs: Any = theirs) -> Decoder:
                    if name.startswith("s2s"):
                        return our_decoding(ours, torch.bfloat16, beam, name.endswith("graphs"))
                    return their_decoding(theirs, beam, name.endswith("static"))

                case = {"shape": shape, "batch": batch, "beam": beam, "sentences": len(chosen)} | agree[beam]
                engines, unmade = all_made(make, options)
                rows, failed = decode_case(engines, batches, options)
                yield (
                    [case | row for row in rows],
                    [case | {"engine": n, "why": w} for n, w in (unmade | failed).items()],
                )
