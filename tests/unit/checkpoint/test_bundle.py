"""Bundles: what was saved comes back bit for bit, and whatever is torn, altered or made for something else is refused."""

import json
import os
import pickle
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from samples import MODEL, random_model

from s2s_cli.checkpoint import bundle as bundle_module
from s2s_cli.checkpoint.average import average
from s2s_cli.checkpoint.bundle import (
    WEIGHTS,
    check_sums,
    find_bundle,
    load_tensors,
    open_bundle,
    open_model,
    save_bundle,
    weights_of,
    write_sums,
)
from s2s_cli.config import AverageSettings, SearchSettings
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.errors import BundleError, S2SError
from s2s_cli.training.init_from import init_from

CPU = torch.device("cpu")


def test_round_trip(bundle: Path, vocabs: Vocabs) -> None:
    found = open_bundle(bundle)
    assert found.model == MODEL
    assert found.search == SearchSettings(beam=3, max_len=12)
    assert found.origin == {"update": 7}
    assert found.vocabs.fingerprints == vocabs.fingerprints
    ours, theirs = weights_of(random_model(vocabs)), weights_of(found.load_model(CPU))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_bundle_moves_and_others_can_check_it(bundle: Path, tmp_path: Path) -> None:
    moved = bundle.rename(tmp_path / "training-day")
    open_bundle(moved).load_model(CPU)
    assert os.system(f"cd '{moved}' && sha256sum --quiet --check SHA256SUMS") == 0
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def edit_config(bundle: Path, **changes: object) -> None:
    """Change config.json and make the sums right again, as someone who means it would."""
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(config | changes))
    resum(bundle)


def resum(bundle: Path) -> None:
    (bundle / "SHA256SUMS").unlink()
    write_sums(bundle)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def other_shape(bundle: Path) -> None:
    edit_config(bundle, model=MODEL.model_dump() | {"ffn_dim": 32})


def other_layers(bundle: Path) -> None:
    edit_config(bundle, model=MODEL.model_dump() | {"decoder_layers": 2})


def other_vocabulary(bundle: Path) -> None:
    vocab = Vocab.train(["quite another text"], size=300)
    for file in (bundle / "vocab").iterdir():
        file.unlink()
    Vocabs(vocab, vocab).save(bundle / "vocab")
    resum(bundle)


def name_outside(bundle: Path, name: str) -> None:
    with open(bundle / "SHA256SUMS", "a") as sums:
        sums.write(f"{'0' * 64}  {name}\n")


def header(bundle: Path, text: bytes, length: int | None = None) -> None:
    """A safetensors file with this header, and sums to match."""
    size = struct.pack("<Q", len(text) if length is None else length)
    (bundle / WEIGHTS).write_bytes(size + text + b"\0" * 64)
    resum(bundle)


def two(*ends: int) -> bytes:
    """A header of two tensors of fp32."""
    pairs = zip(("a", "b"), (ends[:2], ends[2:]), strict=True)
    return json.dumps(
        {n: {"dtype": "F32", "shape": [(e - b) // 4], "data_offsets": [b, e]} for n, (b, e) in pairs}
    ).encode()


def retensor(bundle: Path, change: Callable[[dict], dict]) -> None:
    """Other tensors, in a file that is whole, with sums to match."""
    save_file(change(load_file(bundle / WEIGHTS)), bundle / WEIGHTS)
    resum(bundle)


def sparse(path: Path, size: int) -> None:
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(size)


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> bytes:
    return json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}).encode()


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut short": (lambda b: truncate(b / WEIGHTS), f"{WEIGHTS} is torn or was altered"),
    "a flipped bit": (lambda b: flip(b / WEIGHTS), f"{WEIGHTS} is torn or was altered"),
    "settings altered": (lambda b: flip(b / "config.json"), "config.json"),
    "vocabulary altered": (lambda b: flip(b / "vocab" / "joint.model"), "joint.model is torn or was altered"),
    "no weights": (lambda b: (b / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "no vocabulary": (lambda b: (b / "vocab" / "joint.model").unlink(), "joint.model is missing"),
    "no settings": (lambda b: (b / "config.json").unlink(), "neither a run folder nor a bundle"),
    "no sums": (lambda b: (b / "SHA256SUMS").unlink(), "no readable SHA256SUMS"),
    "empty sums": (lambda b: (b / "SHA256SUMS").write_text(""), "SHA256SUMS does not cover"),
    "sums that are no text": (lambda b: (b / "SHA256SUMS").write_bytes(b"\xff\0"), "no readable SHA256SUMS"),
    "sums without the weights": (
        lambda b: (b / "SHA256SUMS").write_text((b / "SHA256SUMS").read_text().split("\n")[0] + "\n"),
        f"does not cover {WEIGHTS}",
    ),
    "a path upwards": (lambda b: name_outside(b, "../../../../etc/passwd"), "outside its folder: ../../"),
    "an absolute path": (lambda b: name_outside(b, "/etc/passwd"), "outside its folder: /etc/passwd"),
    "a file that is a folder": (lambda b: name_outside(b, "vocab"), "vocab is missing"),
    "newer format": (lambda b: edit_config(b, format=2), "bundle format 2, this s2s .* reads format 1"),
    "no format": (lambda b: edit_config(b, format=None), "bundle format None"),
    "not a JSON object": (lambda b: (b / "config.json").write_text("[1]"), "holds no JSON object"),
    "deep JSON": (lambda b: (b / "config.json").write_text("[" * 100_000), "cannot be read|holds no JSON"),
    "unknown setting": (lambda b: edit_config(b, model=MODEL.model_dump() | {"hats": 3}), "settings .* does not know"),
    "unknown family": (lambda b: edit_config(b, model={"family": "oracle"}), "settings .* does not know"),
    "other vocabulary": (other_vocabulary, "vocabulary that is not the one"),
    "other shape": (other_shape, r"feed_forward.* is \(24.*settings make it \(32"),
    "other layers": (other_layers, "disagree about these tensors: decoder.1"),
    "a million layers": (
        lambda b: edit_config(b, model=MODEL.model_dump() | {"encoder_layers": 10**6}),
        "too small for the weights of a model whose encoder_layers is 1,000,000",
    ),
    "a width that no memory holds": (
        lambda b: edit_config(b, model=MODEL.model_dump() | {"ffn_dim": 10**12}),
        "too small for the weights of a model whose ffn_dim is 1,000,000,000,000",
    ),
    "widths whose product no memory holds": (
        lambda b: edit_config(b, model=MODEL.model_dump() | {"dim": (b / WEIGHTS).stat().st_size // 8 * 8}),
        "settings make it",
    ),
    "a beam that no memory holds": (
        lambda b: edit_config(b, search={"beam": 10**9}),
        "less than or equal to 10000",
    ),
    "empty weights": (lambda b: ((b / WEIGHTS).write_bytes(b""), resum(b)), "no whole safetensors file"),
    "huge header": (lambda b: header(b, b"{}", 2**62), "no whole safetensors file"),
    "header past the end": (lambda b: header(b, b"{}", 10**6), "no whole safetensors file"),
    "header that is no JSON": (lambda b: header(b, b"\x80\x04."), "no whole safetensors file"),
    "header with NUL": (lambda b: header(b, b'{"x\0": 1}'), "no whole safetensors file"),
    "offsets past the end": (lambda b: header(b, tensor([1000], 0, 4000)), "no whole safetensors file"),
    "offsets backwards": (lambda b: header(b, tensor([2], 8, 0)), "no whole safetensors file"),
    "offsets unlike the shape": (lambda b: header(b, tensor([3], 0, 64)), "no whole safetensors file"),
    "shape that overflows": (lambda b: header(b, tensor([2**40, 2**40], 0, 64)), "no whole safetensors file"),
    "unknown type": (lambda b: header(b, tensor([16], 0, 64, "F33")), "no whole safetensors file"),
    "a header of 200 MB": (lambda b: header(b, b" " * (200 << 20)), "no whole safetensors file"),
    "header shorter than it says": (lambda b: header(b, tensor([16], 0, 64), 12), "no whole safetensors file"),
    "header that is a list": (lambda b: header(b, b"[]"), "no whole safetensors file"),
    "header in UTF-16": (lambda b: header(b, "{}".encode("utf-16")), "no whole safetensors file"),
    "overlapping tensors": (lambda b: header(b, two(0, 64, 32, 96)), "no whole safetensors file"),
    "one place for two tensors": (lambda b: header(b, two(0, 64, 0, 64)), "no whole safetensors file"),
    "a hole between tensors": (lambda b: header(b, two(0, 32, 40, 64)), "no whole safetensors file"),
    "a hole before them": (lambda b: header(b, tensor([14], 8, 64)), "no whole safetensors file"),
    "bytes after the last": (lambda b: header(b, tensor([8], 0, 32)), "no whole safetensors file"),
    "a name that comes twice": (
        lambda b: header(b, tensor([16], 0, 64)[:-1] + b", " + tensor([16], 0, 64)[1:]),
        "no whole safetensors file|disagree about these tensors",
    ),
    "negative offsets": (lambda b: header(b, tensor([16], -64, 0)), "no whole safetensors file"),
    "offsets that are no numbers": (lambda b: header(b, tensor([16], "0", "64")), "no whole safetensors file"),
    "negative shape": (lambda b: header(b, tensor([-4, -4], 0, 64)), "no whole safetensors file"),
    "shape that is no number": (lambda b: header(b, tensor([1e400], 0, 64)), "no whole safetensors file"),
    "nothing in a dimension": (
        lambda b: retensor(b, lambda t: t | {"head.bias": t["head.bias"][:0]}),
        r"head.bias is \(0,\), its settings make it \(4",
    ),
    "another type": (
        lambda b: retensor(b, lambda t: t | {"head.bias": t["head.bias"].half()}),
        r"head.bias is .*torch.float16, .*torch.float32",
    ),
    "other axes": (
        lambda b: retensor(b, lambda t: {n: x.t().contiguous() if "up.weight" in n else x for n, x in t.items()}),
        "feed_forward.up.weight is .* settings make it",
    ),
    "a tensor too many": (
        lambda b: retensor(b, lambda t: t | {"evil": t["head.bias"].clone()}),
        "disagree about these tensors: evil",
    ),
    "weights that are a link outside": (
        lambda b: ((b / WEIGHTS).rename(b.parent / "elsewhere"), (b / WEIGHTS).symlink_to(b.parent / "elsewhere")),
        "outside its folder",
    ),
    "a folder that is a link outside": (
        lambda b: ((b / "vocab").rename(b.parent / "elsewhere"), (b / "vocab").symlink_to(b.parent / "elsewhere")),
        "outside its folder",
    ),
    "settings of a gigabyte": (lambda b: sparse(b / "config.json", 1 << 30), "config.json is .* too large"),
    "sums of a gigabyte": (lambda b: sparse(b / "SHA256SUMS", 1 << 30), "SHA256SUMS is .* too large"),
    "a number of 100,000 digits": (
        lambda b: ((b / "config.json").write_text('{"format": ' + "9" * 100_000 + "}"), resum(b)),
        "config.json cannot be read",
    ),
    "sums that a power cut has zeroed": (
        lambda b: (b / "SHA256SUMS").write_bytes((b / "SHA256SUMS").read_bytes()[:-12] + bytes(12)),
        "SHA256SUMS is torn",
    ),
    "an origin that is a list": (lambda b: edit_config(b, origin=["x"]), "of where the bundle comes from"),
    "NaN as format": (lambda b: edit_config(b, format=float("nan")), "bundle format nan"),
    "a pickle": (
        lambda b: ((b / WEIGHTS).write_bytes(pickle.dumps({"x": 1})), resum(b)),
        "no whole safetensors file",
    ),
    "other tensors": (lambda b: header(b, tensor([16], 0, 64)), "disagree about these tensors"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_not_whole_is_refused_by_name(name: str, bundle: Path) -> None:
    spoil, message = SPOILED[name]
    open_bundle(bundle).load_model(CPU)
    spoil(bundle)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(bundle).load_model(CPU)
    assert str(bundle) in str(caught.value)


def test_what_averages_and_what_begins_with_weights_refuses_other_types(
    bundle: Path, vocabs: Vocabs, tmp_path: Path
) -> None:
    retensor(bundle, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    with pytest.raises(BundleError, match=r"torch\.float16"):
        average(AverageSettings(bundle=[bundle, bundle], output=tmp_path / "mean"))
    assert not (tmp_path / "mean").exists()
    with pytest.raises(BundleError, match=r"torch\.float16"):
        init_from(random_model(vocabs), vocabs, open_bundle(bundle))


def test_other_types_are_refused(bundle: Path, vocabs: Vocabs) -> None:
    into = {name: tensor.to(torch.float64) for name, tensor in weights_of(random_model(vocabs)).items()}
    with pytest.raises(BundleError, match=r"is torch.float32, its settings make it torch.float64"):
        load_tensors(into, bundle / WEIGHTS)


def test_training_folder_has_sums_of_its_own(tmp_path: Path, vocabs: Vocabs) -> None:
    path = tmp_path / "b"
    weights = weights_of(random_model(vocabs))
    save_bundle(path, weights, MODEL, SearchSettings(), vocabs, {}, lambda f: (f / "state.json").write_text("{}"))
    assert "training" not in (path / "SHA256SUMS").read_text()
    check_sums(path / "training", covers=("state.json",))
    (path / "training" / "state.json").write_text("{} ")
    open_bundle(path)
    with pytest.raises(BundleError, match=r"state.json is torn"):
        check_sums(path / "training")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failed_write_leaves_what_was_there(
    bundle: Path, tmp_path: Path, vocabs: Vocabs, error: BaseException
) -> None:
    before = {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    told = f"{bundle} could not be written: No space left on device|^$"
    with pytest.raises((S2SError, KeyboardInterrupt), match=told):
        save_bundle(bundle, weights_of(random_model(vocabs)), MODEL, SearchSettings(), vocabs, {}, fail)
    assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_is_told_and_harms_nothing(bundle: Path, tmp_path: Path, vocabs: Vocabs) -> None:
    """A limit on file sizes stands for the disk: writing the weights fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(S2SError, match="could not be written"):
            save_bundle(bundle, weights_of(random_model(vocabs)), MODEL, SearchSettings(), vocabs, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    open_bundle(bundle).load_model(CPU)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("kind", ["folder of something else", "file", "link"])
def test_only_bundles_are_replaced(kind: str, bundle: Path, tmp_path: Path, vocabs: Vocabs) -> None:
    """`-o` may name a bundle, or a new place; never someone's home folder."""
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(bundle)
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    with pytest.raises(S2SError, match="is there already and is no bundle"):
        save_bundle(target, weights_of(random_model(vocabs)), MODEL, SearchSettings(), vocabs, {})
    open_bundle(bundle)
    assert target.is_symlink() or (target if kind == "file" else target / "mine").read_text() == "mine"


def test_a_bundle_is_replaced(bundle: Path, tmp_path: Path, vocabs: Vocabs) -> None:
    save_bundle(bundle, weights_of(random_model(vocabs, 2)), MODEL, SearchSettings(), vocabs, {"update": 8})
    assert open_bundle(bundle).origin == {"update": 8}
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_somebody_put_into_a_bundle_is_not_lost(bundle: Path, vocabs: Vocabs) -> None:
    (bundle / "test.hyp").write_text("mine")
    with pytest.raises(S2SError, match=r"holds test.hyp, which would be lost"):
        save_bundle(bundle, weights_of(random_model(vocabs)), MODEL, SearchSettings(), vocabs, {})
    assert (bundle / "test.hyp").read_text() == "mine"


def test_what_a_name_means(bundle: Path, tmp_path: Path) -> None:
    assert find_bundle(bundle) == bundle.resolve()
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(BundleError, match="neither a run folder nor a bundle"):
        find_bundle(run)
    (run / "config.yaml").write_text("")
    with pytest.raises(BundleError, match="without a checkpoint yet"):
        find_bundle(run)
    (run / "last").symlink_to(bundle)
    assert find_bundle(run) == bundle.resolve()
    (run / "best").symlink_to("nowhere")
    assert find_bundle(run) == bundle.resolve()


def test_a_model_that_goes_while_it_is_opened_is_looked_for_again(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [tmp_path / "gone", bundle.resolve()]
    monkeypatch.setattr(bundle_module, "find_bundle", lambda path: found.pop(0))
    assert open_model(tmp_path).path == bundle.resolve()
    found += [tmp_path / "torn"] * 2
    with pytest.raises(BundleError):
        open_model(tmp_path)
