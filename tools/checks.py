"""What a committed chapter must be like: small checks, and the tables that list them."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import portable
from card import CARD_TAG, Cards
from nbformat import NotebookNode
from notebooks import NotebookError, load, metadata_of, source_hash, tags
from outputs import IMAGES, alt_text, film_as_png, texts
from prose_numbers import problems_with_numbers

MAX_BYTES = 400 * 1024
CELLS = range(20, 46)
MAX_CELL_LINES, MAX_COLUMNS, MAX_FUNCTION_LINES = 25, 78, 30
MIN_EXERCISES = 3
SECTIONS = (
    "the task",
    "the method",
    "train",
    "result",
    "watch",
    "break it",
    "small against real",
    "exercises",
    "summary",
)
ROLES = ("setup", "parameters", "budget", "claims")  # tags of cells that every chapter has once
FACTS = dict.fromkeys(("title", "leaf", "review_section", "summary"), str)
FACTS |= dict.fromkeys(("papers", "prerequisites"), list)
STAMP = {
    "source_hash": str,
    "mode": str,
    "seed": int,
    "seconds": (int, float),
    "peak_mb": (int, float),
    "machine": str,
    "versions": dict,
}
# A folder counts where a path can begin, so that https://site/work/ is no local path.
LOCAL_PATH = re.compile(
    r"(?<![\w.-])/(?:home|root|work|tmp|Users)/\S*|[A-Z]:\\+Users\b\S*"
    r"|site-packages|ipykernel_\d+"
)
SECRET = re.compile(
    r"\bsk-[\w-]{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bhf_[A-Za-z0-9]{20,}"
    r"|\bAKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:api[_-]?key)[\"'\]]*\s*[=:]\s*[\"'][^\"'\s]{8,}[\"']"
)
LEFTOVER = re.compile(r"\b(?:TODO|FIXME|XXX)\b")

Problems = Iterator[tuple[int, str]]  # number of the cell (from 1; 0: the notebook), message


@dataclass(frozen=True)
class Chapter:
    name: str
    path: Path
    nb: NotebookNode
    cards: Cards

    @property
    def facts(self) -> dict[str, Any]:
        return self.nb.metadata["duality"]

    def cells(self, kind: str) -> list[tuple[int, NotebookNode]]:
        return [(n, c) for n, c in enumerate(self.nb.cells, 1) if c.cell_type == kind]

    def outputs(self) -> Iterator[tuple[int, NotebookNode]]:
        for number, cell in self.cells("code"):
            for output in cell.outputs:
                yield number, output

    def headings(self) -> Iterator[tuple[int, str]]:
        """Every Markdown heading with its marks, and the number of its cell."""
        for number, cell in self.cells("markdown"):
            prose = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.DOTALL | re.MULTILINE)
            for heading in re.findall(r"^#{1,6} .+$", prose, re.MULTILINE):
                yield number, heading


def check_facts(chapter: Chapter) -> Problems:
    try:
        facts = metadata_of(chapter.nb)
    except NotebookError as error:
        yield 0, str(error)
        return
    yield from ((0, problem) for problem in _wrong_types(facts, FACTS, "metadata"))
    for key in ("papers", "prerequisites", "exempt_sections"):
        names = facts.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            yield 0, f"metadata {key!r} must be a list of names."
    if "executed" in facts:
        stamp = facts["executed"] if isinstance(facts["executed"], dict) else {}
        yield from ((0, problem) for problem in _wrong_types(stamp, STAMP, "the stamp 'executed'"))


def _wrong_types(facts: dict[str, Any], types: dict[str, Any], what: str) -> Iterator[str]:
    for key, kind in types.items():
        if not isinstance(facts.get(key), kind):
            yield f"{what} needs {key!r} as {getattr(kind, '__name__', 'number')}."
        elif kind is str and not facts[key].strip():
            yield f"{what} has an empty {key!r}."


def check_title(chapter: Chapter) -> Problems:
    lines = chapter.nb.cells[0].source.splitlines() if chapter.nb.cells else []
    if lines[:1] != [f"# {chapter.facts['title']}"]:
        yield 1, f"must begin with '# {chapter.facts['title']}', the title in the metadata."


def check_references(chapter: Chapter) -> Problems:
    lookups = [(chapter.cards.book.resolve, name) for name in chapter.facts["prerequisites"]]
    for lookup, name in lookups + [(chapter.cards.paper, key) for key in chapter.facts["papers"]]:
        try:
            lookup(name)
        except NotebookError as error:
            yield 0, str(error)


def check_card(chapter: Chapter) -> Problems:
    try:
        wanted = chapter.cards.render(chapter.name, chapter.facts)
    except NotebookError:
        return  # already reported by check_references
    found = [(n, c.source) for n, c in chapter.cells("markdown") if CARD_TAG in tags(c)]
    if found != [(2, wanted)]:
        yield 2, "the card is not what the metadata says: run python tools/card.py"


def check_freshness(chapter: Chapter) -> Problems:
    stamp = chapter.facts.get("executed")
    again = f"run python tools/execute.py {chapter.name}"
    if stamp is None:
        yield 0, f"never executed: {again}"
    elif stamp["source_hash"] != source_hash(chapter.nb):
        yield 0, f"the outputs do not belong to the code: {again}"
    elif (stamp["mode"], stamp["seed"]) != ("lecture", 0):
        yield 0, f"outputs of {stamp['mode']} mode, seed {stamp['seed']}: {again} --force"


def check_sections(chapter: Chapter) -> Problems:
    exempt = chapter.facts.get("exempt_sections", [])
    headings = "\n".join(heading.lower() for _, heading in chapter.headings())
    for section in SECTIONS:
        if section not in exempt and section not in headings:
            yield 0, f"no heading contains {section!r}: add it, or list it in exempt_sections."
    for section in exempt:
        if section not in SECTIONS:
            yield 0, f"exempt_sections names {section!r}; it may name {', '.join(SECTIONS)}."


def check_numbers(chapter: Chapter) -> Problems:
    results = chapter.cards.book.root / "book" / "results"
    yield from problems_with_numbers(chapter.nb, results, chapter.name)


def check_kernel(chapter: Chapter) -> Problems:
    name = chapter.nb.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        path = chapter.path.relative_to(chapter.cards.book.root)
        yield 0, f"its kernel is {name!r}: run jupytext --set-kernel python3 {path}"


def check_size(chapter: Chapter) -> Problems:
    size, count = chapter.path.stat().st_size, len(chapter.nb.cells)
    if size > MAX_BYTES:
        yield 0, f"{size / 1024:.0f} KB; at most {MAX_BYTES // 1024}: shrink figures, animations."
    if count not in CELLS:
        yield 0, f"{count} cells; a chapter has {CELLS.start} to {CELLS.stop - 1}."


def check_code(chapter: Chapter) -> Problems:
    for number, cell in chapter.cells("code"):
        lines = cell.source.splitlines()
        if len(lines) > MAX_CELL_LINES:
            yield number, f"{len(lines)} lines of code; at most {MAX_CELL_LINES}: split the cell."
        for row, line in enumerate(lines, 1):
            if len(line) > MAX_COLUMNS:
                yield number, f"line {row} has {len(line)} characters; at most {MAX_COLUMNS}."
        yield from ((number, problem) for problem in _long_functions(cell.source))


def _long_functions(source: str) -> Iterator[str]:
    # Magics are not Python; a statement in their place keeps the line numbers.
    python = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    try:
        nodes = list(ast.walk(ast.parse(python)))
    except SyntaxError as error:
        yield f"line {error.lineno} is not Python: {error.msg}."
        return
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{node.name} has {length} lines; at most {MAX_FUNCTION_LINES}."


def check_outputs(chapter: Chapter) -> Problems:
    for number, output in chapter.outputs():
        if output.output_type == "error":
            yield number, f"its output is an error ({output.ename}): mend the cell."
        elif output.output_type == "stream" and output.name == "stderr":
            line = " ".join(output.text.split())[:60]
            yield number, f"it writes to stderr ({line}): mend the cause."


def check_alt_text(chapter: Chapter) -> Problems:
    for number, cell in chapter.cells("code"):
        stored = [(o, mime) for o in cell.outputs for mime in IMAGES if mime in o.get("data", {})]
        if stored and not (alt := alt_text(cell)):
            yield number, "its image has no alt text: set mystnb.image.alt in the cell's metadata."
        elif any(o.metadata.get(mime, {}).get("alt") != alt for o, mime in stored):
            yield number, "its image lacks the cell's alt text: run python tools/portable.py"
        if any(film_as_png(o.data[mime]) for o, mime in stored if mime == "image/gif"):
            yield number, "exports do not show its GIF: run python tools/portable.py"


def check_leaks(chapter: Chapter) -> Problems:
    shown = [(number, cell.source) for number, cell in enumerate(chapter.nb.cells, 1)]
    shown += [(number, text) for number, out in chapter.outputs() for text in texts(out)]
    for number, text in shown:
        if found := LOCAL_PATH.search(text):
            yield number, f"holds a local path ({found[0][:60]})."
        if found := SECRET.search(text):
            yield number, f"holds what looks like a secret ({found[0][:7]}...): revoke, remove it."


def check_execution_counts(chapter: Chapter) -> Problems:
    filled = [(n, c) for n, c in chapter.cells("code") if c.source.strip()]
    for wanted, (number, cell) in enumerate(filled, 1):
        if cell.execution_count != wanted:
            yield number, f"execution count {cell.execution_count} should be {wanted}: execute."
            return  # the rest follows from the first


def check_roles(chapter: Chapter) -> Problems:
    for role in ROLES:
        numbers = [n for n, cell in chapter.cells("code") if role in tags(cell)]
        if len(numbers) != 1:
            yield 0, f"{len(numbers)} code cells are tagged {role!r}: tag exactly one."
    for number, cell in chapter.cells("code"):
        if "parameters" in tags(cell) and "setup" not in tags(cell):
            yield number, "'parameters' belongs to the cell tagged 'setup': papermill writes below."


def check_exercises(chapter: Chapter) -> Problems:
    starts = [n for n, heading in chapter.headings() if heading.startswith("### Exercise")]
    if len(starts) < MIN_EXERCISES:
        yield 0, f"{len(starts)} headings '### Exercise'; at least {MIN_EXERCISES} are needed."
    solutions = [n for n, c in enumerate(chapter.nb.cells, 1) if "solution" in tags(c)]
    for start, end in zip(starts, [*starts, sys.maxsize][1:], strict=True):
        if not any(start < number < end for number in solutions):
            yield start, "no cell tagged 'solution' follows this exercise."
    for number, cell in chapter.cells("code"):
        if number in solutions and not {"hide-cell", "hide-input"} & set(tags(cell)):
            yield number, "a solution needs the tag 'hide-cell' or 'hide-input' as well."


def check_prose(chapter: Chapter) -> Problems:
    for number, cell in chapter.cells("markdown"):
        if found := LEFTOVER.search(cell.source):
            yield number, f"{found[0]} is left in the text."


def check_citations(chapter: Chapter) -> Problems:
    for number, cell in chapter.cells("markdown"):
        yield from ((number, problem) for problem in portable.problems(cell.source, chapter.cards))


# Those of the first group read the metadata, and run only where check_facts found nothing wrong.
FACT_CHECKS: tuple[Callable[[Chapter], Problems], ...] = (
    check_title,
    check_references,
    check_card,
    check_freshness,
    check_sections,
    check_numbers,
)
CHECKS: tuple[Callable[[Chapter], Problems], ...] = (
    check_kernel,
    check_size,
    check_code,
    check_outputs,
    check_alt_text,
    check_leaks,
    check_execution_counts,
    check_roles,
    check_exercises,
    check_prose,
    check_citations,
)


def problems_of(name: str, cards: Cards) -> list[tuple[int, str]]:
    """All problems of one chapter, each with the number of its cell (0: the whole notebook)."""
    path = cards.book.path(name)
    try:
        chapter = Chapter(name, path, load(path), cards)
    except NotebookError as error:
        return [(0, str(error))]
    wrong_facts = list(check_facts(chapter))
    found = wrong_facts or [p for check in FACT_CHECKS for p in check(chapter)]
    return found + [p for check in CHECKS for p in check(chapter)]
