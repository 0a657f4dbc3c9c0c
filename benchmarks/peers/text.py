"""The text that all toolkits train on: Multi30k in the pieces of one joint vocabulary, which `s2s preprocess` makes."""

import subprocess
import sys
from pathlib import Path

from conditions import ROOT

from peers.clock import SPECIALS
from s2s_cli.data.corpus import read_lines
from s2s_cli.data.vocab import Vocab, Vocabs

SIDES = {"src": "en", "tgt": "de"}
PARTS = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
VOCAB_SIZE = 8000


def prepare(folder: Path) -> Path:
    """A folder with `raw`, `data-bin`, `pieces` and `vocabulary.txt`; made unless it is there."""
    text = folder / "text"
    if (text / "vocabulary.txt").exists():
        return text
    raw = text / "raw"
    subprocess.run([sys.executable, ROOT / "data" / "multi30k.py", raw], check=True)
    command = [sys.executable, "-m", "s2s_cli", "preprocess", "-o", text / "data-bin", "--vocab-size", str(VOCAB_SIZE)]
    for part in ("train", "valid"):
        for side, language in SIDES.items():
            command += [f"--{part}-{side}", raw / f"{PARTS[part]}.{language}"]
    subprocess.run(command, check=True, cwd=ROOT)
    vocab = Vocabs.load(text / "data-bin" / "vocab").src
    assert {vocab.pad, vocab.unk, vocab.bos, vocab.eos} == set(range(SPECIALS))
    (text / "pieces").mkdir(exist_ok=True)
    for part, name in PARTS.items():
        for language in SIDES.values():
            write_pieces(vocab, raw / f"{name}.{language}", text / "pieces" / f"{part}.{language}")
    pieces = "".join(f"{written(vocab, i)}\n" for i in range(len(vocab)))
    (text / "vocabulary.txt").write_text(pieces, encoding="utf-8")
    return text


def written(vocab: Vocab, id: int) -> str:
    """A piece as a word that all toolkits read as one: some pieces are tabs and other spaces."""
    piece = vocab.piece(id)
    return piece if piece.split() == [piece] else f"<space-{id}>"


def write_pieces(vocab: Vocab, raw: Path, to: Path) -> None:
    """A text as pieces with spaces between."""
    encoded = vocab.encode(list(read_lines(raw)))
    lines = [" ".join(written(vocab, id) for id in ids) + "\n" for ids in encoded]
    to.write_text("".join(lines), encoding="utf-8")
