"""Where a result comes from: mode, seed, machine, versions, commit, time and memory.

No paths, no host and no user name: this is printed into pages that everybody reads.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .run_mode import mode, seed_offset

_STARTED = time.perf_counter()
_STATUS = Path("/proc/self/status")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> str:
    parts = [platform.system(), platform.machine()]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return " ".join(parts)


def _cores() -> int | None:
    """Cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _commit() -> str | None:
    """Short hash of the book's own repository, None where the package is not a checkout of it."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():  # else git would climb up to somebody else's repository
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "--verify", "HEAD"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _peak_mb() -> float | None:
    """Largest resident memory so far in MB, of this process alone; None on Windows.

    Linux hands the peak of the parent on in `ru_maxrss`, but not in `VmHWM`.
    """
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    if peak is None:
        try:
            import resource
        except ImportError:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)  # bytes there, else KiB


def provenance() -> dict[str, Any]:
    """What a result needs beside it to be repeated; ready for JSON.

    Returns:
        mode, seed (the `DUALITY_SEED` offset), machine, cores, versions (of python, torch, numpy,
        gymnasium), commit (or None), seconds since the first import of this module, peak_mb.
    """
    return {
        "mode": mode(),
        "seed": seed_offset(),
        "machine": _machine(),
        "cores": _cores(),
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in ("torch", "numpy", "gymnasium")},
        "commit": _commit(),
        "seconds": round(time.perf_counter() - _STARTED, 1),
        "peak_mb": _peak_mb(),
    }


def provenance_line() -> str:
    """`provenance()` as one line to read."""
    facts = provenance()
    parts = [
        f"{facts['mode']} mode",
        f"seed offset {facts['seed']}",
        f"{facts['seconds']:.0f} s",
        f"{facts['peak_mb']:,.0f} MB" if facts["peak_mb"] else "",
        f"{facts['machine']}, {facts['cores']} cores",
        ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number),
        f"commit {facts['commit']}" if facts["commit"] else "",
    ]
    return " · ".join(part for part in parts if part)
