"""Prepare the notebooks for the places where they are read and run.

    python tools/publish.py fill    write the package's address into every chapter's setup cell
    python tools/publish.py zip     pack all notebooks into downloads/ of the built book

The address comes from DUALITY_REPOSITORY, the one setting that names the repository. `fill` changes
the chapters themselves: the publishing workflow runs it on the branch that Colab and Binder open.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import zipfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from notebooks import Book, NotebookError, add_root_option, load, save, tags

BRANCH = "published"  # the extension's launch buttons open the same branch
ARCHIVE = "duality-notebooks.zip"
_SOURCE = re.compile(r'^SOURCE = ".*$', re.MULTILINE)


def repository() -> str:
    """The address of the repository, from DUALITY_REPOSITORY, or '' where it is not set."""
    return os.environ.get("DUALITY_REPOSITORY", "").strip().removesuffix("/").removesuffix(".git")


def package_address() -> str:
    """Where pip finds the book's package in the repository, or '' where no address is set."""
    return f"git+{repository()}@{BRANCH}" if repository() else ""


def fill_source(nb: NotebookNode, address: str) -> None:
    """Write `address` into the setup cell of `nb`, so that it installs the package in Colab."""
    for cell in nb.cells:
        if "setup" in tags(cell):
            cell.source, count = _SOURCE.subn(lambda _: f'SOURCE = "{address}"', cell.source)
            if count == 1:
                return
    raise NotebookError("the cell tagged 'setup' has no line that begins with: SOURCE = \"\"")


def fill(book: Book) -> None:
    """Fill the setup cells of all chapters in place."""
    if not (address := package_address()):
        raise NotebookError("Set DUALITY_REPOSITORY to the address of the repository.")
    for name in book.names:
        nb = load(book.path(name))
        fill_source(nb, address)
        save(nb, book.path(name))


def pack(book: Book, downloads: Path) -> Path:
    """A ZIP of all chapters in their folders, ready to run where an address is set."""
    downloads.mkdir(parents=True, exist_ok=True)
    target = downloads / ARCHIVE
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in book.names:
            nb = load(book.path(name))
            if address := package_address():
                fill_source(nb, address)
            entry = zipfile.ZipInfo(f"duality/{name}.ipynb")  # with the same date in every build
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, nbformat.v4.writes(nb) + "\n", zipfile.ZIP_DEFLATED)
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prepare notebooks for publication.")
    parser.add_argument("what", choices=["fill", "zip"])
    add_root_option(parser)
    options = parser.parse_args(arguments)
    book = Book(options.root)
    try:
        if options.what == "fill":
            fill(book)
        else:
            target = pack(book, book.site / "downloads")
            print(f"{target.relative_to(book.root)}: {target.stat().st_size / 1e6:.1f} MB")
    except NotebookError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
