"""What Python users hand to `Translator`: one clear message for arguments of another kind. Settings check themselves."""

from collections.abc import Iterable, Iterator, Sequence

from s2s_cli.errors import ConfigError


def texts(lines: Iterable[str], name: str = "lines") -> Iterator[str]:
    """`lines`, as they come; ConfigError for a single text, whose letters would be taken for lines, and for what is no text."""
    if isinstance(lines, str | bytes) or not isinstance(lines, Iterable):
        raise ConfigError(
            f'{name}: a list of lines is wanted, as in translate(["the dog"]), not a single {type(lines).__name__}'
        )
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str):
            raise ConfigError(f"{name}: line {number} is {line!r:.40}, where text (str) is wanted")
        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{name}: line {number} is no text that UTF-8 could hold: {error}") from None
        yield line


def as_many(lines: Sequence[str], others: Iterable[str], name: str) -> list[str]:
    """`others`, ConfigError unless there is one for each of the lines."""
    others = list(texts(others, name))
    if len(others) != len(lines):
        raise ConfigError(f"{len(lines)} source lines, but {len(others)} {name}: give one for each")
    return others


def check_kind(name: str, value: object, kind: type) -> None:
    """ConfigError for an argument of another kind."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be {kind.__name__}(…), which s2s_cli.config has, not {type(value).__name__}")
