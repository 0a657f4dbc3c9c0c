"""Draws clauses that make sense: who does what, where and when. It knows the records, and nothing of word order.

Everything random comes from `Draw`, which uses nothing of the random module but `random()`: the one method whose values
Python promises for a seed on every version.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from lexicon import ADJECTIVES, MANNERS, MODALS, NAMES, NOUNS, NUMBERS, PARTICLES, TIMES, VERBS, Adjective, Noun, Verb
from lexicon import verb as german_verb
from syntax import POSSESSIVES, Both, Clause, Name, NounPhrase, Phrase, Predicate, Prepositional, Pronoun, is_plural

Item = TypeVar("Item")
PRONOUNS = (
    Pronoun(1),
    Pronoun(2),
    Pronoun(3, gender="m"),
    Pronoun(3, gender="f"),
    Pronoun(1, plural=True),
    Pronoun(3, plural=True),
)
_MANNERS = {
    "arbeiten": ("slowly", "quickly", "alone", "together"),
    "lachen": ("loudly", "quietly", "together"),
    "weinen": ("loudly", "quietly"),
    "singen": ("loudly", "quietly", "alone", "together"),
    "tanzen": ("slowly", "quickly", "alone", "together"),
    "spielen": ("quietly", "alone", "together"),
    "gehen": ("slowly", "quickly", "alone", "together"),
    "rennen": ("quickly",),
    "bellen": ("loudly", "quietly"),
}
_COMPANY = ("arbeiten", "singen", "tanzen", "spielen", "gehen")  # with somebody
_FOR = ("kaufen", "kochen", "backen", "schreiben", "malen", "bestellen")  # for somebody
_LIKED = (
    "essen",
    "trinken",
    "lesen",
    "schreiben",
    "kochen",
    "backen",
    "malen",
    "singen",
    "tanzen",
    "spielen",
    "schlafen",
)
_ACTIONS = tuple(verb for verb in VERBS if verb.frame not in ("that", "that+ask", "ask", "weather", "be"))
_SUBJECTS = tuple(noun for noun in NOUNS if noun.tags & {"person", "animal"})


class Draw:
    """A stream of choices that a seed decides."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of the items, all equally likely."""
        return items[int(self._random() * len(items))]

    def weighted(self, weights: dict[Item, float]) -> Item:
        """Return a key, as likely as its share of the weights."""
        mark = self._random() * sum(weights.values())
        for item, weight in weights.items():
            mark -= weight
            if mark < 0:
                return item
        return item

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in a random order (Fisher and Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = int(self._random() * (last + 1))
            result[last], result[other] = result[other], result[last]
        return result


def noun_phrase(draw: Draw, nouns: Sequence[Noun], role: str = "obj", plain: bool = False) -> NounPhrase:
    """Draw a phrase with one of `nouns`; role is subj, obj or place; `plain` is one that a negation may stand beside."""
    noun = draw.pick(nouns)
    mass = not noun.en_plural
    plural = not mass and role != "place" and draw.chance(0.3)
    if plural:
        weights = {"the": 35.0, "this": 8, "": 25}
        weights |= {} if plain else {"many": 8, "some": 8, "all": 5 if role == "subj" else 0}
        weights |= {} if plain else {number: 4 for number, _ in NUMBERS}
    elif mass:
        weights = {"the": 30.0, "this": 8, "": 60}
    else:
        weights = {"the": 50.0, "a": 30, "this": 8}
        weights |= {"every": 5, "no": 3} if role == "subj" and not plain else {}
    owned = not noun.tags & {"person", "animal", "building", "land", "plant", "opening"} or noun.tags & {"kin", "pet"}
    if role == "place":
        weights = {"the": 80.0, "a": 12 if noun.kind == "building" else 0, "this": 8}
        owned = noun.tags & {"room", "furniture"}
    if owned and not mass and not (plural and "one" in noun.tags):
        weights |= dict.fromkeys(POSSESSIVES, 3)
    if plain and role == "subj":
        weights |= {"a": 0, "": 0}
    det = draw.weighted(weights)
    return NounPhrase(noun, det, plural, _adjectives(draw, noun, det) if draw.chance(0.35) else ())


def _adjectives(draw: Draw, noun: Noun, det: str) -> tuple[tuple[Adjective, str], ...]:
    fitting = [adjective for adjective in ADJECTIVES if adjective.tags & noun.tags]
    if not fitting:
        return ()
    first = draw.pick(fitting)
    if first.de_sup and det in ("the", *POSSESSIVES) and draw.chance(0.2):
        return ((first, "sup"),)
    if first.de_comp and det in ("the", "a") and draw.chance(0.12):
        return ((first, "comp"),)
    colours = [adjective for adjective in fitting if adjective.slot == "colour"]
    if first.slot == "size" and colours and draw.chance(0.4):
        return ((first, "base"), (draw.pick(colours), "base"))
    return ((first, "base"),)


def subject(draw: Draw, tags: frozenset[str], plain: bool = False) -> Phrase:
    """Draw who or what does it; people may be pronouns, names or two at once."""
    nouns = [noun for noun in NOUNS if noun.tags & tags]
    kind = draw.weighted({"pronoun": 30.0, "name": 12, "both": 7, "noun": 55}) if "person" in tags else "noun"
    if kind == "pronoun":
        return draw.pick(PRONOUNS)
    if kind == "name":
        return Name(*draw.pick(NAMES))
    if kind == "both":
        first = Name(*draw.pick(NAMES)) if draw.chance(0.5) else NounPhrase(draw.pick(nouns))
        other = NounPhrase(draw.pick(nouns))
        if first != other:
            return Both(first, other)
    return noun_phrase(draw, nouns, "subj", plain)


def target(draw: Draw, tags: frozenset[str], subj: Phrase, plain: bool = False) -> Phrase:
    """Draw whom or what it is done to: never the subject over again."""
    nouns = [noun for noun in NOUNS if noun.tags & tags and noun not in _nouns(subj)]
    if "person" in tags and draw.chance(0.3):
        free = [one for one in PRONOUNS if not (isinstance(subj, Pronoun) and subj.person == one.person < 3)]
        return draw.pick(free)
    if "person" in tags and draw.chance(0.1):
        return Name(*draw.pick([pair for pair in NAMES if pair[0] not in _names(subj)]))
    return noun_phrase(draw, nouns, "obj", plain)


def _nouns(phrase: Phrase) -> list[Noun]:
    if isinstance(phrase, Both):
        return _nouns(phrase.first) + _nouns(phrase.second)
    return [phrase.noun] if isinstance(phrase, NounPhrase) else []


def _names(phrase: Phrase) -> list[str]:
    if isinstance(phrase, Both):
        return _names(phrase.first) + _names(phrase.second)
    return [phrase.name] if isinstance(phrase, Name) else []


def _tagged(*tags: str) -> list[Noun]:
    return [noun for noun in NOUNS if noun.tags & set(tags)]


def place(draw: Draw) -> Prepositional:
    """Draw where people and animals are: a preposition with the dative."""
    kind = draw.weighted({"in": 50.0, "on-land": 10, "at": 15, "near": 20, "tree": 5})
    if kind == "near":
        words = draw.pick((("in front of", "vor"), ("behind", "hinter"), ("next to", "neben")))
        return Prepositional(*words, "dat", noun_phrase(draw, _tagged("building", "plant-under"), "place"))
    if kind == "tree":
        return Prepositional("under", "unter", "dat", noun_phrase(draw, _tagged("tree"), "place"))
    words = {"in": ("in", "in"), "on-land": ("on", "auf"), "at": ("at", "an")}[kind]
    return Prepositional(*words, "dat", noun_phrase(draw, _tagged(kind), "place"))


def goal(draw: Draw) -> Prepositional:
    """Draw where somebody goes: in with the accusative, zu and aus with the dative, durch with the accusative."""
    kind = draw.weighted({"into": 40.0, "to": 30, "out of": 20, "through": 10})
    nouns, german, case = {
        "into": (_tagged("in"), "in", "acc"),
        "to": (_tagged("building", "lake"), "zu", "dat"),
        "out of": (_tagged("building-in", "room"), "aus", "dat"),
        "through": (_tagged("land-in"), "durch", "acc"),
    }[kind]
    return Prepositional(kind, german, case, noun_phrase(draw, nouns, "place"))


def _on(draw: Draw, en: str, case: str) -> Prepositional:
    """On, under or next to a piece of furniture; `en` is the English of the first."""
    if draw.chance(0.6):
        return Prepositional(en, "auf", case, noun_phrase(draw, _tagged("furniture"), "place"))
    if draw.chance(0.5):
        return Prepositional("next to", "neben", case, noun_phrase(draw, _tagged("furniture"), "place"))
    return Prepositional("under", "unter", case, noun_phrase(draw, _tagged("furniture-under"), "place"))


def clause(
    draw: Draw,
    tenses: Sequence[str] = ("present", "past", "perfect", "future", "modal", "habit"),
    subj: Phrase | None = None,
    frames: Sequence[str] = (),
    brief: bool = False,
) -> Clause:
    """Draw a clause in one of the tenses; a given subject is a person. A `brief` one has no adverbials but its own."""
    verbs = [verb for verb in _ACTIONS if not frames or verb.frame in frames]
    verb = draw.pick([verb for verb in verbs if "person" in verb.subj] if subj else verbs)
    negated = draw.chance(0.15)
    subj = subj or subject(draw, verb.subj, plain=negated)
    tense, modal = _tense(draw, verb, tenses, subj), None
    if tense == "modal":
        past = "past" in tenses and subj != Pronoun(2) and draw.chance(0.25)
        modal = draw.pick([modal for modal in MODALS if not past or modal.kind != "aux"])
        tense = "past" if past else "present"
    negated = negated and tense != "habit"
    result = Clause(verb, subj, tense, modal, negated)
    if verb.frame in ("acc", "both", "lay"):
        result = replace(result, obj=target(draw, verb.obj, subj, plain=negated))
    if verb.frame in ("dat", "both"):
        who = verb.obj if verb.frame == "dat" else frozenset({"person"})
        result = replace(result, iobj=target(draw, who, subj, plain=negated))
        if isinstance(result.iobj, NounPhrase) and negated and result.iobj.det in ("a", ""):
            result = replace(result, iobj=replace(result.iobj, det="the"))
    return _adverbials(draw, _located(draw, result), brief)


def _tense(draw: Draw, verb: Verb, tenses: Sequence[str], subj: Phrase) -> str:
    weights = {"present": 34.0, "past": 22}
    if verb.flags != "-":
        weights |= {"perfect": 14.0 if "f" in verb.flags else 0, "future": 8, "modal": 16}
        weights |= {"habit": 10 if "p" in verb.flags else 0}
    allowed = {tense: weight for tense, weight in weights.items() if tense in tenses}
    if subj == Pronoun(2):
        allowed.pop("past", None)  # "du lasest" is right, and nobody says it
    return draw.weighted(allowed) if allowed and sum(allowed.values()) else "present"


def _located(draw: Draw, part: Clause) -> Clause:
    """Add the place or the goal that the verb cannot be without."""
    match part.verb.frame:
        case "home":
            return replace(part, place=Prepositional("in", "in", "dat", noun_phrase(draw, _tagged("home"), "place")))
        case "seat":
            seat = Prepositional("on", "auf", "dat", noun_phrase(draw, _tagged("chair", "sofa", "bed"), "place"))
            return replace(part, place=seat if draw.chance(0.5) else place(draw))
        case "surface":
            return replace(part, place=_on(draw, "on", "dat"))
        case "lay":
            return replace(part, goal=_on(draw, "on", "acc"))
        case "goal":
            return replace(part, goal=goal(draw))
        case "onto":
            seats = noun_phrase(draw, _tagged("table", "bed", "chair", "sofa"), "place")
            return replace(part, goal=Prepositional("onto", "auf", "acc", seats))
    return part


def _adverbials(draw: Draw, part: Clause, brief: bool) -> Clause:
    verb, obj = part.verb, part.obj
    kein = part.negated and isinstance(obj, NounPhrase) and obj.det in ("", "a")
    if verb.flags == "-":
        return part
    likable = verb.de in _LIKED and part.tense in ("habit", "past") and not part.negated and part.modal is None
    if likable and isinstance(part.subj, Pronoun | Name) and draw.chance(0.4):
        liked = draw.pick([noun for noun in NOUNS if noun.tags & verb.obj] or [None])
        some = NounPhrase(liked, "", bool(liked.en_plural)) if liked else None
        return replace(part, likes=True, obj=some)
    part = _timed(draw, part, brief)
    if brief or kein:
        return part
    manners = [one for one in MANNERS if one.en in _MANNERS.get(verb.de, ())]
    manners = [one for one in manners if one.en != "together" or is_plural(part.subj)]
    person = not isinstance(part.subj, NounPhrase) or "person" in part.subj.noun.tags
    if manners and draw.chance(0.3):
        part = replace(part, manner=draw.pick(manners))
    elif verb.de in _COMPANY and person and draw.chance(0.3):
        other = target(draw, frozenset({"kin", "person", "dog"}), part.subj or PRONOUNS[0], plain=True)
        words = ("with", "mit", "dat") if part.negated or draw.chance(0.75) else ("without", "ohne", "acc")
        part = replace(part, companion=Prepositional(*words, other))
    elif verb.de in _FOR and draw.chance(0.3):
        other = target(draw, frozenset({"person"}), part.subj or PRONOUNS[0], plain=True)
        part = replace(part, companion=Prepositional("for", "für", "acc", other))
    if verb.frame == "none" and part.companion is None and draw.chance(0.5):
        part = replace(part, place=place(draw))
    elif verb.de in ("essen", "trinken", "lesen", "schreiben", "malen", "kochen") and draw.chance(0.25):
        rooms = _tagged("garden", "kitchen", "room", "park", "restaurant", "library", "hotel")
        part = replace(part, place=Prepositional("in", "in", "dat", noun_phrase(draw, rooms, "place")))
    return part


def _timed(draw: Draw, part: Clause, brief: bool) -> Clause:
    """Add a particle (often, already) or a time, which stands in front where the German order would else be doubtful."""
    tense = "modal" if part.modal is not None and part.tense == "present" else part.tense
    fitting = [one for one in PARTICLES if tense in one.tenses and (one.en == "yet") == part.negated]
    if isinstance(part.subj, NounPhrase) and part.subj.det == "no":
        fitting = []  # "no man never": two negations
    if part.modal is None and fitting and draw.chance({"habit": 0.6, "perfect": 0.35}.get(tense, 0.1)):
        return replace(part, particle=draw.pick(fitting))
    times = [time for time in TIMES if tense in time.tenses]
    if not times or not (tense == "habit" or draw.chance(0.45)):
        return part
    settled = [one for one in (part.obj, part.iobj) if one is not None and not isinstance(one, Pronoun)]
    front = part.verb.frame == "both" or (part.negated and settled)
    if front and brief:
        return part
    return replace(part, time=draw.pick(times), front="time" if front or (not brief and draw.chance(0.3)) else "subj")


def state(draw: Draw, subj: Phrase | None = None, tenses: Sequence[str] = ("present", "past", "future")) -> Clause:
    """Draw a clause with `be`: an adjective, a comparison or a trade."""
    be = german_verb("sein")
    negated = draw.chance(0.15)
    tense = draw.weighted({"present": 60.0, "past": 35, "future": 8})
    tense = tense if tense in tenses else tenses[0]
    if subj == Pronoun(2) and tense == "past":
        tense = "present" if "present" in tenses else tense
    person = subj is not None
    if subj is None:
        person = draw.chance(0.6)
        subj = subject(
            draw, frozenset({"person"} if person else {"animal", "thing", "building", "food", "drink"}), negated
        )
    tags = subj.noun.tags if isinstance(subj, NounPhrase) else frozenset({"person"})
    fitting = [one for one in ADJECTIVES if one.tags & tags and not (isinstance(subj, NounPhrase) and subj.adjectives)]
    if isinstance(subj, NounPhrase) and subj.det == "no":
        subj = replace(subj, det="the")
    job = draw.pick(_tagged("job"))
    masculine = subj == PRONOUNS[2] or (isinstance(subj, Name) and subj.gender == "m")
    if masculine and not negated and draw.chance(0.3):
        return Clause(be, subj, tense, predicate=Predicate(job=job))
    if not fitting:
        bare = replace(subj, adjectives=()) if isinstance(subj, NounPhrase) else subj
        return state(draw, bare, tenses) if bare != subj else clause(draw, frames=("bare",))
    adjective = draw.pick(fitting)
    predicate = Predicate(adjective)
    rivals = [noun for noun in NOUNS if noun.kind in tags and adjective.tags & noun.tags and noun not in _nouns(subj)]
    if rivals and adjective.de_comp and draw.chance(0.3):
        degree = "comp" if draw.chance(0.7) else "as"
        rival = NounPhrase(draw.pick(rivals), "the", not person and is_plural(subj))
        rival = rival if rival.noun.en_plural else replace(rival, plural=False)
        predicate = Predicate(adjective, degree, rival)
    times = [
        time for time in TIMES if time.en in ("today", "now", "yesterday", "last week", "soon") and tense in time.tenses
    ]
    passing = adjective.en in ("tired", "hungry", "sick", "happy", "sad") and predicate.degree == "base"
    if passing and times and draw.chance(0.4):
        time = draw.pick(times)
        return Clause(be, subj, tense, None, negated, time=time, predicate=predicate, front=draw.pick(("subj", "time")))
    return Clause(be, subj, tense, None, negated, predicate=predicate)
