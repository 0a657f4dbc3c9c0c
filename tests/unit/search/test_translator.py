"""From lines to lines: none is lost, none is added, and none depends on the others."""

import io
import itertools
import random
from pathlib import Path

import pytest
import torch
from samples import random_model, sentences

from s2s_cli.config import RuntimeSettings, SearchSettings, TranslateSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError, ConfigError, S2SError
from s2s_cli.runtime import Runtime
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.translate import Seen, Translator, translate

CPU = Runtime(torch.device("cpu"), torch.float32)
MACHINE = RuntimeSettings(device="cpu", precision="fp32")
LINES = [src for src, _ in sentences(40, seed=5)]
BLANK = ["", " ", "\t", "\u00a0\u3000", "\u2028"]


def translator(vocabs: Vocabs, seeds: tuple[int, ...] = (1,), max_src_len: int = 1024, **search: object) -> Translator:
    models = [random_model(vocabs, seed) for seed in seeds]
    return Translator(models, vocabs, SearchSettings(**{"beam": 3, "max_len": 12} | search), CPU, max_src_len)


def test_any_batches_any_order(vocabs: Vocabs) -> None:
    expected = translator(vocabs).translate(LINES)
    assert len(set(expected)) > 10, "a model that always says the same proves nothing"
    for search_tokens in (1, 60, 10_000):
        assert translator(vocabs, search_tokens=search_tokens).translate(LINES) == expected
    order = list(range(len(LINES)))
    random.Random(1).shuffle(order)
    assert translator(vocabs).translate([LINES[i] for i in order]) == [expected[i] for i in order]
    windows = translator(vocabs).search_windows(iter(LINES), size=7)
    assert [translator(vocabs).text(h) for window in windows for h in window] == expected


def test_blank_lines_stay_blank_and_meet_no_model(vocabs: Vocabs, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [text for pair in zip(LINES[:5], BLANK, strict=True) for text in pair]
    seen, encoded, encode = Seen(), [], Ensemble.encode

    def spy(self: Ensemble, src: torch.Tensor, src_len: torch.Tensor) -> object:
        encoded.extend(src_len.tolist())
        return encode(self, src, src_len)

    monkeypatch.setattr(Ensemble, "encode", spy)
    tool = translator(vocabs)
    found = [tool.text(h) for h in tool.search_lines(lines, seen=seen)]
    assert found[1::2] == [""] * 5
    assert found[::2] == tool.translate(LINES[:5])
    assert len(encoded) == 10
    assert (seen.lines, seen.blank) == (10, 5)


def test_long_lines_are_cut_and_told(vocabs: Vocabs) -> None:
    seen = Seen()
    tool = translator(vocabs, max_src_len=3)
    tool.search_lines(["the"], seen=seen)
    long = tool.search_lines(["the dog sees the old cat", "the"], seen=seen)[0]
    assert seen.cut == [2]
    ids = tool.vocabs.src.encode(["the dog sees the old cat"])[0][:3]
    assert tool.text(long) == tool.translate([tool.vocabs.src.decode(ids)])[0]


def test_score_is_that_of_forced_decoding(vocabs: Vocabs) -> None:
    tool, model = translator(vocabs), random_model(vocabs).requires_grad_(False)
    for line, hypotheses in zip(LINES[:8], tool.search_lines(LINES[:8], num_best=3), strict=True):
        assert len(hypotheses) == 3
        src = torch.tensor([[*vocabs.src.encode([line])[0], vocabs.src.eos]])
        memory = model.encode(src, torch.tensor([src.shape[1]]))
        for h in hypotheses:
            state, total = model.start(memory), 0.0
            pieces = [vocabs.tgt.bos, *h.ids, vocabs.tgt.eos]
            for before, piece in itertools.pairwise(pieces):
                out = model.step(torch.tensor([before]), memory, state)
                total, state = total + float(out.logp[0, piece]), out.state
            assert h.logp == pytest.approx(total, abs=1e-4)


def test_ensemble_of_one_model_twice_is_that_model(vocabs: Vocabs) -> None:
    assert translator(vocabs, seeds=(1, 1)).translate(LINES) == translator(vocabs).translate(LINES)
    assert translator(vocabs, seeds=(1, 2)).translate(LINES) != translator(vocabs).translate(LINES)


def test_model_that_diverged_is_named(vocabs: Vocabs) -> None:
    tool = translator(vocabs)
    with torch.no_grad():
        tool.model.models[0].head.bias.fill_(torch.nan)
    with pytest.raises(S2SError, match=r"line 2 .*diverged"):
        tool.translate(["", "the dog"])


def test_load_takes_search_from_the_bundle_unless_told(bundle: Path, vocabs: Vocabs) -> None:
    tool = Translator.load(bundle, runtime=CPU)
    assert (tool.search.beam, tool.search.max_len) == (3, 12)
    assert tool.translate(LINES) == translator(vocabs).translate(LINES)
    assert Translator.load(bundle, search=SearchSettings(beam=1), runtime=CPU).search == SearchSettings(
        beam=1, max_len=12
    )


def test_ensemble_needs_one_vocabulary(bundle: Path, tmp_path: Path) -> None:
    from samples import MODEL

    from s2s_cli.checkpoint.bundle import save_bundle, weights_of
    from s2s_cli.data.vocab import Vocab

    other = Vocab.train(["another text with other words"], size=300)
    vocabs = Vocabs(other, other)
    save_bundle(tmp_path / "other", weights_of(random_model(vocabs)), MODEL, SearchSettings(), vocabs, {})
    with pytest.raises(BundleError, match="different vocabularies"):
        Translator.load(bundle, tmp_path / "other", runtime=CPU)


def run_translate(bundle: Path, tmp_path: Path, lines: list[str], **settings: object) -> list[str]:
    (tmp_path / "in").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    chosen = {"model": [bundle], "input": tmp_path / "in", "output": tmp_path / "out"} | settings
    translate(TranslateSettings(**chosen), SearchSettings(), MACHINE)
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


def test_formats_agree(bundle: Path, tmp_path: Path) -> None:
    import json

    lines = [*LINES[:6], "", *LINES[6:12]]
    text = run_translate(bundle, tmp_path, lines, window=4)
    assert len(text) == 13
    rows = [row.split("\t", 3) for row in run_translate(bundle, tmp_path, lines, window=5, format="tsv", nbest=2)]
    assert [row[3] for row in rows if row[1] == "1"] == text
    assert [int(row[0]) for row in rows] == sorted([*range(1, 14), *(n for n in range(1, 14) if n != 7)])
    records = [json.loads(line) for line in run_translate(bundle, tmp_path, lines, format="jsonl", nbest=2)]
    assert [r["line"] for r in records] == list(range(1, 14))
    assert [r["hypotheses"][0]["text"] if r["hypotheses"] else "" for r in records] == text
    assert records[6]["hypotheses"] == []


def test_what_stands_at_the_output_is_replaced_last(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    with pytest.raises(S2SError, match=r"no such file|does not exist"):
        run_translate(bundle, tmp_path, LINES, input=tmp_path / "nothing")
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b\x08torn")
    with pytest.raises(S2SError, match=r"bad\.gz"):
        run_translate(bundle, tmp_path, LINES, input=tmp_path / "bad.gz")
    assert out.read_text() == "precious"
    assert not (tmp_path / "out.part").exists()


def test_a_device_is_written_as_it_is(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("the dog\n")
    settings = TranslateSettings(model=[bundle], input=tmp_path / "in", output=Path("/dev/null"))
    translate(settings, SearchSettings(), MACHINE)
    assert Path("/dev/null").is_char_device()
    assert not Path("/dev/null.part").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"nbest": 2}, "nbest needs a format"), ({"nbest": 9, "format": "tsv"}, "more than beam")],
)
def test_settings_that_do_not_fit(bundle: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_translate(bundle, tmp_path, LINES[:2], **settings)


def test_bad_bytes_are_told(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"the dog\n\xff\xfe dog\n")))
    monkeypatch.setattr("sys.stdin", stdin)
    assert len(run_translate(bundle, tmp_path, [], input=Path("-"))) == 2
    assert "1 lines were repaired" in capsys.readouterr().err
