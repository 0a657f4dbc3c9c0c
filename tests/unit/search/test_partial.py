"""Files that take their names when whole, and what an interrupted command leaves of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_cli.errors import S2SError
from s2s_cli.files import place_of
from s2s_cli.search.partial import Writer, join_ranks

SAME = {"model": ["abc"], "search": {"beam": 5}}


def begin(path: Path, identity: dict | None = SAME, error: type[BaseException] = KeyboardInterrupt) -> None:
    """Write two windows and half of a third, and stop."""

    def work() -> None:
        with Writer([path], identity) as writer:
            writer.write([b"one\n"], 1, {"cut": 1})
            writer.write([b"two\nthree\n"], 3, {"cut": 2})
            writer._files[0].write(b"fo")
            raise error

    with pytest.raises(error):
        work()


def test_it_goes_on_where_it_was_whole(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "out"
    begin(path)
    assert not path.exists()
    assert "out.part keeps what was done, up to line 3" in capsys.readouterr().err
    with Writer([path], SAME) as writer:
        assert (writer.lines, writer.account) == (3, {"cut": 2})
        writer.write([b"four\n"], 4, {})
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"model": ["abc"], "search": {"beam": 4}}, "search.beam"),
        ({"model": ["def"], "search": {"beam": 5}}, "model"),
        ({"model": ["abc"], "search": {"beam": 5}, "prefix": "x"}, "prefix"),
    ],
)
def test_other_work_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture, other: dict, named: str) -> None:
    path = tmp_path / "out"
    begin(path)
    with Writer([path], other) as writer:
        assert (writer.lines, writer.account) == (0, None)
        writer.write([b"new\n"], 1, {})
    assert f"out.part was begun with other {named}: starting anew" in capsys.readouterr().err
    assert path.read_bytes() == b"new\n"


@pytest.mark.parametrize("damage", ["no journal", "no JSON", "other JSON", "of other files"])
def test_a_file_that_no_journal_knows_is_not_ours(tmp_path: Path, damage: str) -> None:
    path, journal = tmp_path / "out", tmp_path / "out.part.json"
    begin(path)
    record = json.loads(journal.read_text()) | {"files": ["links"]}
    journal.write_text({"no JSON": "{", "of other files": json.dumps(record)}.get(damage, "[1, 2]"))
    if damage == "no journal":
        journal.unlink()
    with pytest.raises(S2SError, match="is there already, and no interrupted command left it"):
        Writer([path], SAME).__enter__()
    assert (tmp_path / "out.part").read_bytes() == b"one\ntwo\nthree\nfo"
    assert not path.exists()


def test_what_is_cut_short_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out"
    begin(path)
    (tmp_path / "out.part").write_bytes(b"one\n")
    with Writer([path], SAME) as writer:
        assert writer.lines == 0
        writer.write([b"new\n"], 1, {})
    assert path.read_bytes() == b"new\n"


def test_what_cannot_be_gone_on_with_is_removed(tmp_path: Path) -> None:
    """Nothing whole yet, or no way to know whether it would be the same work; what stood there stays."""
    path = tmp_path / "out"
    path.write_text("precious")
    begin(path, identity=None, error=S2SError)
    with pytest.raises(S2SError), Writer([path], SAME):
        raise S2SError("bad input")
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_fresh_start_leaves_no_journal_of_before(tmp_path: Path) -> None:
    """Else a third command, the same as the first, would go on in what the second one wrote."""
    path = tmp_path / "out"
    begin(path)
    second = Writer([path])  # killed: it does not come to its end
    second.__enter__().write([b"other one\nother two\nother three\n"], 3, {})
    for file in second._files:
        file.close()
    with Writer([path], SAME) as writer:
        assert writer.lines == 0
        writer.write([b"new\n"], 1, {})
    assert path.read_bytes() == b"new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_parts_of_another_number_of_processes_are_swept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Those alone that a journal knows, and that nobody is writing."""
    path = tmp_path / "out"
    for rank in (0, 1):
        with Writer([path], SAME, rank) as writer:
            writer.write([b"one\n"], 1, {})
    (tmp_path / "out.part-2").write_text("precious")
    with Writer([path], SAME) as writer:
        writer.write([b"all\n"], 1, {})
    assert capsys.readouterr().err.count("was begun by another number of processes: starting anew") == 2
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "out.part-2"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out"
    code = "import sys; from pathlib import Path; from s2s_cli.search.partial import Writer"
    other = [sys.executable, "-c", f"{code}\nwith Writer([Path(sys.argv[1])]): pass", path]
    with Writer([path], SAME) as writer:
        writer.write([b"one\n"], 1, {})
        refused = subprocess.run(other, capture_output=True, text=True)
        assert f"{path} is being written by another process" in refused.stderr
    assert path.read_bytes() == b"one\n"


def test_devices_are_written_as_they_are(tmp_path: Path) -> None:
    with Writer([Path("/dev/null")], SAME) as writer:
        writer.write([b"one\n"], 1, {})
    assert Path("/dev/null").is_char_device()
    assert not Path("/dev/null.part").exists()
    with pytest.raises(S2SError, match="is a folder"), Writer([tmp_path], SAME):
        pass


def test_the_first_file_is_there_when_all_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two names, it leaves no output without its links."""
    paths, replace = [tmp_path / "out", tmp_path / "links"], os.replace

    class Killed(BaseException):
        pass

    def once(src: Path, dst: Path) -> None:
        replace(src, dst)
        if dst in paths:
            raise Killed

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(Killed), Writer(paths, SAME) as writer:
        writer.write([b"one\n", b"0-0\n"], 1, {})
    assert not paths[0].exists()
    assert paths[1].read_bytes() == b"0-0\n"


@pytest.mark.parametrize("begun", [True, False])
def test_a_file_that_cannot_be_opened_leaves_the_others_as_they_were(tmp_path: Path, begun: bool) -> None:
    """No empty file beside the output, and nothing lost of what an interrupted command has left there."""
    path = tmp_path / "out"
    if begun:
        begin(path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(S2SError, match="could not be written"), Writer([path, tmp_path / "no" / "links"], SAME):
        pass
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_links_stay_and_lead_to_the_output(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):  # of which the second is not there yet
        link = tmp_path / f"link-{name}"
        link.symlink_to(name)
        with Writer([place_of(link)], SAME) as writer:
            writer.write([b"one\n"], 1, {})
        assert link.is_symlink()
        assert (tmp_path / name).read_bytes() == b"one\n"
    assert len(list(tmp_path.iterdir())) == 4


def test_standard_output_by_another_name_is_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `-o /dev/stdout > out`: who has opened it reads on in the same file."""
    (tmp_path / "link").symlink_to("out")
    with open(tmp_path / "out", "w+") as file:
        monkeypatch.setattr("sys.stdout", file)
        for name in ("out", "link"):
            with Writer([place_of(tmp_path / name)], SAME) as writer:
                writer.write([b"one\n"], 1, {})
        assert os.path.samestat(os.fstat(file.fileno()), os.stat(tmp_path / "out"))
        assert os.pread(file.fileno(), 99, 0) == b"one\n" * 2
    assert place_of(tmp_path / "out") == tmp_path / "out"


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("num", [0, 1, 2, 7])
def test_parts_are_joined_in_order(tmp_path: Path, world: int, num: int) -> None:
    paths = [tmp_path / "out", tmp_path / "links"]
    for rank in range(world):
        with Writer(paths, SAME, rank) as writer:
            mine = range(1 + rank, num + 1, world)
            rows = [f"{n}\t{k}\ta\n" for n in mine for k in range(n % 3 + 1)]
            writer.write(["".join(rows).encode(), "".join(f"{n}\n" for n in mine).encode()], len(mine), {})
    join_ranks(paths, world, several_rows=True)
    expected = [f"{n}\t{k}\ta" for n in range(1, num + 1) for k in range(n % 3 + 1)]
    assert paths[0].read_text().split("\n")[:-1] == expected
    assert paths[1].read_text().split("\n")[:-1] == [str(n) for n in range(1, num + 1)]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_what_a_command_with_other_files_left_goes(tmp_path: Path) -> None:
    """Its output is taken up by no one, and none of its files stands in the way."""
    out, links = tmp_path / "out", tmp_path / "links"
    first = Writer([out, links], SAME)  # killed
    first.__enter__().write([b"one\n", b"0-0\n"], 1, {})
    first._let_go()
    assert (tmp_path / "links.part").exists()
    with Writer([out], SAME) as writer:
        assert writer.lines == 0
        writer.write([b"one\n"], 1, {})
    assert list(tmp_path.iterdir()) == [out]


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    out, places = tmp_path / "out", [tmp_path / name / "links" for name in ("one", "two")]
    for place in places:
        place.parent.mkdir()
    first = Writer([out, places[0]], SAME)  # killed
    first.__enter__().write([b"one\n", b"0-0\n"], 1, {})
    first._let_go()
    (tmp_path / "two" / "links.part").write_text("precious")
    with pytest.raises(S2SError, match=r"links.part is there already"):
        Writer([out, places[1]], SAME).__enter__()
    assert (tmp_path / "two" / "links.part").read_text() == "precious"
    (tmp_path / "two" / "links.part").unlink()
    with Writer([out, places[1]], SAME) as writer:
        assert writer.lines == 0
        writer.write([b"new\n", b"1-1\n"], 1, {})
    assert sorted(tmp_path.rglob("*")) == sorted([*tmp_path.glob("*"), places[1]])


def test_a_journal_that_is_somebody_elses_is_not_written_over(tmp_path: Path) -> None:
    mine = tmp_path / "out.part.json"
    mine.write_text("[1]")
    with pytest.raises(S2SError, match="json is there already"):
        Writer([tmp_path / "out"], SAME).__enter__()
    assert mine.read_text() == "[1]"
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.parametrize("num", range(1, 7))
def test_joining_can_be_interrupted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num: int) -> None:
    """Killed after any of the files that it removes, the same command ends as if it had not been."""
    paths = [tmp_path / "out", tmp_path / "links"]

    def write() -> None:
        for rank in (0, 1):
            with Writer(paths, SAME, rank) as writer:
                if not writer.lines:
                    writer.write([f"{rank}\n".encode(), b"0-0\n"], 1, {})

    write()
    unlink, left = Path.unlink, [num]

    def killed(path: Path, *args: object, **options: object) -> None:
        if ".part-" in path.name:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
        unlink(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            join_ranks(paths, 2, several_rows=False)
    write()
    join_ranks(paths, 2, several_rows=False)
    assert paths[0].read_bytes() == b"0\n1\n"
    assert sorted(tmp_path.iterdir()) == sorted(paths)
