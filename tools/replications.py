"""What replications of a chapter found: `book/results/replications/<section>-<chapter>.json`.

The file lists ranges of seeds in the order in which they were run, and forgets none. A range was
run with one version of the chapter and of the package, which its digests name. It holds one entry
a run, and per claim in how many of its runs the claim held and the mean of their estimates.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from notebooks import Book, NotebookError, load, source_hash
from scipy.special import stdtrit

FRESH, WEEKLY = 10, 1000  # the first seeds of runs by hand and of the weekly ones
MEASURED = ("estimate", "low", "high")
# What the file says of a range.
ENTRY: dict[str, Any] = {
    "first": 0,
    "count": 0,
    "mode": "",
    "complete": False,
    "digests": {},  # of the notebook's code, of the claims' texts and bounds, of the package
    "machine": "",
    "versions": {},
    "seconds": 0.0,
    "claims": [],
    "runs": [],
}


def spelt(first: int, count: int) -> str:
    return f"seed {first}" if count == 1 else f"seeds {first} to {first + count - 1}"


def version(book: Book, name: str) -> dict[str, str]:
    """Names the code that a run of this chapter executes: the notebook's and the package's."""
    digest = hashlib.sha256()
    spec = find_spec("tutorial_utils")
    for folder in spec.submodule_search_locations if spec else []:
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return {"code": source_hash(load(book.path(name))), "package": digest.hexdigest()[:16]}


def verdict(entry: dict[str, Any]) -> str:
    """The verdict on a claim or a twin; older results files only know whether it holds."""
    return entry.get("verdict", "holds" if entry["holds"] else "fails")


def outcome(seed: int, seconds: float, results: dict[str, Any]) -> dict[str, Any]:
    """The entry of a run that ended: what it measured for every claim, and whether that held."""
    twins = {twin["claim"]: verdict(twin) for twin in results["twins"]}
    claims = []
    for claim in results["claims"]:
        twin = twins.get(claim["claim"])
        held = verdict(claim) == "holds" and twin in (None, "fails")
        measured = {key: claim[key] for key in ("claim", *MEASURED)}
        claims.append(measured | {"verdict": verdict(claim), "twin": twin, "held": held})
    return {"seed": seed, "seconds": round(seconds, 1), "claims": claims}


def stated(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims of a results file without what was measured."""
    keys = ("claim", "side", "bound")
    return [{key: claim[key] for key in keys if key in claim} for claim in results["claims"]]


def digest_of(claims: list[dict[str, Any]]) -> str:
    """Names the texts and bounds of claims, in whatever order."""
    pairs = sorted([claim["claim"], float(claim["bound"])] for claim in claims)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def pooled(estimates: list[float]) -> dict[str, float | None]:
    """The mean of the runs' estimates with its 95% t interval; one run alone has no interval."""
    n = len(estimates)
    if n < 2:
        return {"estimate": estimates[0] if n else None, "low": None, "high": None}
    mean, half = fmean(estimates), float(stdtrit(n - 1, 0.975)) * stdev(estimates) / n**0.5
    ends = {"estimate": mean, "low": mean - half, "high": mean + half}
    return {key: float(f"{number:.4g}") for key, number in ends.items()}


def summary(claim: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One claim over the runs of a range; a run that failed did not hold and measured nothing."""
    found = [c for r in runs for c in r.get("claims", []) if c["claim"] == claim["claim"]]
    held = sum(c["held"] for c in found)
    return claim | {"held": held} | pooled([c["estimate"] for c in found])


@dataclass(frozen=True)
class Replications:
    """The replications of one chapter, as they are stored."""

    book: Book
    name: str

    @property
    def path(self) -> Path:
        folder = self.book.root / "book" / "results" / "replications"
        return folder / f"{self.name.replace('/', '-')}.json"

    @cached_property
    def ranges(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            stored = json.loads(self.path.read_text("utf-8"))["ranges"]
            is_whole = all(entry.keys() >= ENTRY.keys() for entry in stored)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            is_whole = False
        if not is_whole:
            shown = self.path.relative_to(self.book.root)
            raise NotebookError(f"{shown} is damaged: restore it from git.")
        return stored

    def begin(self, first: int, count: int, mode: str, again: bool) -> dict[str, Any]:
        """The range to run, new or interrupted.

        Raises:
            NotebookError: these seeds have been used, and `again` is not set.
        """
        now = version(self.book, self.name)
        for old in reversed(self.ranges):
            same = (old["first"], old["count"], old["mode"]) == (first, count, mode)
            if same and not old["complete"] and old["digests"].items() >= now.items():
                return old
        wanted = set(range(first, first + count))
        for old in self.ranges:
            if not again and wanted & set(range(old["first"], old["first"] + old["count"])):
                raise NotebookError(self._refusal(old))
        return ENTRY | {"first": first, "count": count, "mode": mode, "digests": now}

    def _refusal(self, old: dict[str, Any]) -> str:
        """What to do where the seeds of an old range are wanted."""
        seeds = spelt(old["first"], old["count"])
        ends = [r["first"] + r["count"] for r in self.ranges if r["first"] < WEEKLY]
        how = f"take fresh ones, from {max(ends, default=FRESH)} on, or AGAIN=1"
        if old["complete"]:
            return f"{self.name} has used {seeds}: {how}."
        done = f"{len(old['runs'])} of {old['count']} ran"
        now = version(self.book, self.name)
        if old["digests"].items() >= now.items():
            resume = f"SEEDS={old['first']}:{old['count']} in {old['mode']} mode"
            return f"{self.name} has begun {seeds}, {done}: continue with {resume}, or {how}."
        return f"{self.name} began {seeds} with an earlier version of its code, {done}: {how}."

    def record(
        self, entry: dict[str, Any], run: dict[str, Any], facts: dict[str, Any]
    ) -> dict[str, Any]:
        """Add a run to a range, store both, all of it or nothing, and return the run as stored.

        Args:
            facts: of the run, where it has them: the claims that it `stated`, and of the stamp of
                its notebook `machine` and `versions`.
        """
        claims = facts.get("claims")
        if claims and not entry["claims"]:
            entry["claims"] = claims
            entry["digests"]["claims"] = digest_of(claims)
        elif claims and digest_of(claims) != entry["digests"]["claims"]:
            why = "its claims are not those of the other seeds: keep texts and bounds fixed"
            run = {"seed": run["seed"], "seconds": run["seconds"], "error": why}
        machines = [*entry["machine"].split("; "), facts.get("machine", "")]
        entry["machine"] = "; ".join(dict.fromkeys(filter(None, machines)))
        entry["versions"] = entry["versions"] or facts.get("versions", {})
        entry["runs"] = sorted([*entry["runs"], run], key=lambda r: r["seed"])
        entry["complete"] = len(entry["runs"]) == entry["count"]
        entry["seconds"] = round(sum(r["seconds"] for r in entry["runs"]), 1)
        entry["claims"] = [summary(claim, entry["runs"]) for claim in entry["claims"]]
        if all(entry is not old for old in self.ranges):
            self.ranges.append(entry)
        self._store()
        return run

    def _store(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"chapter": self.name, "ranges": self.ranges}, indent=1, allow_nan=False)
        draft = self.path.with_suffix(".tmp")  # one process writes: replicate.py holds a lock
        with draft.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, self.path)
