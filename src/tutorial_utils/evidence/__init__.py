"""How a result is measured and kept: modes and seeds, evaluation, intervals, claims, weights.

Nothing here trains or draws; this room knows the lab, and none of the rooms above it.
"""

from __future__ import annotations

from .claims import ClaimError, Claims
from .evaluation import Evaluation, evaluate
from .intervals import Interval, band, bootstrap, difference
from .provenance import provenance_line
from .results import like_with_like, read_arms, read_results

__all__ = [
    "ClaimError",
    "Claims",
    "Evaluation",
    "Interval",
    "band",
    "bootstrap",
    "difference",
    "evaluate",
    "like_with_like",
    "provenance_line",
    "read_arms",
    "read_results",
    "run_mode",
    "weights",
]
