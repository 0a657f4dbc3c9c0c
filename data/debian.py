#!/usr/bin/env python3
"""Makes corpora of Debian's package descriptions: English to German translation, and summarization in English.

    python data/debian.py OUT_DIR --task translation|summaries [--from DIR] [--lists DIR] [--suite SUITE ...]

writes {train,val,test}.{en,de,ids} or .{src,tgt,ids}; `ids` are names of packages. The indexes are a suite's Packages,
Translation-en and Translation-de: those of this machine (`--lists /var/lib/apt/lists`, after
`apt-get -o Acquire::Languages=en,de update`) or else downloaded from a mirror. A copy of finished corpora is taken
from `--from`, or from the variable S2S_DATA.

Translation: the synopsis, and the long text by sentence where both sides have as many, else by paragraph or item of a list.
Summarization: the long text to the synopsis, one package a source package. All packages of a source, of its versions
(gcc-12, gcc-13) or with a common paragraph are in one split, and a held-out line whose source is close to one of the
training text (Jaccard index of word trigrams above 0.6) is left out: what is tested was not seen. Lines that are equal on
both sides or stand there twice are kept, in the training text: finding them is the work of `s2s preprocess`.

The translators' texts and the indexes state no licence; a description belongs to its package, all of which are free.
"""

import argparse
import bz2
import gzip
import hashlib
import lzma
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fetch import FetchError, Text, command, download, fetch_texts, find_local, note_origin, write_whole

MIRROR = "http://deb.debian.org/debian"
FOLDERS = {"translation": "debian-mt-en-de", "summaries": "debian-summ-en"}
SIDES = {"translation": ("en", "de"), "summaries": ("src", "tgt")}
HELD_OUT = 1000  # lines of val, and of test
CLOSE = 0.6
MAX_WORDS = {"translation": (1, 100), "summaries": (20, 400)}  # of a source line


class Package(NamedTuple):
    """A package, and its text in English and German (empty where there is none): synopsis first, then blocks."""

    name: str
    source: str
    en: list[str]
    de: list[str]


class Line(NamedTuple):
    """A pair of texts, and the package that it is of."""

    package: str
    src: str
    tgt: str


# -- indexes ---------------------------------------------------------------------------------------------------------


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The fields of each paragraph of an index, lines that go on joined by line feeds."""
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.split("\n"):
            if line[:1] == " ":
                fields[name] += "\n" + line
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


_MARK = re.compile(r"(?:[-*+•·o]|\d{1,2}[.)])\s+")


def blocks(description: str) -> list[str]:
    """The synopsis, then the paragraphs and list items of a description, each in one line and without its mark."""
    synopsis, *lines = description.split("\n")
    found: list[list[str]] = []
    indent = 0  # of the item that goes on; 0 for a paragraph
    fresh = True
    for line in lines:
        text = line.strip()
        depth = len(line) - len(line.lstrip(" "))
        mark = _MARK.match(text)
        if text in (".", ""):
            fresh = True
        elif mark or fresh or (depth == 1) != (indent <= 1):
            found.append([text[mark.end() :] if mark else text])
            indent, fresh = depth if mark or depth > 1 else 0, False
        else:
            found[-1].append(text)
    return [" ".join(synopsis.split()), *(" ".join(" ".join(block).split()) for block in found)]


def read_packages(texts: Callable[[str], Iterable[str]]) -> list[Package]:
    """The packages of indexes, `texts(name)` being those called Packages, Translation-en or Translation-de."""
    translations: dict[str, dict[str, list[str]]] = {"en": {}, "de": {}}
    for lang, known in translations.items():
        for text in texts(f"Translation-{lang}"):
            for fields in stanzas(text):
                if f"Description-{lang}" in fields:
                    known[fields["Description-md5"]] = blocks(fields[f"Description-{lang}"])
    packages = {}
    for text in texts("Packages"):
        for fields in stanzas(text):
            md5 = fields.get("Description-md5", "")
            if md5 in translations["en"]:
                name = fields["Package"]
                source = fields.get("Source", name).partition(" ")[0]
                packages[name] = Package(name, source, translations["en"][md5], translations["de"].get(md5, []))
    return [packages[name] for name in sorted(packages)]


def from_lists(folder: Path) -> Callable[[str], Iterable[str]]:
    """Reads the indexes that apt keeps. FetchError when one is missing."""

    def texts(name: str) -> Iterator[str]:
        paths = sorted(path for path in folder.glob(f"*_main_*{name}*") if re.search(rf"[_]{name}(\.\w+)?$", path.name))
        if not paths:
            raise FetchError(
                f"{folder} has no {name} of Debian's main: run apt-get -o Acquire::Languages=en,de update, or leave --lists out"
            )
        for path in paths:
            if path.suffix == ".lz4":
                done = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", path], capture_output=True, check=True)
                yield done.stdout.decode()
            else:
                yield unpacked(path)

    return texts


def from_mirror(mirror: str, suites: list[str], cache: Path) -> Callable[[str], Iterable[str]]:
    """Downloads the indexes of suites, and keeps them in `cache`."""

    def texts(name: str) -> Iterator[str]:
        for suite in suites:
            folder = "binary-amd64" if name == "Packages" else "i18n"
            for suffix in (".xz", ".bz2"):  # which of them a translation has depends on its language
                try:
                    path = download(
                        f"{mirror}/dists/{suite}/main/{folder}/{name}{suffix}", cache / f"{suite}_{name}{suffix}"
                    )
                except FetchError:
                    if suffix == ".bz2":
                        raise
                else:
                    yield unpacked(path)
                    break

    return texts


def unpacked(path: Path) -> str:
    """The text of a file, packed as its name says."""
    opened = {".xz": lzma.open, ".bz2": bz2.open, ".gz": gzip.open}.get(path.suffix, open)
    with opened(path, "rb") as file:
        return str(file.read().decode())


# -- lines -----------------------------------------------------------------------------------------------------------

_ABBREVIATIONS = ("vs", "ca", "etc", "bzw", "usw", "inc", r"e\.g", r"i\.e", r"z\.B", r"d\.h", r"z\. B", r"d\. h", r"\w")
_SENTENCE_END = re.compile(
    r"(?<=[.!?])" + "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATIONS) + r"\s+(?=[A-ZÄÖÜ„»\"(])"
)


def translation_lines(packages: list[Package]) -> list[Line]:
    """Synopses and sentences with their translation; blocks where the sentences do not correspond."""
    lines = []
    for package in packages:
        if len(package.en) != len(package.de):  # the translator has another structure, or there is no translation
            continue
        for en, de in zip(package.en, package.de, strict=True):
            ours, theirs = _SENTENCE_END.split(en), _SENTENCE_END.split(de)
            pairs = zip(ours, theirs, strict=True) if len(ours) == len(theirs) else [(en, de)]
            lines += [Line(package.name, src, tgt) for src, tgt in pairs if src and tgt]
    return lines


def summary_lines(packages: list[Package]) -> list[Line]:
    """The long text and the synopsis of one package of each source package: the one of its name, or the first."""
    of_source: dict[str, Package] = {}
    for package in packages:
        if package.source not in of_source or package.name == package.source:
            of_source[package.source] = package
    return [Line(p.name, " ".join(p.en[1:]), p.en[0]) for p in of_source.values() if len(p.en) > 1 and p.en[0]]


def clusters(packages: list[Package]) -> dict[str, str]:
    """For each package the name of its cluster: what shares a source, a version of it, or a paragraph of 12 words or more."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for package in packages:
        unversioned = re.sub(r"[-.]?\d[\d.]*$", "", package.source) or package.source
        keys = ["source " + unversioned, *(text.lower() for text in package.en[1:] if len(text.split()) >= 12)]
        for key in keys:
            parent[root(key)] = root(package.name)
    return {package.name: root(package.name) for package in packages}


def split(lines: list[Line], cluster_of: dict[str, str], num_held_out: int = HELD_OUT) -> dict[str, list[Line]]:
    """Whole clusters to test and val until they have enough lines, in an order that their names decide; the rest to train.

    Held-out lines are all different, at most 20 of a cluster, and none is close to a source of the training text.
    """
    by_cluster: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_cluster[cluster_of[line.package]].append(line)
    parts: dict[str, list[Line]] = {"test": [], "val": [], "train": []}
    for name in sorted(by_cluster, key=lambda name: hashlib.sha256(name.encode()).digest()):
        # three times as many as are needed: some are too close to the training text
        wanting = next((part for part in ("test", "val") if len(parts[part]) < 3 * num_held_out), "train")
        parts[wanting if len(by_cluster[name]) <= 20 else "train"] += by_cluster[name]
    left_over: list[Line] = []
    for part in ("test", "val"):
        different = list({line.src: line for line in parts[part] if line.src != line.tgt}.values())
        near = close_to([line.src for line in different], (line.src for line in parts["train"]))
        chosen = [line for k, line in enumerate(different) if k not in near][:num_held_out]
        used = {cluster_of[line.package] for line in chosen}
        left_over += [line for line in parts[part] if cluster_of[line.package] not in used]
        parts[part] = chosen
    near = close_to([line.src for line in left_over], (line.src for part in ("test", "val") for line in parts[part]))
    parts["train"] += [line for k, line in enumerate(left_over) if k not in near]
    parts["train"].sort(key=lambda line: hashlib.sha256("\t".join(line).encode()).digest())
    return parts


def close_to(held_out: list[str], training: Iterable[str], threshold: float = CLOSE) -> set[int]:
    """Indices of the held-out texts that equal a training text or have a Jaccard index above `threshold` with one."""
    shingles = [_trigrams(text) for text in held_out]
    where: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for k, grams in enumerate(shingles):
        for gram in grams:
            where[gram].append(k)
    found: set[int] = set()
    for text in training:
        grams = _trigrams(text)
        common = Counter(k for gram in grams for k in where.get(gram, ()))
        found |= {k for k, n in common.items() if n > threshold * (len(grams) + len(shingles[k]) - n)}
    return found


def _trigrams(text: str) -> set[tuple[str, ...]]:
    """Trigrams of the lowercased words; all of a text that has fewer than three."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[k : k + 3]) for k in range(max(1, len(words) - 2))}


# -- command ---------------------------------------------------------------------------------------------------------


def make(task: str, packages: list[Package], out: Path) -> str:
    """Write the corpus of a task; what was made, in words."""
    lines = translation_lines(packages) if task == "translation" else summary_lines(packages)
    fewest, most = MAX_WORDS[task]
    lines = [line for line in lines if fewest <= len(line.src.split()) <= most and len(line.tgt.split()) <= most]
    parts = split(lines, clusters(packages))
    for part in ("train", "val", "test"):  # the recipes take the corpus for whole once the test set is there
        chosen = parts[part]
        src, tgt = SIDES[task]
        for name, texts in (
            (src, [line.src for line in chosen]),
            (tgt, [line.tgt for line in chosen]),
            ("ids", [line.package for line in chosen]),
        ):
            write_whole(out / f"{part}.{name}", "".join(text + "\n" for text in texts).encode())
    return ", ".join(f"{len(parts[part]):,} lines of {part}" for part in ("train", "val", "test"))


def main() -> int:
    """Make or copy a corpus; 2 and one message when that fails."""
    parser = argparse.ArgumentParser(description="Make corpora of Debian's package descriptions.")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--task", choices=list(FOLDERS), default="translation")
    parser.add_argument("--from", dest="local", type=Path, metavar="DIR", help="finished corpora (default: $S2S_DATA)")
    parser.add_argument(
        "--lists", type=Path, metavar="DIR", help="make them of the indexes that apt keeps in this folder"
    )
    parser.add_argument("--suite", nargs="+", help="download the indexes of these (default: bookworm)")
    parser.add_argument("--mirror", default=MIRROR, help="from this mirror (default: %(default)s)")
    args = parser.parse_args()

    def work() -> str:
        args.out_dir.mkdir(parents=True, exist_ok=True)
        made = args.lists or args.suite
        if (args.local or not made) and (found := find_local(args.local, FOLDERS[args.task], "train.ids")):
            names = [f"{part}.{side}" for part in ("train", "val", "test") for side in (*SIDES[args.task], "ids")]
            fetch_texts(args.out_dir, found, "", {name: Text("") for name in names})
            note_origin(args.out_dir, found)
            return f"{len(names)} files of {found}"
        suites = args.suite or ["bookworm"]
        cache = args.out_dir / "indexes"
        texts = from_lists(args.lists) if args.lists else from_mirror(args.mirror.rstrip("/"), suites, cache)
        done = make(args.task, read_packages(texts), args.out_dir)
        note_origin(args.out_dir, None, "the indexes that apt keeps" if args.lists else f"fetched: {', '.join(suites)}")
        return done

    return command("debian", work)


if __name__ == "__main__":
    sys.exit(main())
