"""How a result is measured and kept: modes and seeds, evaluation, intervals, claims, weights.

Nothing here trains or draws; this room knows the lab, and none of the rooms above it.
"""

from __future__ import annotations

from .claims import ClaimError, Claims, read_results
from .evaluation import Evaluation, evaluate
from .intervals import Interval, band, bootstrap, difference
from .provenance import provenance_line

__all__ = [
    "ClaimError",
    "Claims",
    "Evaluation",
    "Interval",
    "band",
    "bootstrap",
    "difference",
    "evaluate",
    "provenance_line",
    "read_results",
    "run_mode",
    "weights",
]
