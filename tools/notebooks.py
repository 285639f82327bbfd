"""What the authoring tools share: where chapters are, and how a notebook is read and written.

A chapter is a notebook under `book/chapters`; its name is its path there without the suffix, for
example `foundations/the_lab`. Facts about it stand in `nb.metadata["duality"]` and nowhere else.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

# jsonschema, which nbformat imports, compiles a grammar for international web addresses if it finds
# this package: 1.7 s at every start, for a check that no notebook needs. None hides the package.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat  # noqa: E402
import psutil  # noqa: E402
import yaml  # noqa: E402
from nbformat import NotebookNode  # noqa: E402


class NotebookError(Exception):
    """A problem that its author can mend; the message is one line that says how."""


def closest(wanted: str, known: Iterable[str], what: str, where: str) -> NotebookError:
    """An error for a name that does not exist, with the one that was probably meant."""
    match = difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.3)
    hint = f"did you mean {match[0]!r}?" if match else "check the spelling."
    return NotebookError(f"no {what} {wanted!r} in {where}: {hint}")


@dataclass(frozen=True)
class Book:
    """The folders of one checkout."""

    root: Path

    @property
    def chapters(self) -> Path:
        return self.root / "book" / "chapters"

    @property
    def references(self) -> Path:
        return self.root / "book" / "references.bib"

    @property
    def site(self) -> Path:
        return self.root / "book" / "_build" / "html"

    @property
    def scratch(self) -> Path:
        return self.root / ".execute"

    def path(self, name: str) -> Path:
        return self.chapters / f"{name}.ipynb"

    @cached_property
    def names(self) -> list[str]:
        """All chapters: those of `book/_toc.yml` in its order, then the others by name."""
        found = sorted(
            path.relative_to(self.chapters).with_suffix("").as_posix()
            for path in self.chapters.glob("**/*.ipynb")
            if ".ipynb_checkpoints" not in path.parts
        )
        listed = [name for name in self._listed() if name in set(found)]
        return list(dict.fromkeys(listed + found))

    def _listed(self) -> Iterator[str]:
        toc = self.root / "book" / "_toc.yml"
        if toc.exists():
            for entry in _files_of(yaml.safe_load(toc.read_text("utf-8"))):
                yield entry.removeprefix("chapters/").removesuffix(".ipynb")

    def resolve(self, given: str) -> str:
        """The chapter that `given`, a chapter name or the path of a notebook, stands for."""
        name = given
        if given.endswith(".ipynb"):
            path = Path(given).resolve()
            if path.is_relative_to(self.chapters.resolve()):
                name = path.relative_to(self.chapters.resolve()).with_suffix("").as_posix()
        if name not in self.names:
            raise closest(name, self.names, "chapter", "book/chapters")
        return name


def _files_of(node: Any) -> Iterator[str]:
    """Every `file:` in a table of contents, whatever it is nested in, in reading order."""
    if isinstance(node, dict):
        if isinstance(node.get("file"), str):
            yield node["file"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _files_of(child)


def add_root_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root",
        type=lambda text: Path(text).resolve(),
        default=Path(__file__).resolve().parent.parent,
        help="folder that holds book/ (default: this checkout)",
    )


def source_hash(nb: NotebookNode) -> str:
    """Names the code of a notebook: prose and outputs do not count, the order of cells does."""
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def metadata_of(nb: NotebookNode) -> dict[str, Any]:
    """The chapter's own facts, or an error that says that there are none."""
    facts = nb.metadata.get("duality")
    if not isinstance(facts, dict):
        raise NotebookError('no nb.metadata["duality"]: add title, leaf, review_section, ...')
    return facts


def load(path: Path) -> NotebookNode:
    """Read a notebook; one that is not valid as it stands is an error, never repaired silently."""
    try:
        nb = nbformat.v4.reads(path.read_text("utf-8"))
        if (nb.nbformat, nb.nbformat_minor) < (4, 5):
            raise NotebookError("the notebook format is older than 4.5: save it with JupyterLab.")
        ids = [cell.get("id") for cell in nb.cells]
        if None in ids or len(set(ids)) < len(ids):
            # nbformat would invent random ids here, and every run would change the file.
            raise NotebookError("cell ids are missing or repeated: save it with JupyterLab.")
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        raise NotebookError(f"not a valid notebook: {str(error).splitlines()[0]}") from None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise NotebookError(f"not a notebook (restore it from git): {error}") from None
    except OSError as error:
        raise NotebookError(f"cannot be read: {error.strerror}") from None
    return nb


def save(nb: NotebookNode, path: Path) -> None:
    """Write a notebook so that every reader, at any time, sees the old file or the new one."""
    nbformat.validate(nb)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(nbformat.v4.writes(nb) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _remove_leftovers(path: Path) -> None:
    """Delete temporary files of writers that were killed; a live writer keeps its own."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            leftover.unlink(missing_ok=True)
