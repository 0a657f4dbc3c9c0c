"""The scripts of data/ that make corpora: what they keep of their originals, and that nothing held out was seen."""

import gzip
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "data"), str(ROOT / "recipes" / "summarization")]

import cnn_dailymail  # noqa: E402
import debian  # noqa: E402
import dialogsum  # noqa: E402
import fetch  # noqa: E402
import g2p  # noqa: E402
import iwslt14  # noqa: E402
import lead  # noqa: E402
import moses  # noqa: E402
import sgd  # noqa: E402


def run(script: str, *args: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "data" / script, *map(str, args)], capture_output=True, encoding="utf-8"
    )


# -- Debian ----------------------------------------------------------------------------------------------------------

DESCRIPTION = """fast thing
 It does this, e.g. that. It
 is fast.
 .
 Features:
  * one, which goes
    on
  * two
 The end."""


def test_a_description_is_taken_apart_into_synopsis_paragraphs_and_items() -> None:
    assert debian.blocks(DESCRIPTION) == [
        "fast thing",
        "It does this, e.g. that. It is fast.",
        "Features:",
        "one, which goes on",
        "two",
        "The end.",
    ]


def test_sentences_correspond_or_the_block_stays_whole() -> None:
    package = debian.Package(
        "p", "p", ["x", "One. Two is e.g. Three.", "A. B"], ["y", "Eins. Zwei ist z.B. Drei.", "A und B."]
    )
    assert [(line.src, line.tgt) for line in debian.translation_lines([package])] == [
        ("x", "y"),
        ("One.", "Eins."),
        ("Two is e.g. Three.", "Zwei ist z.B. Drei."),
        ("A. B", "A und B."),
    ]


def test_packages_of_a_source_of_its_versions_and_with_a_common_paragraph_are_one_cluster() -> None:
    shared = "this paragraph has twelve words or more and so it tells packages apart"
    made = debian.clusters(
        [
            debian.Package("gcc-12-doc", "gcc-12", ["a"], []),
            debian.Package("gcc-13-doc", "gcc-13", ["b"], []),
            debian.Package("other", "other", ["c", shared], []),
            debian.Package("another", "another", ["d", shared.upper()], []),
            debian.Package("alone", "alone", ["e", "short text"], []),
            debian.Package("alone2", "lonely", ["f", "short text"], []),
        ]
    )
    assert made["gcc-12-doc"] == made["gcc-13-doc"]
    assert made["other"] == made["another"]
    assert len(set(made.values())) == 4


WORDS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(" ".join)


@given(lines=st.lists(st.tuples(st.integers(0, 12), WORDS), min_size=30, max_size=60))
@settings(max_examples=30, deadline=None)
def test_what_is_held_out_was_not_seen(lines: list[tuple[int, str]]) -> None:
    made = [debian.Line(f"p{cluster}", src, src.upper()) for cluster, src in lines]
    parts = debian.split(made, {f"p{k}": f"c{k // 2}" for k in range(13)}, num_held_out=4)
    held_out = parts["test"] + parts["val"]
    assert len(parts["test"]) <= 4
    assert len(parts["val"]) <= 4
    trained = [line.src for line in parts["train"]]
    assert not debian.close_to([line.src for line in held_out], trained)
    assert not {line.src for line in held_out} & set(trained)
    clusters = [{int(line.package[1:]) // 2 for line in parts[part]} for part in ("test", "val", "train")]
    assert not clusters[0] & clusters[1]
    assert not (clusters[0] | clusters[1]) & clusters[2]


def test_closeness_is_the_jaccard_index_of_trigrams() -> None:
    texts = ["one two three four five", "quite something else", "Hello"]
    assert debian.close_to(texts, ["one two three four six"], threshold=0.5) == set()  # 2 of 4
    assert debian.close_to(texts, ["one two three four six"], threshold=0.49) == {0}
    assert debian.close_to(texts, ["hello!"]) == {2}


def test_indexes_on_disk_become_a_corpus(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    stem = "deb.example_debian_dists_stable_main"
    packages, en, de = [], [], []
    for k in range(40):
        packages.append(f"Package: p{k}\nSource: s{k} (1.0)\nVersion: 1\nDescription-md5: {k}\n")
        text = f"thing {k} of many\n It is number {k} and has colour {k * 7}.\n ."
        en.append(f"Package: p{k}\nDescription-md5: {k}\nDescription-en: {text}\n")
        de.append(f"Package: p{k}\nDescription-md5: {k}\nDescription-de: Ding {k} von vielen\n Es ist Nummer {k}.\n")
    (lists / f"{stem}_binary-amd64_Packages").write_text("\n".join(packages))
    (lists / f"{stem}_i18n_Translation-en").write_text("\n".join(en))
    with gzip.open(lists / f"{stem}_i18n_Translation-de.gz", "wt") as file:
        file.write("\n".join(de))
    done = run("debian.py", tmp_path / "out", "--lists", lists)
    assert done.returncode == 0, done.stderr
    names = [f"{part}.{side}" for part in ("train", "val", "test") for side in ("en", "de", "ids")]
    counts = {name: len((tmp_path / "out" / name).read_text().split("\n")) - 1 for name in names}
    assert all(
        counts[f"{part}.en"] == counts[f"{part}.de"] == counts[f"{part}.ids"] for part in ("train", "val", "test")
    )
    assert sum(counts.values()) > 0
    (lists / f"{stem}_i18n_Translation-de.gz").unlink()
    done = run("debian.py", tmp_path / "out2", "--lists", lists)
    assert done.returncode == 2
    assert "Translation-de" in done.stderr
    assert "apt-get" in done.stderr


# -- the others ------------------------------------------------------------------------------------------------------


def test_hangul_syllables_are_taken_apart_and_other_letters_are_not() -> None:
    assert g2p.letters("가감é") == "ᄀ ᅡ ᄀ ᅡ ᆷ é"


def test_a_dialogue_becomes_a_line(tmp_path: Path) -> None:
    rows = [{"dialogue": "#Person1#: Hi.\n#Person2#:  Oh\u2028no.", "summary": "They\nmeet."}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert dialogsum.convert(tmp_path / "x.jsonl", "dialogue").decode() == "#Person1#: Hi. #Person2#: Oh no.\n"
    assert dialogsum.convert(tmp_path / "x.jsonl", "summary").decode() == "They meet.\n"


def test_an_answer_has_at_most_three_turns_before_it() -> None:
    turns = [{"speaker": "USER" if k % 2 == 0 else "SYSTEM", "utterance": f" {k} "} for k in range(6)]
    assert sgd.answers({"turns": turns}) == [
        ("user: 0", "1"),
        ("user: 0 system: 1 user: 2", "3"),
        ("user: 2 system: 3 user: 4", "5"),
    ]


def test_talks_without_their_tags() -> None:
    text = "<url>http://x</url>\n<title>A title</title>\n A line. \n<reviewer href='x'>R</reviewer>\n"
    assert iwslt14.training_lines(text) == ["A title", "A line."]
    assert iwslt14.segments('<seg id="1"> a &amp; b </seg>\n<seg id="2">c</seg>') == ["a & b", "c"]


def test_a_story_becomes_article_and_highlights() -> None:
    text = "First line\n\nSecond one.\n\n@highlight\n\nShort\n\n@highlight\n\nShorter!\n"
    assert cnn_dailymail.story(text) == ("First line . Second one.", "Short . <q> Shorter!")


def test_an_archive_gives_its_files_or_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    archive = tmp_path / "x.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "a.txt", "in/a.txt")
    fetch.unpack(archive, {"in/a.txt": tmp_path / "b.txt"})
    assert (tmp_path / "b.txt").read_text() == "text"
    with pytest.raises(fetch.FetchError, match=r"x\.tgz has no in/c\.txt"):
        fetch.unpack(archive, {"in/c.txt": tmp_path / "c.txt"})
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(fetch.FetchError, match="remove it"):
        fetch.unpack(archive, {"in/a.txt": tmp_path / "d.txt"})
    assert not (tmp_path / "d.txt").exists()


@pytest.mark.parametrize("script", ["dialogsum.py", "sgd.py", "wmt14.py", "iwslt14.py", "g2p.py"])
def test_a_fetch_that_fails_says_what_to_put_where(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S2S_DATA", raising=False)
    done = run(script, tmp_path / "out", "--url", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "by other means, put it" in done.stderr
    assert str(tmp_path / "out") in done.stderr


def test_a_large_archive_comes_from_a_local_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by --from or S2S_DATA, in a folder of its name or bare. One without it is refused, but S2S_DATA may have others."""
    copy = tmp_path / "data" / "iwslt14-de-en"
    copy.mkdir(parents=True)
    with tarfile.open(copy / "de-en.tgz", "w:gz") as tar:
        for lang in ("de", "en"):
            texts = {f"train.tags.de-en.{lang}": "".join(f"{lang} {n}\n" for n in range(1, 26))}
            texts |= {f"IWSLT14.{name}.de-en.{lang}.xml": f"<seg>{lang}</seg>\n" for name in iwslt14.TESTS}
            for name, text in texts.items():
                (tmp_path / name).write_text(text)
                tar.add(tmp_path / name, f"de-en/{name}")
    nowhere = ("--url", "http://127.0.0.1:9")
    assert run("iwslt14.py", tmp_path / "one", "--from", copy, *nowhere).returncode == 0
    assert len((tmp_path / "one" / "train.de").read_text().split("\n")) == 25
    monkeypatch.setenv("S2S_DATA", str(tmp_path / "data"))
    assert run("iwslt14.py", tmp_path / "two", *nowhere).returncode == 0
    assert (tmp_path / "two" / "val.en").read_text() == "en 23\n"
    done = run("wmt14.py", tmp_path / "three", "--from", tmp_path / "data", *nowhere)
    assert done.returncode == 2
    assert "correct --from" in done.stderr
    done = run("wmt14.py", tmp_path / "three", *nowhere)
    assert done.returncode == 2
    assert "has no wmt14-en-de: it is fetched" in done.stderr
    assert "fetching http://127.0.0.1:9" in done.stderr


def test_the_beginning_of_news() -> None:
    text = "Mr. Doe of the U.S. Navy said: \u201cGo.\u201d Then he left. And now? Yes."
    assert lead.lead(text, "sentences", 2, "<q>") == "Mr. Doe of the U.S. Navy said: \u201cGo.\u201d <q> Then he left."
    assert lead.lead(text, "words", 2) == "Mr. Doe"
    assert lead.lead("#Person1#: Hi. #Person2#: Oh. #Person1#: So.", "turns", 2) == "#Person1#: Hi. #Person2#: Oh."


def test_hyphens_are_split_where_scores_are_compared_so() -> None:
    pytest.importorskip("sacremoses")
    assert moses.moses("en", split_hyphens=True)("A well-known man - Re.") == "a well ##AT##-##AT## known man - re ."
    assert moses.moses("en")("A well-known man") == "a well-known man"
