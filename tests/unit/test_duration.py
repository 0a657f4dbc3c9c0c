"""Times as people write them."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from s2s_cli.config import TrainSettings
from s2s_cli.config.duration import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50m", 3000), ("3h", 10_800), ("1h30m", 5400), ("90s", 90), ("2d", 172_800), ("0.5h", 1800), ("1H 5s", 3605)],
)
def test_times(text: str, seconds: float) -> None:
    settings = TrainSettings(max_time=text)
    assert settings.max_time == seconds
    assert settings.model_dump(mode="json")["max_time"] == text, "it is written down as it was given"
    assert TrainSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert str(settings.max_time) == text
    assert str(copy.deepcopy(settings).max_time) == text


@pytest.mark.parametrize("text", ["", "50", 50, "m", "0s", "-5m", "5m3h", "1:30", "five", "1h1h", "nan", "1e3s"])
def test_what_is_no_time(text: object) -> None:
    with pytest.raises(ValidationError, match="write a time above zero with its units, such as 90s, 50m"):
        TrainSettings(max_time=text)


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_parts_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    assert Duration(f"{days}d{hours}h{minutes}m{seconds}s") == ((days * 24 + hours) * 60 + minutes) * 60 + seconds
