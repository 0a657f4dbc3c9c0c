"""Says the records of `syntax.py` in German: inflection, the order of the clause, and nothing of what makes sense.

Main clauses are verb-second, subordinate ones verb-final. The middle field runs: subject, pronouns (before an
indefinite subject), time, dative, definite accusative, nicht, manner, companion, place, indefinite accusative, goal,
predicate.
"""

from lexicon import NUMBERS, Adverbial, Modal, Verb
from syntax import (
    Both,
    Clause,
    Name,
    NounPhrase,
    Phrase,
    Predicate,
    Prepositional,
    Pronoun,
    Relative,
    Who,
    is_indefinite,
    is_plural,
    person,
)

# endings by case, in the order of masculine, feminine, neuter and plural
_ORDER = "mfnp"
_STRONG = {"nom": ("er", "e", "es", "e"), "acc": ("en", "e", "es", "e"), "dat": ("em", "er", "em", "en")}
_WEAK = {"nom": ("e", "e", "e", "en"), "acc": ("en", "e", "e", "en"), "dat": ("en", "en", "en", "en")}
_MIXED = {"nom": ("er", "e", "es", "en"), "acc": ("en", "e", "es", "en"), "dat": ("en", "en", "en", "en")}
_EIN = {"nom": ("", "e", "", "e"), "acc": ("en", "e", "", "e"), "dat": ("em", "er", "em", "en")}
_DER = {"nom": ("der", "die", "das", "die"), "acc": ("den", "die", "das", "die"), "dat": ("dem", "der", "dem", "den")}

_DER_WORDS = {"this": "dies", "every": "jed", "which": "welch", "all": "all"}
_EIN_WORDS = {"a": "ein", "no": "kein", "my": "mein", "your": "dein", "his": "sein", "her": "ihr", "our": "unser"}
_EIN_WORDS["their"] = "ihr"
_STRONG_WORDS = {"many": "viel", "some": "einig"}  # inflected, and the adjective after them is strong
_NUMBERS = dict(NUMBERS)

_PRONOUNS = {
    (1, False): ("ich", "mich", "mir"),
    (2, False): ("du", "dich", "dir"),
    (1, True): ("wir", "uns", "uns"),
    (3, True): ("sie", "sie", "ihnen"),
}
_THIRD = {"m": ("er", "ihn", "ihm"), "f": ("sie", "sie", "ihr"), "n": ("es", "es", "ihm")}
_CASES = ("nom", "acc", "dat")
_CONTRACTED = {
    ("in", "das"): "ins",
    ("in", "dem"): "im",
    ("an", "das"): "ans",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}

# ich, du, er, wir
_PRESENT = {
    "sein": ("bin", "bist", "ist", "sind"),
    "haben": ("habe", "hast", "hat", "haben"),
    "werden": ("werde", "wirst", "wird", "werden"),
    "wissen": ("weiß", "weißt", "weiß", "wissen"),
}


def phrase(part: Phrase, case: str) -> list[str]:
    """Return the words of a phrase in a case: nom, acc or dat."""
    match part:
        case Pronoun():
            forms = _THIRD[part.gender] if (part.person, part.plural) == (3, False) else None
            return [(forms or _PRONOUNS[part.person, part.plural])[_CASES.index(case)]]
        case Name():
            return [part.name]
        case Both():
            return [*phrase(part.first, case), "und", *phrase(part.second, case)]
        case Who():
            return ["was"] if part.thing else [{"nom": "wer", "acc": "wen", "dat": "wem"}[case]]
        case Relative():
            column = _column(part)
            return ["denen"] if (case, column) == ("dat", 3) else [_DER[case][column]]
    return _noun_phrase(part, case)


def _noun_phrase(part: NounPhrase, case: str) -> list[str]:
    column = _column(part)
    words, endings = _determiner(part.det, case, column)
    for adjective, degree in part.adjectives:
        stem = {"base": adjective.de_stem, "comp": adjective.de_comp, "sup": adjective.de_sup}[degree]
        words.append(stem + endings[case][column])
    words.append(_noun(part, case))
    if part.relative is not None:
        words += [",", *subordinate(part.relative), ","]
    return words


def _column(part: NounPhrase | Relative) -> int:
    return _ORDER.index("p" if part.plural else part.noun.gender)


def _determiner(det: str, case: str, column: int) -> tuple[list[str], dict[str, tuple[str, str, str, str]]]:
    """The determiner, and the endings of the adjectives after it."""
    if det == "the":
        return [_DER[case][column]], _WEAK
    if det in _DER_WORDS:
        return [_DER_WORDS[det] + _STRONG[case][column]], _WEAK
    if det in _EIN_WORDS:
        return [_EIN_WORDS[det] + _EIN[case][column]], _MIXED
    if det in _STRONG_WORDS:
        return [_STRONG_WORDS[det] + _STRONG[case][column]], _STRONG
    return [_NUMBERS[det]] if det else [], _STRONG


def _noun(part: NounPhrase, case: str) -> str:
    noun = part.noun
    if not part.plural:
        return noun.de + (noun.oblique if case != "nom" else "")
    return noun.de_plural + ("n" if case == "dat" and noun.de_plural[-1] not in "ns" else "")


def adverbial(part: Prepositional | Adverbial) -> list[str]:
    """Return the words of an adverbial, with im, ins, zum and the like."""
    if isinstance(part, Adverbial):
        return [part.de]
    words = phrase(part.phrase, part.case)
    plain = isinstance(part.phrase, NounPhrase) and part.phrase.relative is None
    short = _CONTRACTED.get((part.de, words[0])) if plain else None
    return [short, *words[1:]] if short else [part.de, *words]


def finite(verb: Verb | Modal, who: int, plural: bool, past: bool) -> str:
    """Return the finite form of a verb, without its separable prefix, for person `who`."""
    if past:
        return _past(verb.de_past, who, plural)
    index = 3 if plural else who - 1
    if isinstance(verb, Modal):
        plural_form = verb.de_past + "n" if verb.de == "sollen" else verb.de
        return (verb.de_first, verb.de_second, verb.de_first, plural_form)[index]
    return _PRESENT[verb.de][index] if verb.de in _PRESENT else _present(verb)[index]


def _present(verb: Verb) -> tuple[str, str, str, str]:
    stem = verb.de_third.removesuffix("t")
    first = verb.de.removesuffix("n").removesuffix("e") + "e"  # kaufe, füttere
    second = stem + ("t" if stem[-1] in "sßxz" else "st")
    return first, second, verb.de_third, verb.de


def _past(form: str, who: int, plural: bool) -> str:
    weak = form.endswith("e")
    if plural:
        return form + ("n" if weak else "en")
    if who == 2:
        return form + ("est" if form[-1] in "dtsßxz" else "st")
    return form


def infinitive(clause: Clause) -> list[str]:
    """Return `um ... zu` with the clause, which has no subject."""
    verb = clause.verb
    zu = [f"{verb.prefix}zu{verb.de}"] if verb.prefix else ["zu", verb.de]
    return ["um", *_middle(clause, ""), *zu]


def subordinate(clause: Clause, conjunction: str = "") -> list[str]:
    """Return a verb-final clause, after a conjunction or after its own front (a relative or question word)."""
    front = "" if conjunction else clause.front
    verb, tail = _verbs(clause)
    words = [conjunction] if conjunction else _slots(clause)[front]
    if not tail and clause.verb.prefix:
        verb = clause.verb.prefix + verb
    return [*words, *_middle(clause, front), *tail, verb]


def main(clause: Clause, front: str | None = None) -> list[str]:
    """Return a verb-second clause, or with "" as its front a verb-first one: a question, or after another clause."""
    front = clause.front if front is None else front
    verb, tail = _verbs(clause)
    if not tail and clause.verb.prefix:
        tail = [clause.verb.prefix]
    return [*(_slots(clause)[front] if front else []), verb, *_middle(clause, front), *tail]


def _verbs(clause: Clause) -> tuple[str, list[str]]:
    """The finite verb, and what closes the clause."""
    verb, who, plural = clause.verb, person(clause.subj), is_plural(clause.subj)
    index = 3 if plural else who - 1
    if clause.modal is not None:
        return finite(clause.modal, who, plural, clause.tense == "past"), [verb.prefix + verb.de]
    if clause.tense == "future":
        return _PRESENT["werden"][index], [verb.prefix + verb.de]
    if clause.tense == "perfect":
        return _PRESENT[verb.aux][index], [verb.de_part]
    return finite(verb, who, plural, clause.tense == "past"), []


def _middle(clause: Clause, front: str) -> list[str]:
    return [word for name, words in _slots(clause).items() if name != front for word in words]


def _slots(clause: Clause) -> dict[str, list[str]]:
    """The words of every slot, in the order of the middle field."""
    obj, iobj = clause.obj, clause.iobj
    indefinite = is_indefinite(obj)
    if clause.negated and isinstance(obj, NounPhrase) and indefinite:
        assert obj.det in ("", "a"), "kein does not stand before numbers"
        obj = NounPhrase(obj.noun, "no", obj.plural, obj.adjectives, obj.relative)
    accusative = phrase(obj, "acc") if obj else []
    dative = phrase(iobj, "dat") if iobj else []
    nicht = ["gern"] if clause.likes else []
    if clause.particle:
        nicht.append(clause.particle.de)
    if clause.negated and not indefinite:
        nicht.append("nicht")
    slots = {"subj": phrase(clause.subj, "nom") if clause.subj else []}
    if isinstance(obj, Pronoun):
        slots["obj"] = accusative
    if isinstance(iobj, Pronoun):
        slots["iobj"] = dative
    if is_indefinite(
        clause.subj
    ):  # "dass mir ein Freund hilft"; but "dass ein Freund sie kennt", lest sie be the subject
        early = {name: words for name, words in slots.items() if name != "subj" and words != ["sie"]}
        slots = early | slots
    slots["time"] = adverbial(clause.time) if clause.time else []
    slots.setdefault("iobj", dative)
    if not indefinite:
        slots.setdefault("obj", accusative)
    slots["nicht"] = nicht
    for name, part in (("manner", clause.manner), ("companion", clause.companion), ("place", clause.place)):
        slots[name] = adverbial(part) if part else []
    slots.setdefault("obj", accusative)
    slots["goal"] = adverbial(clause.goal) if clause.goal else []
    slots["predicate"] = _predicate(clause.predicate) if clause.predicate else []
    return slots


def _predicate(part: Predicate) -> list[str]:
    if part.job is not None:
        return [part.job.de]
    assert part.adjective is not None
    than = phrase(part.than, "nom") if part.than else []
    if part.degree == "comp":
        return [part.adjective.de_comp, "als", *than]
    return ["so", part.adjective.de, "wie", *than] if part.degree == "as" else [part.adjective.de]
