"""What the benchmarks share: fair timing, the machine in words, rows of the results table."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch


@dataclass(frozen=True)
class Row:
    """One figure beside its peer, both measured in this process."""

    what: str
    ours: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    least: float | None = None  # target for ours
    least_ratio: float | None = None  # target for ours / peer

    @property
    def ratio(self) -> float | None:
        return self.ours / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool | None:
        """Whether all targets are met; None without a target."""
        checks = [self.ours >= self.least] if self.least else []
        if self.least_ratio and self.ratio:
            checks.append(self.ratio >= self.least_ratio)
        return all(checks) if checks else None


def rates(sides: dict[str, Callable[[], int]], repeats: int = 5) -> dict[str, float]:
    """Median units per second of each side, run in turns so that a busy moment hits all.

    A side is a function that does some work and returns how many units it did.
    """
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # warm up
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            units = side()
            seen[name].append(units / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in seen.items()}


def sgemm_peak(size: int = 1024) -> float:
    """GFLOP/s of a float32 matrix product on one thread: the best of 20."""
    a, best = torch.randn(size, size), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def machine() -> str:
    """Cores, processor, memory and versions, without any name of the machine."""
    import platform

    model = "unknown processor"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        model = named[0] if named else model
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores, {model}, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    )
