"""The little language of the reward programs that the small model reads and writes.

A program adds up named terms; feedback says of each term how its training looked. Programs can also
be drawn at random: the search without a model that a model has to beat.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FIELDS = ("gripper", "object", "zone", "button", "door", "lamp", "tray", "corner")  # positions
FLAGS = ("closed", "holding", "pressed", "opened", "lit", "success")
COEFFICIENTS = ("0.1", "0.2", "0.5", "1", "2", "5", "10", "20")


@dataclass(frozen=True)
class Term:
    """One line of a program: name = sign coefficient * gate * value."""

    name: str
    sign: str  # "" or "-"
    coefficient: str
    gate: str  # "", a flag, or "(1 - flag)"
    kind: str  # "distance", "exp" of minus twice a distance, "flag" or "not" (1 minus a flag)
    about: tuple[str, ...]  # two positions, or one flag

    def __str__(self) -> str:
        distance = f"distance({', '.join(self.about)})"
        value = {
            "distance": distance,
            "exp": f"exp(-2*{distance})",
            "flag": self.about[0],
            "not": f"(1 - {self.about[0]})",
        }[self.kind]
        gate = f"{self.gate} * " if self.gate else ""
        return f"{self.name} = {self.sign}{self.coefficient} * {gate}{value}"


def program(terms: Sequence[Term], fields: Sequence[str]) -> str:
    """The source of a program with these terms."""
    return header(fields) + body(terms)


def body(terms: Sequence[Term]) -> str:
    """What follows the header."""
    lines = [f"    {term}\n" for term in terms]
    return "".join(lines) + f"    return {' + '.join(term.name for term in terms)}\n"


def header(fields: Sequence[str]) -> str:
    """The first line of a program."""
    return f"def compute_reward({', '.join(fields)}):\n"


def feedback(trends: dict[str, str], success: str) -> str:
    """One line: each term's trend over training and size, and how much success there was.

    A term went "up", "down" or stayed "flat", and is "large" if it makes up most of the reward,
    else "small"; "zero" if it never paid. Success is "none", "some" or "most".
    """
    return ", ".join(f"{name}: {trend}" for name, trend in trends.items()) + f"; success: {success}"


def describe(means: np.ndarray, names: Sequence[str]) -> dict[str, str]:
    """The trend and size of each term, in the words of `feedback`.

    Args:
        means: [T, terms], the mean of each term over the robots, step by step.
    """
    sixth = max(1, len(means) // 6)
    start, end = means[:sixth].mean(0), means[-sixth:].mean(0)  # [terms]
    change = (end - start) / (np.abs(means).max(0) + 1e-9)
    share = np.abs(end) / (np.abs(end).sum() + 1e-9)
    trends = {}
    for i, name in enumerate(names):
        way = "up" if change[i] > 0.1 else "down" if change[i] < -0.1 else "flat"
        size = "large" if share[i] > 0.5 else "small"
        trends[name] = "zero" if share[i] < 0.01 else f"{way} {size}"
    return trends


def random_terms(fields: Sequence[str], rng: random.Random) -> tuple[Term, ...]:
    """Two to six terms about these fields, every part drawn uniformly."""
    places = [name for name in fields if name in FIELDS]
    flags = [name for name in fields if name in FLAGS]
    switches = [name for name in flags if name != "success"]
    gates = ["", "", *switches, *(f"(1 - {flag})" for flag in switches)]
    drawn = []
    for i in range(rng.randint(2, 6)):
        kind = rng.choice(("distance", "exp", "flag", "not"))
        about = rng.sample(places, 2) if kind in ("distance", "exp") else [rng.choice(flags)]
        sign, coefficient = rng.choice(("", "-")), rng.choice(COEFFICIENTS)
        drawn.append(Term(f"term_{i}", sign, coefficient, rng.choice(gates), kind, tuple(about)))
    return tuple(drawn)
