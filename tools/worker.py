"""Execute one chapter: the worker half of `execute.py`, which starts it in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from card import Cards
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from notebooks import NotebookError, load, save, source_hash
from outputs import clean, strip_ansi
from runs import Run

# Key in the stamp -> distribution.
PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "gymnasium": "gymnasium",
    "tutorial_utils": "duality-book",
}


class ThisPython(AsyncKernelManager):
    """Starts the kernel of the running interpreter, whatever kernels Jupyter knows besides."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


@dataclass
class Meter:
    """Hooks for nbclient: says which cell runs, and adds up the seconds of cells alone.

    Starting and stopping the kernel is not counted: readers pay for it once, whatever the chapter.
    """

    report: Callable[..., None]
    total: int
    cell: int = 0
    seconds: float = 0.0
    started: float = 0.0

    def start(self, cell: NotebookNode, cell_index: int) -> None:
        self.cell, self.started = cell_index + 1, time.perf_counter()
        self.report(cell=self.cell, total=self.total)

    def stop(self, **_: Any) -> None:
        self.seconds += time.perf_counter() - self.started


def stop_with_parent() -> None:
    """Kill the kernel and leave as soon as the parent closes our stdin or is gone."""

    def watch() -> None:
        while os.read(0, 1024):  # sys.stdin would hold a lock that Python wants when it ends
            pass
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def up_to_claims(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells that a replication needs: those after `Claims.check()` are exercises."""
    ends = [i for i, c in enumerate(cells, 1) if c.cell_type == "code" and ".check()" in c.source]
    return cells[: ends[-1]] if ends else cells


def run_cells(nb: NotebookNode, meter: Meter, path: Path, timeout: int) -> str:
    """Execute `nb` in place; returns the error of the cell that failed, in one line, or ''."""
    client = NotebookClient(
        nb,
        kernel_manager_class=ThisPython,
        kernel_name="python3",
        timeout=timeout,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_execute=meter.start,
        on_cell_executed=meter.stop,
    )
    try:
        client.execute(stdout=subprocess.DEVNULL)  # our own stdout carries the reports
    except CellExecutionError as error:
        problem = f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        problem = f"took longer than {timeout} s (raise --timeout, or train less)"
    except DeadKernelError:
        problem = "the kernel died (out of memory?)"
    else:
        return ""
    return f"cell {meter.cell}: {' '.join(strip_ansi(problem).split())[:300]}"


def stamp(nb: NotebookNode, run: Run, seconds: float) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for key, distribution in PACKAGES.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[key] = metadata.version(distribution)
    # Of the largest child that has ended, which is the kernel: exact, where polling would sample.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    kilobyte = 1 if sys.platform != "darwin" else 1024
    return {
        "source_hash": source_hash(nb),
        "mode": run.mode,
        "seed": run.seed,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak / kilobyte / 1024),
        "machine": machine(),
        "versions": versions,
    }


def machine() -> str:
    """Cores, processor and system, and nothing that tells one such machine from another."""
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    return f"{cores or os.cpu_count()} cores, {processor}, {platform.system()}"


def work(run: Run, name: str, report: Callable[..., None]) -> None:
    """Execute one chapter and write what came out of it."""
    path = run.book.path(name)
    before = path.read_bytes()
    nb = load(path)
    cards = Cards(run.book)
    cards.refresh(name, nb)  # a card that cannot be made is cheaper to hear of now
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    Path(os.environ["DUALITY_RESULTS"]).mkdir(parents=True, exist_ok=True)
    whole = nb.cells
    nb.cells = up_to_claims(whole) if run.replication else whole
    meter = Meter(report, len(nb.cells))
    problem = run_cells(nb, meter, path, run.timeout)
    nb.cells = whole
    clean(nb)
    if problem:
        save(nb, run.failed(name))
        shown = os.path.relpath(run.failed(name), run.book.root)
        raise NotebookError(f"{problem} (see {shown})")
    executed = stamp(nb, run, meter.seconds)
    nb.metadata["duality"]["executed"] = executed
    cards.refresh(name, nb)
    if run.in_place and path.read_bytes() != before:
        raise NotebookError("the notebook was edited while it ran: run it again.")
    save(nb, run.target(name))
    run.failed(name).unlink(missing_ok=True)
    report(seconds=executed["seconds"], peak_mb=executed["peak_mb"])


def worker(run: Run, name: str) -> int:
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not look like a report

    def report(**event: Any) -> None:
        reports.write(json.dumps(event) + "\n")

    stop_with_parent()
    try:
        work(run, name, report)
    except NotebookError as error:
        report(error=str(error))
        return 1
    return 0
