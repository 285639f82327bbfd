"""The papers of the atlas: papers.yml, with what references.bib and the chapters know of them.

A paper that a chapter cites has its facts in references.bib, and there alone. Which chapters cite a
paper is read from their text and metadata. A contradiction is a BookError.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from citations import link
from duality_data import Book, BookError, Chapter, Leaf
from pybtex.database import Entry, Person, parse_file
from pybtex.richtext import Text

ARXIV = re.compile(r"\d{4}\.\d{5}")
GROUND = "foundations"  # the direction whose papers are mostly background
EVIDENCE = ("simulation", "robots")
SAID = "yes"  # the code of a paper is said to be public, and its address is not known
VENUES = {  # the short names of venues that references.bib writes out
    "Advances in Neural Information Processing Systems": "NeurIPS",
    "International Conference on Learning Representations": "ICLR",
    "International Conference on Machine Learning": "ICML",
    "Conference on Robot Learning": "CoRL",
    "Robotics: Science and Systems": "RSS",
}


@dataclass(frozen=True)
class Topic:
    """A heading of the atlas: a leaf of the taxonomy, or a part of one."""

    key: str
    title: str
    leaf: Leaf
    group: str


@dataclass(frozen=True)
class Paper:
    """An entry of papers.yml, completed."""

    key: str
    leaves: tuple[str, ...]
    title: str = ""
    authors: tuple[str, ...] = ()
    year: int = 0  # of arXiv or of publication, the earlier one; 0 where it is not known
    venue: str = ""
    arxiv: str = ""
    url: str = ""
    code: str = ""
    base_model: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    background: bool = False
    summary: str = ""
    listed: tuple[str, ...] = ()
    chapters: tuple[str, ...] = ()  # that cite it

    @property
    def address(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url

    @property
    def people(self) -> str:
        """Its authors in short."""
        if len(self.authors) > 3:
            return f"{self.authors[0]} et al."
        return " and ".join(filter(None, [", ".join(self.authors[:-1]), *self.authors[-1:]]))

    @property
    def moved(self) -> bool:
        """Whether it stands at another leaf than in the review's collection."""
        return bool(self.listed) and not any(
            leaf.startswith(section) for leaf in self.leaves for section in self.listed
        )


def topics(book: Book) -> dict[str, Topic]:
    """The headings of the atlas, in the order of the taxonomy, but what others build on last."""
    ordered = sorted(book.directions.values(), key=lambda direction: direction.key == GROUND)
    return {
        key: Topic(key, title, leaf, branch.name if direction.key == GROUND else direction.title)
        for direction in ordered
        for branch in direction.branches
        for leaf in branch.leaves
        for key, title in leaf.papers.items()
    }


def bibliography(folder: Path) -> dict[str, Entry]:
    return dict(parse_file(str(folder / "references.bib")).entries)


def read_papers(folder: Path, book: Book) -> list[Paper]:
    """Read papers.yml, sorted by key, and compare it with the rest of the book."""
    entries = bibliography(folder)
    cited = citing(book, entries)
    found = []
    for item in yaml.safe_load((folder / "papers.yml").read_text("utf-8")):
        paper = _paper(item, entries)
        found.append(replace(paper, chapters=tuple(cited.pop(paper.address, ()))))
    if cited:
        keys = {_plain(link(entry)): key for key, entry in reversed(entries.items())}
        missing = ", ".join(sorted(keys[address] for address in cited))
        where = ", ".join(sorted({name for names in cited.values() for name in names}))
        raise BookError(f"papers.yml lacks {missing}, cited in {where}: add key and leaves.")
    _check(found, topics(book))
    return found


def citing(book: Book, entries: dict[str, Entry]) -> dict[str, list[str]]:
    """The chapters that cite a paper, by the address of the paper."""
    addresses = {key: link(entry) for key, entry in entries.items()}
    own = set(addresses.values())
    found: dict[str, list[str]] = {}
    for chapter in book.chapters.values():
        named = [addresses[key] for key in chapter.facts["papers"] if key in addresses]
        for address in dict.fromkeys([*named, *(one for one in _links(chapter) if one in own)]):
            found.setdefault(_plain(address), []).append(chapter.name)
    return found


def _links(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.cells:
        if cell["cell_type"] == "markdown":
            yield from re.findall(r"\]\((https?://[^)\s]+)\)", "".join(cell["source"]))


def _plain(address: str) -> str:
    """The address under which the atlas has a paper."""
    number = ARXIV.search(address) if "arxiv" in address.lower() else None
    return f"https://arxiv.org/abs/{number[0]}" if number else address


def _paper(item: dict[str, Any], entries: dict[str, Entry]) -> Paper:
    """One entry; `references.bib` has the facts of a paper that it knows."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in item.items()
    }
    try:
        paper = Paper(**fields)
    except TypeError as error:
        where = f"papers.yml, {item.get('key', 'an entry without key')}"
        raise BookError(f"{where}: {str(error).partition('() ')[2]}.") from None
    if entry := entries.get(paper.key):
        if twice := {"title", "authors", "year", "venue", "arxiv", "url"} & item.keys():
            names = ", ".join(sorted(twice))
            raise BookError(f"papers.yml, {paper.key}: references.bib has its {names} already.")
        paper = replace(paper, **_facts(entry))
    first = 2000 + int(paper.arxiv[:2]) if ARXIV.fullmatch(str(paper.arxiv)) else paper.year
    return replace(paper, year=min(first, paper.year or first))


def _facts(entry: Entry) -> dict[str, Any]:
    """What references.bib says of a paper."""
    fields, address = entry.fields, _plain(link(entry))
    number = ARXIV.search(fields.get("eprint", "")) or ARXIV.search(
        address if "arxiv" in address else ""
    )
    return {
        "title": plain(fields["title"]),
        "authors": tuple(_name(person) for person in entry.persons.get("author", [])),
        "year": int(fields["year"]),
        "venue": _venue(fields),
        "arxiv": number[0] if number and "arxiv" in address else "",
        "url": address,
    }


def plain(latex: str) -> str:
    """What a field of references.bib reads like."""
    return " ".join(str(Text.from_latex(latex)).split())


def _name(person: Person) -> str:
    parts = (person.first_names, person.middle_names, person.prelast_names, person.last_names)
    return plain(" ".join(name for names in parts for name in names))


def _venue(fields: dict[str, str]) -> str:
    names = ("journal", "booktitle", "howpublished", "publisher", "institution")
    name = next((plain(fields[key]) for key in names if key in fields), "")
    if not name or "arXiv" in name:
        return ""
    short = next((short for long, short in VENUES.items() if long in name), "")
    return f"{short} {fields['year']}" if short else f"{name}, {fields['year']}"


def _check(papers: list[Paper], known: dict[str, Topic]) -> None:
    keys = [paper.key for paper in papers]
    for before, key in pairwise(keys):
        if key <= before:
            raise BookError(f"papers.yml: {key} stands behind {before}: sort it, each key once.")
    for address, number in Counter(paper.address for paper in papers).items():
        if number > 1:
            raise BookError(f"papers.yml has {address} twice: make one entry of them.")
    for paper in papers:
        if problem := _problem(paper, known):
            raise BookError(f"papers.yml, {paper.key}: {problem}.")


def _problem(paper: Paper, known: dict[str, Topic]) -> str:
    """What is wrong with a paper by itself."""
    if strange := set(paper.leaves) - known.keys():
        return f"no leaf {', '.join(sorted(strange))}: taxonomy.yml names them"
    if not paper.leaves:
        return "it needs a leaf"
    for section in paper.listed:
        if not any(key.startswith(section) for key in known):
            return f"the review's collection has no section {section}"
    if strange := set(paper.evidence) - set(EVIDENCE):
        return f"evidence is {' or '.join(EVIDENCE)}, not {', '.join(sorted(strange))}"
    if not paper.title or not paper.address.startswith("https://"):
        return "it needs a title, and arxiv or url with an address that starts with https://"
    if paper.arxiv and not ARXIV.fullmatch(str(paper.arxiv)):
        return 'arxiv is a number such as "2410.16411", in quotation marks'
    return (
        "" if paper.code in ("", SAID) or paper.code.startswith("https://") else "code is no link"
    )


def at(papers: Iterable[Paper], topic: str) -> list[Paper]:
    """The papers of a topic: its own before those that mainly stand elsewhere, newest first."""
    own = [paper for paper in papers if topic in paper.leaves]
    return sorted(
        own, key=lambda p: (p.background, p.leaves[0] != topic, -p.year, p.title.casefold())
    )
