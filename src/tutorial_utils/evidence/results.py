"""The results files of all chapters: read, as one table of arms, and compared like with like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._settings import setting

_CLAIM = {"claim", "estimate", "low", "high", "bound", "side", "verdict", "holds"}
# What two arms must share before their success can be set side by side.
CONDITIONS = ("mode", "task", "data", "chunk", "steps")


@dataclass(frozen=True)
class ArmResult:
    """What one arm of one chapter reached, and at which price; see `Claims.arm`."""

    chapter: str
    mode: str
    name: str
    success: tuple[float, ...]  # one rate for each seed
    steps: int
    seconds: float
    task: str
    data: str
    chunk: int
    model_seconds: float
    model_calls: int


_ARM = ArmResult.__dataclass_fields__.keys() - {"chapter", "mode", "name"}


def results_folder() -> Path:
    """Where results files go: `DUALITY_RESULTS`, else beside the book, else ./results."""
    if where := setting("DUALITY_RESULTS"):
        return Path(where)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "book" / "_config.yml").is_file():
            return folder / "book" / "results"
    return here / "results"


def read_results(path: str | Path) -> dict[str, Any]:
    """The results file of a chapter.

    Raises:
        ValueError: one line that says which chapter to execute again: the file is missing, is not
            JSON, or lacks a field.
    """
    chapter = Path(path).stem.replace("-", "/", 1)
    again = f"Run that chapter again: make execute CHAPTER={chapter}"
    try:
        result: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        is_whole = (
            result["chapter"] == chapter
            and {"mode", "seed", "claims", "twins", "reports", "provenance"} <= result.keys()
            and all(entry.keys() >= _CLAIM for entry in result["claims"] + result["twins"])
            and all(arm.keys() >= _ARM for arm in result["arms"].values())
        )
    except FileNotFoundError:
        raise ValueError(f"There are no results of {chapter}. {again}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"The results of {chapter} are damaged or incomplete. {again}")
    return result


def read_arms(folder: str | Path | None = None) -> list[ArmResult]:
    """All arms of all chapters in a folder of results, by default the book's own.

    Raises:
        ValueError: as `read_results`.
    """
    folder = results_folder() if folder is None else Path(folder)
    read = [read_results(path) for path in sorted(folder.glob("*.json"))]
    return [
        ArmResult(result["chapter"], result["mode"], name, tuple(arm["success"]), **rest)
        for result in read
        for name, arm in result["arms"].items()
        for rest in [{key: arm[key] for key in _ARM - {"success"}}]
    ]


def like_with_like(arms: Iterable[ArmResult], shown: Sequence[str] = ()) -> list[ArmResult]:
    """The same arms, if they can stand in one table.

    Args:
        shown: conditions (of CONDITIONS) in which they may differ, because the table shows each.

    Raises:
        ValueError: one line: the first condition in which they differ, and how.
    """
    arms = list(arms)
    for condition in CONDITIONS:
        found = {str(getattr(arm, condition)) or "none": arm.name for arm in arms}
        if condition not in shown and len(found) > 1:
            ways = " but ".join(f"{value} for {name!r}" for value, name in list(found.items())[:2])
            raise ValueError(
                f"these arms differ in {condition}: {ways}. Show it, or leave one out."
            )
    return arms
