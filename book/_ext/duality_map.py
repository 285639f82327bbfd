"""The map of the duality: the taxonomy as a drawing, and as a list where a drawing has no room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import acos, degrees, sqrt
from typing import Any

from docutils import nodes
from duality_atlas import PAGE
from duality_data import Book, BookDirective, Branch, Direction, Leaf
from duality_templates import render
from sphinx.application import Sphinx

WIDTH, HEIGHT, MARGIN = 780, 760, 2
CENTER_X, CENTER_Y, RADIUS = WIDTH // 2, 342, 170
ROW = 24  # from one label at an arc to the next
POLE = 18  # half the height of the two poles, which cover the ends of the arcs
CHIP_HEIGHT, CHIP_ROW, CHIP_GAP = 30, 38, 12
ARCS = (("tools", -1), ("policies", 1))  # the direction, and its side of the centre
GROUPS = (  # the direction and branch of a group of chips, its top, and how many stand in a row
    ("foundations", "Base models", 14, 3),
    ("foundations", "Foundations", 556, 2),
    ("discussion", "Discussion", 674, 3),
)


@dataclass(frozen=True)
class Mark:
    """A leaf, or the heading of a branch, and where it stands."""

    text: str
    x: float
    y: float
    leaf: Leaf | None = None
    href: str = ""
    width: float = 0
    papers: str = ""  # where the papers of an open leaf are


def at_arc(y: float, side: int) -> float:
    """The x of an arc at the height y."""
    return CENTER_X + side * sqrt(RADIUS**2 - (y - CENTER_Y) ** 2)


def segment(first: float, last: float, side: int) -> str:
    """The path along an arc from one height down to another."""
    sweep = int(side > 0)
    start, end = at_arc(first, side), at_arc(last, side)
    return f"M{start:.1f} {first:.1f}A{RADIUS} {RADIUS} 0 0 {sweep} {end:.1f} {last:.1f}"


def _arrow() -> dict[str, float]:
    """Where an arc runs into a pole, from the centre, and the direction in which it does."""
    dy = RADIUS - POLE - 2
    return {"dx": sqrt(RADIUS**2 - dy**2), "dy": dy, "angle": degrees(acos(dy / RADIUS))}


class DualityMap(BookDirective):
    """Draw the taxonomy, two arcs around one robot: a leaf links to its chapter or to papers."""

    def draw(self, book: Book) -> list[nodes.Node]:
        done = sum(bool(leaf.chapter) for leaf in book.leaves)
        groups = [self._group(book.directions[key], *rest) for key, *rest in GROUPS]
        arcs = [self._arc(book.directions[key], side) for key, side in ARCS]
        drawn = {"book": book, "arcs": arcs, "groups": groups, "done": done, "uri": self.uri}
        drawn["papers"] = self._papers
        size = {"width": WIDTH, "height": HEIGHT, "x": CENTER_X, "y": CENTER_Y, "r": RADIUS}
        return [self.html(render("map.html", **drawn, **size, pole=POLE, **_arrow()))]

    def _mark(self, leaf: Leaf, x: float, y: float, width: float) -> Mark:
        href = self.uri(leaf.chapter) if leaf.chapter else ""
        return Mark(leaf.name, x, y, leaf, href, width, self._papers(leaf))

    def _papers(self, leaf: Leaf) -> str:
        """The address of the papers of an open leaf, where it has any."""
        if leaf.chapter or not leaf.papers:
            return ""
        page = self.env.app.builder.get_relative_uri(self.env.docname, PAGE)
        return f"{page}#{next(iter(leaf.papers))}"

    def _arc(self, direction: Direction, side: int) -> dict[str, Any]:
        rows = len(direction.branches) + len(direction.leaves)
        y = CENTER_Y - ROW * (rows - 1) / 2
        marks, segments = [], []
        for branch in direction.branches:
            segments.append(segment(y - ROW / 3, y + ROW * (len(branch.leaves) + 0.3), side))
            heading = f"{branch.number} {branch.name}".strip()
            marks.append(Mark(heading, at_arc(y, side), y))
            for leaf in branch.leaves:
                y += ROW
                marks.append(self._mark(leaf, at_arc(y, side), y, 30 + 8 * len(leaf.name)))
            y += ROW
        return {"direction": direction, "side": side, "marks": marks, "segments": segments}

    def _group(self, direction: Direction, name: str, top: int, columns: int) -> dict[str, Any]:
        branch = _branch(direction.branches, name)
        width = (WIDTH - 2 * MARGIN - (columns - 1) * CHIP_GAP) / columns
        marks = [
            self._mark(
                leaf,
                MARGIN + (width + CHIP_GAP) * (index % columns),
                top + 12 + CHIP_ROW * (index // columns),
                width,
            )
            for index, leaf in enumerate(branch.leaves)
        ]
        return {"name": name, "x": MARGIN, "y": top, "marks": marks, "height": CHIP_HEIGHT}


def _branch(branches: Iterable[Branch], name: str) -> Branch:
    return next(branch for branch in branches if branch.name == name)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("duality-map", DualityMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
