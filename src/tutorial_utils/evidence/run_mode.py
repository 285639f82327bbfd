"""The three modes of a run and the seeds of the book: the only place that looks at the mode.

`DUALITY_MODE` is `smoke` (does it run?), `lecture` (the default, what the pages show) or `full`.
`DUALITY_SEED` is a whole number that shifts every seed of the book at once: claims must hold for
seeds that nobody tried.

Both are variables of the environment, or of the notebook, where papermill or a reader sets them:
`DUALITY_MODE = "smoke"` in a cell before the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._settings import setting
from .._tables import Table, table
from .._validate import one_of, positive_int

MODES = ("smoke", "lecture", "full")
# One offset owns 2 * _BLOCK seeds: the first half trains, the second half evaluates. No two offsets
# share a seed, and no evaluation seed is ever a training seed of any offset.
_BLOCK = 1000


def mode() -> str:
    """The mode of this run, from `DUALITY_MODE`.

    Raises:
        ValueError: it names no mode, or the notebook has a variable like a setting that is none.
    """
    return one_of(setting("DUALITY_MODE") or "lecture", MODES, "DUALITY_MODE")


def seed_offset() -> int:
    """The shift of every seed, from `DUALITY_SEED` (default 0).

    Raises:
        ValueError: it is not a whole number of at least 0, or the notebook has a variable like a
            setting that is none.
    """
    text = setting("DUALITY_SEED") or "0"
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"DUALITY_SEED must be a whole number of at least 0, not {text!r}.")
    return int(text)


def seeds(n: int) -> list[int]:
    """The first `n` training seeds (n < 1000), 0 to n - 1 where `DUALITY_SEED` is 0.

    Raises:
        ValueError: `n` is not a whole number from 1 to 999.
    """
    if positive_int(n, "the number of seeds") >= _BLOCK:
        raise ValueError(f"the number of seeds must be less than {_BLOCK}, not {n}.")
    first = 2 * _BLOCK * seed_offset()
    return list(range(first, first + n))


def evaluation_seed() -> int:
    """The seed of held-out evaluation; it and the 999 seeds after it never train anything."""
    return 2 * _BLOCK * seed_offset() + _BLOCK


class Budget:
    """What a run may spend: the current mode's entries as attributes, all modes when displayed."""

    def __init__(self, columns: Mapping[str, Mapping[str, Any]]) -> None:
        self._columns = columns
        self._mode = mode()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy and pickle ask before __init__ has run
            raise AttributeError(name)
        try:
            return self._columns[self._mode][one_of(name, self._columns[self._mode], "budget")]
        except ValueError as error:
            raise AttributeError(str(error)) from None

    def _table(self) -> Table:
        return table(
            [
                {"budget": name.replace("_", " ")}
                | {
                    f"{m} (this run)" if m == self._mode else m: _text(self._columns[m][name])
                    for m in MODES
                }
                for name in self._columns[self._mode]
            ]
        )

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _repr_markdown_(self) -> str:
        return self._table()._repr_markdown_()


def _text(value: Any) -> str:
    """As it was written, with thousands separators: a discount of 0.995 must not show as 1.00."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_int else str(value)


def budget(
    *, smoke: Mapping[str, Any], lecture: Mapping[str, Any], full: Mapping[str, Any]
) -> Budget:
    """The budget table of a chapter.

    Args:
        smoke, lecture, full: entries of each mode, e.g. `{"seeds": 5, "steps": 300_000}`.

    Returns:
        An object with the current mode's entries as attributes (`budget.steps`).

    Raises:
        ValueError: the three do not have the same entries.
    """
    columns = {"smoke": dict(smoke), "lecture": dict(lecture), "full": dict(full)}
    for name in {key: None for column in columns.values() for key in column}:
        lacking = [m for m in MODES if name not in columns[m]]
        if lacking:
            raise ValueError(f"budget entry {name!r} is missing in {' and '.join(lacking)}.")
    return Budget(columns)
