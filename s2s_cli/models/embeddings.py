"""Word vectors made by other tools, as first weights of a model: text files of GloVe, word2vec and fastText.

A file has one line a word, `word 0.1 -0.2 …`; word2vec and fastText put a line `words width` before them. This file knows
vocabularies and tables, no model family and no training loop.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from s2s_cli.data.corpus import read_lines
from s2s_cli.data.vocab import SPACE, Vocab
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.models.base import Seq2Seq


@dataclass(frozen=True)
class Coverage:
    """How many pieces of a vocabulary found a vector in a file: as they are written, as words, as words in lower case."""

    path: Path
    num_pieces: int
    as_piece: int
    as_word: int
    as_lowercase: int
    missing: list[str]

    def __str__(self) -> str:
        found = self.num_pieces - len(self.missing)
        return (
            f"{self.path}: {found} of {self.num_pieces} pieces ({found / self.num_pieces:.1%}) have a vector, "
            f"{self.as_piece} as pieces, {self.as_word} as words, {self.as_lowercase} in lower case; "
            f"without one, for example: {' '.join(self.missing[:8]) or '-'}"
        )


def load_embeddings(path: Path, vocab: Vocab) -> tuple[Tensor, Coverage]:
    """A vector for each piece of `vocab` [V, D], and what the file covers of it. Raises DataError, naming the line at fault.

    A piece takes the vector of its own spelling (`▁the`, in files made over pieces), else, where it begins a word, that of
    the word it spells, else of that word in lower case; within a word, letters take one from files made over pieces alone.
    The rest is drawn by chance. All are scaled by one factor to the mean square 1/D (see `set_embeddings`).
    """
    wanted: dict[str, list[tuple[int, int]]] = {}  # word -> (how well it matches, id of the piece)
    silent = [i for i in range(len(vocab)) if vocab.is_control[i] or vocab.is_byte[i] or i == vocab.unk]
    for i in sorted(set(range(len(vocab))) - set(silent)):
        piece = vocab.piece(i)
        word = piece[1:] if piece.startswith(SPACE) else ""
        for rank, text in enumerate(dict.fromkeys([piece, word, word.lower()])):
            if text:
                wanted.setdefault(text, []).append((rank, i))
    found, matrix = _read(path, wanted, len(vocab))
    if not any(rank == 0 and vocab.starts_word[i] for i, rank in found.items()):  # a file of words, not of pieces:
        found = {i: rank for i, rank in found.items() if rank or not vocab.piece(i).isalpha()}  # no word is half a word
    have = torch.tensor([i in found for i in range(len(vocab))])
    if not matrix.any():
        raise DataError(
            f"{path} has no vector but zero for any piece of the vocabulary: is it of the same language and case?"
        )
    width = matrix.shape[1]
    matrix *= (width * matrix[have].square().mean()) ** -0.5
    matrix[~have] = torch.randn(int((~have).sum()), width) * width**-0.5
    ranks = list(found.values())
    missing = [vocab.piece(i) for i in range(len(vocab)) if i not in found and i not in silent]
    report = Coverage(path, len(vocab) - len(silent), ranks.count(0), ranks.count(1), ranks.count(2), missing)
    return matrix, report


def _read(path: Path, wanted: dict[str, list[tuple[int, int]]], num_pieces: int) -> tuple[dict[int, int], Tensor]:
    """The best match of each piece that has one, by id, and the vectors [V, D] as they stand in the file."""
    found: dict[int, int] = {}
    matrix, told = torch.zeros(0), 0
    for number, line in enumerate(read_lines(path, invalid="replace"), start=1):
        fields = line.rstrip().split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
            told = int(fields[1])
            continue
        if matrix.dim() == 1:
            if told >= len(fields):
                raise DataError(f"{path}:{number}: a word and {told} numbers should stand here")
            matrix = torch.zeros(num_pieces, told or len(fields) - 1)
        width = matrix.shape[1]
        word = " ".join(fields[: len(fields) - width])  # some of GloVe's words hold spaces
        better = [(rank, i) for rank, i in wanted.get(word, ()) if rank < found.get(i, 3)]
        if not width or len(fields) <= width:
            raise DataError(f"{path}:{number}: a word and {width} numbers should stand here")
        if better:
            vector = _numbers(fields[-width:])
            if vector is None:
                raise DataError(f"{path}:{number}: not all of the last {width} fields are finite numbers")
            for rank, i in better:
                found[i], matrix[i] = rank, vector
    return found, matrix


def _numbers(fields: list[str]) -> Tensor | None:
    """The vector that these fields spell; None if one of them is no number, or is infinite in fp32."""
    try:
        vector = torch.tensor([float(field) for field in fields])
    except ValueError:
        return None
    return vector if vector.isfinite().all() else None


@torch.no_grad()
def set_embeddings(model: Seq2Seq, side: Literal["src", "tgt"], matrix: Tensor) -> None:
    """Put vectors [V, D] into the embedding of one side, and so into all that is tied to it, as large as the model begins with.
    ConfigError if widths differ.
    """
    table = model.src_embedding if side == "src" else model.tgt_embedding
    if matrix.shape != table.weight.shape:
        raise ConfigError(
            f"the vectors are {matrix.shape[1]} wide, the {side} embedding is {table.weight.shape[1]}: "
            "set model.emb_dim (rnn) or model.dim (transformer) to the width of the vectors"
        )
    alone = model.recurrent and table.weight is not model.head.weight  # of variance 1, see `Rnn`
    table.weight.copy_(matrix * table.embedding_dim**0.5 if alone else matrix)
