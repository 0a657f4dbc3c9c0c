#!/usr/bin/env python3
"""Puts the English-German text of WMT14 into a folder: 4.5 million pairs to train on, newstest2013 and newstest2014.

    python data/wmt14.py OUT_DIR

writes {europarl,commoncrawl,news}.{en,de}, val.{en,de} (newstest2013) and test.{en,de} (newstest2014, all 3,003 lines). The
training text is downloaded from the task's own site, 1.6 GB; archives stay in OUT_DIR/origin, and one that was got by other
means can be put there. A local copy, which --from or S2S_DATA names, is a folder of the three archives. The test sets come
through sacrebleu, which knows their checksums.

https://statmt.org/wmt14/translation-task.html; for research, see there.
"""

import subprocess
import sys
from pathlib import Path

from fetch import FetchError, archive_of, command, find_local, note_origin, parser, unpack, write_whole

URL = "https://www.statmt.org"
FOLDER = "wmt14-en-de"  # what a local copy is called inside the folder that S2S_DATA names
CORPORA = {  # name in OUT_DIR: archive, member without its language
    "europarl": ("wmt13/training-parallel-europarl-v7.tgz", "training/europarl-v7.de-en"),
    "commoncrawl": ("wmt13/training-parallel-commoncrawl.tgz", "commoncrawl.de-en"),
    "news": ("wmt14/training-parallel-nc-v9.tgz", "training/news-commentary-v9.de-en"),
}
TESTS = {"val": "wmt13", "test": "wmt14/full"}


def test_set(name: str, side: str, path: Path) -> bytes:
    """A side of a test set as sacrebleu has it, `src` or `ref`. FetchError when it cannot get it."""
    flags = ["--test-set", name, "--language-pair", "en-de", "--echo", side]
    done = subprocess.run([sys.executable, "-m", "sacrebleu", *flags], capture_output=True)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise FetchError(
            f"sacrebleu cannot get {name}: {said}\nGet it by other means, put its text at {path} and run this again."
        )
    return done.stdout


def main() -> int:
    """Fetch what is missing; 2 and one message when that fails."""
    args = parser("Put the English-German text of WMT14 into a folder.", FOLDER, URL).parse_args()

    def work() -> str:
        args.out_dir.mkdir(parents=True, exist_ok=True)
        local = find_local(args.local, FOLDER, "training-parallel-europarl-v7.tgz")
        for name, (path, member) in CORPORA.items():
            members = {f"{member}.{lang}": args.out_dir / f"{name}.{lang}" for lang in ("en", "de")}
            if not all(file.exists() for file in members.values()):
                archive = args.out_dir / "origin" / path.rpartition("/")[2]
                unpack(archive_of(f"{args.url.rstrip('/')}/{path}", archive, local), members)
        for split, name in TESTS.items():
            for lang, side in (("en", "src"), ("de", "ref")):
                path = args.out_dir / f"{split}.{lang}"
                if not path.exists():
                    write_whole(path, test_set(name, side, path))
        note_origin(args.out_dir, local)
        return f"three corpora and two test sets in {args.out_dir}"

    return command("wmt14", work)


if __name__ == "__main__":
    sys.exit(main())
