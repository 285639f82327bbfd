"""In how many replications each claim held; a chapter's table of claims says so under each.

`tools/replicate.py` writes the ranges of seeds with which a chapter was run. Those count that are
complete, in the mode of the stored run, and of one version: that of the newest range with the
claims (texts and bounds) that the chapter makes now. Fresh seeds for the same version add to it,
so that running again until a claim holds does not help; a new version begins at nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from docutils import nodes
from duality_data import BookError, Chapter, read_chapter, stored
from scipy.special import stdtrit
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

WANTED = 10  # runs, of which nine in ten have to hold


@dataclass(frozen=True)
class Held:
    """In how many runs one claim held, with the estimates of those that ended."""

    held: int
    runs: int
    has_earlier_code: bool = False
    estimates: tuple[float, ...] = ()

    @property
    def style(self) -> str:
        """Names of style classes: the mark in front of the text."""
        if self.runs and 10 * self.held < 9 * self.runs:
            return "replicated replicated-low"
        weak = self.runs < WANTED or self.has_earlier_code
        return "replicated replicated-weak" if weak else "replicated"

    def text(self, with_mean: bool = False) -> str:
        if not self.runs:
            return "not replicated yet"
        low = "only " if 10 * self.held < 9 * self.runs else ""
        notes = f", mean {self.pooled}" if with_mean and self.estimates else ""
        notes += f"; {WANTED} are wanted" if self.runs < WANTED else ""
        notes += "; of earlier code" if self.has_earlier_code else ""
        return f"held in {low}{self.held} of {self.runs} replications{notes}"

    def markdown(self, with_mean: bool = False) -> str:
        # The brackets of an interval would end the span.
        text = self.text(with_mean).replace("[", r"\[").replace("]", r"\]")
        return f"[{text}]{{{' '.join('.' + name for name in self.style.split())}}}"

    @property
    def pooled(self) -> str:
        """The mean of the runs' estimates and its 95% t interval."""
        n = len(self.estimates)
        if n < 2:
            return f"{self.estimates[0]:.3g}" if n else ""
        mean = fmean(self.estimates)
        half = float(stdtrit(n - 1, 0.975)) * stdev(self.estimates) / n**0.5
        return f"{mean:.3g} [{mean - half:.3g}, {mean + half:.3g}]"


def _claims(entry: dict[str, Any]) -> set[tuple[str, float]]:
    return {(claim["claim"], claim["bound"]) for claim in entry.get("claims", [])}


def is_of_these_claims(entry: dict[str, Any], chapter: Chapter) -> bool:
    """Whether a range tested the claims that the chapter makes now."""
    if entry["claims"]:
        return _claims(entry) == _claims(chapter.results)
    return not has_earlier_code(entry, chapter)  # every run crashed before it said what it claims


def has_earlier_code(entry: dict[str, Any], chapter: Chapter) -> bool:
    return entry["digests"]["code"] != chapter.stamp.get("source_hash")


def counting(chapter: Chapter) -> list[dict[str, Any]]:
    """The ranges that count, oldest first."""
    ranges = [
        entry
        for entry in chapter.ranges
        if entry["complete"]
        and entry["mode"] == chapter.results.get("mode")
        and is_of_these_claims(entry, chapter)
    ]
    return [entry for entry in ranges if entry["digests"] == ranges[-1]["digests"]]


def runs(chapter: Chapter) -> dict[int, dict[str, Any]]:
    """The runs that count, by seed; of a seed that was run again, the last one."""
    return {run["seed"]: run for entry in counting(chapter) for run in entry["runs"]}


def replicated(chapter: Chapter) -> dict[str, Held]:
    """What replications found for each claim of a chapter."""
    of, ranges = runs(chapter), counting(chapter)
    is_old = bool(ranges) and has_earlier_code(ranges[-1], chapter)
    found = [claim for run in of.values() for claim in run.get("claims", [])]
    return {
        text: Held(
            sum(claim["held"] for claim in found if claim["claim"] == text),
            len(of),
            is_old,
            tuple(claim["estimate"] for claim in found if claim["claim"] == text),
        )
        for text in (claim["claim"] for claim in chapter.results.get("claims", []))
    }


def total(chapters: Iterable[Chapter]) -> Held:
    """All replications of all claims of some chapters."""
    every = [held for chapter in chapters for held in replicated(chapter).values()]
    return Held(sum(held.held for held in every), sum(held.runs for held in every))


def spelt(seeds: Iterable[int]) -> str:
    """Seeds in words: "100 to 109 and 1041"."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    texts = [str(low) if low == high else f"{low} to {high}" for low, high in spans]
    return " and ".join([", ".join(texts[:-1])] * bool(texts[:-1]) + texts[-1:])


def marked(table: str, found: dict[str, Held]) -> str:
    """The HTML of a table with what replications found below the claims in its first column."""

    def mark(cell: re.Match[str]) -> str:
        held = found.get(unescape(cell[2]).replace("\u00a0", " "))
        text = f' <span class="{held.style}">{escape(held.text())}</span>' if held else ""
        return f"{cell[1]}{cell[2]}{text}</td>"

    return re.sub(r"(<tr[^>]*>\s*<td[^>]*>)(.*?)</td>", mark, table, flags=re.DOTALL)


def _note(chapter: Chapter, address: str) -> nodes.paragraph:
    """Which runs are counted, and where all of them are listed."""
    seeds = runs(chapter)
    if seeds:
        text = (
            f"Replications run the chapter up to its claims with fresh seeds, here {spelt(seeds)}. "
            "A claim holds in one of them if its interval is on the right side of its bound and "
            "its sabotaged twin fails. It should in nine of ten. "
        )
        if has_earlier_code(counting(chapter)[-1], chapter):
            text += "They ran an earlier version of this chapter's code. "
    else:
        text = (
            "No complete range of fresh seeds has tested these claims yet: what stands above is "
            "one run, with the seeds with which it was written. "
        )
    link = nodes.reference("", "All replications", refuri=address, internal=True)
    return nodes.paragraph("", text, link, nodes.Text("."), classes=["replications-note"])


def add_replications(app: Sphinx, doctree: nodes.document) -> None:
    """Say beside the claims of a chapter in how many replications they held."""
    page, folder = app.env.docname, Path(app.srcdir)
    path = folder / f"{page}.ipynb"
    cells = [node for node in doctree.findall(nodes.container) if "tag_claims" in node["classes"]]
    if not page.startswith("chapters/") or not path.is_file() or not cells:
        return
    try:
        chapter = read_chapter(folder, "", page.removeprefix("chapters/"), path)
    except BookError as error:
        raise ExtensionError(str(error)) from None
    for source in stored(folder, chapter.name):
        if source.is_file():
            app.env.note_dependency(str(source))
    found = replicated(chapter)
    for cell in cells:
        for output in list(cell.findall(nodes.raw)):
            if output["format"] == "html":
                output[:] = [nodes.Text(marked(output.astext(), found))]
        address = app.builder.get_relative_uri(page, "status") + "#replications"
        if found:
            cell.parent.insert(cell.parent.index(cell) + 1, _note(chapter, address))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_replications)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
