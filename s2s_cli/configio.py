"""Where settings come from: flags > --set > --config FILE or ./s2s.yaml > preset > default.

Values are merged as plain data, remembering the origin of each, and become typed settings in one step at the end; every
fault found there is told in one message, each with its key, its origin and, for an unknown key, the nearest known one.
"""

import difflib
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from s2s_cli.config import Config, Flag, RnnSettings, TransformerSettings
from s2s_cli.errors import ConfigError

FILE = Path("s2s.yaml")
_FAMILIES: dict[str, type[BaseModel]] = {"transformer": TransformerSettings, "rnn": RnnSettings}


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans, and nothing is a date: `no`, `on` and 2024-01-05 are words."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """As it is, but for an escape such as "\\ud800", which is half a character."""
        value = super().construct_scalar(node)
        if not _is_text(value):
            raise yaml.constructor.ConstructorError(
                None, None, "half a character as an escape: write the character itself", node.start_mark
            )
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if not tag.endswith((":bool", ":timestamp"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)


@dataclass
class Values:
    """Settings as plain data, section by section, and the origin of each: a flag, file:line, a preset."""

    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def put(self, section: str, key: str, value: Any, origin: str) -> None:
        """Set `section.key`; an earlier value gives way."""
        self.data.setdefault(section, {})[key] = value
        self.origin[f"{section}.{key}"] = origin

    def get(self, section: str, key: str) -> Any:
        """The value so far, else the default of the field."""
        default = getattr(Config.model_fields[section].default, key)
        return self.data.get(section, {}).get(key, default)

    @property
    def family(self) -> str:
        """The model family that was asked for."""
        return str(self.data.get("model", {}).get("family", "transformer"))

    def over(self, lower: "Values") -> "Values":
        """Both, these values winning."""
        merged = Values({s: dict(v) for s, v in lower.data.items()}, dict(lower.origin))
        for section, values in self.data.items():
            for key, value in values.items():
                merged.put(section, key, value, self.origin[f"{section}.{key}"])
        return merged


def gather(flags: dict[str, dict[str, Any]], sets: Iterable[str], config: Path | None) -> Values:
    """All that the user said: `flags` by section (None: not given), `sets` as `section.key=value`, a file."""
    values = Values()
    path = config or FILE
    if config is not None or path.is_file():
        values = read_file(path)
    for item in sets:
        name, equals, text = item.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and section and dot and key):
            raise ConfigError(f"--set {item}: write it as section.key=value, such as --set train.lr=0.001")
        values.put(section, key, _parse(text, f"--set {item}"), "--set")
    for section, given in flags.items():
        for key, value in given.items():
            if value is not None:
                flag = flag_of(key, fields_of(section)[key])
                if not all(map(_is_text, value if isinstance(value, list) else [value])):
                    raise ConfigError(f"{flag}: the value is not UTF-8")
                values.put(section, key, value, flag)
    return values


def _is_text(value: Any) -> bool:
    """Whether a flag's value can be written as UTF-8; names of files may be any bytes, but they are no text."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


def read_file(path: Path) -> Values:
    """A YAML file of sections. Raises ConfigError for what is no mapping of mappings, with file:line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}") from None
    try:
        return _sections(_Loader(text), path)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a ValueError of a tag, such as !!int x
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where} is no YAML: {getattr(error, 'problem', error)}") from None


def _sections(loader: yaml.SafeLoader, path: Path) -> Values:
    values, tree = Values(), loader.get_single_node()
    if tree is None:
        return values
    if not isinstance(tree, yaml.MappingNode):
        raise ConfigError(f"{path}:1 should hold sections, such as `train:`, with settings below them")
    sections, of_a_run, processes = set(), False, "1"
    for section_node, body in tree.value:
        section, where = str(section_node.value), f"{path}:{section_node.start_mark.line + 1}"
        if section in sections:
            raise ConfigError(f"{where}: section {section} stands here a second time")
        sections.add(section)
        if (
            section == "data"
            and isinstance(body, yaml.MappingNode)
            and "sha256" in [str(k.value) for k, _ in body.value]
        ):
            of_a_run = True  # which notes there what its dataset is recognised by, and how many processes began it
            processes = next((str(v.value) for k, v in body.value if str(k.value) == "processes"), "1")
            continue
        if body.tag == "tag:yaml.org,2002:null":
            continue
        if not isinstance(body, yaml.MappingNode):
            raise ConfigError(f"{where}: {section} should be a section with settings below it{_hint(section)}")
        for key_node, value in body.value:
            key, where = str(key_node.value), f"{path}:{key_node.start_mark.line + 1}"
            if f"{section}.{key}" in values.origin:
                raise ConfigError(f"{where}: {section}.{key} stands here a second time")
            values.put(section, key, loader.construct_object(value, deep=True), where)
    if of_a_run and "train.max_updates" not in values.origin:
        raise ConfigError(
            f"{path}: the settings of a run of an older version, without its limits: name them by flags instead"
        )
    accumulate = values.data.get("train", {}).get("accumulate", 1)
    if of_a_run and processes.isdecimal() and isinstance(accumulate, int):  # an update is of the batches of all of them
        batches, others = divmod(accumulate * int(processes), int(os.environ.get("WORLD_SIZE", 1)))
        if not others and batches != accumulate:
            values.put("train", "accumulate", batches, f"{path}, of {processes} processes")
    if of_a_run and (path.parent / "checkpoints").is_dir():  # and not a copy of them
        values.put("train", "run", str(path.parent), str(path))
    return values


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in resources.files("s2s_cli").joinpath("presets").iterdir())


def with_preset(values: Values, name: str) -> Values:
    """`values` over those of a preset. Settings of another model family than the preset's are refused by `build`."""
    name = str(name)
    if name not in presets():
        raise ConfigError(f"there is no preset {name}{_nearest(name, presets())}; there are {', '.join(presets())}")
    lower = Values()
    text = resources.files("s2s_cli").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    for section, settings in yaml.safe_load(text).items():
        for key, value in settings.items():
            lower.put(section, key, value, f"preset {name}")
    return values.over(lower)


def preset_for(num_pairs: int, family: str) -> str:
    """The preset that suits a corpus: the fewer pairs, the smaller the model and the stronger its dropout."""
    if family == "rnn":
        return "rnn"
    return "tiny" if num_pairs < 100_000 else "small" if num_pairs < 1_000_000 else "base"


def build(values: Values) -> Config:
    """Typed settings, or one ConfigError that names every fault."""
    data = {section: dict(settings) for section, settings in values.data.items()}
    if "model" in data:
        data["model"]["family"] = values.family
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = [_fault(item, values) for item in error.errors()]
        raise ConfigError("\n".join(faults)) from None


def _fault(item: Any, values: Values) -> str:
    path = [str(part) for part in item["loc"]]
    if len(path) > 1 and path[0] == "model" and path[1] in _FAMILIES:
        del path[1]  # pydantic names the branch of the union
    if item["type"] == "union_tag_invalid":
        path.append("family")
    key = ".".join(path[:2])
    whole = len(path) == 1 and item["type"] == "value_error"  # of several settings of a section
    below = "" if whole else f"{key}."
    origins = (where for name, where in values.origin.items() if name == key or (below and name.startswith(below)))
    origin, family = next(origins, None), values.family
    where = f" ({origin})" if origin else ""
    if item["type"] == "extra_forbidden":
        if len(path) == 1:
            return f"{path[0]} is no section{where}{_nearest(path[0], list(Config.model_fields))}"
        known = _FAMILIES[family] if path[0] == "model" else type(Config.model_fields[path[0]].default)
        of = f" of the {family} family" if path[0] == "model" else ""
        return f"{key} is no setting{of}{where}{_nearest(path[1], list(known.model_fields))}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("value_error", "union_tag_invalid"):
        return f"{key}{where}: {message}"
    return f"{key} = {item['input']!r}{where}: {message}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _hint(key: str) -> str:
    """For a setting that stands outside any section: where it belongs."""
    for name, info in Config.model_fields.items():
        kinds: Iterable[type[BaseModel]] = _FAMILIES.values() if name == "model" else [type(info.default)]
        if any(key in kind.model_fields for kind in kinds):
            return f"; did you mean {name}: {{{key}: …}}?"
    return ""


def _parse(text: str, where: str) -> Any:
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{where}: the value is no YAML") from None


def flag_of(name: str, info: Any) -> str:
    """The long flag of a field: its name, but where the field says otherwise."""
    own = [m.short for m in info.metadata if isinstance(m, Flag) and (m.short.startswith("--") or m.short[0] != "-")]
    return own[0] if own else "--" + name.replace("_", "-")


def fields_of(section: str) -> dict[str, Any]:
    """The fields of a section, by name; those of every model family for `model`, the first to have a name describes it."""
    if section == "model":
        kinds = reversed(_FAMILIES.values())
        return {name: info for kind in kinds for name, info in kind.model_fields.items()}
    return dict(type(Config.model_fields[section].default).model_fields)


def families_with(name: str) -> dict[str, Any]:
    """The field of that name of each model family that has one."""
    return {family: kind.model_fields[name] for family, kind in _FAMILIES.items() if name in kind.model_fields}


def describe(values: Values, config: Config) -> str:
    """The effective settings as YAML, each with its origin, for `s2s config`."""
    lines = []
    for section in Config.model_fields:
        lines.append(f"{section}:")
        for key, value in getattr(config, section).model_dump(mode="json").items():
            text = (
                yaml.safe_dump(value, default_flow_style=True, width=math.inf)
                .removesuffix("\n")
                .removesuffix("...")
                .strip()
            )
            lines.append(f"  {key}: {text}  # {values.origin.get(f'{section}.{key}', 'default')}")
    return "\n".join(lines)
