"""Prepare JupyterLab: write book/chapters/index.md, the list of chapters on which it opens.

A setting of this environment alone shows Markdown rendered, and asks no news server. Neither file
is in git.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from card import duration
from notebooks import Book, NotebookError, load, metadata_of

SETTINGS = {
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
}
HEAD = """# Duality

The chapters, in reading order. `DUALITY_MODE=smoke make lab` opens them with the smallest budget.

| chapter | | runs in |
|---|---|---|
"""


def index(book: Book) -> str:
    """The list as Markdown: each chapter linked, with its summary and how long it takes."""
    rows = []
    for number, name in enumerate(book.names, 1):
        facts = metadata_of(load(book.path(name)))
        time = duration(facts.get("executed"))
        cells = (f"{number}. [{facts['title']}]({name}.ipynb)", facts["summary"], time)
        rows.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(rows)


def main() -> int:
    book = Book(Path(__file__).resolve().parent.parent)
    try:
        (book.chapters / "index.md").write_text(index(book), encoding="utf-8")
    except NotebookError as error:
        print(error)
        return 1
    settings = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(SETTINGS, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
