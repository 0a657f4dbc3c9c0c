import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from corpora import beside, content, sentences, write

from s2s_cli.config import PreprocessSettings
from s2s_cli.data import dataset as dataset_module
from s2s_cli.data.dataset import Dataset, PairStore
from s2s_cli.data.inputs import sample
from s2s_cli.data.preprocess import preprocess
from s2s_cli.errors import ConfigError, DataError, S2SError

Corpus = Callable[..., PreprocessSettings]


def texts(store: PairStore, dataset: Dataset) -> list[tuple[int, str, str]]:
    decode = dataset.vocabs.src.decode, dataset.vocabs.tgt.decode
    return [
        (store.line(i), decode[0](store.src(i).tolist()), decode[1](store.tgt(i).tolist())) for i in range(len(store))
    ]


def test_every_pair_is_there_with_its_line(corpus: Corpus) -> None:
    src, tgt = sentences(200, 1), sentences(200, 2)
    src[7] = tgt[20] = src[30] = tgt[30] = " "
    settings = corpus(src, tgt)
    report = preprocess(settings)
    dataset = Dataset.open(settings.out)
    expected = [(i, s, t) for i, (s, t) in enumerate(zip(src, tgt, strict=True), 1) if s.strip() and t.strip()]
    assert texts(dataset.train, dataset) == expected
    assert report["train"]["drops"]["blank"]["lines"] == [8, 21, 31]
    assert report["train"]["pairs"] == 200
    assert report["train"]["kept"] == len(dataset.train) == 197
    assert report["train"]["src_tokens"] == dataset.train.src_len.sum()
    assert report["train"]["tgt_tokens"] == dataset.train.tgt_len.sum()
    assert json.loads((settings.out / "report.json").read_text()) == report
    assert dataset.manifest["train"]["drops"]["blank"]["count"] == 3
    assert any("197 of 200" in line for line in report["summary"])
    assert beside(settings) == {"data-bin"}


def test_files_are_held_to_their_checksums(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones always, large ones if they are newer than the manifest: a huge corpus is not read at each start."""
    settings = corpus()
    preprocess(settings)
    manifest = Dataset.open(settings.out).manifest
    folder = settings.out
    there = {path.name for path in folder.iterdir() if path.is_file()} - {"dataset.json", "report.json"}
    assert manifest["files"].keys() == there
    assert manifest["files"] == {name: sha256((folder / name).read_bytes()).hexdigest() for name in there}
    written = (folder / "dataset.json").stat().st_mtime_ns
    for name in there:
        path, whole = folder / name, (folder / name).read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        for small, when, seen in ((1 << 20, written - 1, True), (0, written + 1, True), (0, written - 1, False)):
            os.utime(path, ns=(when, when))
            monkeypatch.setattr(dataset_module, "_SMALL", small)
            if seen:
                with pytest.raises(DataError, match=rf"{name}: torn or altered"):
                    Dataset.open(folder)
            else:
                Dataset.open(folder)
        path.unlink()
        with pytest.raises(DataError, match=rf"{name}: cannot be read"):
            Dataset.open(folder)
        path.write_bytes(whole)
    Dataset.open(folder)


def test_validation_text_is_kept_as_it_is(corpus: Corpus) -> None:
    odd = ["a\u2028b", "", "x\r", " two  spaces ", "▁ <s> <unk>", "nul\0", "\u0085", "e\u0301", "\ufeff inside", " "]
    settings = corpus(valid_src=["first", *odd], valid_tgt=["first", *reversed(odd)], max_len=2, allow_drops=True)
    write(settings.valid_src[0], [line + "\r" if line.endswith("\r") else line for line in ["first", *odd]])
    write(settings.valid_tgt[0], [line + "\r" if line.endswith("\r") else line for line in ["first", *reversed(odd)]])
    preprocess(settings)
    dataset = Dataset.open(settings.out)
    assert dataset.valid_src == ["first", *odd]
    assert dataset.valid_tgt == ["first", *reversed(odd)]
    blank = [not s.strip() or not t.strip() for s, t in zip(dataset.valid_src, dataset.valid_tgt, strict=True)]
    assert dataset.valid.lines.tolist() == [line for line, is_blank in enumerate(blank, 1) if not is_blank]
    assert dataset.valid.src_len.max() > 2  # none is too long


def test_the_output_is_the_same_for_any_number_of_workers(corpus: Corpus, tmp_path: Path) -> None:
    src, tgt = sentences(300, 1) * 30, sentences(300, 2) * 30  # several blocks
    outputs = []
    for workers in (1, 2):
        settings = corpus(src, tgt, workers=workers, out=tmp_path / str(workers), vocab_sample=500)
        preprocess(settings)
        report = json.loads((settings.out / "report.json").read_text())
        outputs.append((content(settings.out), report))
    assert outputs[0] == outputs[1]
    assert outputs[0][1]["train"]["kept"] == len(src)


def test_an_error_in_a_worker_names_its_line(corpus: Corpus) -> None:
    vocab = corpus().out.with_name("vocab-from")
    preprocess(corpus(out=vocab))
    settings = corpus(sentences(9000), src_vocab=vocab, workers=2)
    lines = settings.train_src[0].read_bytes().split(b"\n")
    lines[8500] += b"\xff"
    settings.train_src[0].write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"train\.src:8501: byte 0xFF"):
        preprocess(settings)
    assert beside(settings) == {"vocab-from"}


FORMATS = ("pairs", "gz", "tsv", "jsonl", "stdin")


@pytest.mark.parametrize("how", FORMATS[1:])
def test_formats_with_the_same_text_give_the_same_dataset(
    corpus: Corpus, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, tgt = sentences(300, 1), sentences(300, 2)
    preprocess(corpus(src, tgt))
    straight = content(tmp_path / "data-bin")
    pairs, valid = (
        list(zip(src, tgt, strict=True)),
        [("the dog sees the cat", "the cat sees the dog"), ("a house", "a tree")],
    )
    if how == "gz":
        packed = tmp_path / "packed"
        packed.write_bytes(gzip.compress((tmp_path / "train.src").read_bytes()))
        settings = corpus(src, tgt, train_src=[packed])
    elif how == "jsonl":
        files = [
            write(tmp_path / name, [json.dumps({"article": s, "summary": t}) for s, t in items])
            for name, items in (("t.jsonl", pairs), ("v.jsonl", valid))
        ]
        settings = corpus(jsonl=True, src_field="article", tgt_field="summary", train=files[0], valid=files[1])
    else:
        files = [
            write(tmp_path / name, [f"x\t{t}\t{s}" for s, t in items])
            for name, items in (("t.tsv", pairs), ("v.tsv", valid))
        ]
        if how == "stdin":
            stdin = io.BufferedReader(io.BytesIO(files[0].read_bytes()))
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
            files[0] = Path("-")
        settings = corpus(tsv=True, src_column=3, tgt_column=2, train=files[0], valid=files[1])
    preprocess(settings)
    assert content(tmp_path / "data-bin") == straight


def test_standard_input_is_named_in_errors_and_read_once(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"good\nbad\xff\n"))))
    with pytest.raises(DataError, match=r"^<stdin>:2: byte 0xFF"):
        preprocess(corpus(train_src="-", tgt=["a", "b"]))
    with pytest.raises(ConfigError, match="named twice"):
        preprocess(corpus(train_src="-", train_tgt="-"))


@pytest.mark.parametrize("mode", ["keep", "drop"])
def test_identical_duplicate_and_leaked_pairs_are_counted_kept_or_dropped(
    corpus: Corpus, tmp_path: Path, mode: str
) -> None:
    src, tgt = sentences(300, 1), sentences(300, 2)
    src = [f"{i} {line}" for i, line in enumerate(src)]
    src[10] = tgt[10] = "same"
    src[50], tgt[50] = src[40], tgt[40]
    src[60], tgt[60] = src[40], tgt[40]
    src[70] = src[40]  # another translation is no duplicate
    src[80], src[90] = "the dog sees the cat", "from the test"
    test = write(tmp_path / "test.src", ["from the test"])
    report = preprocess(corpus(src, tgt, identical=mode, duplicates=mode, leaks=mode, test_src=test))
    part = report["train"]["drops" if mode == "drop" else "kept_although"]
    assert {name: found["lines"] for name, found in part.items()} == {
        "identical": [11],
        "duplicate": [51, 61],
        "leak": [81, 91],
    }
    file = tmp_path / "train.src"
    assert part["duplicate"]["examples"][0] == {"where": f"{file}:51", "src": src[40], "tgt": tgt[40]}
    assert part["leak"]["examples"][1]["src"] == "from the test"
    assert part["leak"]["examples"][1]["where"].endswith("train.src:91")
    dataset = Dataset.open(tmp_path / "data-bin")
    gone = {11, 51, 61, 81, 91} if mode == "drop" else set()
    assert dataset.train.lines.tolist() == [line for line in range(1, 301) if line not in gone]
    assert report["train"]["kept"] == len(dataset.train)
    assert report["train"]["tgt_tokens"] == dataset.train.tgt_len.sum()
    found = {line: (s, t) for line, s, t in texts(dataset.train, dataset)}
    assert all(found[line] == (src[line - 1], tgt[line - 1]) for line in found)


def test_long_sides_are_dropped_or_cut(corpus: Corpus) -> None:
    src = sentences(300, 1)
    src[5] = "word " * 100
    full = Dataset.open(preprocess_to(corpus(src)))
    assert full.train.src_len.max() > 50
    report = preprocess(corpus(src, max_len=50))
    assert report["train"]["drops"]["too long"]["lines"] == [6]
    cut = preprocess(corpus(src, max_len=50, src_truncate=40))
    assert "too long" not in cut["train"]["drops"]
    assert cut["train"]["src"]["cut"] == 1
    assert "too long" not in preprocess(corpus(src, max_len=30, src_truncate=40))["train"]["drops"]
    store = Dataset.open(corpus().out).train
    assert store.src(5).tolist() == full.train.src(5).tolist()[:40]
    assert cut["train"]["src"]["length"]["p100"] == 40


def test_rates_are_of_pieces_and_words_of_the_same_text(corpus: Corpus) -> None:
    src, tgt = sentences(300, 1), sentences(300, 2)
    once = corpus(src, tgt)
    plain = preprocess(once.model_copy(update={"duplicates": "drop"}))["train"]
    often = corpus(src * 4, tgt * 4, src_vocab=once.out, duplicates="drop", allow_drops=True)
    doubled = preprocess(often.model_copy(update={"out": once.out.with_name("often")}))["train"]
    assert (doubled["kept"], doubled["src_tokens"]) == (plain["kept"], plain["src_tokens"])
    for rate in ("pieces_per_word", "unknown_rate", "byte_rate"):
        assert doubled["src"][rate] == plain["src"][rate]
    assert doubled["src"]["length"] == plain["src"]["length"]
    assert doubled["length_ratio"] == plain["length_ratio"]
    cut = preprocess(corpus(src, tgt, src_vocab=once.out, src_truncate=5, out=once.out.with_name("cut")))["train"]
    assert cut["src"]["pieces_per_word"] == plain["src"]["pieces_per_word"]
    assert cut["src"]["length"]["p100"] == 5


def preprocess_to(settings: PreprocessSettings) -> Path:
    preprocess(settings)
    return settings.out


def test_scripts(corpus: Corpus) -> None:
    src = sentences(100, 1)
    src[3] = "Привет, мир"
    report = preprocess(corpus(src, src_script="latin"))
    assert 4 in report["train"]["drops"]["wrong script"]["lines"]


def test_the_gates(corpus: Corpus) -> None:
    src = sentences(300, 1)
    src[::5] = [""] * 60
    with pytest.raises(
        DataError,
        match=r"60 of 300 training pairs would be dropped: blank 60 \(lines 1, 6, .*first is .*train\.src:1\).*--allow-drops",
    ):
        preprocess(corpus(src))
    assert preprocess(corpus(src, allow_drops=True))["train"]["kept"] == 240
    with pytest.raises(DataError, match="nothing is left"):
        preprocess(corpus(["", ""], ["a", "b"], allow_drops=True, src_vocab=corpus().out))
    words = {"vocab_type": "word", "vocab_size": 16, "byte_fallback": False, "max_unknown": 1.0}
    with pytest.raises(DataError, match="pieces are unknown to the vocabulary"):
        preprocess(corpus(**words))
    assert preprocess(corpus(**words, allow_unknown=True))["train"]["src"]["unknown_rate"] > 0.05
    with pytest.raises(DataError, match="unknown pieces"):
        preprocess(corpus(**{**words, "max_unknown": 0.1}))


@pytest.mark.parametrize(
    ("src", "settings", "message"),
    [
        (["a"] * 299, {}, "299 lines but"),
        ([], {"tgt": []}, r"train\.src: the training text is empty"),
        (["a"] * 300, {"valid_src": []}, "valid.src has 0 lines|validation text is empty"),
        (["a"] * 300, {"valid_src": [], "valid_tgt": []}, "validation text is empty"),
        (["a"] * 300, {"src_vocab": "nowhere"}, "nowhere"),
        (["a"] * 300, {"vocab_size": 16}, "too small for this text"),
    ],
)
def test_nothing_is_left_behind_a_mistake(corpus: Corpus, src: list[str], settings: dict, message: str) -> None:
    made = corpus(src, **{"tgt": ["b"] * 300, **settings})
    with pytest.raises((DataError, ConfigError), match=message):
        preprocess(made)
    assert beside(made) == set()


def test_only_a_dataset_is_replaced(corpus: Corpus) -> None:
    settings = corpus()
    settings.out.mkdir()
    preprocess(settings)  # an empty folder may be filled
    first = content(settings.out)
    with pytest.raises(DataError):
        preprocess(corpus(["a"], ["b", "c"]))
    assert content(settings.out) == first
    preprocess(corpus(sentences(100, 9)))
    assert content(settings.out) != first
    (settings.out / "dataset.json").unlink()
    before = content(settings.out)
    with pytest.raises(DataError, match="is no dataset, so it is not overwritten"):
        preprocess(settings)
    assert content(settings.out) == before


def test_what_somebody_put_into_a_dataset_is_not_lost_with_it(corpus: Corpus) -> None:
    settings = corpus()
    preprocess(settings)
    mine = settings.out / "train.src"
    mine.write_text("mine\n")
    (settings.out / "notes").mkdir()
    (settings.out / "notes" / "a.txt").write_text("mine\n")
    with pytest.raises(DataError, match=r"holds notes/a.txt, train.src, which would be lost with the old dataset"):
        preprocess(settings)
    assert mine.read_text() == "mine\n"
    mine.unlink()
    (settings.out / "notes" / "a.txt").unlink()
    preprocess(settings)


@pytest.mark.parametrize("rules", [{"lowercase": True}, {"normalize": "nfkc"}])
def test_pairs_are_compared_as_the_vocabulary_sees_them(corpus: Corpus, tmp_path: Path, rules: dict) -> None:
    src, tgt = sentences(300, 1), sentences(300, 2)
    src = [f"{i} {line}" for i, line in enumerate(src)]
    other = str.upper if "lowercase" in rules else lambda text: text.replace("a", "\uff41")
    src[10], tgt[10] = "many a man", other("many a man")
    src[50], tgt[50] = other(src[40]), other(tgt[40])
    src[60] = other("a cat")
    assert (src[50], src[60]) != (src[40], "a cat")
    test = write(tmp_path / "test.src", ["a cat"])
    report = preprocess(corpus(src, tgt, test_src=test, identical="drop", duplicates="drop", leaks="drop", **rules))
    found = {name: drop["lines"] for name, drop in report["train"]["drops"].items()}
    assert found == {"identical": [11], "duplicate": [51], "leak": [61]}


def test_a_name_that_is_not_utf8_is_told_as_it_is(corpus: Corpus, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/tr\xff.src")
    settings = corpus()
    os.rename(settings.train_src[0], name)
    preprocess(settings.model_copy(update={"train_src": [Path(name)]}))
    assert Dataset.open(settings.out).manifest["corpora"][0]["files"][0] == name


def test_a_dry_run_reports_and_writes_nothing(corpus: Corpus) -> None:
    dry, wet = preprocess(corpus(dry_run=True)), preprocess(corpus(out=corpus().out.with_name("other")))
    assert dry == wet
    assert beside(corpus()) == {"other"}


def test_where_it_is_written(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large-disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to("large-disk")
    for _ in range(2):
        preprocess(corpus(out=link))
        assert link.is_symlink()
        assert Dataset.open(tmp_path / "large-disk").train
    link.unlink()
    link.symlink_to("not/yet/there")
    preprocess(corpus(out=link))
    assert Dataset.open(tmp_path / "not" / "yet" / "there").train
    assert beside(corpus()) == {"large-disk", "link", "not"}
    for folder in ("large-disk", "empty"):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        with pytest.raises(DataError, match=r"^\.: the current folder"):
            preprocess(corpus(out="."))
    with pytest.raises(DataError, match=r"deeper/data-bin: no folder can be made there"):
        preprocess(corpus(out=tmp_path / "train.src" / "deeper" / "data-bin"))
    (tmp_path / ".data-bin.lock").mkdir()  # stands for a folder that may not be written, which nobody forbids to root
    with pytest.raises(S2SError, match=r"data-bin could not be written: Is a directory"):
        preprocess(corpus())


def test_several_corpora_with_names_weights_and_tags(corpus: Corpus, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.txt", sentences(num, num)) for name, num in (("news", 120), ("talks", 30))]
    settings = corpus(
        train_src=files, train_tgt=files, corpus=["news", "talks"], weight=[1, 3], tag=["<2de> <news>", "<2fr>"],
        valid_tag=["<2fr>"],
    )  # fmt: skip
    report = preprocess(settings)
    dataset = Dataset.open(settings.out)
    assert [(c["name"], c["kept"], c["repeats"]) for c in report["corpora"]] == [("news", 120, 1.0), ("talks", 30, 3.0)]
    assert dataset.train.repeats == ((0, 120, 1.0), (120, 150, 3.0))
    de, fr = dataset.vocabs.src.id("<2de>"), dataset.vocabs.src.id("<2fr>")
    assert [int(dataset.train.src(i)[0]) for i in range(150)] == [de] * 120 + [fr] * 30
    assert int(dataset.train.src(0)[1]) == dataset.vocabs.src.id("<news>") != dataset.vocabs.src.unk
    assert dataset.valid_src == ["<2fr> the dog sees the cat", "<2fr> a house"]
    assert dataset.vocabs.src.encode(dataset.valid_src) == [dataset.valid.src(i).tolist() for i in range(2)]
    assert dataset.where(121) == f"{files[1]}:1"
    assert dataset.where(120) == f"{files[0]}:120"
    with pytest.raises(ConfigError, match="name valid_tag"):
        preprocess(settings.model_copy(update={"valid_tag": []}))


def test_a_tag_hides_nothing_from_the_filters(corpus: Corpus, tmp_path: Path) -> None:
    src, tgt = sentences(300, 1), sentences(300, 2)
    src = [f"{i} {line}" for i, line in enumerate(src)]
    src[10] = tgt[10] = "same"
    src[20], src[30], src[40] = "", "the dog sees the cat", "from the test"
    src[50] = "犬"  # half the letters of <2d> with it would be latin
    test = write(tmp_path / "test.src", ["from the test"])
    settings = corpus(
        src, tgt, tag="<2de>", identical="drop", leaks="drop", test_src=test, src_script=["latin", "cjk"],
        valid_src=["the dog sees the cat", "", "a house"], valid_tgt=["a", "b", "c"],
    )  # fmt: skip
    with pytest.raises(ConfigError, match="cjk is no script"):
        preprocess(settings)
    drops = preprocess(settings.model_copy(update={"src_script": ["latin"]}))["train"]["drops"]
    found = {name: drop["lines"] for name, drop in drops.items()}
    assert (found["blank"], found["identical"], found["leak"]) == ([21], [11], [31, 41])
    assert 51 in found["wrong script"]
    dataset = Dataset.open(settings.out)
    assert dataset.valid_src == ["<2de> the dog sees the cat", "", "<2de> a house"]
    assert dataset.valid.lines.tolist() == [1, 3]


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_a_vocabulary_is_trained_on_parts_of_long_lines(
    corpus: Corpus, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = sentences(300, 1)
    src[5] = " ".join(src * 3)
    longest = []

    def seen(lines: Iterable[str], *how: int) -> list[str]:
        chosen = sample(lines, *how)
        longest.append(max(map(len, chosen)))
        return chosen

    monkeypatch.setattr("s2s_cli.data.preprocess.sample", seen)
    preprocess(corpus(src, vocab_type=kind))
    assert len(src[5]) > 20_000
    assert 900 < longest[0] <= 2000


@pytest.mark.parametrize("how", ["tsv", "jsonl"])
def test_leaks_into_test_text_of_the_same_form(corpus: Corpus, tmp_path: Path, how: str) -> None:
    pairs = [(f"{i} {s}", t) for i, (s, t) in enumerate(zip(sentences(300, 1), sentences(300, 2), strict=True))]
    texts = {"train": pairs, "valid": [("a house", "a tree")], "test": [(pairs[7][0], "another translation")]}
    files = {
        name: write(
            tmp_path / name, [f"{s}\t{t}" if how == "tsv" else json.dumps({"src": s, "tgt": t}) for s, t in items]
        )
        for name, items in texts.items()
    }
    plain = write(tmp_path / "plain", [pairs[9][0]])
    report = preprocess(corpus(**files, **{how: True}, test_src=plain, leaks="drop"))
    assert report["train"]["drops"]["leak"]["lines"] == [8, 10]


def test_a_reused_vocabulary_gets_what_can_be_appended(corpus: Corpus, tmp_path: Path) -> None:
    first = corpus(out=tmp_path / "first", symbol="#P#")
    preprocess(first)
    again = corpus(src_vocab=first.out, tag="<2de>", reserved=["<mask>"], symbol="#P#")
    preprocess(again)
    then, now = Dataset.open(first.out).vocabs.src, Dataset.open(again.out).vocabs.src
    assert len(now) == len(then) + 8  # two pieces, and what makes it a multiple of 8
    assert [now.piece(i) for i in range(len(then))] == [then.piece(i) for i in range(len(then))]
    assert {"<2de>", "<mask>"} <= {now.piece(i) for i in range(len(then), len(now))}
    with pytest.raises(ConfigError, match="has no piece #Q#, and symbols"):
        preprocess(corpus(src_vocab=first.out, symbol="#Q#"))


def test_what_cannot_be_read_is_said_before_the_long_work(corpus: Corpus, tmp_path: Path) -> None:
    settings = corpus(vocab_size=16)  # which would be too small
    for name in ("valid_tgt", "test_src"):
        with pytest.raises(DataError, match="missing: no such file"):
            preprocess(settings.model_copy(update={name: [tmp_path / "missing"]}))
    with pytest.raises(ConfigError, match="did you mean latin"):
        preprocess(settings.model_copy(update={"src_script": ["latn"]}))
    bad = tmp_path / "bad"
    bad.write_bytes(b"good\nbad\xff\n")
    with pytest.raises(DataError, match="bad:2: byte 0xFF"):
        preprocess(settings.model_copy(update={"test_src": [bad]}))
    bad.unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe: a pipe, which can be read once"):
        preprocess(settings.model_copy(update={"train_src": [tmp_path / "pipe"]}))
    (tmp_path / "pipe").unlink()
    with pytest.raises(ConfigError, match="named twice"):
        preprocess(corpus(train_src="-", test_src="-"))
    assert beside(settings) == set()


@pytest.mark.parametrize("shared", [True, False])
def test_a_vocabulary_is_reused_with_its_rules(corpus: Corpus, tmp_path: Path, shared: bool) -> None:
    first = corpus(out=tmp_path / "first", shared_vocab=shared, lowercase=True)
    preprocess(first)
    sides = {"src_vocab": first.out} | ({} if shared else {"tgt_vocab": first.out / "vocab" / "tgt.model"})
    settings = corpus(sentences(50, 7), shared_vocab=shared, **sides)
    report = preprocess(settings)
    then, now = Dataset.open(first.out).vocabs, Dataset.open(settings.out).vocabs
    assert now.src.fingerprint == then.src.fingerprint
    assert now.tgt.proto == then.tgt.proto
    assert now.src.rules.lowercase
    assert any("as the vocabulary reused has them" in line for line in report["summary"])


def test_two_vocabularies_are_not_reused_as_one(corpus: Corpus, tmp_path: Path) -> None:
    first = corpus(out=tmp_path / "first", shared_vocab=False)
    preprocess(first)
    with pytest.raises(ConfigError, match=r"has a vocabulary for each side: .* --no-shared-vocab"):
        preprocess(corpus(sentences(50, 7), src_vocab=first.out))


def test_a_dataset_with_another_vocabulary_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    one = corpus(out=tmp_path / "one")
    preprocess(one)
    other = corpus(sentences(50, 8), out=tmp_path / "other")
    preprocess(other)
    (one.out / "vocab").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="no vocabulary here"):
        Dataset.open(one.out)
    (other.out / "vocab").rename(one.out / "vocab")
    with pytest.raises(DataError, match="not the one that its text was encoded with"):
        Dataset.open(one.out)
    with pytest.raises(DataError, match="no dataset here; make one with: s2s preprocess"):
        Dataset.open(tmp_path / "nowhere")


def test_settings_that_contradict_each_other_are_refused() -> None:
    for settings, message in (
        ({"tsv": True, "jsonl": True}, "one of tsv and jsonl"),
        ({"tsv": True}, "name both"),
        ({"train": "x"}, "say tsv or jsonl"),
        ({"test": "x"}, "say tsv or jsonl"),
        ({"symbol": "<extra_id_0>", "sentinels": 1}, "<extra_id_0> is named as symbol"),
        ({"weight": [1, 2]}, "weight has 2 values for 1 training files"),
        ({"reserved": "a b"}, "holds no space"),
        ({"symbol": "<s>"}, "<s> is a piece of every vocabulary already"),
        ({"tag": "<2de> <0x41>"}, "<0x41> is a piece of every"),
        ({"symbol": "<x>", "tag": "<x>"}, "<x> is named as symbol"),
        ({"tgt_vocab": "x"}, "shared_vocab off"),
    ):
        with pytest.raises(ValueError, match=message):
            PreprocessSettings(**settings)


SLOW = """
import sys, time
from pathlib import Path
from s2s_cli.config import PreprocessSettings
from s2s_cli.data import preprocess as room
def slow(*args):
    print("writing", flush=True)
    time.sleep(60)
room._write_train = slow
room.preprocess(PreprocessSettings.model_validate_json(sys.argv[1]))
"""


def test_terminated_it_leaves_nothing(corpus: Corpus) -> None:
    command = [sys.executable, "-c", SLOW, corpus().model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert b"Interrupted: terminated" in process.communicate()[1]
    assert beside(corpus()) == set()


def test_killed_and_run_again_it_starts_clean(corpus: Corpus) -> None:
    settings = corpus()
    preprocess(settings)
    first = content(settings.out)
    argument = corpus(sentences(100, 5)).model_dump_json()
    with subprocess.Popen([sys.executable, "-c", SLOW, argument], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        with pytest.raises(S2SError, match="another preprocess is writing it"):
            preprocess(corpus(sentences(100, 5)))
        os.kill(process.pid, signal.SIGKILL)
    assert content(settings.out) == first
    time.sleep(0.1)
    preprocess(corpus(sentences(100, 5)))
    assert content(settings.out) != first
    assert beside(settings) == {"data-bin"}
    second = content(settings.out)
    preprocess(corpus(sentences(100, 5), out=settings.out.with_name("clean")))
    assert content(settings.out.with_name("clean")) == second


IN_WORKER = """
import os, sys
from s2s_cli.config import PreprocessSettings
from s2s_cli.data import encoding
from s2s_cli.data.preprocess import preprocess
from s2s_cli.errors import DataError
first = os.getpid()
count = encoding.count_ratios
def slow(*args):
    if os.getpid() != first:
        os.write(1, f"{os.getpid()}{os.linesep}".encode())
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), 9)
        import time; time.sleep(60)
    return count(*args)
encoding.count_ratios = slow
try:
    preprocess(PreprocessSettings.model_validate_json(sys.argv[1]))
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers see the patch only where they are forked")
@pytest.mark.parametrize("who", ["first", "killed"])
def test_no_process_is_left_when_one_is_killed(corpus: Corpus, who: str) -> None:
    settings = corpus(sentences(300) * 30, workers=2)
    command = [sys.executable, "-c", IN_WORKER, settings.model_dump_json(), who]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(process.stdout.readline()) for _ in range(2 if who == "first" else 1)]
        if who == "first":
            process.kill()
        rest = process.stdout.read()  # to the end, which comes when the last process that could write has ended
    assert ("a worker process was killed" in rest) is (who == "killed")
    for worker in workers:
        assert not Path(f"/proc/{worker}/cmdline").exists() or not Path(f"/proc/{worker}/cmdline").read_bytes()
    if who == "killed":
        assert beside(settings) == set()


def test_a_large_vocabulary_takes_wider_ids(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Dataset.open(preprocess_to(corpus()))
    monkeypatch.setattr("s2s_cli.data.shards.token_dtype", lambda size: np.dtype("<i4"))
    wide = Dataset.open(preprocess_to(corpus(out=corpus().out.with_name("wide"))))
    assert (narrow.train.src(0).dtype, wide.train.src(0).dtype) == (np.uint16, np.int32)
    assert texts(wide.train, wide) == texts(narrow.train, narrow)
