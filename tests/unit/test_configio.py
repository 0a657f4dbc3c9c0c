"""Where settings come from, and what is said about those that cannot be."""

from pathlib import Path

import pytest
import yaml

from s2s_cli import configio
from s2s_cli.config import Config
from s2s_cli.errors import ConfigError


def gathered(tmp_path: Path, text: str = "", flags: dict | None = None, sets: tuple[str, ...] = ()) -> configio.Values:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return configio.gather(flags or {}, sets, path)


def fault(tmp_path: Path, text: str = "", flags: dict | None = None, sets: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        configio.build(gathered(tmp_path, text, flags, sets))
    return str(caught.value)


def test_precedence(tmp_path: Path) -> None:
    """flag > --set > file > preset > default, and each value knows where it comes from."""
    text = "train:\n  seed: 4\n  lr: 0.2\n  warmup: 7\n  clip: 9\n"
    values = gathered(tmp_path, text, {"train": {"seed": 1, "lr": None}}, ("train.seed=2", "train.lr=0.3"))
    values = configio.with_preset(values, "tiny")
    train = configio.build(values).train
    assert (train.seed, train.lr, train.warmup, train.clip) == (1, 0.3, 7, 9.0)
    assert train.batch_tokens == 4096
    assert train.beta1 == Config().train.beta1
    file = tmp_path / "settings.yaml"
    assert values.origin["train.seed"] == "--seed"
    assert values.origin["train.lr"] == "--set"
    assert values.origin["train.warmup"] == f"{file}:4"
    assert values.origin["train.batch_tokens"] == "preset tiny"
    assert values.origin["model.dim"] == "preset tiny"


def test_file_in_the_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configio.gather({}, [], None).data == {}
    (tmp_path / "s2s.yaml").write_text("search: {beam: 9}")
    assert configio.build(configio.gather({}, [], None)).search.beam == 9
    (tmp_path / "other.yaml").write_text("search: {beam: 2}")
    assert configio.build(configio.gather({}, [], Path("other.yaml"))).search.beam == 2


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = "train: {lr: 5e-4, max_updates: 1_000, seed: '3'}\ntranslate: {input: -}\nscore:\n"
    config = configio.build(gathered(tmp_path, text, sets=("train.weight_decay=1e-2", "translate.model=[a, b]")))
    assert (config.train.lr, config.train.max_updates, config.train.seed) == (5e-4, 1000, 3)
    assert config.train.weight_decay == 0.01
    assert config.translate.model == [Path("a"), Path("b")]


WORDS = ["no", "yes", "on", "off", "Y", "n", "trueish", "2024-01-05", "2024-13-45", "2024-01-05 10:00:00"]


@pytest.mark.parametrize("word", WORDS)
def test_words_are_words(tmp_path: Path, word: str) -> None:
    """What older YAML takes for a boolean or a date, in a file and with --set, plain or quoted."""
    for text in (word, f"'{word}'"):
        files = gathered(tmp_path, f"train: {{run: {text}}}\nsearch: {{ban: [{text}, der]}}")
        sets = gathered(tmp_path, sets=(f"train.run={text}", f"search.ban=[{text}, der]"))
        for config in map(configio.build, (files, sets)):
            assert (config.train.run, config.search.ban) == (Path(word), [word, "der"])


def test_default_values_can_be_written_out(tmp_path: Path) -> None:
    text = "translate: {align: no, mbr: no}\nsearch: {allow_unk: true}\nscore: {bleu: False, chrf: TRUE, ter: on}"
    config = configio.build(gathered(tmp_path, text))
    assert (config.translate.align, config.translate.mbr) == ("no", "no")
    assert (config.search.allow_unk, config.score.bleu, config.score.chrf, config.score.ter) == (
        True,
        False,
        True,
        True,
    )


def test_unknown_keys_get_the_nearest_name(tmp_path: Path) -> None:
    message = fault(tmp_path, "train:\n  learning_rate: 1\n  warmpu: 10\n")
    assert f"train.warmpu is no setting ({tmp_path / 'settings.yaml'}:3); did you mean warmup?" in message
    assert "train.learning_rate is no setting" in message
    assert "trian is no section (--set); did you mean train?" in fault(tmp_path, sets=("trian.lr=1",))
    assert "search.model is no setting" in fault(tmp_path, sets=("search.model=1",))


def test_all_faults_in_one_message(tmp_path: Path) -> None:
    message = fault(tmp_path, "train:\n  lr: fast\nsearch:\n  beam: 0\n", {"train": {"clip": -1}}, ("model.dim=7",))
    lines = message.split("\n")
    assert len(lines) == 4
    assert any("train.lr = 'fast'" in line and "settings.yaml:2" in line for line in lines)
    assert any("search.beam = 0" in line and "settings.yaml:4" in line for line in lines)
    assert any("train.clip = -1 (--clip)" in line for line in lines)
    assert any(line.startswith("model") and "dim (7) must be even" in line for line in lines)


def test_settings_of_the_other_family_are_named(tmp_path: Path) -> None:
    message = fault(tmp_path, sets=("model.family=rnn", "model.heads=4"))
    assert "model.heads is no setting of the rnn family (--set)" in message
    assert "model.family (--set)" in fault(tmp_path, sets=("model.family=oracle",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1, 2", ":1 is no YAML"),
        ("train:\n\tlr: 1\n", ":2 is no YAML"),
        ("- train\n", ":1 should hold sections"),
        ("just text", ":1 should hold sections"),
        ("train: 3\n", ":1: train should be a section"),
        ("lr: 3\n", ":1: lr should be a section with settings below it; did you mean train: {lr: …}?"),
        ("train:\n  lr: 1\ntrain:\n  seed: 1\n", ":3: section train stands here a second time"),
        ("train:\n  lr: 1\n  seed: 2\n  lr: 3\n", ":4: train.lr stands here a second time"),
        ("train:\n  lr: !!python/object/apply:os.system ['true']\n", ":2 is no YAML"),
        ("train:\n  lr: *other\n", ":2 is no YAML"),
        ("train:\n  lr: !!int x\n", " is no YAML"),
        ('search:\n  ban: ["\\ud800"]\n', ":2 is no YAML: half a character as an escape: write the character itself"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gathered(tmp_path, text)
    assert f"{tmp_path / 'settings.yaml'}{message}" in str(caught.value)


def test_a_fault_of_several_settings_names_none_of_their_origins(tmp_path: Path) -> None:
    sets = ("translate.input=test.src", "translate.samples=2", "translate.nbest=2")
    assert fault(tmp_path, sets=sets).startswith("translate: samples and nbest are two ways")


@pytest.mark.parametrize(
    "text", ["1: {lr: 1}", "yes: {lr: 1}", "? [a]\n: {lr: 1}", "train: {1: 2}", "train: {? {a: b} : 2}"]
)
def test_keys_that_are_no_words(tmp_path: Path, text: str) -> None:
    assert "is no se" in fault(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        configio.read_file(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        configio.read_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"train: {run: caf\xe9}")
    with pytest.raises(ConfigError, match="not UTF-8"):
        configio.read_file(tmp_path / "latin.yaml")


@pytest.mark.parametrize("text", ["lr=1", "train.lr", ".lr=1", "train.=1", "="])
def test_set_wants_section_key_value(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        gathered(tmp_path, sets=(text,))
    for value in ("[", "!!int x"):
        with pytest.raises(ConfigError, match="no YAML"):
            gathered(tmp_path, sets=(f"train.lr={value}",))


@pytest.mark.parametrize("name", configio.presets())
def test_presets_are_settings(name: str) -> None:
    configio.build(configio.with_preset(configio.Values(), name))


@pytest.mark.parametrize("flags", [{"translate": {"prefix_text": "\udcff der"}}, {"search": {"ban": ["a", "\udcff"]}}])
def test_flags_are_text(tmp_path: Path, flags: dict) -> None:
    """Bytes on the command line that are not UTF-8 arrive as surrogates; in names of files they are welcome."""
    assert "the value is not UTF-8" in fault(tmp_path, flags=flags)
    gathered(tmp_path, flags={"translate": {"input": Path("\udcff"), "model": [Path("\udcff")]}})


def test_presets_by_name_and_by_corpus_size() -> None:
    with pytest.raises(ConfigError, match="no preset tinny; did you mean tiny"):
        configio.with_preset(configio.Values(), "tinny")
    chosen = [configio.preset_for(n, "transformer") for n in (10, 99_999, 100_000, 10**6, 10**9)]
    assert chosen == ["tiny", "tiny", "small", "base", "base"]
    assert configio.preset_for(10, "rnn") == "rnn"


def test_described_settings_are_those_settings(tmp_path: Path) -> None:
    """What `s2s config` prints is an s2s.yaml that means the same."""
    long = f"translate: {{prefix_text: {'word ' * 40}end}}\ntrain: {{lr: 0.25}}"
    values = configio.with_preset(gathered(tmp_path, long, sets=("model.family=rnn",)), "rnn")
    config = configio.build(values)
    text = configio.describe(values, config)
    assert "lr: 0.25  # " in text
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    assert configio.build(configio.read_file(tmp_path / "again.yaml")) == config
    assert set(yaml.safe_load(text)) == set(Config.model_fields)


def test_the_settings_of_a_run_are_those_of_its_folder(tmp_path: Path) -> None:
    """Wherever it was moved; a copy of them is as good as any file, and one of before there were limits in it is refused."""
    (tmp_path / "moved" / "checkpoints").mkdir(parents=True)
    text = "train: {run: gone, max_updates: 7}\ndata: {sha256: x, files.train: y}\n"
    for folder, run in ((tmp_path / "moved", str(tmp_path / "moved")), (tmp_path, "gone")):
        (folder / "config.yaml").write_text(text)
        assert configio.read_file(folder / "config.yaml").get("train", "run") == run
    (tmp_path / "config.yaml").write_text(text.replace(", max_updates: 7", ""))
    with pytest.raises(ConfigError, match="of a run of an older version"):
        configio.read_file(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("data: {train_src: a}\n")
    with pytest.raises(ConfigError, match="data is no section"):
        configio.build(configio.read_file(tmp_path / "config.yaml"))


@pytest.mark.parametrize(("processes", "world", "accumulate"), [(2, 1, 6), (2, 2, 3), (2, 3, 2), (1, 3, 1), (1, 2, 3)])
def test_an_update_of_a_run_is_of_the_batches_of_all_its_processes(
    processes: int, world: int, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where these can be shared out evenly; else it is as it stands there, as in any other file."""
    text = f"train: {{max_updates: 7, accumulate: 3}}\ndata: {{sha256: x, processes: {processes}}}\n"
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    assert configio.read_file(tmp_path / "config.yaml").get("train", "accumulate") == accumulate
    (tmp_path / "s2s.yaml").write_text("train: {accumulate: 6}\n")
    assert configio.read_file(tmp_path / "s2s.yaml").get("train", "accumulate") == 6


WRONG = {
    "factor of noam": ("train", {"schedule": "noam", "lr": 0.005}, "factor for schedule noam"),
    "text in two files": (
        "preprocess",
        {"tsv": True, "train": "a", "valid": "b", "train_src": "c"},
        "train_src needs files of one side .no tsv, no jsonl., or is left out",
    ),
    "size of bytes": (
        "preprocess",
        {"vocab_type": "byte", "vocab_size": 4000},
        "vocab_size needs a vocab_type other than byte, or is left out",
    ),
    "coverage": ("preprocess", {"character_coverage": 0.9}, "greater than or equal to 0.98"),
    "temperature of one": ("preprocess", {"temperature": 5.0}, "temperature needs several training files"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_would_do_nothing_good_are_refused(name: str) -> None:
    section, settings, message = WRONG[name]
    with pytest.raises(ConfigError, match=message):
        configio.build(configio.Values({section: settings}))
