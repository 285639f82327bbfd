"""The coverage page and the status page: what chapters claim, and how their outputs came about."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from duality_atlas import PAGE, links
from duality_data import REPLICATIONS, Book, BookDirective, BookError, Chapter, Leaf
from duality_papers import read_papers
from duality_replications import (
    Held,
    counting,
    has_earlier_code,
    is_of_these_claims,
    replicated,
    runs,
    spelt,
    total,
)
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


def verdict(claim: dict[str, Any]) -> str:
    """Older results files only know whether a claim holds."""
    return claim.get("verdict", "holds" if claim["holds"] else "fails")


def bound(claim: dict[str, Any]) -> str:
    """The bound and its side; older results files tell the side only where the claim holds."""
    held = ("≥ " if claim["low"] >= claim["bound"] else "≤ ") if claim["holds"] else ""
    side = {"at least": "≥ ", "at most": "≤ "}.get(claim.get("side", ""), held)
    return f"{side}{claim['bound']:g}"


class Coverage(BookDirective):
    """What the chapters of one direction measured, leaf by leaf; without an argument, a summary."""

    optional_arguments = 1

    def draw(self, book: Book) -> list[nodes.Node]:
        if not self.arguments:
            return self.markdown(_summary(book), "facts")
        if self.arguments[0] not in book.directions:
            raise BookError(f"no direction {self.arguments[0]!r}: {', '.join(book.directions)}.")
        lines: list[str] = []
        papers, page = read_papers(Path(self.env.srcdir), book), self.env.docname
        direction = book.directions[self.arguments[0]]
        for branch in direction.branches:
            if branch.name != direction.title:
                lines += [f":::{{rubric}} {f'{branch.number} {branch.name}'.strip()}", ":::", ""]
            for leaf in branch.leaves:
                found = links(leaf, papers, self.env.app.builder.get_relative_uri(page, PAGE))
                ways = ", ".join(f'<a href="{address}">{text}</a>' for text, address in found)
                lines += _leaf(leaf, book, ways)
        return self.markdown(lines, "facts")


def _summary(book: Book) -> list[str]:
    rows = []
    for direction in book.directions.values():
        done = [book.chapters[leaf.chapter] for leaf in direction.leaves if leaf.chapter]
        claims = [claim for chapter in done for claim in chapter.results.get("claims", [])]
        facts = [direction.title, len(direction.leaves), len(done), kept(claims)]
        rows.append(row(*facts, share(total(done))))
    head = ("Part", "Leaves", "With a chapter", "Claims that hold", "Held in replications")
    return [*table(head, "lrrrr", rows), in_all(book), ""]


def share(held: Held) -> str:
    return f"{held.held} of {held.runs}" if held.runs else "none"


def in_all(book: Book) -> str:
    """All replications of the book in a sentence."""
    every = [held for c in book.chapters.values() for held in replicated(c).values()]
    done, held = sum(claim.runs > 0 for claim in every), total(book.chapters.values())
    if not held.runs:
        return f"None of the {len(every)} claims of the book has been replicated yet."
    return (
        f"The book's claims held in **{held.held} of {held.runs}** replications of claims. "
        f"Replicated so far: {done} of its {len(every)} claims."
    )


def _leaf(leaf: Leaf, book: Book, papers: str) -> list[str]:
    """What a leaf has: its chapter with its claims, or a subject, and the way to its papers."""
    section = f" (section {leaf.number})" if leaf.number else ""
    if not leaf.chapter:
        after = f" Atlas: {papers}." if papers else ""
        return [f"**{leaf.name}**{section}, open: {leaf.subject}.{after}", ""]
    chapter = book.chapters[leaf.chapter]
    twins = {twin["claim"]: twin for twin in chapter.results.get("twins", [])}
    held = replicated(chapter)
    rows = [
        row(
            f"{claim['claim']} {held[claim['claim']].markdown(with_mean=True)}",
            measured(claim),
            bound(claim),
            verdict(claim),
            _twin(twins.get(claim["claim"])),
        )
        for claim in chapter.results.get("claims", [])
    ]
    reports = chapter.results.get("reports", [])
    rows += [row(found["report"], measured(found), "", "reported", "") for found in reports]
    head = ("Claim", "Measured", "Bound", "Verdict", "Sabotaged twin")
    after = f". Atlas: {papers}" if papers else ""
    return [f"**{leaf.name}**{section}: {chapter.link}{after}.", "", *table(head, "lrrlr", rows)]


def _twin(twin: dict[str, Any] | None) -> str:
    return f"{twin['estimate']:.3g}, {verdict(twin)}" if twin else ""


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
    minutes = sum(chapter.run_minutes for chapter in book.chapters.values()) / 2
    return [
        *table(head + ["Changed"] * bool(dates), "llrrrr" + "r" * bool(dates), rows),
        f"Two at a time, as they were stamped, all chapters take about {minutes:.0f} minutes.",
        "",
    ]


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
    paths = sorted((folder / "results").glob("*/*.json"))
    for path in (path for path in paths if path.parent.name != REPLICATIONS):
        run = json.loads(path.read_text("utf-8"))
        made, chapter = run["provenance"], book.chapters.get(run["chapter"])
        facts = [chapter.link if chapter else run["chapter"], run["mode"], seeds(run["arms"])]
        facts += [f"{made['seconds']:.0f}", made["peak_mb"], kept(run["claims"]), made["machine"]]
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        rows.append(row(*facts, versions))
    head = ("Chapter", "Mode", "Seeds", "Seconds", "Peak memory, MB", "Claims that hold")
    return table((*head, "Machine", "Versions"), "llrrrrll", rows) if rows else ["There are none."]


class Replicated(BookDirective):
    """The replications that count, by chapter, or, with the argument `ranges`, all of them."""

    optional_arguments = 1

    def draw(self, book: Book) -> list[nodes.Node]:
        draw = replicated_ranges if self.arguments else replicated_chapters
        return self.markdown(draw(book), "facts")


def replicated_chapters(book: Book) -> list[str]:
    rows = []
    for chapter in book.chapters.values():
        found = replicated(chapter)
        if not found:
            continue
        claim, lowest = min(found.items(), key=lambda item: item[1].held)
        worst = f"{claim if lowest.runs else ''} {lowest.markdown()}"
        facts = [chapter.link, len(found), share(total([chapter])), worst]
        rows.append(row(*facts, spelt(runs(chapter))))
    head = ("Chapter", "Claims", "Held", "Lowest claim", "Seeds")
    return [in_all(book), "", *table(head, "lrrll", rows)]


def replicated_ranges(book: Book) -> list[str]:
    """Every range of seeds that was run, of whatever version, oldest first."""
    rows = []
    for chapter in book.chapters.values():
        for entry in chapter.ranges:
            crashed = sum("error" in run for run in entry["runs"])
            done = f"{len(entry['runs'])} of {entry['count']}" + f", {crashed} failed" * bool(
                crashed
            )
            held = sum(claim["held"] for claim in entry["claims"])
            seeds = spelt(range(entry["first"], entry["first"] + entry["count"]))
            facts = [chapter.link, seeds, entry["mode"], done]
            facts += [share(Held(held, len(entry["claims"]) * len(entry["runs"])))]
            facts += [_standing(entry, chapter), f"{entry['seconds']:.0f}", entry["machine"]]
            rows.append(row(*facts))
    head = ("Chapter", "Seeds", "Mode", "Runs", "Held", "Counts", "Seconds", "Machine")
    return table(head, "lllrrlrl", rows) if rows else ["There are none."]


def _standing(entry: dict[str, Any], chapter: Chapter) -> str:
    """Whether a range counts, and why not."""
    if not entry["complete"]:
        return "no: interrupted"
    if not is_of_these_claims(entry, chapter):
        return "no: other claims"
    if entry["mode"] != chapter.results.get("mode"):
        return "no: another mode"
    if entry not in counting(chapter):
        return "no: earlier version"
    return "yes, with earlier code" if has_earlier_code(entry, chapter) else "yes"


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
    app.add_directive("replications", Replicated)
    app.add_directive("status", Status)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
