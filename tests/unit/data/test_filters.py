import numpy as np
import pytest

from s2s_cli.config import PreprocessSettings
from s2s_cli.data.filters import Encodings, Limits, marks, mostly_of
from s2s_cli.data.report import Account, Found, Side, count_lengths, quantile
from s2s_cli.errors import ConfigError


def found(src: list[str], tgt: list[str], limits: Limits, unknown: list[int] | None = None) -> dict[str, list[int]]:
    """Words stand for pieces."""
    sides = []
    for texts in (src, tgt):
        lengths = np.array([len(text.split()) for text in texts], np.int32)
        sides.append(Encodings(texts, texts, lengths, None if unknown is None else np.array(unknown, np.int32)))
    return {name: np.flatnonzero(mask).tolist() for name, mask, _ in marks(*sides, limits) if mask.any()}


def test_each_filter_finds_its_own() -> None:
    src = ["a b", "", "a b c d e f g h", "a a a a a a", "same", "secret words", " \u3000"]
    tgt = ["x y", "x", "x y z u v w", "x", "same", "x y", "x"]
    limits = Limits(max_len=7, max_ratio=3.0, held_out=frozenset(["secret words"]), find=True)
    assert found(src, tgt, limits) == {
        "blank": [1, 6],
        "identical": [4],
        "leak": [5],
        "too long": [2],
        "length ratio": [3],
    }


def test_the_defaults_find_blanks_only() -> None:
    assert found(["", "a", "a"], ["", "a", "b " * 1000], Limits()) == {"blank": [0]}


def test_short_pairs_may_have_any_ratio() -> None:
    assert found(["a", "a"], ["x " * 5, "x " * 6], Limits(max_ratio=1.0)) == {"length ratio": [1]}


def test_unknown_pieces() -> None:
    limits = Limits(max_unknown=0.5)
    assert found(["a b", "a b", "a b"], ["x y", "x y", "x y"], limits, [0, 1, 2]) == {"unknown pieces": [2]}


@pytest.mark.parametrize(
    ("text", "scripts", "expected"),
    [
        ("Hello wörld", ["latin"], True),
        ("Привет world", ["latin"], False),
        ("Привет all", ["cyrillic"], True),
        ("東京へ行く", ["han", "hiragana"], True),
        ("ﾊﾝｶｸ カー", ["katakana"], True),
        ("時々", ["han"], True),
        ("123 + 4!", ["latin"], True),
        ("", ["latin"], True),
    ],
)
def test_scripts(text: str, scripts: list[str], expected: bool) -> None:
    assert mostly_of(text, scripts) is expected


def test_an_unknown_script_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean latin"):
        Limits.of(PreprocessSettings(src_script=["latn"]))
    assert Limits.of(PreprocessSettings(tgt_script=["adlam"])).tgt_script == ("adlam",)
    assert Limits.of(PreprocessSettings(tgt_script=["Han", "hangul"])).tgt_script == ("han", "hangul")


def account(lengths: list[int], first_line: int) -> Account:
    found = Found(len(lengths), [first_line + i for i in range(len(lengths))][:10], [])
    side = Side(words=sum(lengths), lengths=count_lengths(np.array(lengths)))
    num = len(lengths)
    return Account(num, num, sum(lengths), sum(lengths), {"too long": found}, {}, side, Side(), np.zeros(0, np.int64))


def test_accounts_add_up_however_they_are_cut() -> None:
    lengths = [int(n) for n in np.random.default_rng(1).integers(1, 40, 60)]
    whole = account(lengths, 1)
    for size in (1, 7, 60):
        total = Account()
        for start in range(0, 60, size):
            total.add(account(lengths[start : start + size], start + 1))
        assert total.as_dict() == whole.as_dict()
    assert sum(bin["pairs"] for bin in whole.as_dict()["src"]["histogram"]) == 60
    assert whole.drops["too long"].lines == list(range(1, 11))
    assert str(whole.drops["too long"]).endswith("9, 10, …)")


def test_quantiles_are_those_of_the_lengths() -> None:
    lengths = np.random.default_rng(1).integers(0, 50, 999)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        assert quantile(count_lengths(lengths), share) == np.quantile(lengths, share, method="inverted_cdf")
    assert quantile(count_lengths(np.zeros(0, int)), 0.5) == 0
