"""Tables of results that read alike in a notebook, in a terminal and in the built page."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

# Colours of their own, which a light page and a dark one show alike.
_ALARM = ' style="background-color: #FBE3E0; color: #7A1F14"'
_NUMBER = re.compile(r"[-+]?[\d.]|-$")
_INTERVAL = re.compile(r"[\d.,]+%? \[[-+\d., %]+\]")


class Table:
    """Rows of cells that show as HTML or Markdown in a notebook and as aligned text elsewhere."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], alarms: Collection[int] = ()) -> None:
        self.alarms = alarms
        self.heads = list(rows[0])
        self.cells = [[_cell(row[head]) for head in self.heads] for row in rows]
        columns = list(zip(*self.cells, strict=True))
        # A cell without a value says nothing about its column, nor does a column without values.
        filled = [[cell for cell in column if cell] for column in columns]
        self._right = [bool(column) and all(map(_NUMBER.match, column)) for column in filled]

    def __repr__(self) -> str:
        lines = [self.heads, *self.cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        signs = [">" if right else "<" for right in self._right]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(
            "  ".join(f"{c:{s}{w}}" for c, s, w in zip(line, signs, widths, strict=True)).rstrip()
            for line in lines
        )

    def _repr_markdown_(self) -> str:
        rule = ["---:" if right else ":---" for right in self._right]
        lines = [
            [_whole(c).replace("|", "\\|") for c in line] for line in (self.heads, *self.cells)
        ]
        lines.insert(1, rule)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _repr_html_(self) -> str:
        # Words wrap, numbers do not. "dataframe" is what Jupyter, Colab and the book style.
        def line(cells: Sequence[str], tag: str) -> str:
            out = ""
            for cell, right in zip(cells, self._right, strict=True):
                name = tag if cell else "td"  # the corner above row names heads nothing
                style = f"text-align: {'right' if right else 'left'}"
                style += "; white-space: nowrap" * (right and tag == "td")
                out += f'<{name} style="{style}">{html.escape(_whole(cell))}</{name}>'
            return out

        rows = [
            f"<tr{_ALARM if i in self.alarms else ''}>{line(cells, 'td')}</tr>"
            for i, cells in enumerate(self.cells)
        ]
        body = "\n".join(rows)
        head = f"<thead><tr>{line(self.heads, 'th')}</tr></thead>"
        return f'<table class="dataframe">\n{head}\n<tbody>\n{body}\n</tbody>\n</table>'


def _whole(cell: str) -> str:
    """The cell with intervals that no line break can part."""
    return _INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), cell)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        size = abs(float(value))
        if 0 < size < 0.1:
            return f"{value:.2g}"
        return f"{value:,.{0 if size >= 1000 else 1 if size >= 100 else 2}f}"
    return str(value)


def table(
    rows: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    alarms: Collection[int] = (),
) -> Table:
    """A table to show: numbers to the right and rounded, an `Interval` as "0.93 [0.90, 0.95]".

    Args:
        rows: one mapping a row, column -> cell, or row name -> such a mapping.
        alarms: numbers of the rows that are shown in red.

    Raises:
        ValueError: one line: no rows, or rows with different columns.
    """
    if isinstance(rows, Mapping):
        rows = [{"": name, **row} for name, row in rows.items()]
    if not rows:
        raise ValueError("a table needs at least one row.")
    for i, row in enumerate(rows):
        if set(row) != set(rows[0]):
            odd = ", ".join(sorted(map(repr, set(row) ^ set(rows[0]))))
            raise ValueError(f"row {i} of the table has other columns than row 0: {odd}.")
    return Table(rows, alarms)
