"""Files that hold both sides of a pair in one line: what a new format needs is one reader like these.

A reader is a value that takes a line, the file's name and the line's number, and returns source and target text, or
raises DataError with file and line. A blank line is a pair with two blank sides.
"""

import json
from dataclasses import dataclass

from s2s_cli.errors import DataError


@dataclass(frozen=True)
class Columns:
    """Columns separated by tabs, counted from 1; no quotes, no escapes."""

    src: int
    tgt: int

    def __call__(self, line: str, name: str, number: int) -> tuple[str, str]:
        """The two columns of a line."""
        if not line.strip():
            return "", ""
        cells = line.split("\t")
        if len(cells) < max(self.src, self.tgt):
            raise DataError(f"{name}:{number}: {len(cells)} columns, but column {max(self.src, self.tgt)} is asked for")
        return cells[self.src - 1], cells[self.tgt - 1]


@dataclass(frozen=True)
class Fields:
    """One JSON object a line, its two named fields being text. A line feed within a text becomes a space."""

    src: str
    tgt: str

    def __call__(self, line: str, name: str, number: int) -> tuple[str, str]:
        """The two fields of a line."""
        if not line.strip():
            return "", ""
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}:{number}: not JSON ({error})") from None
        if not isinstance(item, dict):
            raise DataError(f"{name}:{number}: not a JSON object with fields {self.src} and {self.tgt}")
        return self._text(item, self.src, name, number), self._text(item, self.tgt, name, number)

    def _text(self, item: dict[str, object], field: str, name: str, number: int) -> str:
        if field not in item:
            raise DataError(f"{name}:{number}: no field {field}; there are: {', '.join(item) or 'none'}")
        text = item[field]
        if not isinstance(text, str):
            raise DataError(f"{name}:{number}: field {field} is no text")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{name}:{number}: field {field} holds half of a surrogate pair, which is no text"
            ) from None
        return text.replace("\r\n", " ").replace("\n", " ")
