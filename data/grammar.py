#!/usr/bin/env python3
"""Makes a small English-German corpus with real grammar, for trying out training without a download.

    python data/grammar.py OUT_DIR [--train 40000] [--valid 500] [--test 500] [--seed 1]

writes train, valid and test (.en and .de). Every English sentence has one German one, no sentence of either language
occurs twice, and the seed alone decides every byte. What a model can learn here: agreement in gender, number and case;
adjective endings; verb-second and verb-final order; participles, infinitives and separable prefixes at the end; nicht
and kein; relative clauses; two-way prepositions. This file draws whole sentences from the clauses of `clauses.py`.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import english
import german
from clauses import PRONOUNS, Draw, clause, noun_phrase, state, subject
from lexicon import NAMES, NOUNS, VERBS, Adverbial
from lexicon import verb as german_verb
from syntax import Clause, Name, NounPhrase, Phrase, Prepositional, Pronoun, Relative, Who, is_plural, sentence

Pair = tuple[str, str]
_PERSON = frozenset({"person"})
MAX_WORDS = 25
ALL_TENSES = ("present", "past", "perfect", "future", "modal", "habit")


def statement(part: Clause) -> Pair:
    """Say a clause as a sentence of its own."""
    return sentence(english.clause(part)), sentence(german.main(part))


def question(part: Clause) -> Pair:
    """Ask a clause: yes or no with the front "", else after the question word in front."""
    return sentence(english.clause(part, question=True), "?"), sentence(german.main(part), "?")


def complex_sentence(first: Clause, conjunction: tuple[str, str], second: Clause, reverse: bool = False) -> Pair:
    """Say a main clause and a subordinate one after it or, `reverse`, before it."""
    en, de = conjunction
    lower_en = [*([en] if en else []), *english.clause(second)]
    lower_de = german.subordinate(second, de)
    if reverse:
        first = replace(first, front="subj")
        return (
            sentence([*lower_en, ",", *english.clause(first)]),
            sentence([*lower_de, ",", *german.main(first, "")]),
        )
    return sentence([*english.clause(first), *lower_en]), sentence([*german.main(first), ",", *lower_de])


def compound_sentence(first: Clause, conjunction: tuple[str, str], second: Clause) -> Pair:
    """Join two main clauses; before `but` stands a comma in both languages."""
    en, de = conjunction
    comma = [","] if en == "but" else []
    return (
        sentence([*english.clause(first), *comma, en, *english.clause(second)]),
        sentence([*german.main(first), *comma, de, *german.main(second)]),
    )


def purpose_sentence(first: Clause, purpose: Clause) -> Pair:
    """Say a main clause and what it is done for: um ... zu."""
    return (
        sentence([*english.clause(first), *english.infinitive(purpose)]),
        sentence([*german.main(first), ",", *german.infinitive(purpose)]),
    )


def _simple(draw: Draw) -> Pair:
    return statement(clause(draw))


def _state(draw: Draw) -> Pair:
    return statement(state(draw))


def _yes_no(draw: Draw) -> Pair:
    part = clause(draw) if draw.chance(0.8) else state(draw)
    never = part.particle is not None and part.particle.en == "never"
    if part.negated or never or (isinstance(part.subj, NounPhrase) and part.subj.det == "no"):
        return statement(part)
    time = part.time if part.verb.frame != "both" else None
    return question(replace(part, front="", time=time))


def _asked(draw: Draw, tenses: tuple[str, ...] = ALL_TENSES) -> Clause:
    """A clause whose front is a question word."""
    part = replace(_askable(draw, tenses), front="subj")
    adverbs = [("time", Adverbial("why", "warum"))]
    if part.time is None and part.particle is None and part.tense != "perfect":
        adverbs.append(("time", Adverbial("when", "wann")))
    if part.goal is not None and part.verb.frame == "goal":
        adverbs = [("goal", Adverbial("where", "wohin"))]
    elif part.place is not None or (part.verb.frame == "none" and part.particle is None):
        adverbs = [("place", Adverbial("where", "wo"))]
    kinds = ["adverb"] + ["subj"] * ("person" in part.verb.subj) + ["obj"] * (part.obj is not None) * 2
    kinds += ["iobj"] * (part.iobj is not None and part.verb.frame == "dat")
    kind = draw.pick(kinds)
    if kind == "adverb":
        slot, word = draw.pick(adverbs)
        return replace(part, **{slot: word}, front=slot)  # type: ignore[arg-type]
    asked: Phrase = Who()
    given = part.obj if kind == "obj" else None
    if isinstance(given, NounPhrase):
        thing = "person" not in given.noun.tags
        asked = NounPhrase(given.noun, "which", given.plural) if draw.chance(0.5) else Who(thing)
    elif kind == "subj" and draw.chance(0.4):
        people = [one for one in NOUNS if one.tags & part.verb.subj & _PERSON]
        asked = NounPhrase(draw.pick(people), "which", draw.chance(0.3))
    return replace(part, **{kind: asked}, front=kind)  # type: ignore[arg-type]


def _askable(draw: Draw, tenses: tuple[str, ...]) -> Clause:
    """A clause in one of the tenses that a question may be made of: nothing in it denies."""
    while True:
        part = clause(draw, tenses, brief=True)
        universal = isinstance(part.subj, NounPhrase) and part.subj.det in ("no", "every")
        never = part.particle is not None and part.particle.en == "never"
        if not (part.negated or part.likes or universal or never or (tenses == ("past",) and part.tense != "past")):
            return part


def _wh(draw: Draw) -> Pair:
    return question(_asked(draw))


def _thinker(draw: Draw, frame: str) -> Clause:
    verb = draw.pick([verb for verb in VERBS if frame in verb.frame.split("+")])
    subj = subject(draw, _PERSON, plain=True)
    tense = "past" if draw.chance(0.3) and subj != Pronoun(2) else "present"
    negated = verb.de == "wissen" and frame == "ask" and draw.chance(0.6)
    return Clause(verb, subj, tense, negated=negated)


def _that(draw: Draw) -> Pair:
    thinker = _thinker(draw, "that")
    tenses = ("past",) if thinker.tense == "past" else ALL_TENSES
    part = clause(draw, tenses, brief=True) if draw.chance(0.7) else state(draw, tenses=tenses)
    while thinker.tense == "past" != part.tense:
        part = clause(draw, tenses, brief=True)
    return complex_sentence(thinker, ("that", "dass"), replace(part, front="subj"))


def _whether(draw: Draw) -> Pair:
    thinker = _thinker(draw, "ask")
    tenses = ("past",) if thinker.tense == "past" else ALL_TENSES
    if draw.chance(0.5):
        return complex_sentence(thinker, ("", ""), _asked(draw, tenses))
    return complex_sentence(thinker, ("whether", "ob"), replace(_askable(draw, tenses), front="subj"))


def _echo(draw: Draw, subj: Phrase | None) -> Phrase:
    """The pronoun that takes a subject up again, where both languages have the same; else somebody else."""
    if isinstance(subj, Pronoun):
        return subj
    if is_plural(subj):
        return Pronoun(3, plural=True)
    if isinstance(subj, Name):
        return Pronoun(3, gender=subj.gender)
    if isinstance(subj, NounPhrase) and "person" in subj.noun.tags and subj.noun.gender != "n":
        return Pronoun(3, gender=subj.noun.gender)
    return draw.pick(PRONOUNS)


def _because(draw: Draw) -> Pair:
    first = clause(draw, ("present", "past", "perfect"), subject(draw, _PERSON, plain=True), brief=True)
    past = first.tense != "present"
    times = ("past",) if past else ("present",)
    who = _echo(draw, first.subj)
    if who == Pronoun(2) and past:
        times = ("present",)
    second = (
        state(draw, who, times)
        if draw.chance(0.6)
        else clause(draw, times if past else ("present", "modal"), who, brief=True)
    )
    conjunction = draw.pick((("because", "weil"), ("although", "obwohl")))
    second = replace(second, time=None, front="subj")
    return complex_sentence(first, conjunction, second, reverse=draw.chance(0.35))


def _if(draw: Draw) -> Pair:
    first = clause(draw, ("habit", "future", "modal"), subject(draw, _PERSON, plain=True), brief=True)
    first = first if first.tense != "past" else replace(first, tense="present")
    first = replace(first, time=None, front="subj", likes=False)
    if draw.chance(0.3):
        second = Clause(german_verb(draw.pick(("regnen", "schneien"))), Pronoun(3, gender="n"), "habit")
    elif draw.chance(0.5):
        second = replace(state(draw, _echo(draw, first.subj), ("present",)), time=None)
    else:
        second = replace(clause(draw, ("habit",), brief=True), tense="habit", particle=None, time=None, likes=False)
    return complex_sentence(first, ("if", "wenn"), replace(second, front="subj"), reverse=draw.chance(0.5))


def _when(draw: Draw) -> Pair:
    first = clause(draw, ("past",), draw.pick([one for one in PRONOUNS if one.person != 2]), brief=True)
    who = subject(draw, _PERSON, plain=True)
    second = clause(draw, ("past",), Name(*draw.pick(NAMES)) if who == Pronoun(2) else who, brief=True)
    parts = [replace(part, time=None, front="subj", modal=None, likes=False, particle=None) for part in (first, second)]
    return complex_sentence(parts[0], ("when", "als"), replace(parts[1], negated=False), reverse=draw.chance(0.5))


def _relative(draw: Draw) -> Pair:
    """A subject with a relative clause, and what it does."""
    head = noun_phrase(draw, [one for one in NOUNS if one.tags & _PERSON], "subj", plain=True)
    head = replace(head, det="the")
    gap = Relative(head.noun, head.plural)
    kind = draw.weighted({"subj": 40.0, "obj": 30, "iobj": 30})
    if kind == "subj":
        part = clause(draw, ("present", "past", "perfect"), gap, brief=True)
    else:
        part = clause(draw, ("present", "past"), frames=("acc",) if kind == "obj" else ("dat",), brief=True)
        while "person" not in part.verb.obj & part.verb.subj or getattr(part.subj, "noun", None) == head.noun:
            part = clause(draw, ("present", "past"), frames=("acc",) if kind == "obj" else ("dat",), brief=True)
        part = replace(part, **{kind: gap})  # type: ignore[arg-type]
    part = replace(part, front=kind, time=None, likes=False)
    head = replace(head, relative=part)
    verb_phrase = clause(draw, ("present", "past"), head, brief=True) if draw.chance(0.6) else state(draw, head)
    return statement(replace(verb_phrase, front="subj", likes=False))


def _relative_object(draw: Draw) -> Pair:
    """An object with a relative clause at the end: the book that ..., the house in which ..."""
    outer = clause(draw, ("present", "past"), subject(draw, _PERSON, plain=True), frames=("acc",), brief=True)
    while not isinstance(outer.obj, NounPhrase) or outer.verb.prefix or outer.modal is not None or outer.particle:
        outer = clause(draw, ("present", "past"), subject(draw, _PERSON, plain=True), frames=("acc",), brief=True)
    head = replace(outer.obj, det="the")
    gap = Relative(head.noun, head.plural)
    if "in" in head.noun.tags:
        inner = clause(draw, ("present", "past"), frames=("none",), brief=True)
        inner = replace(inner, place=Prepositional("in", "in", "dat", gap), front="place")
    else:
        verbs = [one for one in VERBS if one.frame == "acc" and one.obj & head.noun.tags and one != outer.verb]
        if not verbs:
            return _relative_object(draw)
        inner = Clause(draw.pick(verbs), subject(draw, _PERSON, plain=True), "past", obj=gap, front="obj")
        if inner.subj == Pronoun(2):
            inner = replace(inner, tense="present")
    inner = replace(inner, negated=False, time=None, likes=False, particle=None)
    time = outer.time if outer.front == "time" else None  # at the end it would belong to the relative clause
    return statement(replace(outer, obj=replace(head, relative=inner), time=time, likes=False, negated=False))


def _two_clauses(draw: Draw) -> Pair:
    tense = (draw.pick(("present", "past")),)
    first, second = clause(draw, tense, brief=True), clause(draw, tense, brief=True)
    conjunction = draw.pick((("and", "und"), ("but", "aber")))
    second = replace(second, time=None, front="subj") if second.tense != "habit" else second
    return compound_sentence(first, conjunction, second)


def _purpose(draw: Draw) -> Pair:
    who = subject(draw, _PERSON, plain=True)
    first = replace(clause(draw, ("present", "past", "perfect"), who, frames=("goal",), brief=True), negated=False)
    second = clause(draw, ("present",), who, frames=("acc", "dat", "none"), brief=True)
    while second.verb.flags != "pf":
        second = clause(draw, ("present",), who, frames=("acc", "dat", "none"), brief=True)
    second = replace(second, subj=None, negated=False, time=None, front="", particle=None, likes=False)
    return purpose_sentence(first, second)


_KINDS = {
    _simple: 34.0,
    _state: 10,
    _yes_no: 9,
    _wh: 9,
    _that: 7,
    _whether: 6,
    _because: 7,
    _if: 5,
    _when: 4,
    _relative: 6,
    _relative_object: 5,
    _two_clauses: 4,
    _purpose: 4,
}


def drawn(draw: Draw) -> Pair:
    """Return the next pair; it may have come before, and then with the same German."""
    return draw.weighted(_KINDS)(draw)


def pairs(count: int, seed: int) -> list[Pair]:
    """Return `count` pairs of which no two share a sentence of either language."""
    draw = Draw(seed)
    english_seen: set[str] = set()
    german_seen: set[str] = set()
    result: list[Pair] = []
    while len(result) < count:
        en, de = drawn(draw)
        if en in english_seen or de in german_seen or max(en.count(" "), de.count(" ")) >= MAX_WORDS:
            continue
        english_seen.add(en)
        german_seen.add(de)
        result.append((en, de))
    return draw.shuffled(result)  # the later of the drawn ones are longer, since short sentences run out


def write(out: Path, splits: dict[str, list[Pair]]) -> None:
    """Write every split as two files of lines, each beside its name and renamed."""
    out.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        for side, language in enumerate(("en", "de")):
            path = out / f"{split}.{language}"
            part = path.with_name(path.name + ".part")
            with open(part, "wb") as file:
                file.write("".join(row[side] + "\n" for row in rows).encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)


def main() -> int:
    """Make the corpus and say what was made."""
    parser = argparse.ArgumentParser(description="Make a small English-German corpus with real grammar.")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    for split, count in (("train", 40000), ("valid", 500), ("test", 500)):
        parser.add_argument(f"--{split}", type=int, default=count, metavar="N", help="pairs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides every sentence (default: %(default)s)")
    args = parser.parse_args()
    if min(args.train, args.valid, args.test) < 0:
        parser.error("a number of pairs cannot be negative")
    made = pairs(args.train + args.valid + args.test, args.seed)
    valid, test = made[: args.valid], made[args.valid : args.valid + args.test]
    write(args.out_dir, {"train": made[args.valid + args.test :], "valid": valid, "test": test})
    forms = {word.strip(",.?") for _, de in made for word in de.split()}
    print(
        f"grammar: {args.train} train, {args.valid} valid and {args.test} test pairs in {args.out_dir}, "
        f"{len(forms)} German word forms, seed {args.seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
