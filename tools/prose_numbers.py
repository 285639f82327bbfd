"""The numbers that a chapter's prose quotes, and whether the chapter has measured or set them.

Checked are decimal numbers (.58, 0.58, 3.1), percentages (58%) and points (27 points) in the prose
from the heading "Train" on. Each must stand, up to rounding, in the chapter's outputs, in its code
or in its file under `book/results`; where the prose tells of full mode, in that of `h100` as well.
An interval must stand there whole, behind its estimate: a chapter prints so many numbers that its
bounds, each for itself, would nearly always be found. A difference or a ratio that no output shows
is not found either: print it, where the reader can see it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from nbformat import NotebookNode
from notebooks import NotebookError, metadata_of
from outputs import texts
from portable import CITATION

_TRAIN = re.compile(r"## .*\btrain\b", re.IGNORECASE)
_METHOD = re.compile(r"## .*\bthe method\b", re.IGNORECASE)
_SECTION = re.compile(r"^(?=## )", re.MULTILINE)
_CODE = re.compile(r"^(```+|~~~+)(?!\{).*?^\1", re.DOTALL | re.MULTILINE)  # a directive holds prose
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|#:`]|\d+\.\s))")
_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!al\.)\)?\s+(?=[A-Z*({$\[`\"])")
_PAPER = re.compile(r"\]\(https?://(?:dx\.)?(?:doi\.org|arxiv\.org|openreview\.net)/")
# Folders of results from other runs than the stored one, and the words that tell of these.
_ELSEWHERE = {
    "h100": re.compile(r"full mode|larger run|H100", re.IGNORECASE),
    "replications": re.compile(r"replication|other seeds", re.IGNORECASE),
}
# Addresses, tags, TeX commands, and indices, which are names: z_{97.5}.
_HIDDEN = re.compile(r"(?<=\])\([^)\s]*\)|<[a-zA-Z/!][^>]*>|\\[a-zA-Z]+|_\{[^}]*\}")
_TAGS = re.compile(r"<style.*?</style>|<[a-zA-Z/!][^>]*>", re.DOTALL)

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)?\.\d+|\d{1,3}(?:,\d{3})+|\d+"
_HUNDREDTHS = r"\s?\\?%|[ -]points?\b"
_NUMBER = re.compile(
    rf"(?<![\w.])(?<![a-zA-Z]-)(?P<sign>[-\u2212])?(?P<digits>{_DIGITS})(?P<power>e[-+]?\d+)?"
    rf"(?:(?P<hundredths>{_HUNDREDTHS})|\s(?P<scale>thousand|million|billion)\b)?"
    r"(?=(?:x|m?s)?(?!\w))(?!\.\d)"
)
_END = rf"[-\u2212]?(?:{_DIGITS})%?"
_INTERVAL = re.compile(rf"(?<![\w.,]){_END}\s(?P<bounds>\[{_END},\s{_END}\])")
_SCALES = {None: 1.0, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_MIN_WORDS = 4  # of the reason for a number that no output shows
# The level of the book's intervals, all and nothing: words rather than measurements.
_WORDS = frozenset({"0%", "95%", "100%"})


@dataclass(frozen=True)
class Number:
    """A number as it is written, and half a unit of its last digit."""

    text: str
    value: float
    half: float

    def is_near(self, value: float) -> bool:
        return abs(value - self.value) <= self.half * (1 + 1e-9) + 1e-12


@dataclass(frozen=True)
class Quoted:
    """A number of the prose, or an estimate with its two bounds, and where it stands."""

    cell: int
    sentence: str
    text: str
    numbers: tuple[Number, ...]
    piece: str  # the prose around it, from one heading or cell to the next


@dataclass
class Known:
    """What a chapter has printed, set or stored: numbers, and estimates with their bounds."""

    single: set[float] = field(default_factory=set)
    intervals: set[tuple[float, float, float]] = field(default_factory=set)

    def __or__(self, other: Known) -> Known:
        return Known(self.single | other.single, self.intervals | other.intervals)

    def holds(self, quoted: Quoted) -> bool:
        if len(quoted.numbers) == 1:
            number = quoted.numbers[0]
            return any(number.is_near(sign * value) for value in self.single for sign in (1, -1))
        mirrored = {(-estimate, -high, -low) for estimate, low, high in self.intervals}
        return any(  # what lost 0.2 [0.1, 0.3] is printed as -0.2 [-0.3, -0.1]
            all(number.is_near(value) for number, value in zip(quoted.numbers, row, strict=True))
            for row in self.intervals | mirrored
        )

    def add_text(self, text: str) -> None:
        for found in _INTERVAL.finditer(text):
            estimate, low, high = (number.value for number in _numbers(found[0]))
            self.intervals.add((estimate, low, high))
        outside = _INTERVAL.sub(lambda found: found[0].removesuffix(found["bounds"]), text)
        self.single.update(number.value for number in _numbers(outside))

    def add_code(self, source: str) -> None:
        python = re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE)
        with contextlib.suppress(SyntaxError, tokenize.TokenError):  # another check reports them
            for token in tokenize.generate_tokens(io.StringIO(python).readline):
                if token.type == tokenize.NUMBER:
                    self.single.add(abs(ast.literal_eval(token.string)))

    def add_json(self, node: Any) -> None:
        """Numbers, and means of lists: single seeds would match nearly anything."""
        if _is_number(node):
            self.single.add(float(node))
        elif isinstance(node, list) and node and all(map(_is_number, node)):
            self.single.add(fmean(node))
        elif isinstance(node, list):
            for part in node:
                self.add_json(part)
        elif isinstance(node, dict):
            interval = tuple(node.get(key) for key in ("estimate", "low", "high"))
            if all(map(_is_number, interval)):
                self.intervals.add(interval)
                node = {key: part for key, part in node.items() if key not in {"low", "high"}}
            for part in node.values():
                self.add_json(part)


def _is_number(node: Any) -> bool:
    return isinstance(node, int | float) and not isinstance(node, bool)


def _numbers(text: str) -> Iterator[Number]:
    for found in _NUMBER.finditer(text):
        digits, hundredths = found["digits"].replace(",", ""), found["hundredths"] or ""
        places = len(digits.partition(".")[2])
        unit = float("1" + (found["power"] or "")) * _SCALES[found["scale"]]
        unit *= 0.01 if hundredths else 1.0
        mark = "%" if "%" in hundredths else hundredths and " points"
        value = float(digits) * unit * (-1 if found["sign"] else 1)
        yield Number(digits + mark, value, 0.5 * unit * 10.0**-places)


def quoted(nb: NotebookNode) -> Iterator[Quoted]:
    """Every number of the prose that needs a source; those of a paper stand beside its citation."""
    for cell, piece in _pieces(nb):
        for block in _BLOCK.split(piece):
            for sentence in _SENTENCE.split(block):
                if not (CITATION.search(sentence) or _PAPER.search(sentence)):
                    shown = " ".join(sentence.split())
                    for text, numbers in _groups(_HIDDEN.sub(" ", sentence)):
                        yield Quoted(cell, shown, text, numbers, piece)


def _pieces(nb: NotebookNode) -> list[tuple[int, str]]:
    """The prose from the heading "Train" on, or without one from what follows "The method"."""
    pieces = [
        (number, piece)
        for number, cell in enumerate(nb.cells, 1)
        if cell.cell_type == "markdown"
        for piece in _SECTION.split(_CODE.sub("", cell.source))
    ]
    heads = [index for index, (_, piece) in enumerate(pieces) if piece.startswith("## ")]
    train = [index for index in heads if _TRAIN.match(pieces[index][1])]
    method = [index for index in heads if _METHOD.match(pieces[index][1])]
    later = [index for index in heads if method and index > method[0]]
    return pieces[(train or later or [0])[0] :]


def _groups(sentence: str) -> Iterator[tuple[str, tuple[Number, ...]]]:
    """Estimates with their bounds, and the other numbers that a rounded measurement can be."""
    for found in _INTERVAL.finditer(sentence):
        yield " ".join(found[0].split()), tuple(_numbers(found[0]))
    for number in _numbers(_INTERVAL.sub(" ", sentence)):
        if not number.text.isdigit() and number.text not in _WORDS:
            yield number.text, (number,)


def printed(nb: NotebookNode) -> Known:
    """What the code cells of a chapter contain and their outputs show."""
    known = Known()
    for cell in nb.cells:
        if cell.cell_type == "code":
            known.add_code(cell.source)
            for output in cell.outputs:
                for text in texts(output):
                    known.add_text(_TAGS.sub(" ", text))
    return known


def stored(folder: Path, chapter: str) -> Known:
    """What a chapter's files in a folder of results hold."""
    known = Known()
    for path in folder.glob(f"{chapter.replace('/', '-')}.*"):
        text = path.read_text("utf-8")
        try:
            known.add_json(json.loads(text)) if path.suffix == ".json" else known.add_text(text)
        except ValueError:
            raise NotebookError(f"{path.name} is damaged: restore it from git.") from None
    return known


def unsupported(nb: NotebookNode, results: Path, chapter: str) -> Iterator[Quoted]:
    """The numbers that the chapter quotes and has neither measured nor set."""
    usual = printed(nb) | stored(results, chapter)
    other = {folder: stored(results / folder, chapter) for folder in _ELSEWHERE}
    for number in quoted(nb):
        told = [folder for folder, words in _ELSEWHERE.items() if words.search(number.piece)]
        if not any(known.holds(number) for known in (usual, *(other[folder] for folder in told))):
            yield number


def problems_with_numbers(
    nb: NotebookNode, results: Path, chapter: str
) -> Iterator[tuple[int, str]]:
    """What is wrong with the numbers of a chapter's prose, each with the number of its cell.

    The metadata entry `numbers` maps those that need no source, as they are written, to the reason.
    """
    reasons = metadata_of(nb).get("numbers", {})
    if not isinstance(reasons, dict):
        yield 0, "metadata 'numbers' must map numbers to the reasons why no output shows them."
        return
    for text, reason in reasons.items():
        if not isinstance(reason, str) or len(reason.split()) < _MIN_WORDS:
            yield 0, f"metadata 'numbers' must give {text} a reason of {_MIN_WORDS} words or more."
    for text in sorted(reasons.keys() - {number.text for number in quoted(nb)}):
        yield 0, f"metadata 'numbers' names {text}, which the prose does not quote: remove it."
    for number in unsupported(nb, results, chapter):
        if number.text not in reasons:
            how = "print it, cite its paper beside it, or give a reason in metadata 'numbers'"
            yield number.cell, f"no output shows {number.text}: {how}. {number.sentence!r}"
