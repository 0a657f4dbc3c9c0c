#!/usr/bin/env python3
"""Puts CNN/DailyMail, news and their highlights, into a folder: 287,000 articles to train on, cased, not anonymized.

    python data/cnn_dailymail.py OUT_DIR

writes {train,val,test}.{src,tgt}, an article and a summary a line; <q> stands between the highlights of a summary. The two
archives of stories (535 MB) and the lists that split them are downloaded and stay in OUT_DIR/origin; what was got by other
means can be put there. A local copy, which --from or S2S_DATA names, is a folder of all five files.

Hermann et al. 2015 collected the stories, See et al. 2017 (https://aclanthology.org/P17-1099) gave them this form and split.
The articles are their publishers'.
"""

import hashlib
import sys
import tarfile
import zlib
from pathlib import Path

from fetch import FetchError, archive_of, command, find_local, note_origin, one_line, parser, write_whole

URL = "https://huggingface.co/datasets/cnn_dailymail/resolve/11343c3752184397d56efc19a8a7cceb68089318/data"
LISTS = "https://raw.githubusercontent.com/abisee/cnn-dailymail/master/url_lists"
FOLDER = "cnn-dailymail"  # what a local copy is called inside the folder that S2S_DATA names
ARCHIVES = ("cnn_stories.tgz", "dailymail_stories.tgz")
SPLITS = {"train": "all_train.txt", "val": "all_val.txt", "test": "all_test.txt"}
MARK = "@highlight"


def story(text: str) -> tuple[str, str]:
    """The article and the summary of a story; a line without an end gets a full stop, as See et al. have it."""
    article: list[str] = []
    highlights: list[str] = []
    into = article
    for line in filter(None, map(one_line, text.split("\n"))):
        if line == MARK:
            into = highlights
        else:
            into.append(line if line[-1] in ".!?\"'`\u2019\u201d)" else f"{line} .")
    return " ".join(article), " <q> ".join(highlights)


def main() -> int:
    """Fetch what is missing; 2 and one message when that fails."""
    args = parser("Put CNN/DailyMail into a folder.", FOLDER, URL).parse_args()

    def work() -> str:
        origin = args.out_dir / "origin"
        local = find_local(args.local, FOLDER, ARCHIVES[0])
        split_of = {}
        for split, name in SPLITS.items():
            for url in archive_of(f"{LISTS}/{name}", origin / name, local).read_text(encoding="utf-8").split():
                split_of[hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()] = split
        pairs: dict[str, dict[str, tuple[str, str]]] = {split: {} for split in SPLITS}
        for name in ARCHIVES:
            archive = archive_of(f"{args.url.rstrip('/')}/{name}", origin / name, local)
            try:
                with tarfile.open(archive) as tar:
                    for member in tar:
                        key = Path(member.name).stem
                        if key in split_of and (file := tar.extractfile(member)):
                            pairs[split_of[key]][key] = story(file.read().decode())
            except (tarfile.TarError, EOFError, UnicodeDecodeError, zlib.error) as error:
                raise FetchError(f"{archive} cannot be unpacked: {error}; remove it and run this again") from None
        for split, found in pairs.items():
            whole = [found[key] for key in sorted(found) if all(found[key])]
            write_whole(args.out_dir / f"{split}.src", "".join(src + "\n" for src, _ in whole).encode())
            write_whole(args.out_dir / f"{split}.tgt", "".join(tgt + "\n" for _, tgt in whole).encode())
        note_origin(args.out_dir, local)
        return ", ".join(f"{len(found):,} stories of {split}" for split, found in pairs.items())

    return command("cnn_dailymail", work)


if __name__ == "__main__":
    sys.exit(main())
