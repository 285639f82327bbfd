"""What tests and chapters under pytest run under: one thread, smoke mode, no window, own data."""

from __future__ import annotations

import os
import shutil
import tempfile

_made: list[str] = []


def pytest_configure() -> None:
    if "MINARI_DATASETS_PATH" not in os.environ:
        _made.append(tempfile.mkdtemp(prefix="duality-datasets-"))
        os.environ["MINARI_DATASETS_PATH"] = _made[0]
    for name, value in (("OMP_NUM_THREADS", "1"), ("DUALITY_MODE", "smoke"), ("MPLBACKEND", "Agg")):
        os.environ.setdefault(name, value)


def pytest_unconfigure() -> None:
    for folder in _made:
        shutil.rmtree(folder, ignore_errors=True)
