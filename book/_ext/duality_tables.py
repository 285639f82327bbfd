"""The coverage page and the status page: what chapters claim, and how their outputs came about."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from duality_data import Book, BookDirective, BookError, Chapter, Leaf
from sphinx.application import Sphinx


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    texts = (" ".join(str(cell).split()).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(texts)} |"


def table(head: Iterable[str], align: str, rows: Iterable[str]) -> list[str]:
    """A Markdown table; `align` has a letter, l or r, for each column."""
    rule = "|".join({"l": ":--", "r": "--:"}[letter] for letter in align)
    return [row(*head), f"|{rule}|", *rows, ""]


def kept(claims: list[dict[str, Any]]) -> str:
    """How many claims hold."""
    return f"{sum(claim['holds'] for claim in claims)} of {len(claims)}" if claims else "none"


def seeds(arms: dict[str, dict[str, Any]]) -> str:
    """The number of seeds of a run's arms, or its range."""
    counts = sorted({len(arm["success"]) for arm in arms.values() if arm.get("success")})
    return (
        " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        if counts
        else ""
    )


def measured(claim: dict[str, Any]) -> str:
    return "{estimate:.3g} [{low:.3g}, {high:.3g}]".format_map(claim)


def bound(claim: dict[str, Any]) -> str:
    """The bound, with the side on which the interval lies where it lies on one."""
    side = (
        "≥ " if claim["low"] >= claim["bound"] else "≤ " if claim["high"] <= claim["bound"] else ""
    )
    return f"{side if claim['holds'] else ''}{claim['bound']:g}"


class Coverage(BookDirective):
    """What the chapters of one direction measured, leaf by leaf; without an argument, a summary."""

    optional_arguments = 1

    def draw(self, book: Book) -> list[nodes.Node]:
        if not self.arguments:
            return self.markdown(_summary(book), "facts")
        if self.arguments[0] not in book.directions:
            raise BookError(f"no direction {self.arguments[0]!r}: {', '.join(book.directions)}.")
        lines: list[str] = []
        direction = book.directions[self.arguments[0]]
        for branch in direction.branches:
            if branch.name != direction.title:
                lines += [f":::{{rubric}} {f'{branch.number} {branch.name}'.strip()}", ":::", ""]
            for leaf in branch.leaves:
                lines += _leaf(leaf, book)
        return self.markdown(lines, "facts")


def _summary(book: Book) -> list[str]:
    rows = []
    for direction in book.directions.values():
        done = [book.chapters[leaf.chapter] for leaf in direction.leaves if leaf.chapter]
        claims = [claim for chapter in done for claim in chapter.results.get("claims", [])]
        rows.append(row(direction.title, len(direction.leaves), len(done), kept(claims)))
    return table(("Part", "Leaves", "With a chapter", "Claims that hold"), "lrrr", rows)


def _leaf(leaf: Leaf, book: Book) -> list[str]:
    section = f" (section {leaf.number})" if leaf.number else ""
    if not leaf.chapter:
        return [f"**{leaf.name}**{section}, open: {leaf.subject}.", ""]
    chapter = book.chapters[leaf.chapter]
    twins = {twin["claim"]: twin for twin in chapter.results.get("twins", [])}
    rows = [
        row(
            claim["claim"],
            measured(claim),
            bound(claim),
            "yes" if claim["holds"] else "no",
            _twin(twins.get(claim["claim"])),
        )
        for claim in chapter.results.get("claims", [])
    ]
    head = ("Claim", "Measured", "Bound", "Holds", "Sabotaged twin")
    return [f"**{leaf.name}**{section}: {chapter.link}", "", *table(head, "lrrlr", rows)]


def _twin(twin: dict[str, Any] | None) -> str:
    return f"{twin['estimate']:.3g}, {'holds' if twin['holds'] else 'fails'}" if twin else ""


class Status(BookDirective):
    """How the outputs of every chapter came about, or, with the argument `others`, further runs."""

    optional_arguments = 1

    def draw(self, book: Book) -> list[nodes.Node]:
        folder = Path(self.env.srcdir)
        lines = (
            _others(book, folder) if self.arguments else [*_stored(book, folder), *_versions(book)]
        )
        return self.markdown(lines, "facts")


def _stored(book: Book, folder: Path) -> list[str]:
    dates = changed(folder, [chapter.path for chapter in book.chapters.values()])
    head = ["Chapter", "Mode", "Seeds", "Seconds", "Peak memory, MB", "Claims that hold"]
    rows = []
    for chapter in book.chapters.values():
        stamp, results = chapter.stamp, chapter.results
        facts = [chapter.link, stamp.get("mode", "never run"), seeds(results.get("arms", {}))]
        facts += [f"{stamp['seconds']:.0f}" if stamp else "", stamp.get("peak_mb", "")]
        facts += [kept(results.get("claims", []))]
        rows.append(row(*facts, *([dates[chapter.path]] if dates else [])))
    return table(head + ["Changed"] * bool(dates), "llrrrr" + "r" * bool(dates), rows)


def _versions(book: Book) -> list[str]:
    """The machine and the versions behind the stored outputs, with their chapters."""

    def behind(chapter: Chapter) -> str:
        versions = chapter.stamp.get("versions", {})
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        return f"{chapter.stamp.get('machine', '')}: {listed}"

    ran = sorted((c for c in book.chapters.values() if c.stamp), key=behind)
    lines = []
    for facts, chapters in groupby(ran, behind):
        those = list(chapters)
        which = "All chapters" if len(those) == len(ran) else ", ".join(c.link for c in those)
        lines += [f"{which}: {facts}.", ""]
    return lines


def _others(book: Book, folder: Path) -> list[str]:
    """Runs whose results stand in a folder of their own, such as full runs on a larger machine."""
    rows = []
    for path in sorted((folder / "results").glob("*/*.json")):
        run = json.loads(path.read_text("utf-8"))
        made, chapter = run["provenance"], book.chapters.get(run["chapter"])
        facts = [chapter.link if chapter else run["chapter"], run["mode"], seeds(run["arms"])]
        facts += [f"{made['seconds']:.0f}", made["peak_mb"], kept(run["claims"]), made["machine"]]
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        rows.append(row(*facts, versions))
    head = ("Chapter", "Mode", "Seeds", "Seconds", "Peak memory, MB", "Claims that hold")
    return table((*head, "Machine", "Versions"), "llrrrrll", rows) if rows else ["There are none."]


def changed(folder: Path, paths: list[Path]) -> dict[Path, str]:
    """The date of the last commit of each file; nothing where git cannot tell.

    A shallow clone would give every file the date of its one commit.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        if git("rev-parse", "--is-shallow-repository") == "true":
            return {}
        return {path: git("log", "-1", "--format=%cs", "--", str(path)) for path in paths}
    except (OSError, subprocess.CalledProcessError):
        return {}


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("coverage", Coverage)
    app.add_directive("status", Status)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
