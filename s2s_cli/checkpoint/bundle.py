"""The checkpoint format: a folder that holds all that `translate` needs, and nothing that runs.

    config.json         format version, model and search settings, vocabulary fingerprints, where it comes from
    model.safetensors   the weights, each tensor once
    vocab/              SentencePiece models and the recorded text choices
    SHA256SUMS          of all of these; `sha256sum -c` reads it
    training/           only while a run may go on from here: optimizer state and counters, with sums of their own

A bundle is written beside its place, synced to disk and renamed, so that a folder that has its final name is whole.
Reading trusts nothing: sizes, sums, names and shapes are checked before any of it is used. This room knows models and
vocabularies, no training loop and no search.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from s2s_cli import __version__
from s2s_cli.config import LOWER_IS_BETTER, ModelSettings, SearchSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError, S2SError
from s2s_cli.files import sha256, step_aside, strangers, whole_folder
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model

FORMAT = 1
SUMS = "SHA256SUMS"
WEIGHTS = "model.safetensors"
_OF_TRAINING = (
    "layer_drop",
    "coverage_loss",
    "init",
)  # settings of a model that, as those of dropout, change no output
_LARGEST_TEXT = 64 << 20  # bytes of settings, sums, or the state of a run
_TYPES = {  # as a safetensors file names them
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool},
}


@dataclass(frozen=True)
class Bundle:
    """A checked checkpoint. `origin` tells where it comes from: update, epoch, scores and the precision they were measured in,
    or the bundles averaged.
    """

    path: Path
    model: ModelSettings
    search: SearchSettings
    vocabs: Vocabs
    origin: dict[str, Any]

    def load_model(self, device: torch.device) -> Seq2Seq:
        """The model with its weights, ready to translate. Raises BundleError for any tensor too many, missing or misshapen."""
        self.check_weights()
        model = build_model(self.model, sizes(self.vocabs))
        load_weights(model, self.path / WEIGHTS)
        return model.to(device).eval()

    def check_weights(self) -> None:
        """Raise BundleError unless the file of weights has the types and sizes that the settings say, before they cost memory."""
        path = self.path / WEIGHTS
        with open_tensors(path) as file:
            most = {"layers": len(file.keys()), "dim": path.stat().st_size}
            for name, size in self.model:
                kind = name.rpartition("_")[2]
                if kind in most and size > most[kind]:
                    raise BundleError(f"{path} is too small for the weights of a model whose {name} is {size:,}")
            try:
                with torch.device("meta"):
                    model = build_model(self.model, sizes(self.vocabs))
            except RuntimeError as error:  # sizes whose product is no number of bytes
                raise BundleError(
                    f"{path} cannot be the weights of the model that its settings ask for: {error}"
                ) from None
            _compare(weights_of(model), file, path)


def common_precision(bundles: Sequence[Bundle]) -> str:
    """What all of them were validated in (fp32, bf16 or fp16); nothing where they differ or do not tell."""
    first = bundles[0].origin.get("precision")
    alike = all(bundle.origin.get("precision") == first for bundle in bundles)
    return first if alike and first in ("fp32", "bf16", "fp16") else ""


def differences(one: ModelSettings, other: ModelSettings) -> dict[str, str]:
    """The settings, by name, in which two models differ: all but those of training, which change neither shape nor output."""
    ours, theirs = one.model_dump(), other.model_dump()
    return {
        key: f"{key} {ours.get(key)} and {theirs.get(key)}"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key) and "dropout" not in key and key not in _OF_TRAINING
    }


def rank(record: dict[str, Any], metric: str) -> tuple[float, float, int]:
    """What validations are sorted by, best first: the metric, of which no number is the worst; of equals (a BLEU of 0, say) the
    one of lower loss, then the earlier.
    """
    value = record[metric] if metric in LOWER_IS_BETTER else -record[metric]
    value, loss = (math.inf if math.isnan(number) else number for number in (value, record["loss"]))
    return value, loss, record["update"]


def sizes(vocabs: Vocabs) -> Sizes:
    """What a model needs to know of its vocabularies."""
    return Sizes(src=len(vocabs.src), tgt=len(vocabs.tgt), shared=vocabs.shared)


def save_bundle(
    path: Path,
    weights: dict[str, Tensor],
    model: ModelSettings,
    search: SearchSettings,
    vocabs: Vocabs,
    origin: dict[str, Any],
    write_training: Callable[[Path], None] | None = None,
) -> None:
    """Write a bundle at `path`; `write_training` fills the `training/` folder.

    What stands at `path` gives way if it is empty, or a bundle alone; S2SError for anything else, and for a disk that is full.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or not _may_go(path)):
        raise S2SError(f"{path} is there already and is no bundle: choose another name, or move it away")
    if path.is_dir() and (others := strangers_in(path)):
        raise S2SError(f"{path} holds {others[0]}, which would be lost: choose another name, or move it away")
    config = {
        "format": FORMAT,
        "s2s": __version__,
        "model": model.model_dump(mode="json"),
        "search": search.model_dump(mode="json"),
        "vocab": vocabs.fingerprints,
        "origin": origin,
    }
    with whole_folder(path) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_tensors(weights, folder / WEIGHTS)
        vocabs.save(folder / "vocab")
        write_sums(folder)
        if write_training is not None:
            training = folder / "training"
            training.mkdir()
            write_training(training)
            write_sums(training)


def _may_go(path: Path) -> bool:
    return (path / SUMS).is_file() or not any(path.iterdir())


def strangers_in(path: Path) -> list[str]:
    """Files in a bundle's folder that are none of its own."""
    return strangers(path, ["config.json", WEIGHTS, SUMS], ["vocab", "training"])


def remove_folder(path: Path) -> None:
    """Delete a folder so that its name never stands for a part of it, wherever the process dies."""
    shutil.rmtree(step_aside(path, ".gone"), ignore_errors=True)


def open_bundle(path: Path, trusted: bool = False) -> Bundle:
    """Read and check a bundle's files but for the weights' values. Raises BundleError, naming what is wrong with it.

    `trusted` leaves out the checksums, for a bundle that this process has written or checked, or reads little of.
    """
    config = read_json(path / "config.json")
    if config.get("format") != FORMAT:
        raise BundleError(_other_format(path, config.get("format")))
    if not trusted:
        check_sums(path, covers=("config.json", WEIGHTS))
    try:
        model = TypeAdapter(ModelSettings).validate_python(config.get("model"))
        search = SearchSettings.model_validate(config.get("search"))
    except ValidationError as error:
        raise BundleError(f"{path / 'config.json'} holds settings that this s2s does not know: {error}") from None
    vocabs = Vocabs.load(path / "vocab")
    if vocabs.fingerprints != config.get("vocab"):
        raise BundleError(f"{path} holds a vocabulary that is not the one its model was trained with")
    origin = config.get("origin") or {}
    if not isinstance(origin, dict):
        raise BundleError(
            f"{path / 'config.json'} says {str(origin)[:40]!r} of where the bundle comes from, not what it should"
        )
    return Bundle(path, model, search, vocabs, origin)


def refuse_newer(path: Path) -> None:
    """Raise BundleError if a folder that seems to be no whole bundle says that it is one of a newer format."""
    try:
        number = read_json(path / "config.json").get("format")
    except BundleError:
        return
    if isinstance(number, int) and number > FORMAT:
        raise BundleError(_other_format(path, number))


def _other_format(path: Path, number: object) -> str:
    return (
        f"{path} has bundle format {number!r}, this s2s ({__version__}) reads format {FORMAT}: "
        "use the s2s that wrote it, or a newer one"
    )


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file that whoever may read its folder may read."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # as it says what the system told it, such as that the disk is full
        raise OSError(str(error)) from error
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def weights_of(model: Seq2Seq) -> dict[str, Tensor]:
    """Every trained tensor by name; shared ones once, under their first name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def load_weights(model: Seq2Seq, path: Path) -> None:
    """Copy the tensors of a safetensors file into `model`. Names, shapes and types must be the model's own."""
    load_tensors(weights_of(model), path)


def load_tensors(into: dict[str, Tensor], path: Path, some: bool = False) -> None:
    """Copy a safetensors file into tensors of the same names, shapes and types; BundleError names the first that differs.

    With `some`, the file may hold more than these.
    """
    with open_tensors(path) as file:
        _compare(into, file, path, some)
        for name, tensor in into.items():
            tensor.copy_(file.get_tensor(name))


def _compare(tensors: dict[str, Tensor], file: Any, path: Path, some: bool = False) -> None:
    """Raise BundleError where names, shapes or types in a safetensors file are not those of `tensors`; values are not read."""
    there = set(file.keys())
    if different := tensors.keys() - there if some else tensors.keys() ^ there:
        raise BundleError(f"{path} and its settings disagree about these tensors: {', '.join(sorted(different)[:5])}")
    for name, tensor in tensors.items():
        part = file.get_slice(name)
        shape, dtype = tuple(part.get_shape()), _TYPES.get(part.get_dtype(), part.get_dtype())
        if shape != tuple(tensor.shape):
            raise BundleError(f"{path}: {name} is {shape}, its settings make it {tuple(tensor.shape)}")
        if dtype != tensor.dtype:
            raise BundleError(f"{path}: {name} is {dtype}, its settings make it {tensor.dtype}")


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped; whatever is wrong with it is a BundleError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is no whole safetensors file: {error}") from None


def write_sums(folder: Path) -> None:
    """SHA256SUMS over every file of `folder`."""
    lines = [
        f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path, covers: tuple[str, ...] = ()) -> None:
    """Raise BundleError unless every file named in SHA256SUMS, all of `covers` among them, is there and unaltered."""
    try:
        text = _read_text(folder / SUMS)
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):  # of a disk that fails, nothing follows
        raise BundleError(f"{folder} has no readable {SUMS}: it is not a whole bundle") from None
    if "\0" in text:  # of a power cut
        raise BundleError(f"{folder / SUMS} is torn: it is not a whole bundle")
    sums = [line.partition("  ") for line in text.removesuffix("\n").split("\n")]
    if missing := set(covers) - {name for _, _, name in sums}:
        raise BundleError(f"{folder / SUMS} does not cover {min(missing)}: it is not a whole bundle")
    for digest, _, name in sums:
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder / SUMS} names a file outside its folder: {name}")
        if not file.is_file():
            raise BundleError(f"{file} is missing: the bundle is torn")
        if sha256(file) != digest:
            raise BundleError(f"{file} is torn or was altered: its checksum is not the one in {SUMS}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or a BundleError that names the file."""
    try:
        value = json.loads(_read_text(path))
    except FileNotFoundError:
        raise BundleError(f"{path} does not exist: {path.parent} is neither a run folder nor a bundle") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path} holds no JSON object")
    return value


def _read_text(path: Path) -> str:
    """A file that no bundle of ours needs to be large; BundleError for one that would fill the memory."""
    if (size := path.stat().st_size) > _LARGEST_TEXT:
        raise BundleError(f"{path} is {size:,} bytes, too large for what it should hold")
    return path.read_text(encoding="utf-8")


def find_bundle(path: Path) -> Path:
    """What `-m` means: a bundle itself, or the best checkpoint of a run folder (its last one, if none was scored)."""
    for candidate in (path, path / "best", path / "last"):
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    if (path / "config.yaml").is_file():
        raise BundleError(f"{path} is a run folder without a checkpoint yet: train further, or name another model")
    raise BundleError(f"{path} is neither a run folder nor a bundle: name one of these, or train one with `s2s train`")


def open_model(path: Path) -> Bundle:
    """The bundle that `-m` means, opened. A run that goes on may let one go that was its best a moment ago: then the next one."""
    found = find_bundle(path)
    try:
        return open_bundle(found)
    except (BundleError, OSError):
        if (now := find_bundle(path)) == found:
            raise
        return open_bundle(now)
