"""Flags follow from settings."""

import inspect

import pytest
import typer
from typer.testing import CliRunner

from s2s_cli import cli, configio
from s2s_cli.config import Config


def parameters(sections: list[str]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(cli._command(lambda values: None, sections)).parameters)


@pytest.mark.parametrize("command", cli._COMMANDS, ids=lambda command: command[0])
def test_every_setting_of_a_command_has_a_flag_and_a_help_text(command: tuple) -> None:
    name, _, sections, text = command
    found = parameters(sections)
    options = [p.annotation.__metadata__[0] for p in found.values()]
    flags = [flag for option in options for flag in option.param_decls or []]
    assert len(flags) == len(set(flags)), "two settings with one flag"
    for section in sections:
        for key, info in configio.fields_of(section).items():
            wanted = name == "train" or key not in cli._OF_TRAINING
            assert any(p.endswith(f"__{key}") for p in found) == wanted, f"{section}.{key} has no flag"
            assert info.description, f"{section}.{key} has no description"
    assert f"Example: s2s {name}" in text


@pytest.mark.parametrize("command", cli._COMMANDS, ids=lambda command: command[0])
def test_help_shows_flags_whole_on_a_narrow_terminal(command: tuple) -> None:
    name, _, sections, _ = command
    shown = CliRunner().invoke(cli.app(), [name, "--help"], terminal_width=80).output
    words = set(shown.replace(",", " ").split())
    for section in sections:
        assert f"\n{cli._TITLES.get(section, 'Settings')}:\n" in shown
        for key, info in configio.fields_of(section).items():
            flag = configio.flag_of(key, info)
            wanted = flag.startswith("-") and (name == "train" or key not in cli._OF_TRAINING)
            assert flag in words or not wanted, flag


def test_help_says_which_family_a_setting_of_the_model_belongs_to_and_its_defaults() -> None:
    found = parameters(["model"])
    for name in configio.fields_of("model"):
        option = found[f"model__{name}"].annotation.__metadata__[0]
        families = configio.families_with(name)
        if len(families) == 1:
            assert f" ({next(iter(families))}" in option.help, name
        elif name != "family":
            for family, info in families.items():
                shown = str(info.default).lower() if isinstance(info.default, bool) else info.default
                of_one, of_all = f"default of {family} {shown}", f"(default {shown})"
                assert info.default is None or of_one in option.help or of_all in option.help, name
    assert found["model__family"].annotation.__metadata__[0].metavar == "transformer|rnn"


def test_settings_of_one_command_do_not_share_names() -> None:
    """A flag that belonged to two sections would set one and not the other."""
    for name, _, sections, _ in cli._COMMANDS:
        keys = [key for section in sections for key in configio.fields_of(section)]
        assert len(keys) == len(set(keys)), name


def test_every_section_belongs_to_a_command() -> None:
    assert {section for _, _, sections, _ in cli._COMMANDS for section in sections} == set(Config.model_fields)


def test_exit_codes(capsys: pytest.CaptureFixture) -> None:
    from s2s_cli.errors import DataError, Interrupted

    def fail(error: BaseException) -> int:
        def work() -> None:
            raise error

        return cli._exit_code(work)

    assert cli._exit_code(lambda: None) == 0
    assert fail(DataError("a: b")) == 2
    assert fail(Interrupted(15, "stopped")) == 143
    assert fail(Interrupted(2, "stopped")) == 130
    assert fail(KeyboardInterrupt()) == 130
    assert fail(PermissionError(13, "Permission denied", "/x")) == 2
    assert capsys.readouterr().err.split("\n") == [
        *("s2s: a: b", "s2s: stopped", "s2s: stopped", "s2s: interrupted", "s2s: /x: Permission denied", ""),
    ]
    with pytest.raises(ZeroDivisionError):
        cli._exit_code(lambda: 1 // 0)


def test_app_is_typer() -> None:
    assert isinstance(cli.app(), typer.Typer)


@pytest.mark.parametrize("flags", [["train", "--run"], ["train", "-c"], ["preprocess", "--train-src"], ["plot"]])
def test_an_empty_path_is_a_mistake_and_not_the_current_folder(flags: list[str]) -> None:
    result = CliRunner().invoke(cli.app(), [*flags, ""])
    assert result.exit_code == 2
    assert "is empty, and no path (was a variable empty?)" in result.output
