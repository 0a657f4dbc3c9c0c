"""What all tables share: a result, and a cell of a number and its range."""

from typing import Any

Result = dict[str, Any]


def spread(row: dict[str, float], form: str = ",.0f") -> str:
    """Median, and range if there is one."""
    median, low, high = (f"{row[key]:{form}}" for key in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"
