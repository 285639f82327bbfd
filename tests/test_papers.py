"""The paper atlas: its facts are sound, contradictions are named, its files can be read."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup
from helpers import one_line
from pybtex.database import parse_file, parse_string

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.append(str(BOOK / "_ext"))

import citations  # noqa: E402
import duality_atlas as atlas  # noqa: E402
import duality_data as data  # noqa: E402
import duality_exports as exports  # noqa: E402
import duality_papers as papers  # noqa: E402

BIB = r"""
@inproceedings{known2024,
  author = {Ng, Andrew Y. and {\'E}cole, Zo{\"e}},
  title = {{GPT} plans},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  url = {https://arxiv.org/abs/2305.00001}
}
@misc{twin2024,
  author = {Ng, Andrew Y.},
  title = {{GPT} plans},
  year = {2024},
  eprint = {2305.00001}
}"""
KNOWN = {"key": "known2024", "leaves": ["one"]}
OTHER = {"key": "other2022", "title": "Other", "leaves": ["two", "one"], "arxiv": "2211.00002"}


@pytest.fixture(scope="module")
def book() -> data.Book:
    return data.read_book(BOOK)


@pytest.fixture(scope="module")
def found(book: data.Book) -> list[papers.Paper]:
    return papers.read_papers(BOOK, book)


def small(*named: str, text: str = "") -> data.Book:
    """A book of two leaves, whose one chapter cites papers in its metadata and in its text."""
    leaves = (
        data.Leaf("One", "L1", chapter="c", papers={"one": "The one"}),
        data.Leaf("Two", "L2", subject="s", papers={"two": "The two", "three": "The three"}),
    )
    direction = data.Direction("tools", "Tools", "", (data.Branch("B", leaves),))
    cells = [{"cell_type": "markdown", "source": [text]}]
    chapter = data.Chapter("c", "", Path(), cells, {"papers": list(named), "title": "C"}, {})
    return data.Book({"c": chapter}, {"tools": direction}, {}, [])


def read(folder: Path, book: data.Book, *items: dict[str, Any]) -> list[papers.Paper]:
    (folder / "references.bib").write_text(BIB, "utf-8")
    (folder / "papers.yml").write_text(yaml.safe_dump(list(items)), "utf-8")
    return papers.read_papers(folder, book)


def test_every_paper_is_there_once_with_a_link_and_a_leaf(
    found: list[papers.Paper], book: data.Book
):
    assert [paper.key for paper in found] == sorted({paper.key for paper in found})
    numbers = [paper.arxiv for paper in found if paper.arxiv]
    assert len(numbers) == len(set(numbers))
    assert len({re.sub(r"\W", "", paper.title.lower()) for paper in found}) == len(found)
    assert {leaf for paper in found for leaf in paper.leaves} == papers.topics(book).keys()
    for paper in found:
        for address in (paper.address, paper.code):
            assert address in ("", papers.SAID) or re.fullmatch(r"https://[^\s<>\"]+", address)
        assert paper.year or not paper.arxiv
        assert len(paper.leaves) == len(set(paper.leaves)), paper.key


def test_every_paper_that_a_chapter_cites_is_there_and_names_the_chapter(
    found: list[papers.Paper], book: data.Book
):
    addresses = {paper.address: paper for paper in found}
    entries = parse_file(BOOK / "references.bib").entries
    links = [citations.link(entry) for entry in entries.values()]
    assert len(links) == len(set(links)), "one paper under two keys"
    for name, chapter in book.chapters.items():
        for key in chapter.facts["papers"]:
            address = citations.link(entries[key])
            number = re.search(r"arxiv\.org/abs/(\S+)", address)
            paper = addresses[f"https://arxiv.org/abs/{number[1]}" if number else address]
            assert name in paper.chapters


def test_a_summary_stands_only_where_a_chapter_describes_the_paper(found: list[papers.Paper]):
    for paper in found:
        if paper.summary:
            assert paper.chapters, paper.key
            assert paper.summary.endswith("."), paper.key
            assert len(paper.summary) <= 140, paper.key


def test_a_cited_paper_has_its_facts_from_references_bib(tmp_path: Path):
    link = "[Ng and École (2024)](https://arxiv.org/abs/2305.00001)"
    known, other = read(tmp_path, small(text=link), KNOWN, OTHER)
    assert (known.title, known.year, known.venue) == ("GPT plans", 2023, "ICML 2024")
    assert known.authors == ("Andrew Y. Ng", "Zoë École")
    assert known.people == "Andrew Y. Ng and Zoë École"
    assert known.address == "https://arxiv.org/abs/2305.00001"
    assert known.chapters == ("c",)
    assert (other.chapters, other.year, other.people) == ((), 2022, "")
    by_metadata, _ = read(tmp_path, small("twin2024"), KNOWN, OTHER)
    assert by_metadata.chapters == ("c",)  # another key of the same paper


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ((OTHER,), ["lacks known2024", "cited in c"]),
        ((OTHER, KNOWN), ["known2024", "other2022", "sort"]),
        ((KNOWN, KNOWN), ["known2024", "once"]),
        ((KNOWN, OTHER, OTHER | {"key": "third"}), ["2211.00002", "twice"]),
        ((KNOWN | {"title": "GPT"}, OTHER), ["known2024", "references.bib", "title"]),
        ((KNOWN | {"colour": "red"}, OTHER), ["known2024", "colour"]),
        ((KNOWN | {"leaves": ["four"]}, OTHER), ["known2024", "four", "taxonomy.yml"]),
        ((KNOWN | {"leaves": []}, OTHER), ["known2024", "leaf"]),
        ((KNOWN | {"listed": ["four"]}, OTHER), ["known2024", "section four"]),
        ((KNOWN | {"evidence": ["dreams"]}, OTHER), ["known2024", "dreams", "robots"]),
        ((KNOWN | {"code": "no"}, OTHER), ["known2024", "code"]),
        ((KNOWN, OTHER | {"arxiv": "2211.2"}), ["other2022", "arxiv", "quotation"]),
        ((KNOWN, OTHER | {"arxiv": ""}), ["other2022", "address"]),
        ((KNOWN, OTHER | {"title": ""}), ["other2022", "title"]),
    ],
)
def test_a_contradiction_is_one_line(tmp_path: Path, items, words):
    with pytest.raises(data.BookError) as error:
        read(tmp_path, small("known2024"), *items)
    one_line(error, *words)


def paper(key: str, *leaves: str, **facts: Any) -> papers.Paper:
    return papers.Paper(key, leaves, key.title(), **facts)


def test_a_paper_has_moved_where_no_section_of_the_collection_holds_its_leaves():
    assert not paper("a", "finetuning-vla", listed=("finetuning",)).moved
    assert not paper("a", "base-vlm", "safety", listed=("safety",)).moved
    assert not paper("a", "planning-llm").moved
    assert paper("a", "base-vlm", listed=("reward-vlm", "planning-llm")).moved


def test_a_topic_shows_its_own_papers_first_and_background_last():
    listed = [
        paper("old", "one", year=2020),
        paper("new", "one", "two", year=2025),
        paper("guest", "two", "one", year=2026),
        paper("ground", "one", year=2026, background=True),
    ]
    assert [one.key for one in papers.at(listed, "one")] == ["new", "old", "guest", "ground"]
    assert [one.key for one in papers.at(listed, "two")] == ["guest", "new"]


def test_the_first_column_holds_all_years_before():
    listed = [paper(str(year), "one", year=year) for year in (1999, 2019, 2021, 2026, 2026, 0)]
    columns = atlas.years(listed)
    assert columns == [2021, 2022, 2023, 2024, 2025, 2026]
    assert atlas.counts(listed, columns) == [2, 1, 0, 0, 0, 0, 2]


def test_more_papers_are_a_darker_cell():
    shades = [atlas.shade(count, 40) for count in range(41)]
    assert shades[0] == 0
    assert shades == sorted(shades)
    assert shades[1] > 5
    assert shades[-1] <= 60  # or the number in it could not be read


def test_the_picture_counts_every_paper(found: list[papers.Paper], book: data.Book):
    rows = BeautifulSoup(atlas.picture(found, book), "html.parser").select("tbody tr:has(td)")
    counted = {row.a["href"][1:]: int(row.select_one(".total").get_text()) for row in rows}
    assert counted == Counter(leaf for paper in found for leaf in paper.leaves)


def test_the_list_shows_every_paper_once_and_points_to_it_elsewhere(
    found: list[papers.Paper], book: data.Book
):
    soup = BeautifulSoup(atlas.atlas(found, book, lambda name: f"{name}.html"), "html.parser")
    full = soup.select("li[id]")
    assert Counter(item["id"] for item in full) == Counter(paper.key for paper in found)
    assert [s["id"] for s in soup.find_all("section")] == list(papers.topics(book))
    places = {
        (s["id"], li["data-key"]) for s in soup.find_all("section") for li in s.find_all("li")
    }
    assert places == {(leaf, paper.key) for paper in found for leaf in paper.leaves}
    assert len({tag["id"] for tag in soup.find_all(id=True)}) == len(soup.find_all(id=True))


def test_what_was_merged_and_moved_is_named(found: list[papers.Paper], book: data.Book):
    soup = BeautifulSoup(atlas.changes(found, book), "html.parser")
    named = [{a["href"][1:] for a in part.find_all("a")} for part in soup.find_all("details")]
    assert named == [
        {paper.key for paper in found if len(paper.listed) > 1},
        {paper.key for paper in found if paper.moved},
    ]


def test_links_to_a_leaf_count_its_papers_part_by_part():
    one, two = small().leaves
    listed = [paper("a", "one"), paper("b", "two", "one"), paper("c", "two")]
    assert atlas.links(one, listed, "p.html") == [("2 papers", "p.html#one")]
    assert atlas.links(two, listed[:2], "p.html") == [
        ("1 paper on the two", "p.html#two"),
        ("0 papers on the three", "p.html#three"),
    ]


def test_the_files_hold_the_same_papers(found: list[papers.Paper]):
    entries = papers.bibliography(BOOK)
    files = exports.documents(found, entries)
    (bib, table, objects) = (files[f"{exports.NAME}.{end}"] for end in ("bib", "csv", "json"))
    keys = [paper.key for paper in found]
    parsed = parse_string(bib, "bibtex").entries
    assert list(parsed) == keys
    assert all(parsed[key].fields["title"] for key in keys)
    assert parsed["ren2024dppo"] == entries["ren2024dppo"]
    rows = list(csv.DictReader(io.StringIO(table)))
    listed = json.loads(objects)
    assert [row["key"] for row in rows] == [item["key"] for item in listed] == keys
    for paper, row, item in zip(found, rows, listed, strict=True):
        assert row["address"] == item["address"] == paper.address
        assert tuple(row["leaves"].split("; ")) == tuple(item["leaves"]) == paper.leaves
        assert item["background"] is paper.background
        assert item["year"] == (paper.year or None)
