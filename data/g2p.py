#!/usr/bin/env python3
"""Puts spelling and pronunciation of words in five languages into a folder, every file verified.

    python data/g2p.py OUT_DIR [--from DIR]

writes {train,val,test}.{fre,gre,hun,ice,kor}.tsv, the word and its phones with spaces between, and the same as two texts,
`.src` and `.tgt`, letters with spaces between too. A Korean syllable block is taken apart into its letters, since the
phones follow from these. The data come from a local copy, which `--from` or the variable S2S_DATA names, or else from the
public repository sigmorphon/2020, task 1.

Gorman et al. 2020, "The SIGMORPHON 2020 Shared Task on Multilingual Grapheme-to-Phoneme Conversion",
https://aclanthology.org/2020.sigmorphon-1.2; the words are Wiktionary's, CC BY-SA 3.0.
"""

import sys
import unicodedata

from fetch import Text, command, fetch_texts, find_local, note_origin, parser, write_whole

URL = "https://raw.githubusercontent.com/sigmorphon/2020/3d9bb3658b6a964ccd127e2a6781665262516bf6/task1/data"
FOLDER = "g2p"  # what a local copy is called inside the folder that S2S_DATA names
LANGUAGES = ("fre", "gre", "hun", "ice", "kor")
SPLITS = {"train": ("train", 3600), "val": ("dev", 450), "test": ("test", 450)}

SHA256 = {
    ("train", "fre"): "fcc1c1c19a19381105662b412e8de1a143802da40fb401dd3cc452bc935128a6",
    ("train", "gre"): "acc3450422d1d44e5d596d6b5092919ebf5e0f8a26ddde4ccac7aa9dec1e0996",
    ("train", "hun"): "e729f49b9b232848ee5bb98afeae2e236f1ec7d0e89d43cf930a9526ad1b9e1e",
    ("train", "ice"): "d3729c6306c6b20b873b1b8e94bc1fa3b70dce7f8c2e0179ad3a434c8803f2ef",
    ("train", "kor"): "c0e509d5c604df2bb0d899fec7825985e2d48f6cbb7238b1cde5ab408716071f",
    ("val", "fre"): "eb2b3fb761b02591a93981c448c6c7972da0499fd0fb1d7a0b60142463f6b355",
    ("val", "gre"): "bac8a18261aa39e125db95423cc33dfaa60683d72eb2b0bb933f2f66b913c7a9",
    ("val", "hun"): "a77a59974f54d218e8c8cf2d38c5db5ee33fac4767e842d3cc0b9bad42cf7032",
    ("val", "ice"): "5054f1051521f83acf137e918445052cc8702937131a7f7dac7b2b7dad6f78e4",
    ("val", "kor"): "0bf3b0676254dde2f087283f39f4a2f0ef2377000d0317be9c4b6cc8ef9ea23e",
    ("test", "fre"): "cd75ca22c697f93e23d10898a87a86e1bc08d0d4eb318946f28e085cd1aca9a8",
    ("test", "gre"): "a10265ed5370a687f2bc840d5ac7338c53b36b044d71e2bcfa0b359094f9fd2f",
    ("test", "hun"): "314ebe4289c3aad2161e6bf93a684219541365d59771c98fb6fa81192482c6ce",
    ("test", "ice"): "1da20f2fd807b797a6c5b6388e34253d8f874fa359435566632c3a058c80f56c",
    ("test", "kor"): "65792f869e6426358b143aac664d14af6967f088513d1c34eff3ecbc6555024e",
}
FILES = {
    f"{split}.{language}.tsv": Text(f"{theirs}/{language}_{theirs}.tsv", num_lines, SHA256[split, language])
    for split, (theirs, num_lines) in SPLITS.items()
    for language in LANGUAGES
}


def letters(word: str) -> str:
    """The letters of a word with spaces between, Hangul syllables taken apart."""
    parted = (unicodedata.normalize("NFD", char) if "가" <= char <= "힣" else char for char in word)
    return " ".join(letter for part in parted for letter in part)


def main() -> int:
    """Fetch what is missing, write the two sides; 2 and one message when that fails."""
    args = parser("Put words and their phones in five languages into a folder.", FOLDER, URL).parse_args()

    def work() -> str:
        local = find_local(args.local, FOLDER, "train.fre.tsv")
        written = fetch_texts(args.out_dir, local, args.url.rstrip("/"), FILES)
        if written:
            note_origin(args.out_dir, local)
        for name in FILES:
            rows = [row.split("\t") for row in (args.out_dir / name).read_text(encoding="utf-8").split("\n")[:-1]]
            stem = name.removesuffix(".tsv")
            write_whole(args.out_dir / f"{stem}.src", "".join(letters(word) + "\n" for word, _ in rows).encode())
            write_whole(args.out_dir / f"{stem}.tgt", "".join(phones + "\n" for _, phones in rows).encode())
        return f"{len(FILES)} files in {args.out_dir}, {len(written)} written, all verified"

    return command("g2p", work)


if __name__ == "__main__":
    sys.exit(main())
