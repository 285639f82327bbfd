"""The generated pages: their sources agree, contradictions are named, the built pages hold up."""

from __future__ import annotations

import json
import os
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
from docutils import nodes
from docutils.core import publish_doctree
from helpers import one_line
from PIL import Image
from pybtex.database import parse_file

from tutorial_utils import figures
from tutorial_utils.figures import palette

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.append(str(BOOK / "_ext"))

import citations  # noqa: E402
import duality_data as data  # noqa: E402
import duality_glossary as glossary  # noqa: E402
import duality_hero as hero  # noqa: E402
import duality_modalities as modalities  # noqa: E402
import duality_opening as opening  # noqa: E402
import duality_plans as plans  # noqa: E402
import duality_replications as replications  # noqa: E402
import duality_tables as tables  # noqa: E402
import page_fixes  # noqa: E402

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


def first(leaf: data.Leaf) -> str:
    """The name under which an open leaf has its papers, if it has any."""
    return "" if leaf.chapter else next(iter(leaf.papers), "")


def test_the_map_links_to_every_chapter_and_to_papers_of_open_leaves(built: Path, book: data.Book):
    drawn = page(built, "index").select_one(".duality-map")
    wanted = Counter(f"chapters/{name}.html" for name in book.chapters)
    open_leaves = sum(not leaf.chapter for leaf in book.leaves)
    wanted += Counter(f"papers.html#{first(leaf)}" for leaf in book.leaves if first(leaf))
    for variant in (drawn.svg, drawn.select_one(".drawing-list")):
        assert Counter(a["href"] for a in variant.find_all("a")) == wanted
        hollow = variant.select(".open-leaf")
        assert len(hollow) == open_leaves
        assert all(item.get_text().strip().endswith("open") for item in hollow)
    labelled = drawn.svg["aria-labelledby"].split()
    assert [drawn.find(id=name).name for name in labelled] == ["title", "desc"]


def test_the_films_show_episodes_that_succeed(book: data.Book):
    for name, frames in hero.cut(book):
        green = frames[-1].getpixel((frames[-1].width // 2, 1))
        assert max(abs(a - b) for a, b in zip(green, palette.rgb(palette.GREEN), strict=True)) < 24
        assert len(frames) > 5, name
        assert frames[-1].width == frames[-1].height


def test_a_film_that_is_gone_is_named(book: data.Book):
    with pytest.raises(data.BookError) as error:
        hero.animation(book, "foundations/the_lab", "no-such-cell")
    one_line(error, "foundations/the_lab", "no-such-cell", "taxonomy.yml")


def test_a_film_ends_where_its_episode_ends(tmp_path: Path):
    shades = [[0, 90, 180], [0, 90, 90]]  # two episodes of four; the second ends earlier
    film = [Image.new("RGB", (4 * 10 + 3 * hero.GAP, 14), "white") for _ in range(3)]
    for time, frame in enumerate(film):
        for number, levels in enumerate(shades):
            frame.paste((levels[time],) * 3, (number * 18, 0, number * 18 + 10, 10))
    film[0].save(tmp_path / "film.gif", save_all=True, append_images=film[1:], duration=100)
    stored = Image.open(tmp_path / "film.gif")
    for number, levels in enumerate(shades):
        frames = hero.episode(stored, number)
        assert [frame.getpixel((5, 5))[0] for frame in frames] == list(dict.fromkeys(levels))
        assert frames[0].size == (10, 10)
        hero.save(frames, tmp_path / "cut")
        still = Image.open(tmp_path / "cut.png").convert("RGB")
        assert still.getpixel((5, 5))[0] == levels[-1]
        assert Image.open(tmp_path / "cut.gif").n_frames == len(frames)


def test_the_films_are_in_the_built_book_with_stills(built: Path, book: data.Book):
    films = page(built, "index").select(".hero .films a")
    assert [film["href"] for film in films] == [f"chapters/{f['chapter']}.html" for f in book.films]
    for film in films:
        assert film.img["alt"]
        assert film.source["media"] == "(prefers-reduced-motion: reduce)"
        assert Image.open(built / film.img["src"]).is_animated
        assert not getattr(Image.open(built / film.source["srcset"]), "is_animated", False)


def test_only_prerequisites_that_no_other_one_needs_are_drawn():
    chapters = {"c": ["a", "b"], "b": ["a"], "a": [], "d": []}
    edges = plans.needed(book_of(chapters))
    assert edges == {"a": set(), "b": {"a"}, "c": {"b"}, "d": set()}
    assert plans.rows(edges) == [["a", "d"], ["b"], ["c"]]


def test_a_row_that_is_full_goes_on_in_the_next():
    edges = {name: set() for name in "abcdefg"}
    assert [len(row) for row in plans.rows(edges)] == [3, 3, 1]


def test_prerequisites_in_a_circle_are_named():
    with pytest.raises(data.BookError) as error:
        plans.needed(book_of({"a": ["b"], "b": ["a"]}))
    one_line(error, "a", "needs", "b", "circle")


def book_of(prerequisites: dict[str, list[str]]) -> data.Book:
    chapters = {
        name: data.Chapter(name, "", Path(), [], {"prerequisites": names}, {})
        for name, names in prerequisites.items()
    }
    return data.Book(chapters, {}, {}, [])


def test_the_graph_draws_every_chapter_once(built: Path, book: data.Book):
    drawn = page(built, "paths").select_one(".prerequisites")
    wanted = [f"chapters/{name}.html" for name in book.chapters]
    for variant in (drawn.svg, drawn.select_one(".drawing-list")):
        assert [a["href"] for a in variant.find_all("a")] == wanted
    assert len(drawn.select(".line")) == sum(map(len, plans.needed(book).values()))


def test_plans_name_a_chapter_after_its_prerequisites(book: data.Book):
    for steps in book.plans.values():
        names = [name for step in steps for name in step["chapters"]]
        assert len(names) == len(set(names))
        for number, name in enumerate(names):
            needed = set(book.chapters[name].facts["prerequisites"])
            assert not needed & set(names[number:])
    weeks = book.plans["six weeks"]
    assert {name for step in weeks for name in step["chapters"]} == set(book.chapters)


def test_plans_fit_the_time_in_their_name(book: data.Book):
    for plan, limit in (("one hour", 75), ("one day", 6 * 60)):
        chapters = [book.chapters[name] for step in book.plans[plan] for name in step["chapters"]]
        assert sum(chapter.read_minutes for chapter in chapters) <= limit


@pytest.mark.parametrize(
    ("number", "text"), [(0.4, "under 1 min"), (61.2, "61 min"), (124, "2 h 04 min")]
)
def test_minutes(number: float, text: str):
    assert plans.minutes(number) == text


def test_a_table_of_a_plan_sums_its_chapters(built: Path, book: data.Book):
    table = page(built, "paths").find("section", id="if-you-have-one-hour").table
    steps = book.plans["one hour"]
    total = [book.chapters[name] for step in steps for name in step["chapters"]]
    last = [cell.get_text() for cell in table.find_all("tr")[-1].find_all("td")]
    assert last[2] == plans.minutes(sum(chapter.read_minutes for chapter in total))
    assert last[3] == plans.minutes(sum(chapter.stamp["seconds"] for chapter in total) / 60)


CLAIM = {"claim": "c", "estimate": 0.92, "low": 0.9, "high": 0.94, "holds": True}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bound": 0.6}, "≥ 0.6"),
        ({"bound": 0.95}, "≤ 0.95"),
        ({"bound": 0.91, "holds": False}, "0.91"),
        ({"bound": 0.95, "holds": False}, "0.95"),  # which side it should lie on is not known
    ],
)
def test_bounds_say_on_which_side_the_interval_lies(changes, text):
    assert tables.bound(CLAIM | changes) == text


def test_seeds_are_the_lengths_of_the_arms():
    arms = {"a": {"success": [1, 1, 1]}, "b": {"success": [1] * 5}, "c": {"seconds": 1}}
    assert tables.seeds(arms) == "3 to 5"
    assert tables.seeds({"b": arms["b"]}) == "5"
    assert tables.seeds({}) == ""


def curled(text: str) -> str:
    """With the quotation marks and apostrophes that the pages have."""
    return re.sub(r"(?<!\w)'", "\u2018", text).replace("'", "\u2019")


def test_coverage_shows_every_leaf_and_every_claim(built: Path, book: data.Book):
    coverage = page(built, "coverage")
    text = " ".join(coverage.get_text().split())
    for leaf in book.leaves:
        if leaf.subject:
            assert f"{leaf.name}{f' (section {leaf.number})' if leaf.number else ''}, open" in text
    shown = {
        tuple(cell.get_text().replace("\u00a0", " ") for cell in row.find_all("td")[:2])
        for row in coverage.select("table tr")
    }
    for chapter in book.chapters.values():
        assert chapter.results["claims"] or chapter.results["reports"]
        for report in chapter.results["reports"]:
            text = curled(report["report"])
            assert (text, tables.measured(report)) in shown
        for claim in chapter.results["claims"]:
            held = replications.replicated(chapter)[claim["claim"]].text(with_mean=True)
            text = curled(f"{claim['claim']} {held}")
            assert (text, tables.measured(claim)) in shown


def test_coverage_and_cards_lead_to_the_papers_of_a_leaf(built: Path, book: data.Book):
    atlas = page(built, "papers")
    linked = [a["href"] for a in page(built, "coverage").select('a[href^="papers.html#"]')]
    assert linked == [f"papers.html#{key}" for leaf in book.leaves for key in leaf.papers]
    assert all(atlas.find("section", id=address.partition("#")[2]) for address in linked)
    for leaf in (leaf for leaf in book.leaves if leaf.chapter):
        card = page(built, f"chapters/{leaf.chapter}").select_one(".chapter-card tr:last-child")
        assert [a["href"].partition("#")[2] for a in card.find_all("a")] == list(leaf.papers)


def test_each_claim_on_a_chapters_page_says_how_often_it_held(built: Path, book: data.Book):
    for chapter in book.chapters.values():
        soup = page(built, chapter.docname)
        shown = [cell.get_text() for cell in soup.select("table.dataframe td:first-child")]
        for text, held in replications.replicated(chapter).items():
            assert shown.count(f"{text} {held.text()}") == 1, text
        assert len(soup.select(".dataframe .replicated")) == len(chapter.results["claims"])
        notes = soup.select(".replications-note a")
        assert len(notes) == bool(chapter.results["claims"])  # nothing is replicated of reports
        for link in (note["href"] for note in notes):
            assert page(built, "status").find(id=link.partition("#")[2])


def replicated_chapter(*ranges: dict[str, Any], **facts: Any) -> data.Chapter:
    """A chapter of code `new` with one claim, "it wins" (at least 0.3)."""
    results = {"mode": "lecture", "claims": [{"claim": "it wins", "bound": 0.3, "holds": True}]}
    facts = {"title": "One", "executed": {"source_hash": "new"}} | facts
    return data.Chapter("base/one", "", Path(), [], facts, results, list(ranges))


def seeds(first: int, count: int, fails: tuple[int, ...] = (), **changes: Any) -> dict[str, Any]:
    """A range of seeds; a run of those that fail crashed if its number is negative."""
    runs: list[dict[str, Any]] = []
    for seed in range(first, first + count):
        claim = {"claim": "it wins", "estimate": seed / 1000, "held": seed not in fails}
        crashed = {"seed": seed, "error": "cell 3: no"}
        runs.append(crashed if -seed in fails else {"seed": seed, "claims": [claim]})
    entry = {"first": first, "count": count, "mode": "lecture", "complete": True, "runs": runs}
    entry |= {"claims": [{"claim": "it wins", "bound": 0.3, "held": 0}], "seconds": 1.0}
    return entry | {"digests": {"code": "new"}, "machine": "M"} | changes


OLD = {"digests": {"code": "old"}}
OTHER = {"claims": [{"claim": "it wins", "bound": 0.2, "held": 10}]}


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ([], "not replicated yet"),
        ([seeds(100, 10)], "held in 10 of 10 replications"),
        ([seeds(100, 10, (101,))], "held in 9 of 10 replications"),
        ([seeds(100, 10, (101, 102))], "held in only 8 of 10 replications"),
        ([seeds(100, 10, (101, -102))], "held in only 8 of 10 replications"),
        ([seeds(100, 3)], "held in 3 of 3 replications; 10 are wanted"),
        ([seeds(100, 10, **OLD)], "held in 10 of 10 replications; of earlier code"),
        # What does not count: begun only, of other claims, of another mode, of an earlier version.
        ([seeds(100, 10, complete=False)], "not replicated yet"),
        ([seeds(100, 10, **OTHER)], "not replicated yet"),
        ([seeds(100, 10, mode="full")], "not replicated yet"),
        ([seeds(100, 10, (101, 102), **OLD), seeds(200, 10)], "held in 10 of 10 replications"),
        # Fresh seeds add to those of the same version; a seed that ran again counts once.
        ([seeds(100, 10, (101, 102)), seeds(200, 10)], "held in 18 of 20 replications"),
        ([seeds(100, 10, (101,)), seeds(101, 1)], "held in 10 of 10 replications"),
        # Every run crashed before it said what it claims.
        ([seeds(100, 10, range(-109, -99), claims=[])], "held in only 0 of 10 replications"),
        ([seeds(100, 10, range(-109, -99), claims=[], **OLD)], "not replicated yet"),
    ],
)
def test_replications_count_that_are_whole_and_of_this_version(ranges, text: str):
    assert replications.replicated(replicated_chapter(*ranges))["it wins"].text() == text


@pytest.mark.parametrize(
    ("held", "style"),
    [
        (replications.Held(9, 10), "replicated"),
        (replications.Held(0, 0), "replicated replicated-weak"),
        (replications.Held(9, 9), "replicated replicated-weak"),
        (replications.Held(9, 10, has_earlier_code=True), "replicated replicated-weak"),
        (replications.Held(8, 10), "replicated replicated-low"),
        (replications.Held(8, 10, has_earlier_code=True), "replicated replicated-low"),
    ],
)
def test_claims_that_are_not_replicated_well_are_marked(held, style: str):
    assert held.style == style


def test_the_mean_over_replications_has_its_t_interval():
    # Of 0.2, 0.4, 0.6: standard deviation 0.2, t 4.303, so half of it is 0.497.
    held = replications.Held(10, 10, False, (0.2, 0.4, 0.6))
    assert held.text(with_mean=True) == "held in 10 of 10 replications, mean 0.4 [-0.0968, 0.897]"


def test_seeds_in_words():
    assert replications.spelt([101, 100, 102]) == "100 to 102"
    assert replications.spelt([100, 101, 1041, 300]) == "100 to 101, 300 and 1041"


def test_only_claims_are_marked_in_a_table():
    text = "RL gives <b>10</b> points more, 0.3 [0.2, 0.4], than the hand's"
    rows = [{"claim": claim, "bound": 1} for claim in (text, f"sabotaged twin: {text}", "1")]
    found = {text: replications.Held(7, 10), "1": replications.Held(0, 0)}
    before = figures.table(rows, alarms=[0])._repr_html_()
    soup = BeautifulSoup(replications.marked(before, found), "html.parser")
    rows = soup.tbody.find_all("tr")
    cells = [[cell.get_text().replace("\xa0", " ") for cell in row("td")] for row in rows]
    assert cells == [
        [f"{text} held in only 7 of 10 replications", "1"],
        [f"sabotaged twin: {text}", "1"],
        ["1 not replicated yet", "1"],
    ]
    assert replications.marked(before, {}) == before


def test_the_status_page_sums_replications_up_and_lists_every_range():
    ranges = [seeds(100, 10, **OTHER), seeds(200, 10, (-200, 201)), seeds(300, 4, complete=False)]
    done = replicated_chapter(*ranges)
    new = data.Chapter("base/two", "", Path(), [], {"title": "Two"}, done.results, [])
    book = data.Book({"base/one": done, "base/two": new}, {}, {}, [])
    sums = "\n".join(tables.replicated_chapters(book))
    assert (
        "held in **8 of 10** replications of claims. Replicated so far: 1 of its 2 claims" in sums
    )
    assert "| 8 of 10 | it wins [held in only 8 of 10 replications]{.replicated" in sums
    assert "| none | [not replicated yet]{.replicated .replicated-weak} |  |" in sums
    _, _, *rows, _ = tables.replicated_ranges(book)
    assert [row.split(" | ")[1:7:2] for row in rows] == [
        ["100 to 109", "10 of 10", "no: other claims"],
        ["200 to 209", "10 of 10, 1 failed", "yes"],
        ["300 to 303", "4 of 4", "no: interrupted"],
    ]


def test_a_book_without_replications_says_so(tmp_path: Path):
    (tmp_path / "results" / "replications").mkdir(parents=True)
    (tmp_path / "results" / "replications" / "base-one.json").write_text('{"ranges": []}')
    book = data.Book({"base/one": replicated_chapter()}, {}, {}, [])
    assert tables.in_all(book) == "None of the 1 claims of the book has been replicated yet."
    assert tables.replicated_ranges(book) == tables._others(book, tmp_path) == ["There are none."]


def test_status_has_the_stamp_of_every_chapter(built: Path, book: data.Book):
    rows = page(built, "status").table.tbody.find_all("tr")
    assert len(rows) == len(book.chapters)
    for row, chapter in zip(rows, book.chapters.values(), strict=True):
        cells = [cell.get_text() for cell in row.find_all("td")]
        assert cells[0] == chapter.short
        assert cells[1] == chapter.stamp["mode"]
        assert cells[3] == f"{chapter.stamp['seconds']:.0f}"
        assert cells[4] == str(chapter.stamp["peak_mb"])


def test_dates_come_from_git_and_only_from_a_whole_history(tmp_path: Path):
    def git(*arguments: str, folder: Path = tmp_path / "whole") -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)

    whole, shallow = tmp_path / "whole", tmp_path / "shallow"
    whole.mkdir()
    assert tables.changed(tmp_path, [whole]) == {}
    git("init", "-q")
    for name in ("one", "two"):
        (whole / name).write_text(name)
        git("add", name)
        git("commit", "-qm", name, "--date", "2026-01-02T00:00:00Z")
    found = tables.changed(whole, [whole / "one"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found[whole / "one"])
    git("clone", "-q", "--depth", "1", whole.as_uri(), str(shallow), folder=tmp_path)
    assert tables.changed(shallow, [shallow / "one"]) == {}


def test_the_form_offers_every_chapter(built: Path, book: data.Book):
    form = page(built, "teaching").select_one("form.hub-links")
    options = [option["value"] for option in form.select("select[name=chapter] option")]
    assert options == [f"book/chapters/{name}.ipynb" for name in book.chapters]
    assert all((ROOT / option).is_file() for option in options)


def test_the_address_of_the_repository_comes_from_the_environment_alone(built: Path):
    repository = page(built, "teaching").select_one("input[name=repository]")
    assert repository["value"] == os.environ.get("DUALITY_REPOSITORY", "")


GLOSSARY = (
    glossary.Entry(("policy",), "term-policy", "A rule."),
    glossary.Entry(("diffusion policy",), "term-diffusion-policy", "A policy."),
    glossary.Entry(("PPO", "proximal policy optimisation"), "term-PPO", "A method."),
    glossary.Entry(("winner's curse",), "term-curse", "Luck."),
)


def linked(text: str) -> list[str]:
    """The terms that are linked in a text, and to what."""
    doctree = publish_doctree(text, settings_overrides={"report_level": 5})
    before = doctree.astext()
    glossary.Linker(GLOSSARY, "glossary.html").link(doctree)
    assert doctree.astext() == before
    links = [node for node in doctree.findall(nodes.reference) if node.get("internal")]
    return [f"{node.astext()} {node['refuri'].partition('#term-')[2]}" for node in links]


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("A policy, a policy.", ["policy policy"]),
        ("Policies act.\n\nOne policy.", ["Policies policy"]),
        ("A diffusion policy is a policy.", ["diffusion policy diffusion-policy", "policy policy"]),
        ("A diffusion\npolicy.", ["diffusion\npolicy diffusion-policy"]),
        ("PPO, or proximal policy optimisation.", ["PPO PPO"]),
        ("The winner\u2019s curse.", ["winner\u2019s curse curse"]),
        ("*The* **policy**.", ["policy policy"]),
        ("- a policy", ["policy policy"]),
        ("Ppo, policyholder, policy-free, on-policy.", []),
        ("A policy\n========\n\nText.", []),
        ("``policy`` and :math:`policy` and `policy <https://example.org>`_.", []),
        ("::\n\n  policy", []),
        ("====== =\npolicy 1\n====== =", []),
        (".. rubric:: policy", []),
    ],
)
def test_the_first_use_of_a_term_in_prose_is_linked(text: str, links: list[str]):
    assert linked(text) == links


def test_every_entry_is_used_in_a_chapter_and_short(built: Path, book: data.Book):
    used = {
        link["href"].partition("#")[2]
        for name in book.chapters
        for link in page(built, f"chapters/{name}").select("a.glossary-link")
    }
    terms = page(built, "glossary").select("dl.glossary > dt")
    first = {dt["id"] for dt in terms if getattr(dt.find_previous_sibling(), "name", "dd") == "dd"}
    assert first == used
    for definition in page(built, "glossary").select("dl.glossary > dd"):
        assert 1 <= len(re.findall(r"[.](?=\s|$)", definition.get_text().strip())) <= 3


def test_a_chapter_links_each_entry_once_and_only_in_prose(built: Path, book: data.Book):
    for name in book.chapters:
        links = page(built, f"chapters/{name}").select("a.glossary-link")
        assert len(links) > 5
        assert len({link["href"] for link in links}) == len(links)
        for link in links:
            assert not link.find_parent(["h1", "h2", "h3", "h4", "code", "pre", "table", "a"])
            assert not link.find_parent(class_="cell_output")


def test_every_paper_of_a_chapter_is_in_the_bibliography(built: Path, book: data.Book):
    known = parse_file(str(BOOK / "references.bib")).entries
    for chapter in book.chapters.values():
        assert set(chapter.facts["papers"]) <= set(known), chapter.name
    assert len(page(built, "bibliography").select("div.citation")) == len(known)


def test_every_citation_of_a_chapter_leads_to_its_entry_in_the_bibliography(
    built: Path, book: data.Book
):
    papers = parse_file(str(BOOK / "references.bib")).entries.values()
    addresses = {citations.link(paper): paper for paper in papers}
    entries = {div["id"]: div.get_text() for div in page(built, "bibliography").select(".citation")}
    cites = re.compile(rf"\[({citations.ASIDE}|{citations.INLINE})\]\(([^)\s]+)\)")
    for name, chapter in book.chapters.items():
        prose = [
            "".join(cell["source"])
            for cell in chapter.cells
            if cell["cell_type"] == "markdown" and "card" not in cell["metadata"].get("tags", [])
        ]
        cited = Counter(
            addresses[address].fields["title"] for _, address in cites.findall("\n".join(prose))
        )
        soup = page(built, f"chapters/{name}")
        links = soup.select("article .bibtex-citation a")
        assert len(links) == cited.total() > 3, name
        found = [entries[link["href"].partition("#")[2]].lower() for link in links]
        for paper in papers:
            title = re.sub(r"[{}]", "", paper.fields["title"]).lower()
            wanted = cited[paper.fields["title"]]
            whole = re.compile(rf"\. {re.escape(title)}(?:[.?!]|(?<=[?!]))")
            assert sum(bool(whole.search(text)) for text in found) == wanted, (name, title)
        left = [a for a in soup.select("article a.external") if a["href"] in addresses]
        assert all(a.find_parent(class_="chapter-card") for a in left), name


CITED = """
| | |
|:--|:--|
| Papers | [Ng et al., 1999]({ng}) |

PPO ([Ng et al., 1999]({ng}); [Kish, 1965]({kish})), in ([Ng et al., 1999]({ng})), by
[Kish (1965)]({kish}), (see [Kish, 1965]({kish})), ([Kish, 1965]({kish}) too), and
[Kish (1966)]({kish}), [this book]({kish}), [Kish (1965)](https://elsewhere.example).
"""


def test_only_links_with_a_papers_text_and_address_become_citations(tmp_path: Path):
    """In parentheses, in a sentence, and beside other words; a card keeps its links."""
    entries = parse_file(str(BOOK / "references.bib")).entries
    ng, kish = (citations.link(entries[key]) for key in ("ng1999", "kish1965"))
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.append({str(BOOK / '_ext')!r})\n"
        "extensions = ['myst_parser', 'sphinxcontrib.bibtex', 'duality_citations']\n"
        "bibtex_reference_style = 'author_year'\nbibtex_bibfiles = ['references.bib']\n"
    )
    (tmp_path / "references.bib").write_text((BOOK / "references.bib").read_text("utf-8"), "utf-8")
    text = CITED.format(ng=ng, kish=kish) + "\n```{bibliography}\n```\n"
    (tmp_path / "index.md").write_text(f"# Title\n{text}", "utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    soup = page(tmp_path / "out", "index")
    (prose,) = [p for p in soup.find_all("p") if p.get_text().startswith("PPO")]
    assert " ".join(prose.get_text().split()) == (
        "PPO [Kish, 1965, Ng et al., 1999], in [Ng et al., 1999], by Kish [1965], "
        "(see Kish, 1965), (Kish, 1965 too), and Kish (1966), this book, Kish (1965)."
    )
    assert len(soup.select("div.citation")) == 2  # what is cited, and nothing else


def test_every_image_of_every_page_has_a_text(built: Path):
    pages = sorted(built.glob("*.html")) + sorted(built.glob("chapters/**/*.html"))
    for path in pages:
        soup = BeautifulSoup(path.read_text("utf-8"), "html.parser")
        for image in soup.find_all("img"):
            assert image.get("alt", "").strip(), f"{path.name}: {image.get('src')}"
            assert "_images/" not in image["alt"], f"{path.name}: {image['alt']}"


def test_every_wide_table_of_a_chapter_scrolls_in_itself(built: Path, book: data.Book):
    """The style sheet gives these containers a scroll bar of their own."""
    for name in book.chapters:
        for table in page(built, f"chapters/{name}").select("article table"):
            holders = table.find_parents(class_=["pst-scrollable-table-container", "text_html"])
            assert holders, f"{name}: {table.get_text()[:60]}"


def test_no_line_break_parts_an_interval(built: Path, book: data.Book):
    parted = re.compile(r"\d \[[-+\d., ]+\]|\[[-+\d.]+, [-+\d.]+\]")
    for row in page(built, "coverage").select("table tr"):
        assert not parted.search(row.get_text())


@pytest.mark.parametrize(("columns", "is_stacked"), [(3, False), (4, True), (6, False), (7, True)])
def test_a_wide_table_has_its_intervals_below_their_estimates(columns: int, is_stacked: bool):
    digits = "" if columns > 4 else "000"
    number = f"0.{digits}12\u00a0[0.{digits}10,\u00a00.{digits}14]"
    cells = f'<td style="white-space: nowrap">{number}</td>' * columns
    table = f'<table class="dataframe"><tr><td>an arm</td>{cells}</tr></table>'
    broken = table.replace("\u00a0[", "<br>[")  # no number and no pair of ends is parted
    assert page_fixes.stacked(table) == (broken if is_stacked else table)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with still pictures, 1.png and 3.png, and films, 2.png and 4.png."""
    folder, frame = tmp_path_factory.mktemp("pictures"), Image.new("L", (4, 4))
    for number in (1, 3):
        frame.save(folder / f"{number}.png")
    for number in (2, 4):
        other = Image.new("L", (4, 4), 255)
        frame.save(folder / f"{number}.png", save_all=True, append_images=[other])
    return folder


def doctree_of(*images: tuple[str, str]) -> nodes.document:
    """A chapter with one cell for each image (id of the cell, file), in one section."""
    doctree = publish_doctree("Title\n=====\n\nText.")
    for index, (_, file) in enumerate(images):
        cell = nodes.container("", nodes.image(uri=file), nb_element="cell_code", cell_index=index)
        doctree += cell
    return doctree


@pytest.mark.parametrize(
    ("images", "wanted", "file"),
    [
        ((("a", "/1.png"), ("b", "/2.png"), ("c", "/4.png")), None, "/2.png"),
        ((("a", "/1.png"), ("b", "/3.png")), None, "/1.png"),
        ((("a", "/1.png"), ("b", "/2.png"), ("c", "/3.png")), "c", "/3.png"),
        ((), None, None),
    ],
)
def test_a_chapter_opens_with_its_first_film_or_what_it_names(images, wanted, file, pictures):
    facts = {"opening": wanted} if wanted else {}
    notebook = {"metadata": {"duality": facts}, "cells": [{"id": cell} for cell, _ in images]}
    image = opening.chosen(doctree_of(*images), notebook, pictures)
    assert (image and image["uri"]) == file


def test_an_opening_that_is_gone_is_named(pictures: Path):
    notebook = {"metadata": {"duality": {"opening": "gone"}}, "cells": [{"id": "a"}]}
    with pytest.raises(data.BookError) as error:
        opening.chosen(doctree_of(("a", "/1.png")), notebook, pictures)
    one_line(error, "opening", "gone")


def test_every_chapter_opens_with_an_image_that_stands_further_down(built: Path, book: data.Book):
    for name in book.chapters:
        soup = page(built, f"chapters/{name}")
        figure = soup.article.h1.find_next_sibling()
        assert figure.get("class") == ["opening"], name
        assert figure.find_next_sibling().name == "p", name
        below = soup.find(id=figure.a["href"].removeprefix("#")).select(".cell_output img")
        assert (figure.img["src"], figure.img["alt"]) in [(i["src"], i["alt"]) for i in below]


def test_every_film_of_a_chapter_has_a_still_for_those_who_want_no_motion(
    built: Path, book: data.Book
):
    for name in book.chapters:
        soup, folder = page(built, f"chapters/{name}"), (built / "chapters" / name).parent
        images = [image for image in soup.select("article img") if image["src"].endswith(".png")]
        films = [image for image in images if opening.is_film(folder / image["src"])]
        moves = re.search("Animation of|animated", str(book.chapters[name].cells))
        assert bool(films) == bool(moves), name
        assert bool(soup.select(".opening picture")) == bool(soup.select(".opening button")), name
        for film in films:
            source = film.parent.source
            assert source["media"] == "(prefers-reduced-motion: reduce)"
            with Image.open(folder / source["srcset"]) as still:
                assert not getattr(still, "is_animated", False)
                assert still.size == (int(film["width"]), int(film["height"]))


def test_set_up_budget_and_claims_are_folded_and_every_fold_says_what_it_holds(book: data.Book):
    for chapter in book.chapters.values():
        labels = []
        for cell in chapter.cells:
            tags = set(cell["metadata"].get("tags", []))
            folded = "hide-input" in tags and "solution" not in tags
            assert folded or not tags & {"setup", "budget", "claims"}, (chapter.name, cell["id"])
            if folded:
                labels.append(cell["metadata"].get("mystnb", {}).get("code_prompt_show", ""))
        for label in labels:
            assert re.fullmatch(r"[A-Z][^.]{7,40}", label), (chapter.name, label)
            assert 2 <= len(label.split()) <= 7, (chapter.name, label)
            assert not re.search("code|cell|source", label), (chapter.name, label)
        assert len(set(labels)) == len(labels), chapter.name


def test_a_fold_shows_its_label_open_or_not(built: Path, book: data.Book):
    for name, chapter in book.chapters.items():
        wanted = [
            cell["metadata"]["mystnb"]["code_prompt_show"]
            for cell in chapter.cells
            if "hide-input" in cell["metadata"].get("tags", [])
        ]
        folds = page(built, f"chapters/{name}").select(".tag_hide-input > details > summary")
        assert [fold.select_one(".collapsed").get_text() for fold in folds] == wanted
        assert [fold.select_one(".expanded").get_text() for fold in folds] == wanted


def test_every_chapter_says_its_modalities(book: data.Book):
    silent = [name for name, chapter in book.chapters.items() if "modality" not in chapter.facts]
    assert not silent, f"no modality in the metadata of {', '.join(silent)}: see duality_modalities"
    assert len(modalities.rows(book)) == len(book.chapters)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, ["base/one", "modality", "input, output, fusion"]),
        ({"input": ["state"]}, ["base/one", "input, output, fusion"]),
        ({"input": ["smell"], "output": ["action"], "fusion": ["none"]}, ["no input", "smell"]),
        ({"input": ["state"], "output": [], "fusion": ["none"]}, ["output", "list"]),
        ({"input": ["state"], "output": ["action"], "fusion": "none"}, ["fusion", "list"]),
    ],
)
def test_a_modality_that_no_table_can_show_is_named(said, words):
    chapter = data.Chapter("base/one", "", Path(), [], {"modality": said}, {})
    with pytest.raises(data.BookError) as error:
        modalities.modality(chapter)
    one_line(error, *words)


@pytest.mark.parametrize("name", ["coverage", "chapters/modality/modalities_and_fusion"])
def test_the_modalities_of_every_chapter_are_in_one_table(name, built: Path, book: data.Book):
    heads = page(built, name).select("table thead")
    tables = [head.parent for head in heads if "Fusion" in head.get_text()]
    assert len(tables) == 1
    shown = [tuple(cell.get_text() for cell in row("td")) for row in tables[0].tbody("tr")]
    assert shown == [(chapter.short, *cells) for chapter, cells in modalities.rows(book)]
