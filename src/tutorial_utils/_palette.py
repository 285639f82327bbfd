"""The one palette of the book: Okabe and Ito's colours, told apart by colour-blind readers too."""

from __future__ import annotations

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
PINK = "#CC79A7"
CYAN = "#56B4E9"
INK = "#1F2933"
GREY = "#8A94A0"
PAPER = "#F7F5F0"

BY_NAME = {
    "blue": BLUE,
    "orange": ORANGE,
    "green": GREEN,
    "red": RED,
    "pink": PINK,
    "cyan": CYAN,
}


def rgb(color: str) -> tuple[int, int, int]:
    """'#RRGGBB' as three integers from 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
