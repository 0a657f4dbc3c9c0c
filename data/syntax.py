"""What the grammar corpus says, before it is said in a language: phrases and clauses as plain records.

`english.py` and `german.py` each turn the same records into words; neither knows of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from lexicon import Adjective, Adverbial, Modal, Noun, Verb


@dataclass(frozen=True)
class Pronoun:
    """I, you (du), he, she, we, they; `gender` counts in the third person singular (n: the `it` of the weather)."""

    person: int
    plural: bool = False
    gender: str = "m"


@dataclass(frozen=True)
class Name:
    """A first name."""

    name: str
    gender: str


@dataclass(frozen=True)
class NounPhrase:
    """`det` is the English determiner in the singular, a number, or "" for none; adjectives come with their degree."""

    noun: Noun
    det: str = "the"
    plural: bool = False
    adjectives: tuple[tuple[Adjective, str], ...] = ()  # degree: "base", "comp" or "sup"
    relative: Clause | None = None


@dataclass(frozen=True)
class Both:
    """Two phrases joined by `and`."""

    first: Phrase
    second: Phrase


@dataclass(frozen=True)
class Who:
    """The question word for a person or, `thing`, for a thing."""

    thing: bool = False


@dataclass(frozen=True)
class Relative:
    """The relative pronoun that stands for `noun`."""

    noun: Noun
    plural: bool = False


Phrase = Pronoun | Name | NounPhrase | Both | Who | Relative


@dataclass(frozen=True)
class Prepositional:
    """A preposition with its phrase; `case` is the one that the German preposition governs here."""

    en: str
    de: str
    case: str
    phrase: Phrase


@dataclass(frozen=True)
class Predicate:
    """What follows `be`: an adjective, compared or not, or, with `job`, a noun (German: without an article)."""

    adjective: Adjective | None = None
    degree: str = "base"  # "base", "comp" (bigger than) or "as" (as big as)
    than: Phrase | None = None
    job: Noun | None = None


@dataclass(frozen=True)
class Clause:
    """A verb and what goes with it; `front` names the slot that stands first, "" for a yes/no question."""

    verb: Verb
    subj: Phrase | None = None  # None in an infinitive
    tense: str = "present"  # present, habit (English simple present), past, perfect or future
    modal: Modal | None = None
    negated: bool = False
    likes: bool = False  # English "likes to read", German "liest gern"
    obj: Phrase | None = None  # accusative
    iobj: Phrase | None = None  # dative
    companion: Prepositional | None = None
    place: Prepositional | Adverbial | None = None
    goal: Prepositional | Adverbial | None = None
    time: Adverbial | None = None
    manner: Adverbial | None = None
    particle: Adverbial | None = None
    predicate: Predicate | None = None
    front: str = "subj"


def is_indefinite(phrase: Phrase | None) -> bool:
    """Whether German puts it behind places and negates it with kein."""
    return isinstance(phrase, NounPhrase) and phrase.det not in ("the", "this", "every", "all", *POSSESSIVES)


def is_plural(phrase: Phrase | None) -> bool:
    """Whether the phrase takes a verb in the plural."""
    return isinstance(phrase, Both) or getattr(phrase, "plural", False)


def person(phrase: Phrase | None) -> int:
    """Return the grammatical person, 1 to 3."""
    return phrase.person if isinstance(phrase, Pronoun) else 3


POSSESSIVES = ("my", "your", "his", "her", "our", "their")


def sentence(words: list[str], end: str = ".") -> str:
    """Join words, of which some are commas, to a sentence with a capital letter and one mark at the end."""
    text = " ".join(words).replace(" ,", ",").replace(",,", ",").removesuffix(",")
    return text[0].upper() + text[1:] + end
