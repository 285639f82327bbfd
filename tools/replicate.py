"""Run chapters with seeds that nobody has used, and store in how many runs each claim held.

    python tools/replicate.py --seeds 100:10 CHAPTER ... [--again]     ten runs: seeds 100 to 109
    python tools/replicate.py --seeds week --all       one run of each, with a seed of this week's

A run is stored as soon as it ends (see `replications.py`), so whatever ends this process, the same
command goes on with what is missing. Seeds are used once, for one version of the code: a change
of the chapter or of the package stops a range. Who goes on editing replicates in another worktree.
A claim that does not hold is a finding; a run that crashes is one as well, and did not hold.

Seeds 0 to 9 are for development, those from 1000 on for the weekly workflow.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, TextIO

from execute import Progress, Scheduler
from notebooks import Book, NotebookError, add_root_option, load, metadata_of
from replications import FRESH, WEEKLY, Replications, outcome, spelt, stated, version
from runs import Run, run_from_environment

WEEK_ZERO = date(2026, 1, 5)  # a Monday
CRASH = re.compile(r"(cell \d+: .*?)(?: \(see [^)]*\))?")  # the chapter's own, not the worker's


def seeds_of(text: str, today: date) -> tuple[int, int]:
    """The first seed and the number of seeds of `first:count`, or of `week`."""
    if text == "week":
        return WEEKLY + max(0, (today - WEEK_ZERO).days // 7), 1
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text.strip())
    if not match:
        raise NotebookError(f"SEEDS must be first:count, such as 100:10, not {text!r}.")
    first, count = map(int, match.groups())
    if count == 0:
        raise NotebookError(f"SEEDS={text} asks for 0 runs: ask for 10, as in {first}:10.")
    if first < FRESH:
        raise NotebookError(f"Seeds 0 to 9 are for development: begin SEEDS at {FRESH} or later.")
    if first + count > WEEKLY:
        raise NotebookError(f"Seeds from {WEEKLY} on are for the weekly runs: end SEEDS earlier.")
    return first, count


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def measured(entry: dict[str, Any]) -> str:
    return "{} [{}, {}]".format(*(number(entry[key]) for key in ("estimate", "low", "high")))


def shown(run: dict[str, Any], claims: list[dict[str, Any]]) -> str:
    """A run in one line: how many claims held, and what those measured that did not."""
    if "error" in run:
        return f"FAILED, {run['seconds']:.0f} s: {run['error']}"
    bounds = {claim["claim"]: number(claim["bound"]) for claim in claims}
    missed = []
    for claim in run["claims"]:
        twin = f", its twin: {claim['twin']}" if claim["verdict"] == "holds" else ""
        text = f"{claim['claim']!r} {measured(claim)}, bound {bounds[claim['claim']]}{twin}"
        missed += [] if claim["held"] else [text]
    total = len(run["claims"])
    line = f"{total - len(missed)} of {total} claims held, {run['seconds']:.0f} s"
    return f"{line}; not: {'; '.join(missed)}" if missed else line


@dataclass
class Task:
    """A range of one chapter that is being run; `lock` keeps other processes away from it."""

    store: Replications
    entry: dict[str, Any]
    lock: TextIO
    is_outdated: bool = False
    writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def missing(self) -> list[int]:
        done = {run["seed"] for run in self.entry["runs"]}
        first, count = self.entry["first"], self.entry["count"]
        return [seed for seed in range(first, first + count) if seed not in done]

    def is_of_this_version(self) -> bool:
        now = version(self.store.book, self.store.name)
        return self.entry["digests"].items() >= now.items()

    def lines(self) -> list[str]:
        """What the range has found so far."""
        entry, total = self.entry, len(self.entry["runs"])
        done = "" if entry["complete"] else f", {total} of {entry['count']} runs so far"
        head = f"{self.store.name}, {spelt(entry['first'], entry['count'])}{done}:"
        return [head] + [
            f"  held in {claim['held']} of {total}, {measured(claim)}: {claim['claim']}"
            for claim in entry["claims"]
        ]


class Replicator(Scheduler):
    """Runs one chapter several times, and stores what every run found as soon as it ends."""

    def __init__(self, run: Run, progress: Progress, tasks: dict[str, Task]) -> None:
        super().__init__(run, progress)
        self.tasks = tasks
        self.crashed = False

    def _chapter(self, item: tuple[str, int]) -> bool:
        name, seed = item
        task, run = self.tasks[name], replace(self.run, seed=seed)
        label = f"{name} seed {seed}" if len(self.tasks) > 1 else f"seed {seed}"
        if self.stopping.is_set() or self._is_outdated(task):
            return False
        results = run.results / f"{name.replace('/', '-')}.json"
        results.unlink(missing_ok=True)
        run.target(name).unlink(missing_ok=True)
        began = time.perf_counter()
        end = self._work(run, name, label)
        crash = CRASH.fullmatch(end.get("error", ""))
        if self.stopping.is_set():
            return False
        if "error" in end and not crash:  # the worker was killed, say: no finding about the chapter
            self.progress.line(f"FAILED {label}: {end['error']}", ended=label)
            return False
        found, facts = {"seed": seed, "seconds": round(time.perf_counter() - began, 1)}, {}
        if crash:
            found["error"] = crash[1]
        elif not results.exists():
            found["error"] = "it wrote no results: its last code cell must call Claims.check()"
        else:
            facts = dict(metadata_of(load(run.target(name)))["executed"])
            measured = json.loads(results.read_text("utf-8"))
            found = outcome(seed, facts["seconds"], measured)
            facts["claims"] = stated(measured)
        with task.writing:
            if self._is_outdated(task, facts.get("source_hash")):
                return False
            stored = task.store.record(task.entry, found, facts)
        self.crashed |= "error" in stored
        line = shown(stored | (end if crash else {}), task.entry["claims"])
        self.progress.line(f"{label}: {line}", ended=label)
        return True

    def _is_outdated(self, task: Task, executed: str | None = None) -> bool:
        """Whether the code is no longer that of the range; says so once."""
        of_range = executed in (None, task.entry["digests"]["code"]) and task.is_of_this_version()
        if not of_range and not task.is_outdated:
            task.is_outdated = True
            why = "the chapter or the package was changed, and a range is of one version"
            self.progress.line(f"STOPPED {task.store.name}: {why}. Take fresh seeds.")
        return task.is_outdated


def begin(run: Run, name: str, seeds: tuple[int, int], again: bool) -> Task:
    """The range to run of one chapter, once no other process runs one of it."""
    lock = run.book.scratch / "replicate" / f"{name.replace('/', '-')}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = lock.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise NotebookError(f"{name} is being replicated already: wait for that to end.") from None
    store = Replications(run.book, name)
    return Task(store, store.begin(*seeds, run.mode, again), held)


def replicate(run: Run, options: argparse.Namespace) -> int:
    if run.mode == "smoke":
        raise NotebookError("Smoke mode draws no conclusion: set DUALITY_MODE to lecture or full.")
    seeds = seeds_of(options.seeds, date.today())
    names = run.book.names if options.all else [run.book.resolve(x) for x in options.chapters]
    if not names:
        raise NotebookError("Say which chapter, such as CHAPTER=foundations/the_lab.")
    progress, tasks, refused = Progress(), {}, False
    for name in dict.fromkeys(names):
        try:
            tasks[name] = begin(run, name, seeds, options.again)
        except NotebookError as error:
            progress.line(str(error))
            refused = True
    replicator = Replicator(run, progress, tasks)
    # Seed by seed, so that an interrupted range of several chapters tells something about each.
    items = [(name, seed) for name, task in tasks.items() for seed in task.missing]
    left = replicator.execute(sorted(items, key=lambda item: item[1]), options.jobs)
    for task in tasks.values():
        for line in task.lines():
            progress.line(line)
    return int(refused or bool(left) or replicator.crashed)


def jobs_of(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise NotebookError(f"DUALITY_JOBS must be a whole number from 1 on, not {text!r}.")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Replicate the claims of chapters.")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER")
    parser.add_argument("--all", action="store_true", help="all chapters")
    parser.add_argument("--seeds", required=True, help="first:count, such as 100:10, or week")
    parser.add_argument("--again", action="store_true", help="even if these seeds have been used")
    parser.add_argument("--jobs", help="runs at a time (default: DUALITY_JOBS or 2)")
    parser.add_argument("--timeout", type=int, default=900, help="seconds a cell (default: 900)")
    add_root_option(parser)
    options = parser.parse_args(arguments)
    try:
        options.jobs = jobs_of(options.jobs or os.environ.get("DUALITY_JOBS") or "2")
        run = run_from_environment(Book(options.root), options.timeout)
        return replicate(replace(run, replication=True), options)
    except NotebookError as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again to do what is left.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
