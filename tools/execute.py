"""Execute the chapters whose outputs do not belong to their code, two at a time.

    python tools/execute.py                       all stale chapters
    python tools/execute.py CHAPTER ... [--force] these, if stale (or anyway)

A lecture run with seed 0 is written into the chapter itself, with a stamp. Any other DUALITY_MODE
or DUALITY_SEED goes to `.execute/<mode>-seed<k>/` and leaves the chapter alone.

The parent process only schedules. Every chapter runs in a worker (this script with --worker), which
owns the kernel, reports on its stdout one JSON object a line, and stops when its stdin closes: so
nothing survives the parent, however it ends. Notebooks are replaced whole (`notebooks.save`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from notebooks import Book, NotebookError, add_root_option
from runs import Run, run_from_environment


@dataclass
class Progress:
    """Prints one line when a chapter starts or ends, and on a terminal a cell counter between."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    cells: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def line(self, text: str, ended: str | None = None) -> None:
        with self.lock:
            self.cells.pop(ended or "", None)
            print(f"\r\x1b[K{text}" if self.out.isatty() else text, file=self.out, flush=True)

    def cell(self, name: str, event: dict[str, Any]) -> None:
        with self.lock:
            self.cells[name] = f"{name} {event['cell']}/{event['total']}"
            if self.out.isatty():
                width = shutil.get_terminal_size().columns - 1
                shown = "   ".join(self.cells.values())[:width]
                print(f"\r\x1b[K{shown}", end="", file=self.out, flush=True)


class Scheduler:
    """Runs chapters in workers, a few at a time."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.stopping = threading.Event()
        self.workers: set[subprocess.Popen[str]] = set()

    def execute(self, names: list[str], jobs: int) -> list[str]:
        """Execute `names` and return those that failed; Ctrl-C stops all and is raised again."""
        # A shell starts its background jobs with SIGINT ignored, and Python leaves it that way.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self._chapter, name): name for name in names}
            try:
                return [futures[done] for done in as_completed(futures) if not done.result()]
            except KeyboardInterrupt:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.workers):
                    process.stdin.close()
                raise

    def _chapter(self, name: str) -> bool:
        if self.stopping.is_set():
            return False
        self.progress.line(f"start  {name}")
        end = self._work(self.run, name, name)
        if self.stopping.is_set():
            return False
        if problem := end.get("error"):
            self.progress.line(f"FAILED {name}: {problem}", ended=name)
            return False
        text = f"done   {name}: {end['seconds']:.0f} s, {end['peak_mb']} MB"
        self.progress.line(text, ended=name)
        return True

    def _work(self, run: Run, name: str, label: str) -> dict[str, Any]:
        """Run one worker to its end and return its last report."""
        command = [sys.executable, __file__, "--worker", "--root", str(run.book.root)]
        command += ["--timeout", str(run.timeout), name]
        command += ["--replication"] if run.replication else []
        end: dict[str, Any] = {}
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            tempfile.TemporaryDirectory() as empty,
        ):
            process = subprocess.Popen(
                command,
                env=run.environment(empty),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            self.workers.add(process)
            if self.stopping.is_set():
                process.stdin.close()
            with process:
                for line in process.stdout:
                    end = json.loads(line)
                    if "cell" in end:
                        self.progress.cell(label, end)
            self.workers.discard(process)
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [""])[-1]
        if "seconds" in end or "error" in end:
            return end
        return {"error": f"the worker ended with code {process.returncode}; run again. {last}"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Execute stale chapters.")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="default: all chapters")
    parser.add_argument("--all", action="store_true", help="all chapters (the default, in words)")
    parser.add_argument("--force", action="store_true", help="execute fresh chapters as well")
    parser.add_argument("--jobs", type=int, default=2, help="chapters at a time (default: 2)")
    parser.add_argument("--timeout", type=int, default=900, help="seconds a cell (default: 900)")
    for flag in ("--worker", "--replication"):
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    add_root_option(parser)
    options = parser.parse_args(arguments)
    if options.all and options.chapters:
        parser.error("give chapters or --all, not both.")
    if options.jobs < 1:
        parser.error("--jobs must be at least 1.")
    try:
        run = run_from_environment(Book(options.root), options.timeout)
        if options.worker:
            from worker import worker  # the parent needs neither kernels nor pictures

            return worker(replace(run, replication=options.replication), options.chapters[0])
        return _execute(run, options)
    except NotebookError as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again to do what is left.")
        return 130


def _execute(run: Run, options: argparse.Namespace) -> int:
    progress = Progress()
    wanted = [run.book.resolve(name) for name in options.chapters] or run.book.names
    names, failed = [], []
    for name in dict.fromkeys(wanted):
        try:
            if options.force or run.is_stale(name):
                names.append(name)
            else:
                progress.line(f"fresh  {name}")
        except NotebookError as error:
            progress.line(f"FAILED {name}: {error}")
            failed.append(name)
    failed += Scheduler(run, progress).execute(names, options.jobs)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
