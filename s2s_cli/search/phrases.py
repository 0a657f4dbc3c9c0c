"""From words in settings to pieces in search: what search never says, and what it may repeat.

A phrase is banned as text, not as pieces: whatever the pieces are that spell it, single bytes among them, the one that would
complete it is banned at that place. It is banned as it is given, in lower case, in upper case, and with capital letters
first, wherever it stands as a word: where a letter or digit would go on in front of it or behind it, it is another word.
Scripts that write no spaces between words have no such places, and there it is banned anywhere.

Search does not look ahead: where pieces spell a banned word exactly, a longer word that would go on with further pieces
(cat + egory) is lost with it; in one piece, or in pieces that end elsewhere (ca + tegory), it is not.
"""

from bisect import bisect_left
from collections import defaultdict

import regex  # type: ignore[import-untyped]

from s2s_cli.config import SearchSettings
from s2s_cli.data.scripts import UNSPACED
from s2s_cli.data.vocab import SENTINEL, SPACE, Vocab, escape
from s2s_cli.errors import ConfigError
from s2s_cli.search.rules import Specials

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]")
_UNSPACED = regex.compile(f"[{UNSPACED}]")


def specials_for(vocab: Vocab, settings: SearchSettings) -> Specials:
    """What search must know of a target vocabulary; ConfigError for words that are none."""
    silent = {id for id in range(len(vocab)) if vocab.is_control[id] and not vocab.piece(id).startswith(SENTINEL)}
    never = sorted((silent | {vocab.pad, vocab.bos, *([] if settings.allow_unk else [vocab.unk])}) - {vocab.eos})
    banned = Phrases(vocab, settings.ban)
    completing = banned.completing if settings.ban else None
    return Specials(vocab.bos, vocab.eos, (*never, *banned.always), pieces_of(vocab, settings.may_repeat), completing)


def pieces_of(vocab: Vocab, words: list[str]) -> tuple[int, ...]:
    """All pieces that words are encoded with, at the beginning of a line or behind other text, in lower and upper case."""
    forms = [form for word in words for form in _forms(vocab, word, "may_repeat")]
    found = {id for ids in vocab.encode(forms) for id in ids}
    found |= {vocab.id(piece) for form in forms for piece in (form, SPACE + form)}
    return tuple(sorted(found - {vocab.unk, vocab.id(SPACE)}))


class Phrases:
    """Banned phrases, ready to be watched for. `always` are the pieces that have a whole banned phrase in them."""

    def __init__(self, vocab: Vocab, phrases: list[str]) -> None:
        self._texts = [_bytes(vocab, id) for id in range(len(vocab))]
        forms = {escape(form) for phrase in phrases for form in _forms(vocab, phrase, "ban")}
        self._longest = max((len(form.encode()) for form in forms), default=0)
        self.always: set[int] = set()
        # What completes a phrase, by how much of it was said: (its first character, the piece).
        self._rest: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
        by_text = sorted((text, id) for id, text in enumerate(self._texts) if text)
        for form in sorted(forms):
            self.always |= {id for id, text in enumerate(self._texts) if _holds(text.decode("utf-8", "ignore"), form)}
            whole = form.encode()
            for said in range(len(whole)):
                rest = whole[said:]
                for text, id in by_text[bisect_left(by_text, (rest, -1)) :]:
                    if not text.startswith(rest):
                        break
                    behind = text[len(rest) :].decode("utf-8", "ignore")
                    if _apart(form[-1], behind[:1]):
                        self._rest[whole[:said]].append((form[0], id))

    def completing(self, said: list[int]) -> list[int]:
        """The pieces that would complete a banned phrase after the pieces that were `said`, beside those of `always`."""
        room = self._longest + 4  # and a character before it
        # Every piece has at least one byte of text, but for the silent ones, which search does not say.
        tail = b"".join([self._texts[id] for id in said[-room:]]).replace(SPACE.encode(), b" ")[-room:]
        found = []
        for size in range(min(self._longest, len(tail) + 1)):
            begun = tail[len(tail) - size :]
            if begun in self._rest:
                before = tail[: len(tail) - size].decode("utf-8", "replace")[-1:]  # as the output is read
                found += [id for first, id in self._rest[begun] if _apart(before, first)]
        return found


def _forms(vocab: Vocab, phrase: str, setting: str) -> set[str]:
    """A phrase as it is given and in other cases, under the text rules of the vocabulary."""
    text = " ".join(phrase.split())
    if not text:
        raise ConfigError(f"{setting} has an empty word in it: leave it out")
    cases = {text, text.lower(), text.upper(), text.capitalize(), text.title(), text[:1].upper() + text[1:]}
    return {vocab.rules.apply(case) for case in cases}


def _bytes(vocab: Vocab, id: int) -> bytes:
    """The text of a piece, a space for each of SentencePiece's; nothing for pieces that are silent."""
    piece = vocab.piece(id)
    if id == vocab.unk or vocab.is_control[id]:
        return b""
    return bytes([int(piece[3:5], 16)]) if vocab.is_byte[id] else piece.replace(SPACE, " ").encode()


def _holds(text: str, form: str) -> bool:
    """Whether a text has a phrase as words in it, with something before it."""
    at = text.find(form, 1)
    while at > 0:
        if _apart(text[at - 1], form[0]) and _apart(form[-1], text[at + len(form) :][:1]):
            return True
        at = text.find(form, at + 1)
    return False


def _apart(one: str, other: str) -> bool:
    """Whether two characters beside each other, of which one may be missing, are of different words."""
    if not (_WORD.match(one) and _WORD.match(other)):
        return True
    return bool(_UNSPACED.match(one) or _UNSPACED.match(other))
