"""What a run keeps for the next one: where the disk refuses, it warns once and goes on."""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import cache
from pathlib import Path

from ._settings import setting


def cache_folder() -> Path | None:
    """`DUALITY_CACHE`, or `~/.cache/duality-book`; None where it is `off`, or there is no home."""
    where = setting("DUALITY_CACHE") or "~/.cache/duality-book"
    return None if where == "off" else resolved(where)


def resolved(folder: str | Path) -> Path | None:
    """The folder with its `~` resolved; None, and a warning, where this user has no home."""
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        _warn(f"cannot find the home folder of {folder}")
        return None


def keep(file: Path, data: bytes, what: str) -> None:
    """Write a file that only the user may read; a reader sees the whole of it or nothing.

    Where that fails, no draft is left, and one warning per folder names `what` is not kept.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(".tmp", file.stem + ".", file.parent)
        try:
            with open(handle, "wb") as out:
                out.write(data)
            os.replace(draft, file)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError as error:
        _warn(f"cannot keep {what} in {file.parent} ({error.strerror or type(error).__name__})")


@cache  # once: Python's own memory of warnings is lost whenever a library changes its filters
def _warn(problem: str) -> None:
    advice = "set DUALITY_CACHE to a folder that can be written, or to off"
    warnings.warn(f"{problem}: {advice}.", stacklevel=4)
