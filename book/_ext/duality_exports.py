"""The paper atlas as files: BibTeX, CSV and JSON, written beside the built pages."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from duality_data import read_book
from duality_papers import Paper, bibliography, read_papers
from pybtex.database import BibliographyData, Entry, Person
from sphinx.application import Sphinx

FOLDER, NAME = "downloads", "duality-papers"
FIELDS = (
    *("key", "title", "authors", "year", "venue", "arxiv", "address", "code", "leaves"),
    *("base_model", "evidence", "background", "summary", "chapters", "listed"),
)


def bibtex(papers: list[Paper], entries: dict[str, Entry]) -> str:
    """The papers as BibTeX: the book's own entries where it has them."""
    found = {paper.key: entries.get(paper.key) or _entry(paper) for paper in papers}
    return str(BibliographyData(entries=found).to_string("bibtex"))


def _entry(paper: Paper) -> Entry:
    fields = {
        "title": f"{{{paper.title}}}",
        "howpublished": paper.venue,
        "year": str(paper.year or ""),
        "eprint": paper.arxiv,
        "archivePrefix": "arXiv" if paper.arxiv else "",
        "url": paper.address,
    }
    people = {"author": [Person(name) for name in paper.authors]}
    kept = {name: value for name, value in fields.items() if value}
    return Entry("misc", fields=kept, persons=people if paper.authors else {})


def table(papers: list[Paper]) -> str:
    """The papers as CSV: several values of a field stand in one cell, with `; ` between them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for paper in papers:
        writer.writerow({name: _cell(value) for name, value in facts(paper).items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else "" if value is None else value


def facts(paper: Paper) -> dict[str, Any]:
    """What a file says of a paper; None where it is not known."""
    values = {name: getattr(paper, name) for name in FIELDS}
    values |= {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
    return {
        name: None if value in ("", 0) and value is not False else value
        for name, value in values.items()
    }


def documents(papers: list[Paper], entries: dict[str, Entry]) -> dict[str, str]:
    """Every file by its name."""
    return {
        f"{NAME}.bib": bibtex(papers, entries),
        f"{NAME}.csv": table(papers),
        f"{NAME}.json": json.dumps([facts(p) for p in papers], indent=1, ensure_ascii=False) + "\n",
    }


def write_papers(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    source, target = Path(app.srcdir), Path(app.outdir) / FOLDER
    target.mkdir(exist_ok=True)
    papers = read_papers(source, read_book(source))
    for name, text in documents(papers, bibliography(source)).items():
        (target / name).write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", write_papers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
