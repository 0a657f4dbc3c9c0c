#!/usr/bin/env python3
"""Puts DialogSum, dialogues and their summaries, into a folder as plain text.

    python data/dialogsum.py OUT_DIR [--from DIR]

writes train and val (.src and .tgt) and test (.src, .ref1, .ref2, .ref3): a dialogue in one line, its turns beginning with
`#Person1#: ` and so on. The text comes from a local copy, which `--from` or the variable S2S_DATA names, or else from the
public repository cylnlp/dialogsum. Validation and test text are known by their sha256; the training file of today may
differ by small corrections from the one that scores were first published on.

Chen et al. 2021, "DialogSum: A Real-Life Scenario Dialogue Summarization Dataset", https://aclanthology.org/2021.findings-acl.449;
CC BY-NC-SA 4.0.
"""

import json
import sys
from pathlib import Path

from fetch import (
    FetchError,
    Text,
    command,
    download,
    fault_of,
    fetch_texts,
    find_local,
    note_origin,
    one_line,
    parser,
    write_whole,
)

URL = "https://raw.githubusercontent.com/cylnlp/dialogsum/main/DialogSum_Data"
FOLDER = "dialogsum"  # what a local copy is called inside the folder that S2S_DATA names

# name in OUT_DIR: file of the repository, lines, sha256
FILES = {
    "train.src": Text("dialogsum.train.jsonl", 12460),
    "train.tgt": Text("dialogsum.train.jsonl", 12460),
    "val.src": Text("dialogsum.dev.jsonl", 500, "a267a3cae3a0d470bd58ebbf56fbe375bea211ba6ef8126f8ee41021e943e752"),
    "val.tgt": Text("dialogsum.dev.jsonl", 500, "3f63385935862f2a69f952d82d52d686526cf4b8cb057e3b112f9491609589d5"),
    "test.src": Text("dialogsum.test.jsonl", 500, "f9040378201b64ab5f2de37d781e4206f3f0418557c834b3950c33b8db3977eb"),
    "test.ref1": Text("dialogsum.test.jsonl", 500, "aedb96719001dddd47901aefd2a259def35dfaff35279d1c0368fdbbfc3bbd5f"),
    "test.ref2": Text("dialogsum.test.jsonl", 500, "fe1dfa20f45da82233165d3d8bcfeb0bc0e5387ec4b97ebc7db1650b062c8d4f"),
    "test.ref3": Text("dialogsum.test.jsonl", 500, "b4ad293ea77fa6eef111392da0c2d4d6adf46c37e1defc921d0af877a15f37ec"),
}
FIELDS = {".src": "dialogue", ".tgt": "summary", ".ref1": "summary1", ".ref2": "summary2", ".ref3": "summary3"}


def convert(jsonl: Path, field: str) -> bytes:
    """A field of every object, one line each."""
    rows = [json.loads(row) for row in jsonl.read_text(encoding="utf-8").split("\n") if row]
    return "".join(one_line(row[field]) + "\n" for row in rows).encode()


def main() -> int:
    """Fetch what is missing; 2 and one message when that fails."""
    args = parser("Put DialogSum into a folder as plain text.", FOLDER, URL).parse_args()

    def work() -> str:
        if local := find_local(args.local, FOLDER, "train.src"):
            fetch_texts(args.out_dir, local, URL, FILES)
            note_origin(args.out_dir, local)
            return f"{len(FILES)} files in {args.out_dir}"
        for name, wanted in FILES.items():
            jsonl = download(f"{args.url.rstrip('/')}/{wanted.path}", args.out_dir / "origin" / wanted.path)
            text = convert(jsonl, FIELDS[Path(name).suffix])
            if fault := fault_of(text, wanted):
                raise FetchError(
                    f"{name}: {jsonl} is not the one that is known: {fault}; name a local copy with --from (run.sh: --data)"
                )
            write_whole(args.out_dir / name, text)
        note_origin(args.out_dir, local)
        return f"{len(FILES)} files in {args.out_dir}"

    return command("dialogsum", work)


if __name__ == "__main__":
    sys.exit(main())
