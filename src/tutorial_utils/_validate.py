"""One-line errors that name the valid choices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from operator import index
from typing import SupportsIndex


def one_of(value: object, options: Iterable[str], what: str) -> str:
    """Return `value` if it is one of `options`.

    Raises:
        ValueError: one line with the closest and all valid names.
    """
    names = list(options)
    if isinstance(value, str) and value in names:
        return value
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {what} {value!r}.{hint} Choose one of: {', '.join(names)}.")


def positive_int(value: object, what: str, least: int = 1) -> int:
    """Return `value` as an int of at least `least`.

    Raises:
        ValueError: it is not a whole number or is too small.
    """
    if not isinstance(value, SupportsIndex) or isinstance(value, bool) or index(value) < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, not {value!r}.")
    return index(value)
