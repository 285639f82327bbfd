"""What the benchmarks share: fair timing, the machine in words, rows of the results table."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


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
    work: Callable[[], object] | None = None  # what to profile where a target is missed

    @property
    def ratio(self) -> float | None:
        """Ours / peer, None where the peer could not be measured."""
        return self.ours / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool | None:
        """Whether all targets are met; None where there is none or the peer it needs is missing."""
        if self.least_ratio and self.ratio is None:
            return None
        checks = [self.ours >= self.least] if self.least else []
        checks += [self.ratio >= self.least_ratio] if self.least_ratio else []
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


def sgemm_peak(product: Callable[[Tensor], object] = lambda x: x @ x) -> float:
    """GFLOP/s of a float32 matrix product on one thread: the best of 20."""
    x, best = torch.randn(1024, 1024), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        product(x)
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best / 1e9


def time_goes_to(work: Callable[[], object], top: int = 6) -> str:
    """The torch operations that `work` spends most of its time in, with their shares."""
    work()  # warm up
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        work()
    events = sorted(trace.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total, calls = sum(e.self_cpu_time_total for e in events), sum(e.count for e in events)
    shares = ", ".join(f"{e.key} {e.self_cpu_time_total / total:.0%}" for e in events[:top])
    return f"{shares}; {total / calls:.1f} us per operation on average"


def processor() -> str:
    """Model and vendor: a matrix library may be fast on the processors of one vendor only."""
    model, info = platform.processor() or "unknown processor", Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
    vendor = facts.get("vendor_id") or facts.get("CPU implementer") or platform.machine()
    return f"{facts.get('model name', model)} ({vendor})"


def machine() -> str:
    """Cores, processor, memory, system and versions, without any name of the machine."""
    memory = psutil.virtual_memory().total / 2**30
    packages = ("torch", "numpy", "gymnasium", "mujoco", "gymnasium-robotics", "stable-baselines3")
    versions = ", ".join(f"{name} {version(name).split('+')[0]}" for name in packages)
    return (
        f"{os.cpu_count()} cores, {processor()}, {memory:.0f} GiB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}, {versions}"
    )
