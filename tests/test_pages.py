"""The generated pages: their sources agree, contradictions are named, the built pages hold up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup
from helpers import one_line

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.append(str(BOOK / "_ext"))

import duality_data as data  # noqa: E402

FACTS = {
    "title": "One",
    "leaf": "Base model: one",
    "review_section": "3",
    "papers": [],
    "prerequisites": [],
    "summary": "A summary.",
}


@pytest.fixture(scope="module")
def book() -> data.Book:
    return data.read_book(BOOK)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, built from the sources as they are."""
    folder = tmp_path_factory.mktemp("built")
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        "-W",
        "-n",
        "--keep-going",
        "-q",
    ]
    command += ["--path-output", str(folder), str(BOOK)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"


def page(built: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((built / f"{name}.html").read_text("utf-8"), "html.parser")


def write_book(
    folder: Path, taxonomy: Callable[[dict[str, Any]], None], facts: dict[str, Any]
) -> None:
    """A book of one chapter and two leaves, after `taxonomy` has changed its taxonomy."""
    leaves = [
        {"name": "One", "leaf": "Base model: one", "section": "3", "chapter": "base/one"},
        {"name": "Two", "leaf": "Base model: two", "section": "3", "subject": "two"},
    ]
    branch = {"name": "Base models", "leaves": leaves}
    tree = {"directions": [{"key": "foundations", "title": "F", "branches": [branch]}]}
    taxonomy(tree)
    toc = {
        "root": "index",
        "parts": [{"caption": "P", "chapters": [{"file": "chapters/base/one"}]}],
    }
    notebook = {"metadata": {"duality": facts}, "cells": []}
    for name, text in {
        "taxonomy.yml": yaml.safe_dump(tree),
        "_toc.yml": yaml.safe_dump(toc),
        "chapters/base/one.ipynb": json.dumps(notebook),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


def leaf(number: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one leaf; a value of None removes the key."""

    def change(tree: dict[str, Any]) -> None:
        target = tree["directions"][0]["branches"][0]["leaves"][number]
        target.update(changes)
        for key in [key for key, value in target.items() if value is None]:
            del target[key]

    return change


def test_every_chapter_is_at_exactly_one_leaf(book: data.Book):
    listed = re.findall(r"file: chapters/(\S+)", (BOOK / "_toc.yml").read_text("utf-8"))
    named = Counter(leaf.chapter for leaf in book.leaves if leaf.chapter)
    assert named == Counter(listed)
    assert len({(leaf.leaf, leaf.name) for leaf in book.leaves}) == len(book.leaves)


def test_a_sound_book_is_read(tmp_path: Path):
    write_book(tmp_path, lambda tree: None, FACTS)
    one, two = data.read_book(tmp_path).leaves
    assert (one.chapter, one.number) == ("base/one", "3")
    assert (two.chapter, two.subject) == ("", "two")


@pytest.mark.parametrize(
    ("taxonomy", "facts", "words"),
    [
        (leaf(0, chapter=None, subject="x"), {}, ["base/one", "no leaf", "taxonomy.yml"]),
        (leaf(1, chapter="base/one", subject=None), {}, ["base/one", "twice"]),
        (leaf(1, chapter="base/two", subject=None), {}, ["base/two", "_toc.yml"]),
        (leaf(1, subject=None), {}, ["Base model: two", "chapter or a subject"]),
        (leaf(1, colour="red"), {}, ["Base models", "colour"]),
        (leaf(0, leaf="Base model: other"), {}, ["base/one", "differ"]),
        (leaf(0, section="4"), {}, ["base/one", "differ"]),
        (leaf(0), {"prerequisites": ["base/none"]}, ["base/one", "base/none"]),
        (leaf(0), {"summary": None}, ["one.ipynb", "summary"]),
    ],
)
def test_a_contradiction_is_one_line(tmp_path: Path, taxonomy, facts, words):
    changed = {key: value for key, value in (FACTS | facts).items() if value is not None}
    write_book(tmp_path, taxonomy, changed)
    with pytest.raises(data.BookError) as error:
        data.read_book(tmp_path)
    one_line(error, *words)


def test_the_map_links_to_every_chapter_and_to_nothing_else(built: Path, book: data.Book):
    drawn = page(built, "index").select_one(".duality-map")
    wanted = Counter(f"chapters/{name}.html" for name in book.chapters)
    open_leaves = sum(not leaf.chapter for leaf in book.leaves)
    for variant in (drawn.svg, drawn.select_one(".map-list")):
        assert Counter(a["href"] for a in variant.find_all("a")) == wanted
        hollow = variant.select(".open-leaf")
        assert len(hollow) == open_leaves
        assert all(item.get_text().strip().endswith("open") for item in hollow)
    labelled = drawn.svg["aria-labelledby"].split()
    assert [drawn.find(id=name).name for name in labelled] == ["title", "desc"]
