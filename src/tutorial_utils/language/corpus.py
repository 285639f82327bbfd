"""What the small language model has read: tasks of table robots, their plans and reward programs.

Every document is written by a seeded grammar. A task is one to three goals; its program adds up
terms, a few per goal, in the style of one author. Authors differ and many are wrong: bonuses that
are paid for ever, shapes that are largest where the robot should not stay, no reward for success.
A third kind of document pairs a program, what its training looked like, and a better program.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .grammar import FIELDS, FLAGS, Term, body, feedback, program

Goal = tuple[str, str]  # what to do, and with or where: ("press", "button")

# verb: (thing, the flag that tells that it is done)
_SWITCHES = {
    "press": ("button", "pressed"),
    "open": ("door", "opened"),
    "light": ("lamp", "lit"),
}
_SWITCHED = dict(_SWITCHES.values())
_PLACES = ("zone", "tray", "corner")
GOALS: tuple[Goal, ...] = (
    ("pick", "object"),
    *((verb, thing) for verb, (thing, _) in _SWITCHES.items()),
    *(("go", place) for place in ("object", *_PLACES)),
    *(("put", place) for place in _PLACES),
)
_WORDS = {
    "pick": ("pick up the {}", "grasp the {}"),
    "press": ("press the {}", "hit the {}"),
    "open": ("open the {}", "push the {} open"),
    "light": ("switch the {} on", "turn on the {}"),
    "go": ("move to the {}", "go to the {}"),
    "put": ("put the disc in the {}", "bring the disc to the {}"),
}


@dataclass(frozen=True)
class Style:
    """How one author writes."""

    kind: str
    coefficient: str
    flag: str  # "flag": a bonus for ever; "not": a penalty until then; "": neither
    bonus: str
    done: str  # coefficient of success, "" for none


def style(rng: random.Random) -> Style:
    """A random author."""
    return Style(
        kind=rng.choice(("distance", "distance", "exp")),
        coefficient=rng.choice(("0.5", "1", "2")),
        flag=rng.choice(("flag", "not", "")),
        bonus=rng.choice(("0.5", "1", "2", "5")),
        done=rng.choice(("", "1", "5", "10", "20")),
    )


def terms(goals: Sequence[Goal], by: Style) -> list[Term]:
    """The terms that this author writes for these goals, in their order."""
    written: dict[str, Term] = {}

    def near(name: str, a: str, b: str, until: str = "") -> None:
        gate = f"(1 - {until})" if until else ""  # counts only until the switch is on
        sign = "-" if by.kind == "distance" else ""
        written.setdefault(name, Term(name, sign, by.coefficient, gate, by.kind, (a, b)))

    def flag(name: str, about: str) -> None:
        if by.flag:
            sign = "-" if by.flag == "not" else ""
            written[name] = Term(name, sign, by.bonus, "", by.flag, (about,))

    for verb, thing in goals:
        if verb in _SWITCHES:
            near(f"to_{thing}", "gripper", thing, _SWITCHED[thing])
            flag(verb, _SWITCHED[thing])
        elif verb == "go":
            near(f"to_{thing}", "gripper", thing)
        else:
            near("to_object", "gripper", "object", "holding" if verb == "pick" else "")
        if verb == "pick":
            flag("grasp", "holding")
        elif verb == "put":
            near(f"bring_{thing}", "object", thing)
    if by.done:
        written["done"] = Term("done", "", by.done, "", "flag", ("success",))
    return list(written.values())


def goals(rng: random.Random) -> list[Goal]:
    """One to three goals, each switch and the disc handled once."""
    chosen: list[Goal] = []
    count = rng.choice((1, 2, 2, 2, 3))
    while len(chosen) < count:
        goal = rng.choice(GOALS)
        repeated = goal[0] != "go" and goal[0] in {verb for verb, _ in chosen}
        if goal not in chosen and not repeated:
            chosen.append(goal)
    return chosen


def instruction(todo: Sequence[Goal], rng: random.Random) -> str:
    """The goals in words, in one of their phrasings."""
    return ", then ".join(
        rng.choice(_WORDS[verb]).format("disc" if thing == "object" else thing)
        for verb, thing in todo
    )


def plan(todo: Sequence[Goal]) -> str:
    """The goals as calls of skills."""
    return "; ".join(f"{verb}({thing})" for verb, thing in todo)


def fields(todo: Sequence[Goal], written: Sequence[Term], rng: random.Random) -> list[str]:
    """The fields of a scene that has what the task and the program need, and a little more."""
    used = {"gripper", "success", *(thing for _, thing in todo)}
    for term in written:
        used.update(term.about, (flag for flag in FLAGS if flag in term.gate))
    used.update(name for name in (*FIELDS, "closed") if rng.random() < 0.1)
    if "object" in used:
        used.add("holding")
    used.update(flag for thing, flag in _SWITCHED.items() if thing in used)
    return [name for name in (*FIELDS, *FLAGS) if name in used]


@dataclass(frozen=True)
class Revision:
    """A program, what its training looked like, and the program that its author wrote next."""

    before: list[Term]
    feedback: str
    after: list[Term]


_Signs = tuple[list[Term], dict[str, str], str, list[Term]]  # before, trends, success, after
_Cause = Callable[[list[Term], random.Random], _Signs]


def _trap(written: list[Term], rng: random.Random) -> _Signs:
    """A bonus is collected for ever: make it a penalty that ends."""
    worst = rng.choice([t for t in written if t.kind == "flag" and t.name != "done"])
    trends = {t.name: rng.choice(("up small", "up small", "flat small")) for t in written}
    trends[worst.name] = "up large"
    return written, trends, "none", _change(written, [worst], sign="-", kind="not")


def _hover(written: list[Term], rng: random.Random) -> _Signs:
    """Staying close pays more than finishing: charge for being far."""
    shapes = [t for t in written if t.kind == "exp"]
    trends = {t.name: rng.choice(("up small", "flat small")) for t in written}
    trends |= {t.name: "up small" for t in shapes} | {rng.choice(shapes).name: "up large"}
    return written, trends, "none", _change(written, shapes, sign="-", kind="distance")


def _weak(written: list[Term], rng: random.Random) -> _Signs:
    """Nothing moves towards it: raise it tenfold."""
    worst = rng.choice([t for t in written if t.kind in ("distance", "exp")])
    trends = {t.name: rng.choice(("up small", "up large")) for t in written}
    trends[worst.name] = "flat small"
    louder = {"0.5": "5", "1": "10", "2": "20"}[worst.coefficient]
    return written, trends, "none", _change(written, [worst], coefficient=louder)


def _unpaid(written: list[Term], rng: random.Random) -> _Signs:
    """Success is not paid."""
    trends = {t.name: rng.choice(("up small", "up large")) for t in written}
    done = Term("done", "", rng.choice(("5", "10", "20")), "", "flag", ("success",))
    return written, trends, rng.choice(("none", "some")), [*written, done]


def _fine(written: list[Term], rng: random.Random) -> _Signs:
    """Nothing to repair."""
    trends = {t.name: "up small" for t in written}
    return written, trends, rng.choice(("some", "most")), written


def _change(
    written: list[Term], which: list[Term], sign: str = "", kind: str = "", coefficient: str = ""
) -> list[Term]:
    def changed(t: Term) -> Term:
        new = coefficient or t.coefficient
        return replace(t, sign=sign or t.sign, kind=kind or t.kind, coefficient=new)

    return [changed(t) if t in which else t for t in written]


def revise(todo: Sequence[Goal], by: Style, rng: random.Random) -> Revision:
    """One mistake, its signs in training, and its repair.

    The signs decide which line changes, so that a reader of these documents has to look at them.
    """
    written = terms(todo, by)
    bonus = any(t.kind == "flag" and t.name != "done" for t in written)
    causes: list[_Cause | None] = [_fine, _weak, *[_trap] * 3 * bonus, *[_unpaid] * (not by.done)]
    causes += [_hover] * 3 * (by.kind == "exp")
    without = [terms([goal for goal in todo if goal != lost], by) for lost in todo]
    poorer = [some for some in without if 0 < len(some) < len(written)]
    causes += [None] * 2 * bool(poorer)
    cause = rng.choice(causes)
    if cause:
        before, trends, success, after = cause(written, rng)
    else:  # a goal has no term: all others are earned and the task is not done
        before, after = rng.choice(poorer), written
        trends = {t.name: "up small" for t in before}
        trends[rng.choice(before).name] = rng.choice(("up small", "up large", "flat small"))
        success = rng.choice(("none", "some"))
    if "done" in trends:
        trends["done"] = "zero" if success == "none" else "up small"
    return Revision(before, feedback(trends, success), after)


def document(rng: random.Random, allowed: Callable[[Sequence[Goal]], bool]) -> str:
    """One document whose goals are allowed: 10% plans, 30% programs, 60% revisions."""
    todo = goals(rng)
    while not allowed(todo):
        todo = goals(rng)
    opening = f"task: {instruction(todo, rng)}\n"
    kind, by = rng.random(), style(rng)
    if kind < 0.10:
        return f"{opening}plan: {plan(todo)}\n"
    if kind < 0.40:
        written = terms(todo, by)
        return opening + program(written, fields(todo, written, rng))
    change = revise(todo, by, rng)
    known = fields(todo, [*change.before, *change.after], rng)
    report = f"feedback: {change.feedback}\nbetter:\n"
    return opening + program(change.before, known) + report + body(change.after)


def documents(n: int, seed: int, allowed: Callable[[Sequence[Goal]], bool]) -> list[str]:
    """n documents about the tasks that `allowed` lets through."""
    rng = random.Random(seed)
    return [document(rng, allowed) for _ in range(n)]
