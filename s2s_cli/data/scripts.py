"""What the rest of the house must know of scripts: which write no spaces between words, and what sentences end with."""

import regex  # type: ignore[import-untyped]

# To stand inside the brackets of a set of characters, for the module regex.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"

STOPS = ".!?…।॥։؟۔"  # which end a sentence where a space follows
WIDE_STOPS = "。！？｡"  # which end one at once
# After the stop and whatever closes a quotation or bracket.
SENTENCE_END = regex.compile(rf"[{STOPS}]['\"”’»)\]]*(?=\s)|[{WIDE_STOPS}]['\"”’»)\]）」』】]*")
