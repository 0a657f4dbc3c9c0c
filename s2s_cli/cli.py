"""The command line: flags become settings, settings go to one call of a verb.

A flag is made of every field of a command's sections, so that a new setting needs nothing here. This is the only place
that turns errors into exit codes, and no torch is imported before a command needs it.
"""

import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from s2s_cli import __version__, configio
from s2s_cli.config import Flag
from s2s_cli.config.duration import Duration
from s2s_cli.errors import ConfigError, DataError, Interrupted, S2SError

_TITLES = {
    "model": "Model (what the preset says comes before these defaults)",
    "train": "Training (what the preset says comes before these defaults)",
    "noise": "Noise on training pairs",
    "search": "Search",
    "runtime": "Machine",
}
_OF_TRAINING = ("deterministic", "compile")  # of the machine's settings


def _preprocess(values: configio.Values) -> None:
    from s2s_cli.data.preprocess import preprocess

    settings = configio.build(values).preprocess
    lines = list(preprocess(settings)["summary"])
    if lines:
        lines.append("dry run: nothing is written" if settings.dry_run else f"written to {settings.out}")
    for line in lines:
        print(line, file=sys.stderr)


def _with_preset(values: configio.Values) -> configio.Values:
    """With the preset that is named, or that the size of the corpus chooses; DataError where there is no corpus yet."""
    from s2s_cli.data.dataset import read_manifest

    name = values.get("train", "preset")
    if name == "auto":
        manifest = read_manifest(Path(str(values.get("train", "data"))))
        name = configio.preset_for(manifest["train"]["kept"], values.family)
        values.put("train", "preset", name, "chosen by corpus size")
    return configio.with_preset(values, name)


def _train(values: configio.Values) -> None:
    config = configio.build(_with_preset(values))
    config.search.check()
    from s2s_cli.training.train import train

    train(config)


def _translate(values: configio.Values) -> None:
    config = configio.build(values)
    from s2s_cli.search.translate import translate
    from s2s_cli.worker import tidy_end

    with tidy_end():
        translate(config.translate, config.search, config.runtime, config.score)


def _score(values: configio.Values) -> None:
    from s2s_cli.evaluation.score import score

    typed = {name.removeprefix("score.") for name, origin in values.origin.items() if origin.startswith("--")}
    score(configio.build(values).score, typed)


def _average(values: configio.Values) -> None:
    config = configio.build(values)
    from s2s_cli.checkpoint.average import average
    from s2s_cli.worker import tidy_end

    with tidy_end():
        average(config.average)


def _plot(values: configio.Values) -> None:
    from s2s_cli.evaluation.plot import plot

    settings = configio.build(values).plot
    plot(settings)
    with contextlib.suppress(OSError):  # the picture is there, whoever hears of it
        print(f"drawn: {settings.output}", file=sys.stderr, flush=True)


def _config(values: configio.Values) -> None:
    try:
        values = _with_preset(values)
    except DataError as error:
        print(f"s2s: without the preset, which the size of the corpus will choose: {error}", file=sys.stderr)
    config = configio.build(values)
    print(configio.describe(values, config))
    try:
        config.search.check()
    except ConfigError as error:  # what is meant for translate alone may be completed by a model's settings
        print(f"s2s: these are not enough to train with: {error}", file=sys.stderr)


# name, verb, sections whose fields are its flags, help
_COMMANDS: list[tuple[str, Callable[[configio.Values], None], list[str], str]] = [
    (
        "preprocess",
        _preprocess,
        ["preprocess"],
        "Turn raw text into a dataset folder: train or reuse a vocabulary, encode, report what was dropped and why.\n\n"
        "Example: s2s preprocess --train-src train.en --train-tgt train.de --valid-src val.en --valid-tgt val.de",
    ),
    (
        "train",
        _train,
        ["train", "model", "noise", "search", "runtime"],
        "Train a model on a dataset folder. Interrupted, the same command goes on.\n\n"
        "Example: s2s train --preset tiny --max-epochs 30",
    ),
    (
        "translate",
        _translate,
        ["translate", "search", "runtime"],
        "Translate lines of text: as many lines out as in, in their order.\n\n"
        "Example: s2s translate -i src.txt -o out.txt --beam 5\n\nExample: echo 'A dog runs.' | s2s translate\n\n"
        "Example: s2s translate -i src.txt -o out.jsonl --format jsonl --nbest 5 --align words\n\n"
        "Example: s2s translate -i src.txt --samples 32 --mbr chrf\n\n"
        "Example: s2s translate -i src.txt --force tgt.txt",
    ),
    (
        "score",
        _score,
        ["score"],
        "Score output against references: BLEU, chrF, TER, word error rate, exact match, ROUGE, with signatures.\n\n"
        "Example: s2s score --bleu -i out.txt -r test.de",
    ),
    (
        "average",
        _average,
        ["average"],
        "Average the weights of checkpoints into one bundle.\n\nExample: s2s average -m run --best 3 -o averaged",
    ),
    (
        "plot",
        _plot,
        ["plot"],
        "Draw learning curves of one or several runs.\n\n"
        "Example: s2s plot run -o curves.png\n\n"
        "Example: s2s plot runs/tiny runs/rnn -y loss -y bleu -x hours",
    ),
    (
        "config",
        _config,
        [],
        "Print the effective settings as s2s.yaml, and where each comes from.\n\n"
        "Example: s2s config --set train.preset=tiny",
    ),
]


def _kind(annotation: Any) -> tuple[Any, str | None]:
    """The type of a flag, and what stands for its value in the help. Checks are the settings' business, not typer's."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        inner = [_kind(a) for a in get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return inner[0]
        return str, "|".join(metavar or f"<{kind.__name__}>" for kind, metavar in inner)
    if get_origin(annotation) is Literal:
        return str, "|".join(str(a) for a in get_args(annotation))
    if get_origin(annotation) is list:
        inner_kind, metavar = _kind(get_args(annotation)[0])
        return list[inner_kind], metavar or f"<{inner_kind.__name__.lower()}>"  # type: ignore[valid-type]
    if issubclass(annotation, Duration):
        return str, "<time>"
    return annotation, "<path>" if annotation is Path else None


def _model_flag(name: str) -> tuple[str | None, str]:
    """What stands for the value of a model's setting, and a note of the families that have it, with its default in each."""
    fields = configio.families_with(name)
    choices = dict.fromkeys(a for info in fields.values() for a in get_args(info.annotation) if isinstance(a, str))
    defaults = {family: _shown(info.default) for family, info in fields.items() if info.default is not None}
    if name == "family":
        note = "default transformer"
    elif len(fields) == 1:
        note = ", default ".join([*fields, *defaults.values()])
    elif len(set(defaults.values())) == 1:
        note = f"default {next(iter(defaults.values()))}"
    else:
        note = ", ".join(f"default of {family} {value}" for family, value in defaults.items())
    return "|".join(choices) or None, f" ({note})" if note else ""


def _path(text: str) -> Path:
    """A flag's value as a path; an empty one would be the current folder."""
    if not text:
        raise typer.BadParameter("is empty, and no path (was a variable empty?)")
    return Path(text)


def _shown(value: Any) -> str:
    """A default as a file of settings has it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameter(section: str, name: str, info: Any) -> inspect.Parameter:
    kind, metavar = _kind(info.annotation)
    flag = configio.flag_of(name, info)
    names = [m.short for m in info.metadata if isinstance(m, Flag)]
    if flag not in names:
        names.append(f"{flag}/--no-{flag[2:]}" if kind is bool else flag)
    default = info.get_default(call_default_factory=True)
    note = "" if default in (None, [], "") else f" (default {_shown(default)})"
    if section == "model":
        choices, note = _model_flag(name)
        metavar = choices or metavar
    make = typer.Option if flag.startswith("-") else typer.Argument
    option = make(
        *(names if flag.startswith("-") else ()),
        help=f"{info.description}{note}",
        metavar=metavar if flag.startswith("-") else flag,
        show_default=False,
        parser=_path if kind in (Path, list[Path]) else None,
        rich_help_panel=_TITLES.get(section, "Settings") if flag.startswith("-") else None,
    )
    return inspect.Parameter(
        f"{section}__{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


class _Command(TyperCommand):
    """A command whose help has its options below the titles of their sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Those of sections come first."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                rows.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        for title, records in rows.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _command(verb: Callable[[configio.Values], None], sections: list[str]) -> Callable[..., None]:
    """A function that typer takes for a command with a flag for each field of `sections`."""
    idle = () if "train" in sections else _OF_TRAINING
    parameters = [
        _parameter(section, name, info)
        for section in sections
        for name, info in configio.fields_of(section).items()
        if name not in idle
    ]
    parameters += [
        inspect.Parameter(
            "set_",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting of any section.")
            ],
        ),
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    "--config", "-c", parser=_path, metavar="<path>", help="Settings file (default s2s.yaml, if there)."
                ),
            ],
        ),
    ]

    def command(set_: list[str] | None = None, config: Path | None = None, **given: Any) -> None:
        flags: dict[str, dict[str, Any]] = {}
        for name, value in given.items():
            section, _, key = name.partition("__")
            flags.setdefault(section, {})[key] = value or None if isinstance(value, list) else value
        code = _exit_code(lambda: verb(configio.gather(flags, set_ or [], config)))
        if code:
            raise typer.Exit(code)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _exit_code(work: Callable[[], None]) -> int:
    """Do the work of a command: 0 done, 2 the user's mistake or the machine's state, 128 + n after signal n.

    What is left, a fault of ours, passes through with its traceback, and ends the process with 1.
    """
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of that of __main__.py
        work()
        sys.stdout.flush()
    except S2SError as error:
        return _tell(error, 2)
    except Interrupted as stop:
        return _tell(stop, 128 + stop.signum)
    except KeyboardInterrupt:
        return _tell("interrupted", 130)
    except BrokenPipeError:  # who read our output has enough; Python would flush it once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written
        return _tell(f"{error.filename or 'reading or writing'}: {error.strerror or error}", 2)
    return 0


def _tell(message: object, code: int) -> int:
    with contextlib.suppress(OSError):  # the code tells, where nobody reads
        print(f"s2s: {message}", file=sys.stderr, flush=True)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        print(f"s2s {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train sequence-to-sequence models from scratch and use them.

    The main road: s2s preprocess, s2s train, s2s translate -i src.txt, s2s score --bleu. Each command takes its settings
    from flags, else from s2s.yaml in the current folder, else from defaults.
    """


def app() -> typer.Typer:
    """The typer application."""
    made = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
        add_completion=False,
        rich_markup_mode=None,  # its tables cut long flags short on a terminal of usual width
    )
    made.callback()(_root)
    for name, verb, sections, text in _COMMANDS:
        made.command(name, cls=_Command, help=text)(_command(verb, sections))
    return made


def main() -> None:
    """Run the command line; typer shows help and refuses unknown flags, `_exit_code` settles the rest."""
    app()()
