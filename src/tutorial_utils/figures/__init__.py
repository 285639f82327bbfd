"""What a reader sees: style and palette, curves and bars, tables, films of rollouts.

Nothing here computes a result; intervals come from the room of evidence.
"""

from __future__ import annotations

from .. import _palette as palette
from .._tables import table
from .films import Recording, record, side_by_side
from .plots import arm_color, bars, curves, film_strip, short_number, use_style

__all__ = [
    "Recording",
    "arm_color",
    "bars",
    "curves",
    "film_strip",
    "palette",
    "record",
    "short_number",
    "side_by_side",
    "table",
    "use_style",
]
