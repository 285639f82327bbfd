"""Ways through the book: the graph of prerequisites, and plans with the time that they take."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from docutils import nodes
from duality_data import Book, BookDirective, BookError, Branch, Chapter, Direction, Leaf
from duality_templates import render
from sphinx.application import Sphinx

WIDTH, COLUMNS = 780, 3
BOX_WIDTH, BOX_HEIGHT, ROW = 230, 54, 96


def needed(book: Book) -> dict[str, set[str]]:
    """The prerequisites of every chapter that are not prerequisites of its other ones."""
    direct = {name: set(c.facts["prerequisites"]) for name, c in book.chapters.items()}
    try:
        order = list(TopologicalSorter(direct).static_order())
    except CycleError as error:
        circle = " needs ".join(error.args[1][::-1])
        raise BookError(f"prerequisites go in a circle: {circle}. Remove one of them.") from None
    everything: dict[str, set[str]] = {}
    for name in order:
        everything[name] = direct[name].union(*(everything[one] for one in direct[name]))
    return {
        name: {one for one in ones if not any(one in everything[other] for other in ones)}
        for name, ones in direct.items()
    }


def rows(edges: dict[str, set[str]]) -> list[list[str]]:
    """The chapters in rows, each below its prerequisites and near the middle of them."""
    sorter, place, found = TopologicalSorter(edges), dict.fromkeys(edges, 0.0), []
    sorter.prepare()
    while sorter.is_active():
        ready = list(sorter.get_ready())
        sorter.done(*ready)
        reading = [name for name in edges if name in ready]
        reading.sort(key=lambda name: _mean(place[one] for one in edges[name]))
        for start in range(0, len(reading), COLUMNS):
            row = reading[start : start + COLUMNS]
            found.append(row)
            place |= {name: index - (len(row) - 1) / 2 for index, name in enumerate(row)}
    return found


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / max(1, len(listed))


def _places(book: Book) -> dict[str, tuple[Direction, Branch, Leaf]]:
    """Where the taxonomy has each chapter."""
    return {
        leaf.chapter: (direction, branch, leaf)
        for direction in book.directions.values()
        for branch in direction.branches
        for leaf in branch.leaves
        if leaf.chapter
    }


class PrerequisiteGraph(BookDirective):
    """Draw which chapter needs which; a list where a drawing has no room."""

    def draw(self, book: Book) -> list[nodes.Node]:
        edges, places = needed(book), _places(book)
        boxes: dict[str, dict[str, Any]] = {}
        for level, row in enumerate(layout := rows(edges)):
            left = (WIDTH - len(row) * WIDTH / COLUMNS) / 2 + (WIDTH / COLUMNS - BOX_WIDTH) / 2
            for index, name in enumerate(row):
                direction, branch, leaf = places[name]
                boxes[name] = {
                    "x": left + index * WIDTH / COLUMNS,
                    "y": 2 + level * ROW,
                    "key": direction.key,
                    "above": branch.name,
                    "name": leaf.name,
                    "href": self.uri(name),
                    "after": [
                        book.chapters[one].short for one in book.chapters if one in edges[name]
                    ],
                    "title": book.chapters[name].short,
                }
        lines = [(boxes[one], boxes[name]) for name in edges for one in sorted(edges[name])]
        size = {"width": WIDTH, "height": len(layout) * ROW - ROW + BOX_HEIGHT + 4}
        size |= {"box_width": BOX_WIDTH, "box_height": BOX_HEIGHT}
        ordered = [boxes[name] for name in book.chapters]
        return [self.html(render("graph.html", boxes=ordered, lines=lines, **size))]


def minutes(number: float) -> str:
    whole = round(number)
    if whole < 1:
        return "under 1 min"
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60:02d} min"


class Plan(BookDirective):
    """A table of one plan of taxonomy.yml: its steps, their chapters, the time that they take."""

    required_arguments = 1
    final_argument_whitespace = True

    def draw(self, book: Book) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in book.plans:
            raise BookError(f"no plan {name!r} in taxonomy.yml: it has {', '.join(book.plans)}.")
        steps = [
            (step["step"], [book.chapters[chapter] for chapter in step["chapters"]])
            for step in book.plans[name]
        ]
        chapters = [chapter for _, those in steps for chapter in those]
        lines = ["| Step | Chapters | Read | Run | Exercises |", "|:--|:--|--:|--:|--:|"]
        lines += [_row(step, ", ".join(c.link for c in those), those) for step, those in steps]
        lines += [_row("**Together**", "", chapters), ""]
        if left_out := _left_out(book, chapters):
            lines += [f"Left out, though a chapter of this plan builds on it: {left_out}."]
        return self.markdown(lines, "facts")


def _row(step: str, links: str, chapters: list[Chapter]) -> str:
    read = minutes(sum(chapter.read_minutes for chapter in chapters))
    run = minutes(sum(chapter.run_minutes for chapter in chapters))
    exercises = sum(chapter.exercises for chapter in chapters)
    return f"| {step} | {links} | {read} | {run} | {exercises} |"


def _left_out(book: Book, chapters: list[Chapter]) -> str:
    wanted = {name for chapter in chapters for name in chapter.facts["prerequisites"]}
    missing = wanted - {chapter.name for chapter in chapters}
    return ", ".join(chapter.link for name, chapter in book.chapters.items() if name in missing)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("prerequisite-graph", PrerequisiteGraph)
    app.add_directive("plan", Plan)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
