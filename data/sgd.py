#!/usr/bin/env python3
"""Puts the Schema-Guided Dialogues into a folder as plain text: up to three turns, and the system's answer to them.

    python data/sgd.py OUT_DIR [--from DIR]

writes train, val and test (.src and .tgt); turns begin with `user: ` or `system: `. The text comes from a local copy,
which `--from` or the variable S2S_DATA names, or else from the public repository
google-research-datasets/dstc8-schema-guided-dialogue: all dialogues of its first 24 training files (about 3,000), and of the
first file of dev and of test. Test has services that train lacks.

Rastogi et al. 2020, "Towards Scalable Multi-Domain Conversational Agents: The Schema-Guided Dialogue Dataset",
https://arxiv.org/abs/1909.05855; CC BY-SA 4.0.
"""

import json
import sys
from pathlib import Path

from fetch import Text, command, download, fetch_texts, find_local, note_origin, one_line, parser, write_whole

URL = "https://raw.githubusercontent.com/google-research-datasets/dstc8-schema-guided-dialogue/master"
FOLDER = "sgd-dialogue"  # what a local copy is called inside the folder that S2S_DATA names
CONTEXT = 3  # turns before an answer
NUM_FILES = {"train": ("train", 24), "val": ("dev", 1), "test": ("test", 1)}


def answers(dialogue: dict) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    """Each answer of the system with the turns before it."""
    turns = [(turn["speaker"].lower(), one_line(turn["utterance"])) for turn in dialogue["turns"]]
    return [
        (" ".join(f"{who}: {text}" for who, text in turns[max(0, k - CONTEXT) : k]), said)
        for k, (speaker, said) in enumerate(turns)
        if speaker == "system" and k
    ]


def main() -> int:
    """Fetch what is missing; 2 and one message when that fails."""
    args = parser("Put the Schema-Guided Dialogues into a folder as plain text.", FOLDER, URL).parse_args()

    def work() -> str:
        names = [f"{split}.{side}" for split in NUM_FILES for side in ("src", "tgt")]
        if local := find_local(args.local, FOLDER, "train.src"):
            fetch_texts(args.out_dir, local, URL, {name: Text("") for name in names})
            note_origin(args.out_dir, local)
            return f"{len(names)} files of {local}"
        counts = []
        for split, (theirs, num_files) in NUM_FILES.items():
            paths = [f"{theirs}/dialogues_{k:03}.json" for k in range(1, num_files + 1)]
            files = [download(f"{args.url.rstrip('/')}/{p}", args.out_dir / "origin" / Path(p)) for p in paths]
            pairs = [
                pair
                for file in files
                for dialogue in json.loads(file.read_text(encoding="utf-8"))
                for pair in answers(dialogue)
            ]
            write_whole(args.out_dir / f"{split}.src", "".join(src + "\n" for src, _ in pairs).encode())
            write_whole(args.out_dir / f"{split}.tgt", "".join(tgt + "\n" for _, tgt in pairs).encode())
            counts.append(f"{len(pairs):,} answers of {split}")
        note_origin(args.out_dir, local)
        return ", ".join(counts)

    return command("sgd", work)


if __name__ == "__main__":
    sys.exit(main())
