"""papermill sets mode and seed: what it writes below the set-up cell reaches the chapter's run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

from notebooks import Book, load, save, tags  # noqa: E402
from worker import ThisPython  # noqa: E402

BOOK = Book(ROOT)
REPORT = (
    "from tutorial_utils.evidence import provenance_line, run_mode\n"
    "print(run_mode.mode(), run_mode.seeds(1))\n"
    "print(provenance_line())"
)


@pytest.fixture
def chapter(monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """A chapter's set-up cell, and one that says what the rest of the chapter would run with."""
    for name in [name for name in os.environ if name.startswith("DUALITY_")]:
        monkeypatch.delenv(name)
    nb = load(BOOK.path("foundations/the_lab"))
    (setup,) = (cell for cell in nb.cells if "parameters" in tags(cell))
    nb.cells = [setup, nbformat.v4.new_code_cell(REPORT)]
    return nb


def printed(nb: nbformat.NotebookNode) -> list[str]:
    outputs = nb.cells[-1].outputs
    return "".join(output.text for output in outputs if output.get("name") == "stdout").splitlines()


def injected(nb: nbformat.NotebookNode, parameters: str) -> list[str]:
    """What it prints with the cell that papermill writes below the tagged one."""
    nb.cells.insert(1, nbformat.v4.new_code_cell(f"# Parameters\n{parameters}"))
    NotebookClient(nb, kernel_manager_class=ThisPython, timeout=120).execute()
    return printed(nb)


def test_the_cell_that_papermill_writes_sets_mode_and_seed(chapter: nbformat.NotebookNode):
    mode, line = injected(chapter, 'DUALITY_MODE = "smoke"\nDUALITY_SEED = 3\n')
    assert mode == "smoke [6000]"
    assert line.startswith("smoke mode · seed offset 3 ·")


def test_an_unknown_parameter_stops_the_run(chapter: nbformat.NotebookNode):
    with pytest.raises(CellExecutionError) as error:
        injected(chapter, 'DUALITY_MODUS = "smoke"\n')
    assert error.value.evalue.startswith("unknown setting 'DUALITY_MODUS'. Did you mean 'DUALITY_M")
    assert "\n" not in error.value.evalue


@pytest.mark.parametrize("name", BOOK.names)
def test_papermill_writes_before_anything_is_budgeted(name: str):
    """It writes below the tagged cell, which is the set-up cell: no settings are read above."""
    cells = [cell for cell in load(BOOK.path(name)).cells if cell.cell_type == "code"]
    (place,) = [place for place, cell in enumerate(cells) if "parameters" in tags(cell)]
    assert "setup" in tags(cells[place])
    assert not any("run_mode.budget" in cell.source for cell in cells[: place + 1])
    assert not any("tutorial_utils" in cell.source for cell in cells[:place])


def test_papermill_itself_does_so(chapter: nbformat.NotebookNode, tmp_path: Path):
    papermill = pytest.importorskip("papermill", reason="papermill is in the extra dev")
    source, target = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    save(chapter, source)
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(tmp_path)}
    parameters = {"DUALITY_MODE": "smoke", "DUALITY_SEED": 3}
    papermill.execute_notebook(str(source), str(target), parameters, **options)
    assert printed(nbformat.read(target, 4))[0] == "smoke [6000]"
    with pytest.raises(papermill.PapermillExecutionError, match="unknown setting 'DUALITY_MODUS'"):
        papermill.execute_notebook(str(source), str(target), {"DUALITY_MODUS": "smoke"}, **options)
