"""CTranslate2 with the weights of ours: threads that each translate batches. It trains nothing."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from peers import s2s
from peers.clock import PIECES, SENTENCES, Task, act, finish, lines

PACKAGE = "ctranslate2"
COMPUTE = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8_float32"}  # its names
PRECISIONS = ("fp32", "int8")
PAD, UNK, START, EOS = range(4)  # of our vocabulary
BANNED = (UNK, PAD, START)
LONGEST = 256  # pieces of an output of its own length
BATCHES = [
    (SENTENCES, "examples"),
    (1024, "tokens"),
    (2048, "tokens"),
    (4096, "tokens"),
]  # ways to batch, of which one is fastest


class Engine:
    """A model in `folder`, loaded; pieces are ids of our vocabulary."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import ctranslate2

        kind = COMPUTE[precision]
        if kind not in ctranslate2.get_supported_compute_types("cpu"):  # it has bf16 on few processors
            kind = COMPUTE["fp32"]
        self.translator = ctranslate2.Translator(str(folder), compute_type=kind, intra_threads=1, inter_threads=threads)

    def outputs(
        self,
        sources: list[list[int]],
        beam: int,
        fixed: bool,
        banned: Sequence[int],
        batch: tuple[int, str] = BATCHES[0],
    ) -> list[list[int]]:
        """The best output of each source, of `PIECES` pieces if `fixed`; scores are means over pieces, as ours. One of `BATCHES`
        is how large a batch is, and of what.
        """
        lengths = {"min_decoding_length": PIECES, "max_decoding_length": PIECES} if fixed else {}
        found = self.translator.translate_batch(
            [[str(i) for i in ids] for ids in sources],
            beam_size=beam,
            max_input_length=0,
            length_penalty=1.0,
            suppress_sequences=[[str(i)] for i in banned],
            max_batch_size=batch[0],
            batch_type=batch[1],
            **({"max_decoding_length": LONGEST} | lengths),
        )
        return [[int(piece) for piece in one.hypotheses[0]] for one in found]


def begin(task: Task) -> None:
    """Convert the model of ours that the task names, and keep its vocabulary beside it."""
    import torch
    from decode import to_ctranslate2

    from s2s_cli.checkpoint.bundle import open_model
    from s2s_cli.search.strategies import Specials

    bundle = open_model(Path(task.model))
    folder = task.file("model")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    specials = Specials(bos=START, eos=EOS, banned=BANNED)
    to_ctranslate2(bundle.load_model(torch.device("cpu")), specials, folder)
    (folder / "pieces.model").write_bytes(bundle.vocabs.src.proto)
    text = bundle.vocabs.src.seen(lines(s2s.raw(task)))  # as the model's vocabulary has it, in lower case perhaps
    task.file("source", "".join(f"{line}\n" for line in text))


def fastest(task: Task) -> tuple[int, str]:
    """The way to batch with which decode.py found it fastest in this case, or the first."""
    path = Path(__file__).parents[1] / "results" / ("decode.json" if task.fixed else "decode_own.json")
    rows = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    for row in rows:
        same = (row["beam"], row["precision"]) == (task.beam, task.precision)
        if same and row["shape"] in (None, task.shape) and row.get("batches"):
            num, unit = max(row["batches"], key=row["batches"].__getitem__).replace(",", "").split()
            return int(num), unit
    return BATCHES[0]


def translate(task: Task) -> None:
    """What a person writes who translates raw text with it."""
    import sentencepiece

    vocabulary = sentencepiece.SentencePieceProcessor(str(task.file("model/pieces.model")))
    engine = Engine(task.file("model"), task.precision, task.threads)
    begun = time.perf_counter()
    sources = [[*ids, EOS] for ids in vocabulary.encode(lines(task.file("source")))]
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    found = engine.outputs([sources[i] for i in order], task.beam, task.fixed, BANNED, fastest(task))
    outputs = dict(zip(order, found, strict=True))
    task.file("output", "".join(f"{vocabulary.decode(outputs[i])}\n" for i in range(len(sources))))
    seconds = time.perf_counter() - begun
    finish(sentences=len(found), pieces=sum(map(len, found)), seconds=round(seconds, 4), batch=fastest(task))


def train(task: Task) -> None:
    """Not at all."""
    raise NotImplementedError


if __name__ == "__main__":
    act(train, begin, translate)
