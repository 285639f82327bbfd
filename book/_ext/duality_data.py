"""What the generated pages know of the book, read from its only sources.

These are the metadata of the chapters, ``_toc.yml``, ``results/`` and, for what none of them can
hold, ``taxonomy.yml``. A contradiction between them is a BookError, whose one line says what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

METADATA = {"title", "leaf", "review_section", "papers", "prerequisites", "summary"}
REPLICATIONS = "replications"  # the folder of results that tools/replicate.py fills
WORDS_PER_MINUTE = 150  # slower than prose alone is read: equations and figures need time


class BookError(Exception):
    """A problem that an author can mend; the message is one line that says how."""


@dataclass(frozen=True)
class Chapter:
    """A notebook that the table of contents lists."""

    name: str  # its path below chapters/, without suffix
    part: str  # the caption of its part
    path: Path
    cells: list[dict[str, Any]]
    facts: dict[str, Any]  # its metadata
    results: dict[str, Any]  # what its last run wrote, or nothing
    ranges: list[dict[str, Any]] = field(default_factory=list)  # of seeds, replicated

    @property
    def docname(self) -> str:
        return f"chapters/{self.name}"

    @property
    def short(self) -> str:
        """The part of its title before a colon."""
        return self.facts["title"].partition(":")[0]

    @property
    def link(self) -> str:
        """Markdown that links to it under its short title."""
        return f"[{self.short}](/{self.docname}.ipynb)"

    @property
    def stamp(self) -> dict[str, Any]:
        return self.facts.get("executed", {})

    @property
    def run_minutes(self) -> float:
        return self.stamp.get("seconds", 0) / 60

    @cached_property
    def read_minutes(self) -> float:
        """Minutes of the text; tables and lists of references are looked up and not read."""
        lines = self._prose.splitlines()
        read = [line for line in lines if not line.startswith(("|", "**References**"))]
        return len(" ".join(read).split()) / WORDS_PER_MINUTE

    @cached_property
    def exercises(self) -> int:
        return len(re.findall(r"^### Exercise", self._prose, re.MULTILINE))

    @property
    def _prose(self) -> str:
        markdown = (cell for cell in self.cells if cell["cell_type"] == "markdown")
        return "\n\n".join("".join(cell["source"]) for cell in markdown)


@dataclass(frozen=True)
class Leaf:
    """A leaf of the review's taxonomy, with a chapter or with the subject of a planned one."""

    name: str
    leaf: str
    section: str = ""
    chapter: str = ""
    subject: str = ""
    papers: dict[str, str] = field(default_factory=dict)  # the headings of its papers, by name

    @property
    def number(self) -> str:
        """The review's number of its section, where it is known."""
        return self.section.split()[0] if self.section[:1].isdigit() else ""


@dataclass(frozen=True)
class Branch:
    name: str
    leaves: tuple[Leaf, ...]

    @property
    def number(self) -> str:
        """The number that its leaves share, 5.1 of 5.1.1 and 5.1.2; 3 and 4 share none."""
        parents = {leaf.number.rpartition(".")[0] for leaf in self.leaves}
        return parents.pop() if len(parents) == 1 else ""


@dataclass(frozen=True)
class Direction:
    key: str
    title: str
    sentence: str
    branches: tuple[Branch, ...]

    @property
    def leaves(self) -> list[Leaf]:
        return [leaf for branch in self.branches for leaf in branch.leaves]


@dataclass(frozen=True)
class Book:
    """Chapters in reading order, and the taxonomy."""

    chapters: dict[str, Chapter]
    directions: dict[str, Direction]
    plans: dict[str, list[dict[str, Any]]]  # the steps of ways through several chapters
    films: list[dict[str, Any]]  # of the front page

    @property
    def leaves(self) -> list[Leaf]:
        return [leaf for direction in self.directions.values() for leaf in direction.leaves]


def sources(folder: Path) -> list[Path]:
    """Every file that a generated page can depend on."""
    patterns = ("*.yml", "*.bib", "chapters/**/*.ipynb", "results/**/*.json")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def read_book(folder: Path) -> Book:
    """Read the book in `folder`, and compare its sources with each other."""
    taxonomy = yaml.safe_load((folder / "taxonomy.yml").read_text("utf-8"))
    toc = yaml.safe_load((folder / "_toc.yml").read_text("utf-8"))
    chapters = {
        chapter.name: chapter
        for part in toc.get("parts", [])
        for chapter in _chapters(folder, part.get("caption", ""), part)
    }
    directions = {item["key"]: _direction(item) for item in taxonomy["directions"]}
    book = Book(chapters, directions, taxonomy.get("plans", {}), taxonomy.get("films", []))
    _check_leaves(book)
    _check_names(book)
    return book


def _chapters(folder: Path, part: str, item: dict[str, Any]) -> Iterator[Chapter]:
    for entry in item.get("chapters", []) + item.get("sections", []):
        path = folder / f"{entry.get('file', '')}.ipynb"
        if path.is_file():
            yield read_chapter(folder, part, entry["file"].removeprefix("chapters/"), path)
        yield from _chapters(folder, part, entry)


def stored(folder: Path, name: str) -> tuple[Path, Path]:
    """Where the results of a chapter and those of its replications are, if there are any."""
    file = f"{name.replace('/', '-')}.json"
    return folder / "results" / file, folder / "results" / REPLICATIONS / file


def read_chapter(folder: Path, part: str, name: str, path: Path) -> Chapter:
    """Read one chapter, with its results and their replications."""
    notebook = json.loads(path.read_text("utf-8"))
    facts = notebook["metadata"].get("duality", {})
    if missing := METADATA - facts.keys():
        raise BookError(f"{path.name} has no metadata {sorted(missing)}: see CONTRIBUTING.md.")
    results, replications = (
        json.loads(source.read_text("utf-8")) if source.is_file() else {}
        for source in stored(folder, name)
    )
    ranges = replications.get("ranges", [])
    return Chapter(name, part, path, notebook["cells"], facts, results, ranges)


def _direction(item: dict[str, Any]) -> Direction:
    branches = []
    for branch in item["branches"]:
        try:
            leaves = tuple(Leaf(**leaf) for leaf in branch["leaves"])
        except TypeError as error:
            where = f"branch {branch['name']!r} of taxonomy.yml"
            raise BookError(f"{where}: {str(error).partition('() ')[2]}.") from None
        branches.append(Branch(branch["name"], leaves))
    return Direction(item["key"], item["title"], item.get("sentence", ""), tuple(branches))


def _check_leaves(book: Book) -> None:
    """Every chapter has exactly one leaf, which says the same as its metadata."""
    taken: set[str] = set()
    for leaf in book.leaves:
        if bool(leaf.chapter) == bool(leaf.subject):
            raise BookError(f"taxonomy.yml: {leaf.leaf!r} needs either a chapter or a subject.")
        if not leaf.chapter:
            continue
        if leaf.chapter in taken:
            raise BookError(f"taxonomy.yml names {leaf.chapter} twice: leave it at one leaf.")
        if leaf.chapter not in book.chapters:
            raise BookError(f"taxonomy.yml names {leaf.chapter}: list it in _toc.yml as well.")
        taken.add(leaf.chapter)
        facts = book.chapters[leaf.chapter].facts
        section = "" if facts["review_section"].startswith("none") else facts["review_section"]
        if (facts["leaf"], section) != (leaf.leaf, leaf.section):
            raise BookError(
                f"taxonomy.yml and {leaf.chapter} differ in leaf or section: make them agree."
            )
    for name in book.chapters.keys() - taken:
        raise BookError(f"{name} has no leaf: add 'chapter: {name}' to its leaf in taxonomy.yml.")


def _check_names(book: Book) -> None:
    """Plans and prerequisites name chapters of the book."""
    named = [(n, c.name) for c in book.chapters.values() for n in c.facts["prerequisites"]]
    for plan, steps in book.plans.items():
        named += [(name, f"the plan {plan!r}") for step in steps for name in step["chapters"]]
    for name, where in named:
        if name not in book.chapters:
            raise BookError(f"{where} names {name}, which _toc.yml does not list.")


class BookDirective(SphinxDirective):
    """A directive whose content follows from the book: subclasses turn the book into nodes."""

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir)
        for path in sources(folder):
            self.env.note_dependency(str(path))
        try:
            return self.draw(read_book(folder))
        except BookError as error:
            raise self.error(str(error)) from None

    def draw(self, book: Book) -> list[nodes.Node]:
        raise NotImplementedError

    def uri(self, chapter: str) -> str:
        """The address of a chapter, seen from the page that this directive stands on."""
        return self.env.app.builder.get_relative_uri(self.env.docname, f"chapters/{chapter}")

    def markdown(self, lines: list[str], style: str) -> list[nodes.Node]:
        """What these lines mean, in a container that a style sheet can name."""
        return [nodes.container("", *self.parse_text_to_nodes("\n".join(lines)), classes=[style])]

    def html(self, text: str) -> nodes.raw:
        return nodes.raw("", text, format="html")
