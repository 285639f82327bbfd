"""What a chapter claims, checked against its own measurements, and its results file.

A claim holds when its whole 95% interval lies on the right side of the bound, and it must fail on
the chapter's sabotaged twin: a check that cannot fail says nothing.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from IPython.display import display

from .._tables import table
from .._validate import one_of, positive_int
from .intervals import Interval, numbers
from .provenance import provenance
from .run_mode import mode, seed_offset

_CHAPTER = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
_CLAIM = {"claim", "estimate", "low", "high", "bound", "holds"}
_ARM = {"success", "steps", "seconds"}


class ClaimError(RuntimeError):
    """A claim does not hold, or a sabotaged twin passes."""


@dataclass(frozen=True)
class _Claim:
    text: str
    interval: Interval
    bound: float
    is_floor: bool  # at_least; else at_most

    def __post_init__(self) -> None:
        if not (isinstance(self.interval, Interval) and isfinite(self.bound)):
            raise ValueError(f"claim {self.text!r} needs an Interval and a finite bound.")

    @property
    def holds(self) -> bool:
        if self.is_floor:
            return self.interval.low >= self.bound
        return self.interval.high <= self.bound

    @property
    def limit(self) -> str:
        return f"{'≥' if self.is_floor else '≤'} {self.bound:g}"

    def entry(self) -> dict[str, Any]:
        ends = {name: _short(getattr(self.interval, name)) for name in ("estimate", "low", "high")}
        return {"claim": self.text, **ends, "bound": _short(self.bound), "holds": bool(self.holds)}


class Claims:
    """The claims of one chapter, for example `Claims("reward/reward_design_with_llms")`.

    A cell that runs again replaces what it said before.
    """

    def __init__(self, chapter: str) -> None:
        if not (isinstance(chapter, str) and _CHAPTER.fullmatch(chapter)):
            raise ValueError(f"a chapter is named like 'foundations/the_lab', not {chapter!r}.")
        self.chapter = chapter
        self._claims: dict[str, _Claim] = {}
        self._twins: dict[str, _Claim] = {}
        self._arms: dict[str, dict[str, Any]] = {}

    def arm(self, name: str, success: Any, steps: int, seconds: float) -> None:
        """Record an arm: success [seeds] or [seeds, episodes], steps of a seed, training seconds.

        Raises:
            ValueError: success is not in [0, 1], or steps or seconds are below zero.
        """
        rates = numbers(success, f"success of {name!r}", (1, 2))
        if rates.min() < 0 or rates.max() > 1:
            raise ValueError(f"success of {name!r} must lie in [0, 1].")
        if not seconds >= 0:
            raise ValueError(f"seconds of {name!r} must not be negative, not {seconds!r}.")
        self._arms[name] = {
            "success": [round(float(rate), 4) for rate in rates.reshape(len(rates), -1).mean(1)],
            "steps": positive_int(steps, f"steps of {name!r}", least=0),
            "seconds": _short(seconds, digits=2),
        }

    def at_least(self, text: str, interval: Interval, bound: float) -> None:
        """Claim that the quantity is at least `bound`: the interval's low end must be."""
        self._claims[text] = _Claim(text, interval, float(bound), is_floor=True)

    def at_most(self, text: str, interval: Interval, bound: float) -> None:
        """Claim that the quantity is at most `bound`: the interval's high end must be."""
        self._claims[text] = _Claim(text, interval, float(bound), is_floor=False)

    def fails_on_twin(self, text: str, interval: Interval) -> None:
        """The same claim, measured on the sabotaged twin: there it must not hold.

        Raises:
            ValueError: no earlier claim has this text.
        """
        claim = self._claims[one_of(text, self._claims, "claim")]
        self._twins[text] = _Claim(text, interval, claim.bound, claim.is_floor)

    def check(self) -> None:
        """Show every claim, write the results file, stop the run if a claim fails.

        Smoke mode says that it draws no conclusion, and neither judges nor writes.

        Raises:
            ClaimError: one line: claims that fail, twins that pass, or no claim with a twin.
        """
        if not self._twins:
            raise ClaimError(f"{self.chapter} needs at least one claim that fails on a twin.")
        if mode() == "smoke":
            print("Smoke mode draws no conclusion: its runs are too short for claims.")
            return
        display(self._table())
        self._write()
        failing = [claim for claim in self._claims.values() if not claim.holds]
        passing = [twin for twin in self._twins.values() if twin.holds]
        wrong = [f"{c.text!r} does not hold: {c.interval}, claimed {c.limit}" for c in failing]
        wrong += [f"{t.text!r} holds on the sabotaged twin too: {t.interval}" for t in passing]
        if wrong:
            raise ClaimError(f"{self.chapter}: {'; '.join(wrong)}.")

    def _table(self) -> Any:
        heads = ("claim", "measured [95%]", "bound", "holds")
        return table(
            [
                dict(zip(heads, (prefix + c.text, c.interval, c.limit, c.holds), strict=True))
                for prefix, group in (("", self._claims), ("sabotaged twin: ", self._twins))
                for c in group.values()
            ]
        )

    def _write(self) -> None:
        result = {
            "chapter": self.chapter,
            "mode": mode(),
            "seed": seed_offset(),
            "claims": [claim.entry() for claim in self._claims.values()],
            "twins": [twin.entry() for twin in self._twins.values()],
            "arms": self._arms,
            "provenance": provenance(),
        }
        path = _results_folder() / (self.chapter.replace("/", "-") + ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        # A reader never sees half a file, even if this process dies here.
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            draft.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _short(number: float, digits: int = 4) -> float:
    """Rounded to significant digits, so that a new run changes few of them."""
    return float(f"{number:.{digits}g}")


def _results_folder() -> Path:
    if os.environ.get("DUALITY_RESULTS"):
        return Path(os.environ["DUALITY_RESULTS"])
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "book" / "_config.yml").is_file():
            return folder / "book" / "results"
    return here / "results"


def read_results(path: str | Path) -> dict[str, Any]:
    """The results file of a chapter.

    Raises:
        ValueError: one line that says which chapter to execute again: the file is missing, is not
            JSON, or lacks a field.
    """
    chapter = Path(path).stem.replace("-", "/", 1)
    again = f"Run that chapter again: make execute CHAPTER={chapter}"
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        is_whole = (
            result["chapter"] == chapter
            and {"mode", "seed", "claims", "twins", "provenance"} <= result.keys()
            and all(entry.keys() >= _CLAIM for entry in result["claims"] + result["twins"])
            and all(arm.keys() >= _ARM for arm in result["arms"].values())
        )
    except FileNotFoundError:
        raise ValueError(f"There are no results of {chapter}. {again}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"The results of {chapter} are damaged or incomplete. {again}")
    return result
