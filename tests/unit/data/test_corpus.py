import bz2
import gzip
import io
import lzma
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_cli.data import corpus
from s2s_cli.data.corpus import blank, paired, read_blocks, read_lines
from s2s_cli.data.dataset import read_text, write_text
from s2s_cli.data.formats import Columns, Fields
from s2s_cli.errors import DataError

LINE = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))
ODD = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\rj\0k\u00a0l"


def lines_of(content: bytes, folder: Path, **how: object) -> list[str]:
    path = folder / "text"
    path.write_bytes(content)
    return list(read_lines(path, **how))


def pairs_of(src: list[Path], tgt: list[Path], size: int = 4096) -> list[tuple[int, str, str]]:
    """Line number and both sides of every pair."""
    blocks = read_blocks(paired(src, tgt), size)
    return [item for block in blocks for item in zip(block.lines, *block.texts(), strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@given(st.lists(LINE))
def test_a_line_ends_at_line_feed_only(folder: Path, lines: list[str]) -> None:
    content = "".join(line + "\n" for line in lines).encode()
    if content.startswith(b"\xef\xbb\xbf"):
        return
    assert lines_of(content, folder) == [line.removesuffix("\r") for line in lines]


def test_every_other_separator_is_content(tmp_path: Path) -> None:
    assert lines_of((ODD + "\n" + ODD).encode(), tmp_path) == [ODD, ODD]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n\n", ["a", ""]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\r\n", ["a\r"]),
        (b"a\r", ["a\r"]),
    ],
)
def test_line_ends(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    assert lines_of(content, tmp_path) == lines
    write_text(tmp_path / "again", lines)
    assert read_text(tmp_path / "again") == lines


@given(st.binary())
def test_any_bytes_give_as_many_lines_as_line_feeds_say(folder: Path, content: bytes) -> None:
    if content.startswith((b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xfe\xff")):
        return  # it says of itself that it is no plain text in UTF-8
    expected = content.count(b"\n") + bool(content and not content.endswith(b"\n"))
    replaced: list[int] = []
    lines = lines_of(content, folder, invalid="replace", replaced=replaced)
    assert len(lines) == expected
    assert not any("\n" in line for line in lines)
    for number, (line, raw) in enumerate(zip(lines, content.split(b"\n"), strict=False), 1):
        if number not in replaced:
            assert line.encode() in (raw, raw.removesuffix(b"\r"))


COMPRESSORS = {
    "plain": lambda data: data,
    "gz": gzip.compress,
    "gz, two members": lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("how", COMPRESSORS)
def test_compression_is_recognised_by_content(tmp_path: Path, how: str) -> None:
    text = [f"line {i} ä" for i in range(3000)]
    content = COMPRESSORS[how]("".join(line + "\n" for line in text).encode())
    assert lines_of(content, tmp_path) == text
    if how != "plain":
        with pytest.raises(DataError, match=r"text: the compressed file (ends too early|is corrupt)"):
            lines_of(content[:-20], tmp_path)


def test_zstd(tmp_path: Path) -> None:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    zstd = pytest.importorskip(name, reason="an extra")
    content = zstd.compress(b"a\nb\n") + zstd.compress(b"c\n")
    assert lines_of(content, tmp_path) == ["a", "b", "c"]
    with pytest.raises(DataError, match="compressed file"):
        lines_of(content[:-5], tmp_path)
    with pytest.raises(DataError, match="compressed file"):
        lines_of(content + b"junk", tmp_path)


def test_zstd_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("s2s_cli.data.corpus.import_module", none)
    with pytest.raises(DataError, match=r"text: compressed with zstd.*pip install backports\.zstd"):
        lines_of(b"\x28\xb5\x2f\xfd", tmp_path)


def test_damage_inside_a_compressed_file_is_an_error(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"some text\n" * 500))
    content[20:24] = b"\0\0\0\0"
    with pytest.raises(DataError, match="text: the compressed file"):
        lines_of(bytes(content), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\nbad \xff\n", "text:2: byte 0xFF at byte 5 of the line is not UTF-8"),
        (b"cut \xc3", "text:1: byte 0xC3"),
        (b"\xed\xa0\x80\n", "text:1: byte 0xED"),
        (b"\xef\xbb\xbfa\n", "text:1: the file begins with a byte order mark"),
        ("a\n".encode("utf-16"), "text: looks like UTF-16"),
    ],
)
def test_what_is_not_utf8_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lines_of(content, tmp_path)
    other = tmp_path / "other"
    other.write_bytes(b"x\n" * len(content.removesuffix(b"\n").split(b"\n")))
    with pytest.raises(DataError, match=message):
        pairs_of([tmp_path / "text"], [other])


def test_utf16_is_not_repaired(tmp_path: Path) -> None:
    """There would be as many lines, and none of them the user's."""
    path = tmp_path / "text"
    path.write_bytes("the dog\nsees\n".encode("utf-16"))
    with pytest.raises(DataError, match="text: looks like UTF-16; convert it"):
        list(read_lines(path, "replace"))


def test_a_byte_order_mark_inside_is_content(tmp_path: Path) -> None:
    assert lines_of("a\n\ufeffb\n".encode(), tmp_path) == ["a", "\ufeffb"]


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a directory, where"):
        list(read_lines(tmp_path))
    with pytest.raises(DataError, match="missing: no such file"):
        list(read_lines(tmp_path / "missing"))


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(b"a\nb")))))
    assert list(read_lines("-")) == ["a", "b"]


@given(st.lists(st.tuples(LINE, LINE), max_size=20), st.integers(1, 8))
def test_blocks_of_any_size_hold_the_pairs(folder: Path, pairs: list[tuple[str, str]], size: int) -> None:
    src, tgt = folder / "src", folder / "tgt"
    write_text(src, (f"_{s}" for s, _ in pairs))
    write_text(tgt, (f"_{t}" for _, t in pairs))
    found = pairs_of([src, src], [tgt, tgt], size)
    assert [(s[1:], t[1:]) for _, s, t in found] == pairs * 2
    assert [line for line, _, _ in found] == list(range(1, 2 * len(pairs) + 1))


def test_blocks_are_small_in_lines_and_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").write_bytes(b"".join(b"%d\n" % i for i in range(1000)))
    (tmp_path / "tgt").write_bytes(b"".join(b"x" * (1 + i % 200) + b"\n" for i in range(1000)))
    sources = paired([tmp_path / "src"], [tmp_path / "tgt"])
    assert [block.size for block in read_blocks(sources, 300)] == [300, 300, 300, 100]
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 5000)
    blocks = list(read_blocks(sources, 300))
    longest = corpus.AT_ONCE * 206
    assert all(sum(map(len, block.raw)) < 5000 + longest for block in blocks)
    assert len(blocks) > 6
    assert [number for block in blocks for number in block.lines] == list(range(1, 1001))
    assert [text for block in blocks for text in block.texts()[0]] == [str(i) for i in range(1000)]


def test_one_file_alone_is_both_sides(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"a\nb\n")
    [block] = read_blocks([corpus.Source((tmp_path / "text",))])
    assert block.texts() == (["a", "b"], ["a", "b"])


@pytest.mark.parametrize("how", ["gz", "xz"])
def test_a_truncated_file_is_named_with_the_last_line_read(tmp_path: Path, how: str) -> None:
    text = b"".join(b"%d\n" % (i * i) for i in range(50_000))
    (tmp_path / "text").write_bytes(COMPRESSORS[how](text)[:-2000])
    found = []
    for read in (
        lambda: list(read_lines(tmp_path / "text")),
        lambda: pairs_of([tmp_path / "text"], [tmp_path / "text"]),
        lambda: list(read_blocks([corpus.Source((tmp_path / "text",))])),
    ):
        with pytest.raises(DataError, match=r"text: the compressed file ends too early, after line [0-9,]+;") as error:
            read()
        found.append(str(error.value))
    assert len(set(found)) == 1


def test_sides_of_different_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "src").write_bytes(b"a\n" * 10_000)
    (tmp_path / "tgt").write_bytes(b"a\n" * 9_999)
    with pytest.raises(DataError, match=r"src has 10,000 lines but .*tgt has 9,999"):
        pairs_of([tmp_path / "src"], [tmp_path / "tgt"])
    (tmp_path / "src").write_bytes(gzip.compress(bytes(range(11, 256)) * 4000)[:-9])
    (tmp_path / "tgt").write_bytes(b"")
    with pytest.raises(DataError, match=r"src: the compressed file"):  # found while its lines are counted
        pairs_of([tmp_path / "src"], [tmp_path / "tgt"])
    with pytest.raises(DataError, match="2 source and 1 target files"):
        pairs_of([tmp_path / "src"] * 2, [tmp_path / "tgt"])


def test_columns() -> None:
    assert Columns(1, 3)("a\tb\tc\td", "f", 1) == ("a", "c")
    assert Columns(2, 1)("", "f", 1) == ("", "")
    with pytest.raises(DataError, match="f:7: 2 columns, but column 3"):
        Columns(1, 3)("a\tb", "f", 7)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": "x"', "f:7: not JSON"),
        ('["a"]', "f:7: not a JSON object"),
        ('{"a": "x"}', "f:7: no field b; there are: a"),
        ('{"a": "x", "b": 1}', "f:7: field b is no text"),
        ('{"a": "x", "b": "\\ud800"}', "f:7: field b holds half"),
        ("[" * 100_000, "f:7: not JSON"),
    ],
)
def test_json_that_is_no_pair_is_named(line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Fields("a", "b")(line, "f", 7)


def test_fields_are_lines() -> None:
    assert Fields("a", "b")('{"a": "x\\r\\ny\\nz\\r", "b": "", "c": 1}', "f", 1) == ("x y z\r", "")


@pytest.mark.parametrize(
    ("text", "is_blank"), [("", True), (" \t\u3000\u2028", True), ("\0", False), ("\u200b", False)]
)
def test_blank(text: str, is_blank: bool) -> None:
    assert blank(text) is is_blank
