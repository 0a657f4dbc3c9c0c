"""Says the records of `syntax.py` in English: agreement, tense and aspect, do-support, word order."""

from lexicon import Adverbial
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
    is_plural,
    person,
)

_PRONOUNS = {(1, False): ("I", "me"), (2, False): ("you", "you"), (1, True): ("we", "us"), (3, True): ("they", "them")}
_THIRD = {"m": ("he", "him"), "f": ("she", "her"), "n": ("it", "it")}
_DOUBLED = ("get", "put", "run", "sit")  # getting, putting


def phrase(part: Phrase, subject: bool = False) -> list[str]:
    """Return the words of a phrase, as the subject or not."""
    match part:
        case Pronoun():
            forms = _THIRD[part.gender] if (part.person, part.plural) == (3, False) else None
            return [(forms or _PRONOUNS[part.person, part.plural])[0 if subject else 1]]
        case Name():
            return [part.name]
        case Both():
            return [*phrase(part.first, subject), "and", *phrase(part.second, subject)]
        case Who():
            return ["what" if part.thing else "who"]
        case Relative():
            human = "person" in part.noun.tags
            return [("who" if subject else "whom") if human else "that"]
    return _noun_phrase(part)


def _noun_phrase(part: NounPhrase) -> list[str]:
    words = []
    for adjective, degree in part.adjectives:
        words.append({"base": adjective.en, "comp": adjective.en_comp, "sup": adjective.en_sup}[degree])
    words.append(part.noun.en_plural if part.plural else part.noun.en)
    if part.det == "a":
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    elif part.det:
        words.insert(0, "these" if part.det == "this" and part.plural else part.det)
    return words + (clause(part.relative) if part.relative is not None else [])


def adverbial(part: Prepositional | Adverbial) -> list[str]:
    """Return the words of an adverbial."""
    if isinstance(part, Adverbial):
        return [part.en]
    return [part.en, "which"] if isinstance(part.phrase, Relative) else [part.en, *phrase(part.phrase)]


def third(base: str) -> str:
    """Return the third person singular of the simple present."""
    if base == "have":
        return "has"
    if base.endswith(("s", "sh", "ch", "x", "o")):
        return base + "es"
    return base[:-1] + "ies" if base.endswith("y") and base[-2] not in "aeiou" else base + "s"


def progressive(base: str) -> str:
    """Return the -ing form."""
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if base in _DOUBLED:
        return base + base[-1] + "ing"
    return (base[:-1] if base.endswith("e") and base[-2] != "e" else base) + "ing"


def infinitive(part: Clause) -> list[str]:
    """Return `to` with the clause, which has no subject."""
    return ["to", part.verb.en, *_after_verb(part)]


def clause(part: Clause, question: bool = False, front: str | None = None) -> list[str]:
    """Return a clause: a statement, or a direct question with its auxiliary before the subject."""
    front = part.front if front is None else front
    slots = _slots(part)
    subject = slots.pop("subj")
    inverted = question and front != "subj"
    auxiliary, verbs = _verbs(part, inverted)
    before = [] if part.particle is None or part.particle.en == "yet" else [part.particle.en]
    negation = ["not"] if part.negated else []
    first = [] if front in ("", "subj") else slots[front]
    if (auxiliary, negation) == ("can", ["not"]) and not inverted:
        auxiliary, negation = "cannot", []
    helper = [auxiliary] if auxiliary else []
    opening = [*helper, *subject, *negation] if inverted else [*subject, *helper, *negation]
    return [*first, *opening, *before, *verbs, *_after_verb(part, front)]


def _verbs(part: Clause, inverted: bool) -> tuple[str, list[str]]:
    """The auxiliary, "" for none, and the verbs that follow it."""
    verb, past = part.verb, part.tense == "past"
    who, plural = person(part.subj), is_plural(part.subj)
    single = who == 3 and not plural
    be = _be(who, plural, past)
    has = "has" if single else "have"
    modal = part.modal
    if modal is not None and modal.kind == "aux":
        return modal.en, [verb.en]
    if modal is not None and modal.kind == "be":
        return be, [modal.en, "to", verb.en]
    if modal is None and part.tense == "future":
        return "will", [verb.en]
    if modal is None and part.tense == "perfect":
        return has, [verb.en_part]
    if modal is None and verb.en == "be":
        return be, []
    if modal is None and part.tense == "present" and "p" in verb.flags and not part.likes:
        return be, [progressive(verb.en)]
    base, past_form, rest = verb.en, verb.en_past, []
    if modal is not None:
        base, past_form, rest = modal.en, modal.en_past, ["to", verb.en]
    elif part.likes:
        base, past_form, rest = "like", "liked", ["to", verb.en]
    if part.negated or inverted:
        return "did" if past else "does" if single else "do", [base, *rest]
    return "", [past_form if past else third(base) if single else base, *rest]


def _be(who: int, plural: bool, past: bool) -> str:
    if plural or who == 2:
        return "were" if past else "are"
    if past:
        return "was"
    return "am" if who == 1 else "is"


def _slots(part: Clause) -> dict[str, list[str]]:
    """The words of every slot, in the order in which they follow the verb."""
    slots = {"subj": phrase(part.subj, subject=True) if part.subj else []}
    slots["predicate"] = _predicate(part.predicate) if part.predicate else []
    slots["iobj"] = phrase(part.iobj) if part.iobj else []
    slots["obj"] = phrase(part.obj) if part.obj else []
    for name in ("manner", "companion", "place", "goal"):
        value = getattr(part, name)
        slots[name] = adverbial(value) if value else []
    slots["yet"] = ["yet"] if part.particle is not None and part.particle.en == "yet" else []
    slots["time"] = adverbial(part.time) if part.time else []
    return slots


def _after_verb(part: Clause, front: str = "") -> list[str]:
    slots = _slots(part)
    del slots["subj"]
    after = [word for name, words in slots.items() if name != front for word in words]
    if part.verb.en_particle:
        # "picks her up", but "picks up the man" and "whom she picks up"
        late = part.verb.en_split and isinstance(part.obj, Pronoun) and front != "obj"
        after.insert(1 if late else 0, part.verb.en_particle)
    return after


def _predicate(part: Predicate) -> list[str]:
    if part.job is not None:
        return _noun_phrase(NounPhrase(part.job, "a"))
    assert part.adjective is not None
    than = phrase(part.than) if part.than else []
    if part.degree == "comp":
        return [part.adjective.en_comp, "than", *than]
    return ["as", part.adjective.en, "as", *than] if part.degree == "as" else [part.adjective.en]
