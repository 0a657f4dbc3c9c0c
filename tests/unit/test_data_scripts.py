"""The scripts of data/: the grammar corpus is right German and keeps its promises; texts arrive whole or not at all."""

import functools
import gzip
import hashlib
import http.server
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data"
sys.path.insert(0, str(DATA))

import debian  # noqa: E402
import dialogsum  # noqa: E402
import fetch  # noqa: E402
import g2p  # noqa: E402
import german  # noqa: E402
import grammar  # noqa: E402
import multi30k  # noqa: E402
import standin  # noqa: E402
import wmt14  # noqa: E402
from clauses import Draw  # noqa: E402
from lexicon import MODALS, NOUNS, VERBS, Adverbial, adjective, noun, verb  # noqa: E402
from syntax import Clause, NounPhrase, Predicate, Prepositional, Pronoun, Relative, Who  # noqa: E402

I, YOU, HE, SHE, WE, THEY = (  # noqa: E741
    Pronoun(1),
    Pronoun(2),
    Pronoun(3),
    Pronoun(3, gender="f"),
    Pronoun(1, plural=True),
    Pronoun(3, plural=True),
)


def np(en: str, det: str = "the", adj: str = "", plural: bool = False, degree: str = "base") -> NounPhrase:
    return NounPhrase(noun(en), det, plural, ((adjective(adj), degree),) if adj else ())


def de(part: NounPhrase) -> list[str]:
    return [" ".join(german.phrase(part, case)) for case in ("nom", "acc", "dat")]


# -- inflection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "forms"),
    [
        (np("dog", "a", "small"), "ein kleiner Hund|einen kleinen Hund|einem kleinen Hund"),
        (np("dog", "the", "small"), "der kleine Hund|den kleinen Hund|dem kleinen Hund"),
        (np("cat", "a", "small"), "eine kleine Katze|eine kleine Katze|einer kleinen Katze"),
        (np("cat", "this", "small"), "diese kleine Katze|diese kleine Katze|dieser kleinen Katze"),
        (np("house", "a", "small"), "ein kleines Haus|ein kleines Haus|einem kleinen Haus"),
        (np("house", "every", "small"), "jedes kleine Haus|jedes kleine Haus|jedem kleinen Haus"),
        (np("dog", "", "small", True), "kleine Hunde|kleine Hunde|kleinen Hunden"),
        (np("dog", "the", "small", True), "die kleinen Hunde|die kleinen Hunde|den kleinen Hunden"),
        (np("dog", "my", "small", True), "meine kleinen Hunde|meine kleinen Hunde|meinen kleinen Hunden"),
        (np("dog", "many", "small", True), "viele kleine Hunde|viele kleine Hunde|vielen kleinen Hunden"),
        (np("dog", "two", "small", True), "zwei kleine Hunde|zwei kleine Hunde|zwei kleinen Hunden"),
        (np("car", "all", "new", True), "alle neuen Autos|alle neuen Autos|allen neuen Autos"),
        (np("water", "", "cold"), "kaltes Wasser|kaltes Wasser|kaltem Wasser"),
        (np("milk", "", "cold"), "kalte Milch|kalte Milch|kalter Milch"),
        (np("wine", "", "cold"), "kalter Wein|kalten Wein|kaltem Wein"),
        (np("boy", "our"), "unser Junge|unseren Jungen|unserem Jungen"),
        (np("student", "a"), "ein Student|einen Studenten|einem Studenten"),
        (np("hat", "a", "expensive"), "ein teurer Hut|einen teuren Hut|einem teuren Hut"),
        (np("hat", "a", "expensive", degree="comp"), "ein teurerer Hut|einen teureren Hut|einem teureren Hut"),
        (np("house", "the", "big", degree="sup"), "das größte Haus|das größte Haus|dem größten Haus"),
        (np("forest", "the", "dark"), "der dunkle Wald|den dunklen Wald|dem dunklen Wald"),
    ],
)
def test_noun_phrases_in_nominative_accusative_and_dative(part: NounPhrase, forms: str) -> None:
    assert de(part) == forms.split("|")


@pytest.mark.parametrize(
    ("infinitive", "present", "past"),
    [
        ("kaufen", "kaufe kaufst kauft kaufen", "kaufte kauftest kaufte kauften"),
        ("lesen", "lese liest liest lesen", "las lasest las lasen"),
        ("essen", "esse isst isst essen", "aß aßest aß aßen"),
        ("geben", "gebe gibst gibt geben", "gab gabst gab gaben"),
        ("arbeiten", "arbeite arbeitest arbeitet arbeiten", "arbeitete arbeitetest arbeitete arbeiteten"),
        ("füttern", "füttere fütterst füttert füttern", "fütterte füttertest fütterte fütterten"),
        ("waschen", "wasche wäschst wäscht waschen", "wusch wuschst wusch wuschen"),
        ("einladen", "lade lädst lädt laden", "lud ludest lud luden"),
        ("sitzen", "sitze sitzt sitzt sitzen", "saß saßest saß saßen"),
        ("wissen", "weiß weißt weiß wissen", "wusste wusstest wusste wussten"),
        ("sein", "bin bist ist sind", "war warst war waren"),
        ("haben", "habe hast hat haben", "hatte hattest hatte hatten"),
    ],
)
def test_verb_forms(infinitive: str, present: str, past: str) -> None:
    persons = ((1, False), (2, False), (3, False), (1, True))
    entry = verb(infinitive)
    assert [german.finite(entry, *person, past=False) for person in persons] == present.split()
    assert [german.finite(entry, *person, past=True) for person in persons] == past.split()


# -- sentences -------------------------------------------------------------------------------------------------------

MAN, BOOK, DOG = np("man"), np("book", "a"), np("dog")
TODAY, YESTERDAY = Adverbial("today", "heute"), Adverbial("yesterday", "gestern")
CAN = next(modal for modal in MODALS if modal.en == "can")
HAVE_TO = next(modal for modal in MODALS if modal.en == "have")
BUYS = Clause(verb("kaufen"), MAN, obj=BOOK)
HELPS = Clause(verb("helfen"), MAN, iobj=np("woman"))
CALLS = Clause(verb("anrufen"), SHE, obj=HE)
SLEEPS = Clause(verb("schlafen"), DOG)
TIRED = Clause(verb("sein"), HE, predicate=Predicate(adjective("tired")))
IN_GARDEN = Prepositional("in", "in", "dat", np("garden"))
TO_MARKET = Prepositional("to", "zu", "dat", np("station"))


@pytest.mark.parametrize(
    ("clause", "en", "de"),
    [
        (BUYS, "The man is buying a book.", "Der Mann kauft ein Buch."),
        (replace(BUYS, tense="perfect"), "The man has bought a book.", "Der Mann hat ein Buch gekauft."),
        (replace(BUYS, negated=True), "The man is not buying a book.", "Der Mann kauft kein Buch."),
        (
            replace(BUYS, negated=True, obj=np("book")),
            "The man is not buying the book.",
            "Der Mann kauft das Buch nicht.",
        ),
        (
            replace(BUYS, time=YESTERDAY, tense="past", front="time"),
            "Yesterday the man bought a book.",
            "Gestern kaufte der Mann ein Buch.",
        ),
        (
            replace(BUYS, time=TODAY, place=IN_GARDEN),
            "The man is buying a book in the garden today.",
            "Der Mann kauft heute im Garten ein Buch.",
        ),
        (replace(BUYS, modal=CAN, subj=YOU), "You can buy a book.", "Du kannst ein Buch kaufen."),
        (
            replace(BUYS, modal=HAVE_TO, negated=True),
            "The man does not have to buy a book.",
            "Der Mann muss kein Buch kaufen.",
        ),
        (replace(BUYS, tense="future", subj=WE), "We will buy a book.", "Wir werden ein Buch kaufen."),
        (
            replace(BUYS, particle=Adverbial("yet", "noch"), tense="perfect", negated=True),
            "The man has not bought a book yet.",
            "Der Mann hat noch kein Buch gekauft.",
        ),
        (
            Clause(verb("trinken"), SHE, "habit", likes=True, obj=np("tea", "", "cold")),
            "She likes to drink cold tea.",
            "Sie trinkt gern kalten Tee.",
        ),
        (HELPS, "The man is helping the woman.", "Der Mann hilft der Frau."),
        (CALLS, "She is calling him.", "Sie ruft ihn an."),
        (replace(CALLS, tense="perfect"), "She has called him.", "Sie hat ihn angerufen."),
        (Clause(verb("abholen"), SHE, obj=HE), "She is picking him up.", "Sie holt ihn ab."),
        (
            Clause(verb("aufstehen"), MAN, "perfect"),
            "The man has got up.",
            "Der Mann ist aufgestanden.",
        ),
        (
            Clause(verb("geben"), I, "past", obj=BOOK, iobj=np("child", plural=True)),
            "I gave the children a book.",
            "Ich gab den Kindern ein Buch.",
        ),
        (
            Clause(verb("gehen"), MAN, goal=Prepositional("into", "in", "acc", np("garden"))),
            "The man is going into the garden.",
            "Der Mann geht in den Garten.",
        ),
        (
            Clause(verb("gehen"), THEY, negated=True, goal=Prepositional("into", "in", "acc", np("house"))),
            "They are not going into the house.",
            "Sie gehen nicht ins Haus.",
        ),
        (replace(SLEEPS, place=IN_GARDEN), "The dog is sleeping in the garden.", "Der Hund schläft im Garten."),
        (
            Clause(verb("sein"), DOG, predicate=Predicate(adjective("big"), "comp", np("cat"))),
            "The dog is bigger than the cat.",
            "Der Hund ist größer als die Katze.",
        ),
        (
            Clause(verb("sein"), HE, predicate=Predicate(job=noun("doctor"))),
            "He is a doctor.",
            "Er ist Arzt.",
        ),
        (
            replace(SLEEPS, subj=replace(MAN, relative=replace(HELPS, subj=Relative(noun("man"))))),
            "The man who is helping the woman is sleeping.",
            "Der Mann, der der Frau hilft, schläft.",
        ),
        (
            replace(
                SLEEPS, subj=replace(np("woman"), relative=replace(HELPS, iobj=Relative(noun("woman")), front="iobj"))
            ),
            "The woman whom the man is helping is sleeping.",
            "Die Frau, der der Mann hilft, schläft.",
        ),
    ],
)
def test_statements(clause: Clause, en: str, de: str) -> None:
    assert grammar.statement(clause) == (en, de)


@pytest.mark.parametrize(
    ("clause", "en", "de"),
    [
        (replace(BUYS, front=""), "Is the man buying a book?", "Kauft der Mann ein Buch?"),
        (replace(BUYS, obj=Who(thing=True), front="obj"), "What is the man buying?", "Was kauft der Mann?"),
        (replace(HELPS, iobj=Who(), front="iobj", tense="past"), "Who did the man help?", "Wem half der Mann?"),
        (replace(CALLS, subj=Who()), "Who is calling him?", "Wer ruft ihn an?"),
        (
            replace(BUYS, obj=np("coat", "which"), front="obj"),
            "Which coat is the man buying?",
            "Welchen Mantel kauft der Mann?",
        ),
        (
            Clause(verb("gehen"), YOU, goal=Adverbial("where", "wohin"), front="goal"),
            "Where are you going?",
            "Wohin gehst du?",
        ),
    ],
)
def test_questions(clause: Clause, en: str, de: str) -> None:
    assert grammar.question(clause) == (en, de)


def test_two_clauses() -> None:
    knows = Clause(verb("wissen"), I, negated=True)
    assert grammar.complex_sentence(SLEEPS, ("because", "weil"), TIRED) == (
        "The dog is sleeping because he is tired.",
        "Der Hund schläft, weil er müde ist.",
    )
    assert grammar.complex_sentence(CALLS, ("if", "wenn"), TIRED, reverse=True) == (
        "If he is tired, she is calling him.",
        "Wenn er müde ist, ruft sie ihn an.",
    )
    assert grammar.complex_sentence(knows, ("whether", "ob"), CALLS) == (
        "I do not know whether she is calling him.",
        "Ich weiß nicht, ob sie ihn anruft.",
    )
    where = replace(SLEEPS, place=Adverbial("where", "wo"), front="place")
    assert grammar.complex_sentence(knows, ("", ""), where) == (
        "I do not know where the dog is sleeping.",
        "Ich weiß nicht, wo der Hund schläft.",
    )
    assert grammar.complex_sentence(knows, ("that", "dass"), replace(BUYS, tense="perfect"))[1] == (
        "Ich weiß nicht, dass der Mann ein Buch gekauft hat."
    )
    helps = replace(HELPS, subj=np("friend", "a"), iobj=I)
    assert grammar.complex_sentence(knows, ("that", "dass"), helps)[1] == "Ich weiß nicht, dass mir ein Freund hilft."
    assert grammar.complex_sentence(knows, ("that", "dass"), replace(helps, subj=MAN))[1].endswith(
        "der Mann mir hilft."
    )
    assert grammar.compound_sentence(SLEEPS, ("but", "aber"), TIRED)[1] == "Der Hund schläft, aber er ist müde."
    goes = Clause(verb("gehen"), MAN, goal=TO_MARKET)
    assert grammar.purpose_sentence(goes, Clause(verb("anrufen"), obj=SHE, front="")) == (
        "The man is going to the station to call her.",
        "Der Mann geht zum Bahnhof, um sie anzurufen.",
    )


# -- the corpus ------------------------------------------------------------------------------------------------------


def run(script: str, *args: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, DATA / script, *map(str, args)], capture_output=True, **more)  # type: ignore[call-overload]


def test_corpus_is_a_function_of_the_seed_and_splits_share_nothing(tmp_path: Path) -> None:
    sizes = {"train": 3000, "valid": 60, "test": 50}
    flags = [str(word) for split, size in sizes.items() for word in (f"--{split}", size)]
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        made = run(
            "grammar.py", tmp_path / folder, *flags, "--seed", seed, env={"PYTHONHASHSEED": str(len(folder) + seed)}
        )
        assert made.returncode == 0, made.stderr
    names = [f"{split}.{language}" for split in sizes for language in ("en", "de")]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)
    text = {folder: {name: (tmp_path / folder / name).read_bytes() for name in names} for folder in "abc"}
    assert text["a"] == text["b"]
    assert text["a"]["train.de"] != text["c"]["train.de"]
    for language in ("en", "de"):
        lines = [text["a"][f"{split}.{language}"].split(b"\n")[:-1] for split in sizes]
        assert [len(part) for part in lines] == list(sizes.values())
        every = [line for part in lines for line in part]
        assert len(set(every)) == len(every)


def test_an_english_sentence_has_one_german_however_often_it_is_drawn() -> None:
    draw, german_of, repeated = Draw(5), {}, 0
    for _ in range(12000):
        en, de = grammar.drawn(draw)
        repeated += en in german_of
        assert german_of.setdefault(en, de) == de, en
    assert repeated > 20  # else the loop has shown nothing


def test_every_word_of_the_lexicon_is_used_and_lengths_vary() -> None:
    rows = grammar.pairs(12000, seed=3)
    assert all(len(side.split()) <= grammar.MAX_WORDS for row in rows for side in row)
    assert {3, 6, 12, 18} <= {len(german_side.split()) for _, german_side in rows}
    words = {word.strip(",.?") for row in rows for word in row[1].split()}
    assert not [entry.de for entry in NOUNS if not {entry.de, entry.de + entry.oblique, entry.de_plural} & words]
    unused = [
        entry.de for entry in VERBS if not {entry.de_third, entry.de_past, entry.de, entry.prefix + entry.de} & words
    ]
    assert not unused


# -- fetching --------------------------------------------------------------------------------------------------------

TEXTS = {"train.en": b"A dog.\nA cat.\n", "tok.de": b"ein hund .\neine katze .\n"}
FILES = {
    "train.en": fetch.Text("raw/train.en.gz", 2, hashlib.sha256(TEXTS["train.en"]).hexdigest()),
    "tok.de": fetch.Text("tok/tok.de", 2, hashlib.sha256(TEXTS["tok.de"]).hexdigest()),
}


@pytest.fixture
def site(tmp_path: Path):  # type: ignore[no-untyped-def]
    root = tmp_path / "site"
    (root / "raw").mkdir(parents=True)
    (root / "tok").mkdir()
    (root / "raw/train.en.gz").write_bytes(gzip.compress(TEXTS["train.en"]))
    (root / "tok/tok.de").write_bytes(TEXTS["tok.de"])
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", root
        server.shutdown()


def test_download_keeps_what_is_right_and_replaces_what_is_torn(site, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    url, _ = site
    out = tmp_path / "out"
    assert fetch.fetch_texts(out, None, url, FILES) == ["train.en", "tok.de"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == TEXTS
    assert fetch.fetch_texts(out, None, url, FILES) == []
    (out / "train.en").write_bytes(TEXTS["train.en"][:9])
    assert fetch.fetch_texts(out, None, url, FILES) == ["train.en"]
    assert (out / "train.en").read_bytes() == TEXTS["train.en"]


@pytest.mark.parametrize(
    "served",
    [
        None,
        b"no gzip",
        gzip.compress(TEXTS["train.en"])[:-9],
        gzip.compress(b"A cow.\nA cat.\n"),
        gzip.compress(b"A dog.\n"),
    ],
    ids=["missing", "no-gzip", "torn", "altered", "short"],
)
def test_a_bad_download_is_named_and_leaves_nothing(site, tmp_path: Path, served: bytes | None) -> None:  # type: ignore[no-untyped-def]
    url, root = site
    path = root / "raw/train.en.gz"
    path.unlink() if served is None else path.write_bytes(served)
    with pytest.raises(fetch.FetchError) as raised:
        fetch.fetch_texts(tmp_path / "out", None, url, FILES)
    assert f"{url}/raw/train.en.gz" in str(raised.value)
    assert str(tmp_path / "out" / "train.en") in str(raised.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("folder", ["", "multi30k-en-de"])
def test_a_local_copy_needs_no_network(tmp_path: Path, folder: str) -> None:
    copy = tmp_path / "copy" / folder
    (copy / "tok").mkdir(parents=True)
    (copy / "train.en.gz").write_bytes(gzip.compress(TEXTS["train.en"]))
    (copy / "tok/tok.de.gz").write_bytes(gzip.compress(TEXTS["tok.de"]))
    local = fetch.find_local(tmp_path / "copy", "multi30k-en-de", "train.en")
    fetch.fetch_texts(tmp_path / "out", local, "http://127.0.0.1:9", FILES, ("", "tok"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == TEXTS


def test_where_a_corpus_is_from_is_said_without_the_folder(tmp_path: Path) -> None:
    copy = tmp_path / "sgd-dialogue"
    copy.mkdir()
    for name in ("train.src", "train.tgt", "val.src", "val.tgt", "test.src", "test.tgt"):
        (copy / name).write_text("a\n")
    done = run("sgd.py", tmp_path / "out", "--from", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / fetch.ORIGIN).read_text() == "local copy\n"
    fetch.note_origin(tmp_path, None, "fetched: sid")
    assert (tmp_path / fetch.ORIGIN).read_text() == "fetched: sid\n"


SPLITS = ("train", "val", "test")


@pytest.mark.parametrize(
    ("corpus", "names"),
    [
        ("cnn_dailymail", [f"{split}.{side}" for split in SPLITS for side in ("src", "tgt")]),
        ("debian", [f"{split}.{side}" for split in SPLITS for side in (*debian.SIDES["translation"], "ids")]),
        (
            "debian --task summaries",
            [f"{split}.{side}" for split in SPLITS for side in (*debian.SIDES["summaries"], "ids")],
        ),
        ("dialogsum", list(dialogsum.FILES)),
        ("g2p", [name.replace("tsv", side) for name in g2p.FILES for side in ("src", "tgt")]),
        ("iwslt14", [f"{split}.{side}" for split in SPLITS for side in ("de", "en")]),
        ("multi30k", list(multi30k.FILES)),
        ("sgd", [f"{split}.{side}" for split in SPLITS for side in ("src", "tgt")]),
        ("wmt14", [f"{part}.{side}" for part in (*wmt14.CORPORA, "val", "test") for side in ("en", "de")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stand_in_has_the_files_of_the_corpus(corpus: str, names: list[str], tmp_path: Path) -> None:
    name, *flags = corpus.split()
    done = run("standin.py", name, tmp_path, *flags, "--train", 30, "--suite", "bookworm", "sid")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"\n") == 1
    for file in names:
        lines = (tmp_path / file).read_text(encoding="utf-8").split("\n")[:-1]
        assert len(lines) == (10 if file.startswith(("val", "test")) else 30), file
        assert all(lines)
    assert (tmp_path / fetch.ORIGIN).read_text() == "made up by data/standin.py\n"
    assert {script for script in standin.CORPORA if not (DATA / f"{script}.py").is_file()} == set()


def test_the_command_ends_with_2_and_a_message(tmp_path: Path) -> None:
    done = run("multi30k.py", tmp_path / "out", "--from", tmp_path)
    assert done.returncode == 2
    assert str(tmp_path).encode() in done.stderr
    assert b"Traceback" not in done.stderr


# -- Moses -----------------------------------------------------------------------------------------------------------


def test_moses_lowercases_normalizes_tokenizes_and_escapes() -> None:
    pytest.importorskip("sacremoses")
    text = "Ein Mann im T-Shirt sagt: „Hallo“ & geht.\nÜber 3,5 km…\n".encode()
    done = run("moses.py", "--lang", "de", input=text)
    assert done.stdout.decode().split("\n") == [
        "ein mann im t-shirt sagt : &quot; hallo &quot; &amp; geht .",
        "über 3,5 km ...",
        "",
    ]


def test_moses_gives_a_line_for_a_line_of_any_bytes() -> None:
    pytest.importorskip("sacremoses")
    lines = [b"", b"  ", b"a\rb", "a\u2028b\u0085c".encode(), b"\xff\xfe", b"\x00\x0b\x0c\x1c.", b"last without end"]
    done = run("moses.py", input=b"\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == len(lines)
    assert done.stdout.endswith(b"\nlast without end\n")
    assert done.stdout.split(b"\n")[:2] == [b"", b""]


def test_moses_without_sacremoses_says_so(tmp_path: Path) -> None:
    (tmp_path / "sacremoses.py").write_text("raise ImportError('none')\n")
    done = run("moses.py", input=b"x\n", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"pip install" in done.stderr
    assert b"Traceback" not in done.stderr
