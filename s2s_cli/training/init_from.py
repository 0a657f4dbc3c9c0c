"""What a run begins with in place of fresh weights: those of another bundle, and word vectors of other tools.

A bundle gives tensors by name, and embeddings row by row where vocabularies differ: a row of the new vocabulary takes the
weights of the same piece in the old one; a piece that the old one lacks keeps its fresh weights. So a model goes on with a new
language, new tags or new words without losing what it knows. A copy head and coverage may be new in the same way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from s2s_cli.checkpoint.bundle import WEIGHTS, Bundle, differences, open_model, open_tensors, weights_of
from s2s_cli.config import TrainSettings
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.errors import BundleError, ConfigError
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.embeddings import load_embeddings, set_embeddings

_ADDED = (".coverage", "head.generate.weight", "head.generate.bias")  # what coverage and the copy head add to a model
_TIED = {"src_embedding.weight": "tgt_embedding.weight", "head.weight": "tgt_embedding.weight"}  # where it is one table
_APART = {"tie", "head", "coverage"}  # settings that show in the names of tensors, of which is told
_SHOWN = 5  # names that are told


def first_weights(model: Seq2Seq, vocabs: Vocabs, settings: TrainSettings) -> list[str]:
    """Put into a fresh model all that the settings name, word vectors last; returns what came of each.

    Raises BundleError, DataError or ConfigError for what does not fit the model.
    """
    reports = []
    if settings.init_from is not None:
        reports.append(init_from(model, vocabs, open_model(settings.init_from)))
    if settings.src_embeddings is not None and model.src_embedding is model.tgt_embedding:
        raise ConfigError(
            "train.src_embeddings: source and target share one embedding; "
            "name its vectors in train.tgt_embeddings, or set model.tie to target or none"
        )
    if settings.src_embeddings is not None:
        matrix, coverage = load_embeddings(settings.src_embeddings, vocabs.src)
        set_embeddings(model, "src", matrix)
        reports.append(f"source embedding from {coverage}")
    if settings.tgt_embeddings is not None:
        matrix, coverage = load_embeddings(settings.tgt_embeddings, vocabs.tgt)
        set_embeddings(model, "tgt", matrix)
        reports.append(f"target embedding from {coverage}")
    return reports


@torch.no_grad()
def init_from(model: Seq2Seq, vocabs: Vocabs, bundle: Bundle) -> str:
    """Copy what fits from a bundle into `model`, and say what came of it. Raises BundleError where models differ in shape."""
    reports = []
    if other := [text for key, text in differences(bundle.model, model.settings).items() if key not in _APART]:
        reports.append(f"settings that differ, there and here: {', '.join(other)}")
    for side, old, new in (("source", bundle.vocabs.src, vocabs.src), ("target", bundle.vocabs.tgt, vocabs.tgt)):
        if old.fingerprint != new.fingerprint:
            reused = len(_rows(old, new)[0])
            reports.append(f"{side} vocabulary: {reused} pieces reused, {len(new) - reused} new")
    bundle.check_weights()
    with open_tensors(bundle.path / WEIGHTS) as file:
        names, wanted = set(file.keys()), weights_of(model)
        source = "src_embedding.weight"
        joins = vocabs.shared and not bundle.vocabs.shared and source in names - wanted.keys()
        if joins:  # what the target's table lacks comes from the source's
            table = wanted["tgt_embedding.weight"]
            old_rows, new_rows = _rows(bundle.vocabs.src, vocabs.src)
            table[new_rows] = file.get_tensor(source)[old_rows].to(table)
            names.remove(source)
        if unused := sorted(names - wanted.keys()):
            reports.append(f"left out, as this model has no such part: {_first(unused)}")
        if fresh := [name for name in wanted if name not in names and name.endswith(_ADDED)]:
            reports.append(f"new, as that model has no such part: {_first(fresh)}")
        for name, tensor in wanted.items():
            if name in fresh:
                continue
            there = name if name in names else _TIED.get(name, name)
            if there not in names:
                raise BundleError(
                    f"{bundle.path} has no {name}: the models differ; give this one the settings of that one"
                )
            _copy(name, tensor, file.get_tensor(there), bundle, vocabs)
    return f"weights from {bundle.path}; " + ("; ".join(reports) or "the vocabularies are the same")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)})" if len(names) > _SHOWN else "")


def _copy(name: str, into: Tensor, given: Tensor, bundle: Bundle, vocabs: Vocabs) -> None:
    """Copy a tensor; row by row if its rows are the pieces of a vocabulary that has changed."""
    side = "src" if name.startswith("src") else "tgt"
    old: Vocab = getattr(bundle.vocabs, side)
    new: Vocab = getattr(vocabs, side)
    by_piece = name.startswith(("src_embedding", "tgt_embedding", "head")) and len(given) == len(old)
    if into.shape[1:] != given.shape[1:] or (len(into) != len(given) and not by_piece):
        raise BundleError(
            f"{bundle.path}: {name} is {tuple(given.shape)}, here it is {tuple(into.shape)}: "
            "give this model the settings of that one"
        )
    if by_piece and old.fingerprint != new.fingerprint:
        there, here = _rows(old, new)
        into[here] = given[there].to(into)
    else:
        into.copy_(given)


def _rows(old: Vocab, new: Vocab) -> tuple[Tensor, Tensor]:
    """Ids of the pieces that both have: in the old vocabulary, and in the new one."""
    shared = [(old.id(piece), i) for i in range(len(new)) if (piece := new.piece(i)) in old]
    both = torch.tensor(shared, dtype=torch.long).view(-1, 2)
    return both[:, 0], both[:, 1]
