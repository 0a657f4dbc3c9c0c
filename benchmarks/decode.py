#!/usr/bin/env python3
"""Decoding speed on CPU, without load: ours beside CTranslate2 with the same weights, in turns.

    python benchmarks/decode.py [--shape tiny] [--beam 5] [--precision fp32] [--sentences 1000] [--threads 2]
                                [--model RUN --src FILE] [--out FILE]
    python benchmarks/decode.py                   # as with --all --out benchmarks/results/decode.json

Without a model, weights are random and every output has 16 pieces, for sources as long as captions are. With one, its own
outputs are searched for over the lines of FILE, and how many of them are the same in both is told. Both engines get the
same ids, longest first, and as many workers of one thread as `--threads` says: processes of ours, threads of CTranslate2. Ours
take batches as `translate` makes them; CTranslate2 takes those of several ways to batch with which it is fastest in the second of
two passes (`batches` in the results). A turn is one pass of each engine over all sentences; turns alternate. Times are those of
encoder and search by the clock. `--all` measures both shapes, greedy and with a beam of 5, in fp32, bf16 and int8; with patience,
which is a beam's, the beam alone.
"""

import argparse
import copy
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from conditions import ROOT, conditions
from peers.clock import PIECES
from peers.ctranslate2 import BATCHES
from peers.ctranslate2 import Engine as CTranslate2

from s2s_cli.checkpoint.bundle import open_model
from s2s_cli.config import SearchSettings, TransformerSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.layers import Attention
from s2s_cli.models.pack import pack
from s2s_cli.models.positions import sinusoidal_positions
from s2s_cli.models.transformer import Transformer
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.strategies import Specials, beam_search, limits_for
from s2s_cli.search.workers import Workers, at_once, batched

try:
    import ctranslate2
    from ctranslate2.specs import common_spec, transformer_spec
except ImportError:
    ctranslate2 = None

SHAPES = {
    "tiny": {"encoder_layers": 4, "decoder_layers": 4, "dim": 128, "heads": 4, "ffn_dim": 256},
    "base": {"encoder_layers": 6, "decoder_layers": 6, "dim": 512, "heads": 8, "ffn_dim": 2048},
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
VOCAB = 8000
Batch = list[list[int]]
Engine = Callable[[Batch], list[list[int]]]


def to_ctranslate2(model: Transformer, specials: Specials, folder: Path) -> None:
    """Write `model` as CTranslate2 reads it: pre-norm, sinusoidal positions, pieces named by their ids."""
    layers = len(model.encoder), len(model.decoder)
    spec = transformer_spec.TransformerSpec.from_config(layers, model.settings.heads)

    def put(to: object, module: torch.nn.Module) -> None:
        names = ("gamma", "beta") if isinstance(to, common_spec.LayerNormSpec) else ("weight", "bias")
        for name, value in zip(names, (module.weight, module.bias), strict=True):
            setattr(to, name, value.detach().numpy())

    def put_attention(to: object, module: Attention, is_self: bool) -> None:
        q, kv, out = module.q, module.kv, module.out
        if is_self:
            to.linear[0].weight = torch.cat([q.weight, kv.weight]).detach().numpy()
            to.linear[0].bias = torch.cat([q.bias, kv.bias]).detach().numpy()
        else:
            put(to.linear[0], q)
            put(to.linear[1], kv)
        put(to.linear[-1], out)

    sides = (
        (spec.encoder, spec.encoder.embeddings[0], model.encoder, model.encoder_norm, model.src_embedding),
        (spec.decoder, spec.decoder.embeddings, model.decoder, model.decoder_norm, model.tgt_embedding),
    )
    positions = sinusoidal_positions(0, 1024, model.settings.dim, torch.device("cpu")).numpy()
    for side, embeddings, modules, last, table in sides:
        embeddings.weight = table.weight.detach().numpy()
        side.position_encodings.encodings = positions
        put(side.layer_norm, last)
        for to, layer in zip(side.layer, modules, strict=True):
            of_self = layer.attention if side is spec.encoder else layer.self_attention
            around = layer.around_attention if side is spec.encoder else layer.around_self_attention
            put_attention(to.self_attention, of_self, is_self=True)
            put(to.self_attention.layer_norm, around.norm)
            if side is spec.decoder:
                put_attention(to.attention, layer.cross_attention, is_self=False)
                put(to.attention.layer_norm, layer.around_cross_attention.norm)
            put(to.ffn.layer_norm, layer.around_feed_forward.norm)
            put(to.ffn.linear_0, layer.feed_forward.up)
            put(to.ffn.linear_1, layer.feed_forward.down)
    put(spec.decoder.projection, model.head)
    pieces = [str(i) for i in range(len(model.tgt_embedding.weight))]
    spec.register_source_vocabulary(pieces)
    spec.register_target_vocabulary(pieces)
    spec.config.bos_token, spec.config.eos_token = str(specials.bos), str(specials.eos)
    spec.config.unk_token = str(specials.banned[0])
    spec.config.add_source_bos = spec.config.add_source_eos = False
    spec.config.decoder_start_token = str(specials.bos)
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(str(folder))


def ours(
    model: Transformer, options: argparse.Namespace, specials: Specials, settings: SearchSettings, scores: bool = False
) -> Engine:
    """Our search over the model as `translate` has it."""
    ensemble = Ensemble([pack(copy.deepcopy(model), DTYPES[options.precision], settings.beam > 1)])

    @torch.inference_mode()
    def search(batch: Batch) -> list[list[int]]:
        src_len = torch.tensor([len(ids) for ids in batch])
        src = torch.zeros(len(batch), int(src_len.max()), dtype=torch.long)
        for row, ids in enumerate(batch):
            src[row, : len(ids)] = torch.tensor(ids)
        memory = ensemble.encode(src, src_len)
        limits = limits_for([len(ids) - 1 for ids in batch], settings)
        rest = (limits, specials, settings)
        found = beam_search(ensemble.step, memory, ensemble.start(memory), *rest, scores=scores)
        return [hypotheses[0].ids for hypotheses in found]

    workers = Workers(search, options.threads)

    def run(sources: Batch) -> list[list[int]]:
        budget = at_once("cpu", settings.beam > 1, model.settings.dim, DTYPES[options.precision])
        batches = batched(range(len(sources)), lambda i: len(sources[i]), budget, settings.beam, options.threads)
        outputs: list[list[int]] = [[] for _ in sources]
        for number, found in workers.each([([sources[i] for i in batch],) for batch in batches]):
            for i, ids in zip(batches[number], found, strict=True):
                outputs[i] = ids
        return outputs

    return run


def measure(engines: dict[str, Engine], sources: Batch, turns: int) -> dict[str, dict]:
    """Median and range of pieces a second over `turns` passes of each engine, in turns, and the outputs of the last pass."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    outputs: dict[str, list[list[int]]] = {}
    for turn in range(turns + 1):  # the first is to warm up
        for name, run in engines.items():
            begun = time.perf_counter()
            outputs[name] = run(sources)
            if turn:
                times[name].append(time.perf_counter() - begun)
    results = {}
    pieces = sum(len(ids) for ids in outputs[next(iter(engines))])  # of the first, for all: what counts is time
    for name, spent in times.items():
        rates = [round(pieces / seconds) for seconds in spent]
        results[name] = {"pieces": pieces, "outputs": outputs[name]}
        results[name] |= {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}
    return results


def sentences(options: argparse.Namespace) -> tuple[Transformer, Batch, Specials, SearchSettings]:
    """The model, what it is to translate, longest first, and how."""
    if options.model is None:
        torch.manual_seed(1)
        chance = random.Random(1)
        lengths = [min(40, max(6, round(chance.gauss(14, 4)))) for _ in range(options.sentences)]
        sources = [[*(chance.randrange(4, VOCAB) for _ in range(n - 1)), 2] for n in lengths]
        model = build_model(TransformerSettings(**SHAPES[options.shape]), Sizes(VOCAB, VOCAB, True)).eval()
        specials = Specials(bos=1, eos=2, banned=(3, 0, 1))
        settings = SearchSettings(beam=options.beam, min_len=PIECES, max_len=PIECES, max_len_extra=PIECES)
    else:
        bundle = open_model(options.model)
        model = bundle.load_model(torch.device("cpu"))
        src, tgt = bundle.vocabs.src, bundle.vocabs.tgt
        lines = [line for line in read_lines(options.src) if line.strip()][: options.sentences]
        sources = [[*ids, src.eos] for ids in src.encode(lines)]
        specials = Specials(bos=tgt.bos, eos=tgt.eos, banned=(tgt.unk, tgt.pad, tgt.bos))
        settings = SearchSettings(beam=options.beam, beam_patience=options.patience)
    return model, sorted(sources, key=len, reverse=True), specials, settings


def compare(options: argparse.Namespace) -> dict:
    """Measure both engines, print a line for each; everything that was found."""
    model, sources, specials, settings = sentences(options)
    engines = {"s2s": ours(model, options, specials, settings)}
    tries: dict[tuple[int, str], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        if ctranslate2 is not None:
            to_ctranslate2(model, specials, Path(folder))
            theirs = CTranslate2(Path(folder), options.precision, options.threads)
            of = partial(theirs.outputs, beam=settings.beam, fixed=options.model is None, banned=specials.banned)
            for batch in BATCHES:
                found = measure({"": partial(of, batch=batch)}, sources, 1)[""]
                tries[batch] = found["median"]
            engines["ctranslate2"] = partial(of, batch=max(tries, key=tries.__getitem__))
        results = measure(engines, sources, options.turns)
    outputs = [results[name].pop("outputs") for name in engines]
    names = ("shape", "beam", "precision", "model", "patience", "sentences", "threads", "turns")
    report = {name: str(v) if isinstance(v := getattr(options, name), Path) else v for name in names}
    if options.model is not None:
        report["shape"] = None
    report["output tokens/s"] = results
    report["batches"] = {f"{num:,} {unit}": rate for (num, unit), rate in tries.items()}
    if len(engines) == 2:
        report["ratio"] = round(results["s2s"]["median"] / results["ctranslate2"]["median"], 3)
        report["same outputs"] = sum(a == b for a, b in zip(*outputs, strict=True)) / len(sources)
    print(
        options.shape if options.model is None else options.model, f"beam {options.beam}", options.precision, end="  "
    )
    print(", ".join(f"{name} {r['median']:.0f} ({r['min']}-{r['max']})" for name, r in results.items()), end="  ")
    print({name: report[name] for name in ("ratio", "same outputs") if name in report}, flush=True)
    return report


def main() -> None:
    """Measure, print, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--all", action="store_true", help="every shape, beam and precision")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="workers of each engine")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a run or bundle in place of random weights")
    parser.add_argument("--src", type=Path, help="its source text")
    parser.add_argument("--patience", type=float, default=0.0, help="beam_patience of ours")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    if len(sys.argv) == 1:
        options.all, options.out = True, ROOT / "benchmarks" / "results" / "decode.json"
    packages = ["s2s-cli", "torch", "numpy", *(["ctranslate2"] if ctranslate2 else [])]
    about = {"benchmark": "decode"} | conditions(packages)
    torch.set_num_threads(1)
    reports = []
    for shape in SHAPES if options.all and options.model is None else [options.shape]:
        for beam in (1, 5) if options.all and not options.patience else (options.beam,):
            for precision in DTYPES if options.all else [options.precision]:
                options.shape, options.beam, options.precision = shape, beam, precision
                reports.append(compare(options))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about | {"results": reports}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
