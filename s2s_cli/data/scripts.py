"""Scripts that differ from Latin in what the rest of the house must know: those that write no spaces between words."""

# To stand inside the brackets of a set of characters, for the module regex.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
