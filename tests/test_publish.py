"""What is published: setup cells that name the repository, and a ZIP of all notebooks."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from helpers import one_line

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

import lab_index  # noqa: E402
import publish  # noqa: E402
from notebooks import Book, NotebookError, load, tags  # noqa: E402

BOOK = Book(ROOT)
ADDRESS = "https://host.example/owner/name"


def setup_cell(nb: nbformat.NotebookNode) -> str:
    return next(cell.source for cell in nb.cells if "setup" in tags(cell))


def installs(source: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the first statements of a setup cell hand to pip where the package is missing."""
    ran: list[list[str]] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: ran.append(command))
    exec(source.partition("importlib.invalidate_caches()")[0] + "pass", {})
    return ran[0]


@pytest.mark.parametrize("name", BOOK.names)
def test_a_filled_setup_cell_installs_from_the_repository(name, monkeypatch):
    monkeypatch.setenv("DUALITY_REPOSITORY", f"{ADDRESS}.git/")
    nb = load(BOOK.path(name))
    with pytest.raises(SystemExit) as error:
        installs(setup_cell(nb), monkeypatch)
    one_line(error, "SOURCE")
    publish.fill_source(nb, publish.package_address())
    wanted = f"git+{ADDRESS}@{publish.BRANCH}"
    assert installs(setup_cell(nb), monkeypatch)[-1] == wanted


def test_filling_needs_an_address_and_a_setup_cell(monkeypatch):
    monkeypatch.delenv("DUALITY_REPOSITORY", raising=False)
    assert publish.package_address() == ""
    with pytest.raises(NotebookError) as error:
        publish.fill(BOOK)
    one_line(error, "DUALITY_REPOSITORY")
    with pytest.raises(NotebookError) as error:
        publish.fill_source(nbformat.v4.new_notebook(), ADDRESS)
    one_line(error, "setup")


@pytest.mark.parametrize("address", ["", ADDRESS])
def test_the_zip_holds_every_chapter(address, monkeypatch, tmp_path):
    monkeypatch.setenv("DUALITY_REPOSITORY", address)
    with zipfile.ZipFile(publish.pack(BOOK, tmp_path)) as archive:
        assert sorted(archive.namelist()) == sorted(f"duality/{name}.ipynb" for name in BOOK.names)
        for entry in archive.namelist():
            nb = nbformat.reads(archive.read(entry).decode(), as_version=4)
            assert address in setup_cell(nb)
            assert any(cell.get("outputs") for cell in nb.cells)


def test_the_list_in_jupyterlab_links_every_chapter():
    links = re.findall(r"\]\((.*?)\.ipynb\)", lab_index.index(BOOK))
    assert links == BOOK.names
