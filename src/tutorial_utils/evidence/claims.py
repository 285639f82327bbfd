"""What a chapter claims, checked against its own measurements, and its results file.

A claim holds when its whole 95% interval lies on the right side of the bound. It fails when the
whole interval lies on the wrong side, which it must on the chapter's sabotaged twin: a check that
cannot fail says nothing. In between, nobody can tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from IPython.display import display

from .._settings import setting
from .._tables import table
from .._validate import one_of, positive_int
from .intervals import Interval, numbers
from .provenance import provenance
from .results import results_folder
from .run_mode import mode, seed_offset

_CHAPTER = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
HOLDS, FAILS, OPEN = "holds", "fails", "cannot tell"


class ClaimError(RuntimeError):
    """A claim does not hold, or a sabotaged twin does not fail."""


@dataclass(frozen=True)
class _Claim:
    text: str
    interval: Interval
    bound: float
    is_floor: bool  # at_least; else at_most
    is_twin: bool = False
    no_twin: str = ""  # why it needs none

    def __post_init__(self) -> None:
        if not (isinstance(self.interval, Interval) and isfinite(self.bound)):
            raise ValueError(f"claim {self.text!r} needs an Interval and a finite bound.")

    @property
    def verdict(self) -> str:
        """One of HOLDS, FAILS and OPEN."""
        low, high = self.interval.low, self.interval.high
        above, below = low >= self.bound, high <= self.bound
        if above if self.is_floor else below:
            return HOLDS
        return FAILS if (below if self.is_floor else above) else OPEN

    @property
    def is_right(self) -> bool:
        """A claim holds, and a twin fails."""
        return self.verdict == (FAILS if self.is_twin else HOLDS)

    @property
    def limit(self) -> str:
        return f"{'≥' if self.is_floor else '≤'} {self.bound:g}"

    @property
    def name(self) -> str:
        return f"sabotaged twin: {self.text}" if self.is_twin else self.text

    def entry(self) -> dict[str, Any]:
        ends = _ends(self.interval)
        side = "at least" if self.is_floor else "at most"
        answer = {"verdict": self.verdict, "holds": self.verdict == HOLDS}
        reason = {"no_twin": self.no_twin} if self.no_twin else {}
        bound = {"bound": _short(self.bound), "side": side}
        return {"claim": self.text, **ends, **bound, **answer, **reason}


class Claims:
    """The claims of one chapter, for example `Claims("reward/reward_design_with_llms")`.

    A cell that runs again replaces what it said before.
    """

    def __init__(self, chapter: str) -> None:
        if not (isinstance(chapter, str) and _CHAPTER.fullmatch(chapter)):
            raise ValueError(f"a chapter is named like 'foundations/the_lab', not {chapter!r}.")
        self.chapter = chapter
        self._claims: dict[str, _Claim] = {}
        self._twins: dict[str, Interval] = {}
        self._reports: dict[str, Interval] = {}
        self._arms: dict[str, dict[str, Any]] = {}

    def arm(
        self,
        name: str,
        success: Any,
        steps: int,
        seconds: float,
        *,
        task: str,
        data: str = "",
        chunk: int = 1,
        model_seconds: float = 0.0,
        model_calls: int = 0,
    ) -> None:
        """Record what an arm reached and at which price, for comparisons over chapters.

        Args:
            success: [seeds] or [seeds, episodes], in [0, 1].
            steps: environment steps that one seed has practised.
            seconds: of training one seed.
            task: what it was tested on.
            data: what else it has learnt from, in words ("48 demonstrations, shaky hand").
            chunk: actions it executes before it looks again.
            model_seconds, model_calls: seconds in, and calls of, a generative model that helps it
                and is not the policy; they are not in `seconds`.

        Raises:
            ValueError: success is not in [0, 1], or a number is below zero.
        """
        spent = {"seconds": seconds, "model_seconds": model_seconds}
        counts = {"steps": steps, "model_calls": model_calls}
        self._arms[name] = {
            "success": _rates(success, f"success of {name!r}"),
            **{key: _seconds(x, f"{key} of {name!r}") for key, x in spent.items()},
            **{key: positive_int(x, f"{key} of {name!r}", least=0) for key, x in counts.items()},
            "task": task,
            "data": data,
            "chunk": positive_int(chunk, f"chunk of {name!r}"),
        }

    def at_least(self, text: str, interval: Interval, bound: float, no_twin: str = "") -> None:
        """Claim that the quantity is at least `bound`: the interval's low end must be.

        Args:
            no_twin: why no sabotaged twin is needed, for a claim without one.
        """
        self._claims[text] = _Claim(text, interval, float(bound), is_floor=True, no_twin=no_twin)

    def at_most(self, text: str, interval: Interval, bound: float, no_twin: str = "") -> None:
        """Claim that the quantity is at most `bound`: the interval's high end must be."""
        self._claims[text] = _Claim(text, interval, float(bound), is_floor=False, no_twin=no_twin)

    def report(self, text: str, interval: Interval) -> None:
        """A measurement that stands beside the claims, and that nothing is claimed of."""
        if not isinstance(interval, Interval):
            raise ValueError(f"the report {text!r} needs an Interval.")
        self._reports[text] = interval

    def fails_on_twin(self, text: str, interval: Interval) -> None:
        """The same claim, measured on the sabotaged twin: its whole interval must miss the bound.

        Raises:
            ValueError: no earlier claim has this text.
        """
        claim = self._claims[one_of(text, self._claims, "claim")]
        replace(claim, interval=interval)  # is it an interval?
        self._twins[text] = interval

    def check(self) -> None:
        """Show every claim with its answer, then write the results file.

        A reader's run goes on after a claim that does not hold: rounding differs between
        processors, and a rare seed may too. The author's tools set `DUALITY_STRICT=1`, which stops
        the run. Smoke mode says that it draws no conclusion, and neither judges nor writes.

        Raises:
            ClaimError: a claim has neither a twin nor a reason to have none; where strict, what
                is wrong, in one line.
        """
        for text, claim in self._claims.items():
            if text not in self._twins and not claim.no_twin:
                raise ClaimError(f"{text!r} needs a twin that fails, or no_twin= with the reason.")
        if mode() == "smoke":
            print("Smoke mode draws no conclusion: its runs are too short for claims.")
            return
        every = [*self._claims.values(), *self._checked_twins()]
        heads = ("claim", "measured [95%]", "bound", "holds")
        rows = [(c.name, c.interval, c.limit, _answer(c)) for c in every]
        rows += [(text, interval, "", "reported") for text, interval in self._reports.items()]
        alarms = [i for i, c in enumerate(every) if not c.is_right]
        shown = table([dict(zip(heads, row, strict=True)) for row in rows], alarms)
        display(shown)  # type: ignore[no-untyped-call]
        self._write()
        wrong = [f"{c.name!r} {c.verdict}: {c.interval}, claimed {c.limit}" for c in every]
        wrong = [wrong[i] for i in alarms]
        if wrong and setting("DUALITY_STRICT") == "1":
            raise ClaimError(f"{self.chapter}: {'; '.join(wrong)}.")
        if wrong:
            print(
                f"{len(wrong)} of {len(every)} checks came out otherwise than in the book. Other "
                "seeds or another processor can do that; the exercises do not need them."
            )

    def _checked_twins(self) -> list[_Claim]:
        """Each twin with the bound that its claim has now."""
        return [
            replace(self._claims[text], interval=interval, is_twin=True, no_twin="")
            for text, interval in self._twins.items()
        ]

    def _write(self) -> None:
        """Write the results file; where that cannot be, warn in one line and go on."""
        result = {
            "chapter": self.chapter,
            "mode": mode(),
            "seed": seed_offset(),
            "claims": [claim.entry() for claim in self._claims.values()],
            "twins": [twin.entry() for twin in self._checked_twins()],
            "reports": [{"report": x, **_ends(i)} for x, i in self._reports.items()],
            "arms": self._arms,
            "provenance": provenance(),
        }
        path = results_folder() / (self.chapter.replace("/", "-") + ".json")
        # A reader never sees half a file, even if this process dies here.
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(draft, path)
        except OSError as error:
            problem = f"the results were not written ({error.strerror or error}): set"
            warnings.warn(f"{problem} DUALITY_RESULTS to a folder that can be.", stacklevel=3)
        finally:
            _remove(draft)


def _answer(claim: _Claim) -> str:
    """What the table says: "yes", "no" or "cannot tell"."""
    return {HOLDS: "yes", FAILS: "no"}.get(claim.verdict, claim.verdict)


def _rates(success: Any, what: str) -> list[float]:
    """One rate for each seed."""
    rates = numbers(success, what, (1, 2))
    if rates.min() < 0 or rates.max() > 1:
        raise ValueError(f"{what} must lie in [0, 1].")
    return [round(float(rate), 4) for rate in rates.reshape(len(rates), -1).mean(1)]


def _seconds(spent: float, what: str) -> float:
    if not (spent >= 0 and isfinite(spent)):
        raise ValueError(f"{what} must be 0 or more and finite, not {spent!r}.")
    return _short(spent, digits=2)


def _ends(interval: Interval) -> dict[str, float]:
    return {name: _short(getattr(interval, name)) for name in ("estimate", "low", "high")}


def _remove(draft: Path) -> None:
    with contextlib.suppress(OSError):
        draft.unlink()


def _short(number: float, digits: int = 4) -> float:
    """Rounded to significant digits, so that a new run changes few of them."""
    return float(f"{number:.{digits}g}")
