#!/usr/bin/env python3
"""Puts the English-German part of Multi30k (task 1, raw text) into a folder as plain text, every file verified.

    python data/multi30k.py OUT_DIR [--from DIR]

writes train, val and test_2016_flickr (.en and .de) and `test_2016_flickr.lc.norm.tok.de`, the lowercased, normalized
and tokenized reference that published scores are computed on. The text comes from a local copy, which `--from` or the
variable S2S_DATA names, or else from the public repository multi30k/dataset. Every file is known by its sha256 and line
count, so whatever stands in OUT_DIR is whole.

Multi30k is derived from Flickr30K and is for non-commercial research and education only. Cite Elliott et al. 2016,
"Multi30K: Multilingual English-German Image Descriptions", https://aclanthology.org/W16-3210.
"""

import sys

from fetch import Text, command, fetch_texts, find_local, note_origin, parser

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1"
FOLDER = "multi30k-en-de"  # what a local copy is called inside the folder that S2S_DATA names

FILES = {
    "train.en": Text("raw/train.en.gz", 29000, "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
    "train.de": Text("raw/train.de.gz", 29000, "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
    "val.en": Text("raw/val.en.gz", 1014, "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
    "val.de": Text("raw/val.de.gz", 1014, "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
    "test_2016_flickr.en": Text(
        "raw/test_2016_flickr.en.gz", 1000, "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"
    ),
    "test_2016_flickr.de": Text(
        "raw/test_2016_flickr.de.gz", 1000, "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"
    ),
    "test_2016_flickr.lc.norm.tok.de": Text(
        "tok/test_2016_flickr.lc.norm.tok.de", 1000, "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4"
    ),
}


def main() -> int:
    """Fetch what is missing; 2 and one message when that fails."""
    args = parser("Put Multi30k English-German into a folder as verified plain text.", FOLDER, URL).parse_args()

    def work() -> str:
        local = find_local(args.local, FOLDER, "train.en")
        written = fetch_texts(args.out_dir, local, args.url.rstrip("/"), FILES, ("", "tok"))
        if written:
            note_origin(args.out_dir, local)
        return f"{len(FILES)} files in {args.out_dir}, {len(written)} written, all verified"

    return command("multi30k", work)


if __name__ == "__main__":
    sys.exit(main())
