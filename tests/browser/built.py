"""The built book as data: its pages, their HTML, and what the table of contents says of them."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "book" / "_build" / "html"
sys.path.append(str(ROOT / "tools"))

COMPRESSED = {".css", ".html", ".js", ".svg"}  # what a web server sends with gzip


def pages() -> list[str]:
    """Every page of the built book, by its path; none where the book is not built."""
    found = sorted(path.relative_to(SITE) for path in SITE.rglob("*.html"))
    return [path.as_posix() for path in found if path.parts[0] != "_static"]


def uri(page: str) -> str:
    return (SITE / page).as_uri()


def file_of(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


@cache
def html(page: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / page).read_text("utf-8"), "html.parser")


def transferred(path: Path) -> int:
    """Bytes that a web server with gzip sends for a file."""
    data = path.read_bytes()
    return len(gzip.compress(data)) if path.suffix in COMPRESSED else len(data)


def reading_order() -> list[tuple[str, bool]]:
    """The pages in the order of `_toc.yml`, the first page first; whether each is numbered."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text("utf-8"))
    listed = [(f"{toc['root']}.html", False)]
    for part in toc["parts"]:
        listed += [(f"{file}.html", bool(part.get("numbered"))) for file in _files(part)]
    return listed


def _files(item: dict) -> Iterator[str]:
    for entry in item.get("chapters", []) + item.get("sections", []):
        if "file" in entry:
            yield entry["file"]
        yield from _files(entry)


def chapters() -> dict[str, str]:
    """The page of each chapter in the table of contents, and the chapter's title."""
    found = {}
    for page, _ in reading_order():
        notebook = (ROOT / "book" / page).with_suffix(".ipynb")
        if notebook.is_file():
            facts = json.loads(notebook.read_text("utf-8"))["metadata"]["duality"]
            found[page] = facts["title"]
    return found
