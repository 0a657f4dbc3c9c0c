"""Rows of files, and lines joined from parts."""

import json

import pytest

from s2s_cli.config import TranslateSettings
from s2s_cli.search.output import Output, join, rows


def output(text: str, logp: float = -1.0) -> Output:
    return Output(text, logp, logp, [text], [logp, 0.0], [(0, 0)])


@pytest.mark.parametrize("options", [{}, {"force": "file"}, {"align": "words"}])
def test_a_tab_in_an_output_makes_no_column(options: dict) -> None:
    for text in ("der\tHund", "der Hund"):
        row = "".join(rows(1, [output(text)], TranslateSettings(format="tsv", **options)))
        assert row == "".join(rows(1, [output("der Hund")], TranslateSettings(format="tsv", **options)))
    row = "".join(rows(1, [output("der\tHund")], TranslateSettings(format="jsonl")))
    assert json.loads(row)["hypotheses"][0]["text"] == "der\tHund"


def test_parts_with_fewer_samples_than_others_are_joined() -> None:
    """Where rules left a sample no way to end, there are as many of the line as of the part with the fewest."""
    parts = [[output("a", -1.0), output("b", -2.0)], [output("c", -3.0)]]
    joined = join(parts, 2, words=True, drawn=True)
    assert len(joined) == 1
    assert joined[0].text in ("a c", "b c")
