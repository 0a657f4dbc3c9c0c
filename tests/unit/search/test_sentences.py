"""Parts of a long line: none too long, nothing lost, ends where sentences end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_cli.search.sentences import Span, separator, split


def letters(texts: list[str]) -> list[int]:
    """As if every letter were a piece, and spaces were free: what is counted adds up."""
    return [sum(not letter.isspace() for letter in text) for text in texts]


def parts(line: str, size: int) -> list[str]:
    return [line[start:end] for start, end in split(line, size, letters)]


WORD = st.text(st.sampled_from('aé犬。.!? \t\u2028"”)'), max_size=9)


@given(st.lists(WORD, max_size=12).map(" ".join), st.integers(1, 12))
def test_nothing_is_lost_and_nothing_too_long(line: str, size: int) -> None:
    found = parts(line, size)
    assert "".join("".join(found).split()) == "".join(line.split())
    assert all(part == part.strip() != "" for part in found)
    assert all(count <= size for count in letters(found))


@pytest.mark.parametrize(
    ("line", "size", "expected"),
    [
        ("One. Two! Three?", 7, ["One.", "Two!", "Three?"]),
        ("One. Two! Three?", 8, ["One. Two!", "Three?"]),
        ('He said "No." Then he left.', 12, ['He said "No."', "Then he left."]),
        ("犬が好き。猫も好き！本当？", 5, ["犬が好き。", "猫も好き！", "本当？"]),
        ("犬が好き。」猫も", 6, ["犬が好き。」", "猫も"]),
        ("Pi is 3.14 or so", 9, ["Pi is 3.14", "or so"]),
        ("aaaa bbbb cccc", 8, ["aaaa bbbb", "cccc"]),
        ("short. looooooong word here", 9, ["short.", "loooo", "ooong", "word here"]),
        ("मैं यहाँ हूँ। तुम?", 12, ["मैं यहाँ हूँ।", "तुम?"]),
    ],
)
def test_where_parts_end(line: str, size: int, expected: list[str]) -> None:
    assert parts(line, size) == expected


def test_pieces_that_do_not_add_up_are_counted_again() -> None:
    """Words that fit one by one may be too long together; they are then taken apart."""

    def squares(texts: list[str]) -> list[int]:
        return [len(text) ** 2 for text in texts]

    found = split("ab cd ef gh", 16, squares)
    assert all(squares(["ab cd ef gh"[start:end]])[0] <= 16 for start, end in found)
    assert split("a", 0, squares) == [Span(0, 1)]


def test_spaces_stand_where_the_script_has_them() -> None:
    assert separator("Hund.", "Der") == " "
    assert separator("犬。", "猫") == ""
    assert separator("ไทย", "ไทย") == ""
    assert separator("犬。", "The") == " "
    assert separator("개.", "고양이") == " "
