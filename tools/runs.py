"""A run of the book: its mode and seed, and where its notebooks and results go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from notebooks import Book, NotebookError, load, metadata_of, source_hash

MODES = ("smoke", "lecture", "full")


@dataclass(frozen=True)
class Run:
    """What is run with which settings, and where the outcome goes."""

    book: Book
    mode: str
    seed: int
    timeout: int  # seconds a cell
    # It finds out whether claims hold: one that fails is no error, and no exercise is run.
    replication: bool = False

    @property
    def in_place(self) -> bool:
        return (self.mode, self.seed) == ("lecture", 0)

    @property
    def folder(self) -> Path:
        return self.book.scratch / f"{self.mode}-seed{self.seed}"

    def target(self, name: str) -> Path:
        return self.book.path(name) if self.in_place else self.folder / f"{name}.ipynb"

    def failed(self, name: str) -> Path:
        folder = self.book.scratch / "failed" / ("" if self.in_place else self.folder.name)
        return folder / f"{name}.ipynb"

    @property
    def results(self) -> Path:
        return (self.book.root / "book" if self.in_place else self.folder) / "results"

    def environment(self, own: str) -> dict[str, str]:
        """The environment of worker and kernel; `own` is an empty folder for this run alone."""
        empty = {"DUALITY_CACHE": own}
        # What this machine has trained before must decide neither the seconds in a stamp nor what
        # a replication finds.
        first = empty | real_model() if self.in_place else {}
        last = empty if self.replication else {}
        return (
            first
            | os.environ
            | last
            | {
                "DUALITY_MODE": self.mode,
                "DUALITY_SEED": str(self.seed),
                "DUALITY_RESULTS": str(self.results),
                "DUALITY_STRICT": str(int(not self.replication)),
                # Two runs at once would overwrite each other's demonstrations.
                "MINARI_DATASETS_PATH": os.path.join(own, "datasets"),
                "OMP_NUM_THREADS": "1",
                "PYTHONUTF8": "1",
                # Figures must reach the notebook even where the shell asks for another backend.
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            }
        )

    def is_stale(self, name: str) -> bool:
        target = self.target(name)
        if not target.exists():
            return True
        stamp = metadata_of(load(target)).get("executed") or {}
        wanted = (source_hash(load(self.book.path(name))), self.mode, self.seed)
        return (stamp.get("source_hash"), stamp.get("mode"), stamp.get("seed")) != wanted


def real_model() -> dict[str, str]:
    """Where `make smollm` put the real model, for a run that has an empty cache of its own."""
    from tutorial_utils._disk import cache_folder  # slow, for torch comes with it

    folder = cache_folder()
    found = folder and (folder / "smollm2").is_dir()
    return {"DUALITY_SMOLLM": str(folder / "smollm2")} if found else {}


def run_from_environment(book: Book, timeout: int) -> Run:
    mode = os.environ.get("DUALITY_MODE") or "lecture"
    if mode not in MODES:
        raise NotebookError(f"DUALITY_MODE must be one of {', '.join(MODES)}, not {mode!r}.")
    seed = os.environ.get("DUALITY_SEED") or "0"
    if not seed.isdecimal():
        raise NotebookError(f"DUALITY_SEED must be a whole number, not {seed!r}.")
    return Run(book, mode, int(seed), timeout)
