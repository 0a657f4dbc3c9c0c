"""A length of time as people write it: `90s`, `50m`, `3h`, `1h30m`, `2d`."""

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_TIME = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS))


class Duration(float):
    """Seconds, which know how they were written; a setting of this type is a text on the command line and in `s2s.yaml`."""

    text: str

    def __new__(cls, text: str) -> "Duration":
        """Raises ValueError for what is no time above zero."""
        found = _TIME.fullmatch(text.replace(" ", "").lower())
        parts = [float(part or 0) for part in found.groups()] if found else []
        seconds = sum(part * unit for part, unit in zip(parts, _UNITS.values(), strict=False))
        if not seconds:
            raise ValueError("write a time above zero with its units, such as 90s, 50m, 3h, 1h30m or 2d")
        duration = super().__new__(cls, seconds)
        duration.text = text
        return duration

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __reduce__(self) -> tuple[type["Duration"], tuple[str]]:
        return Duration, (self.text,)  # for copies

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: cls(str(value)), serialization=core_schema.to_string_ser_schema()
        )


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
