"""Check committed chapters: structure, metadata, fresh and clean outputs. One line per problem.

python tools/check_notebooks.py [CHAPTER or PATH ...]      default: all chapters
"""

from __future__ import annotations

import argparse
import sys

from card import Cards
from checks import problems_of
from notebooks import Book, NotebookError, add_root_option


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check chapters.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="chapters (default: all)")
    add_root_option(parser)
    options = parser.parse_args(arguments)
    book = Book(options.root)
    cards = Cards(book)
    failed = False
    for given in options.paths or book.names:
        try:
            name = book.resolve(given)
            found = problems_of(name, cards)
        except NotebookError as error:
            name, found = given, [(0, str(error))]
        for number, message in found:
            print(f"{name}: cell {number}: {message}" if number else f"{name}: {message}")
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
