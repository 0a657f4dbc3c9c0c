"""Any choice of the command's options gives what each of them promises, or one clear error."""

import json
import os
import random
from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError
from samples import MODEL, random_model, sentences

from s2s_cli.checkpoint.bundle import save_bundle, weights_of
from s2s_cli.config import RuntimeSettings, SearchSettings, TranslateSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import S2SError
from s2s_cli.search.partial import Writer
from s2s_cli.search.translate import _check_files, translate
from s2s_cli.search.translator import Translator

LONG = "the dog sees the cat. the man hears! not today? here and the old man."
SRC = [src for src, _ in sentences(5, seed=4)] + ["", LONG, "犬が好き", " "]
TGT = [tgt for _, tgt in sentences(5, seed=4)] + ["", "der Hund", "", "alte"]
OPTIONS: dict[str, list[object]] = {
    "format": ["text", "tsv", "jsonl"],
    "nbest": [1, 3],
    "samples": [0, 1, 4],
    "mbr": ["no", "chrf", "bleu", "rouge"],
    "align": ["no", "words", "pieces"],
    "alignments": [None, "links"],
    "prefix": [None, "tgt"],
    "prefix_text": ["", "der"],
    "force": [None, "tgt"],
    "long_lines": ["truncate", "split"],
}


def choices(num: int) -> list[dict[str, object]]:
    """Some of all choices, those among them that change little more often than chance would have them."""
    chance = random.Random(1)
    every = [dict(zip(OPTIONS, values, strict=True)) for values in product(*OPTIONS.values())]
    changed = lambda choice: sum(choice[name] != values[0] for name, values in OPTIONS.items())  # noqa: E731
    return sorted(chance.choices(every, weights=[0.2 ** changed(choice) for choice in every], k=num), key=str)


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, lines in (("src", SRC), ("tgt", TGT)):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def test_every_choice_of_options(bundle: Path, texts: None) -> None:
    done = 0
    for choice in choices(80):
        Path("links").unlink(missing_ok=True)
        Path("out").unlink(missing_ok=True)
        given = {name: value for name, value in choice.items() if value != OPTIONS[name][0]}
        try:
            settings = TranslateSettings(model=[bundle], input=Path("src"), output=Path("out"), flush_every=4, **given)
            translate(settings, SearchSettings(max_src_len=9), RuntimeSettings(device="cpu", precision="fp32"))
        except (S2SError, ValidationError):
            assert len(given) > 1 or given.keys() <= {"nbest", "samples", "mbr", "align"}, "alone each has its way"
            assert not Path("out").exists()
            continue
        done += 1
        check(Path("out").read_text(encoding="utf-8").removesuffix("\n").split("\n"), settings)
        if settings.alignments:
            links = Path("links").read_text().removesuffix("\n").split("\n")
            assert [bool(row) for row in links] <= [bool(line.strip()) for line in SRC]
            assert len(links) == len(SRC)
    assert done > 25


def test_the_journal_names_the_model_that_translates(
    bundle: Path, vocabs: Vocabs, texts: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Though `best` has become another one since it was opened: what is left of this one's work is not gone on with."""
    save_bundle(Path("other"), weights_of(random_model(vocabs, 2)), MODEL, SearchSettings(), vocabs, {})
    Path("run").mkdir()
    best = Path("run/best")
    best.symlink_to(bundle)
    start, write = Translator.__init__, Writer.write

    def moving(self: Translator, *arguments: object, **named: object) -> None:
        start(self, *arguments, **named)
        best.unlink()
        best.symlink_to(Path("other").resolve())

    def interrupted(self: Writer, *arguments: object) -> None:
        write(self, *arguments)
        raise KeyboardInterrupt

    settings = TranslateSettings(model=[Path("run")], input=Path("src"), output=Path("out"), flush_every=4)
    ways = {"search": SearchSettings(beam=2), "runtime": RuntimeSettings(device="cpu", precision="fp32")}
    with monkeypatch.context() as patched:
        patched.setattr(Translator, "__init__", moving)
        patched.setattr(Writer, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            translate(settings, **ways)
    translate(settings, **ways)
    assert "begun with other model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["force", "prefix"])
def test_one_file_may_have_both_parts(bundle: Path, texts: None, name: str) -> None:
    """A copying task scores its own source; what was repaired in a file that is read twice is told."""
    plain = {"model": [bundle], "input": Path("src")}
    Path("copy").write_bytes(Path("src").read_bytes())
    for other in ("src", "copy"):
        settings = TranslateSettings(**plain, output=Path(f"as-{other}"), **{name: Path(other)})
        translate(settings, SearchSettings(), RuntimeSettings(device="cpu", precision="fp32"))
    assert Path("as-src").read_bytes() == Path("as-copy").read_bytes()


def check(rows: list[str], settings: TranslateSettings) -> None:
    most = settings.samples or settings.nbest
    aligned = settings.align != "no" or settings.alignments is not None
    if settings.format == "text":
        assert len(rows) == len(SRC)
        assert (rows[5], rows[8]) == ("", "")
    elif settings.format == "tsv":
        columns = (5 if settings.force else 4) + aligned
        assert {row.count("\t") + 1 for row in rows} == {columns}
        assert sorted({int(row.split("\t")[0]) for row in rows}) == list(range(1, len(SRC) + 1))
        assert len(rows) <= most * (len(SRC) - 2) + 2
    else:
        records = [json.loads(row) for row in rows]
        assert [record["line"] for record in records] == list(range(1, len(SRC) + 1))
        for record, src in zip(records, SRC, strict=True):
            assert (0 < len(record["hypotheses"]) <= most) == bool(src.strip())
            for output in record["hypotheses"]:
                assert ("alignment" in output) == aligned
                assert ("utility" in output) == (settings.mbr != "no")
                assert output["logp"] == pytest.approx(sum(output["logps"]), abs=1e-3)


def test_a_long_output_is_scored_step_by_step(bundle: Path, texts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same numbers: one pass over all its positions would need memory for each pair of them."""
    ways = {"search": SearchSettings(), "runtime": RuntimeSettings(device="cpu", precision="fp32")}
    for name, at_once in (("once", 4096), ("steps", -1)):
        monkeypatch.setattr("s2s_cli.search.translator._AT_ONCE", at_once)
        if name == "steps":
            monkeypatch.setattr("s2s_cli.search.translator.force_at_once", None)
        translate(TranslateSettings(model=[bundle], input="src", output=name, force="tgt", format="tsv"), **ways)
    one, other = (Path(name).read_text().replace("\t", " ").split(" ") for name in ("once", "steps"))
    assert len(one) == len(other)
    assert all(a == b or float(a) == pytest.approx(float(b), rel=1e-3) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["input", "output"])
def test_several_processes_share_no_pipe(bundle: Path, texts: None, name: str) -> None:
    os.mkfifo("pipe")
    with pytest.raises(S2SError, match="not pipes"):
        _check_files(TranslateSettings(model=[bundle], **({"input": "src", "output": "out"} | {name: "pipe"})), 2)
