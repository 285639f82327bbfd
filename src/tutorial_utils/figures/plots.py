"""One style, one palette, one colour per arm: the figures of every chapter."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .. import _palette as palette
from .._validate import positive_int
from ..evidence.intervals import Interval, band, bootstrap, numbers

_GAUSSIAN = ("gaussian_bc", "gaussian_bc,_sampled", "gaussian_bc_+_ppo")
_IMITATION = ("imitation", "imitation_of_successes", *_GAUSSIAN)
_WRITTEN = ("llm", "language", "first_generation")
_SHOWN = ("expert", "demonstrations", "video")
_BEST = ("best_of_16", "best_of_64")
_EXPERTS = ("rpd,_annealed", "rl_data")
_UNTRAINED = ("untrained", "ppo_+_untrained_advice", "dppo,_untrained")
_SHUFFLED = ("shuffled", "shuffled_success", "wrong_words", "wrong_plans")
_SABOTAGE = ("sabotage", "sabotaged", *_SHUFFLED, *_UNTRAINED)
_ARMS = {
    palette.GREY: ("sparse", "none"),
    "#4B5866": ("random", "uniform", "dppo,_calm", "grpo,_all_groups"),  # a lighter ink
    palette.GREEN: ("oracle", "shaped", "reward_weighted", "grpo", *_EXPERTS),
    palette.BLUE: ("ppo", "method", "ours", "dppo", "diffusion", "hand's_states,_rl_actions"),
    palette.ORANGE: (*_SHOWN, *_BEST, "kl_to_the_base", "rpd,_constant", "joined_halves"),
    palette.PINK: (*_WRITTEN, "world_model", "rl_states,_hand's_actions", *_IMITATION),
    palette.CYAN: ("bc", "diffusion_bc", "vlm", "vision_language", "supervised", "self_imitation"),
    palette.RED: (*_SABOTAGE, "twin", "flipped"),
}
_COLOR = {name: color for color, names in _ARMS.items() for name in names}
_OTHERS = (palette.PINK, palette.CYAN, palette.ORANGE, palette.BLUE, palette.GREEN)
_WHISKER: dict[str, Any] = {"color": palette.INK, "linewidth": 1.6, "marker": "|", "markersize": 9}
_DASHES = ("-", "--", ":", "-.")


def use_style() -> None:
    """Set matplotlib's defaults to the style of the book: 7 x 3.2 inches, white, no box."""
    ink, grey = palette.INK, palette.GREY
    mpl.rc("figure", figsize=(7, 3.2), dpi=110, facecolor="white")
    mpl.rc("figure.constrained_layout", use=True)
    mpl.rc("savefig", dpi=110)
    mpl.rc("font", family="DejaVu Sans", size=9.5)
    mpl.rc("text", color=ink)
    mpl.rc("axes", labelcolor=ink, edgecolor=grey, titlesize=10.5, titlelocation="left")
    mpl.rc("axes", grid=True, axisbelow=True, prop_cycle=cycler(color=_OTHERS[::-1]))
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("grid", color="#E7E9EC", linewidth=0.8)
    mpl.rc("xtick", color=grey, labelcolor=ink)
    mpl.rc("ytick", color=grey, labelcolor=ink)
    mpl.rc("lines", linewidth=1.8)
    mpl.rc("legend", frameon=False)


def arm_color(name: str) -> str:
    """The colour of an arm as '#RRGGBB', the same in every chapter and every session.

    Known arms have a curated colour ("Sparse", "world model": case and spaces do not matter); an
    unknown name gets one by its checksum.
    """
    key = re.sub(r"[\s_-]+", "_", name.strip().lower())
    return _COLOR.get(key) or _OTHERS[zlib.crc32(key.encode()) % len(_OTHERS)]


def short_number(value: float, _position: float | None = None) -> str:
    """1500 -> '1.5k', 2000000 -> '2M'; also a matplotlib tick formatter."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def curves(
    ax: Axes, x: Any, arms: Mapping[str, Any], label_x: str, label_y: str, level: float = 0.95
) -> None:
    """Learning curves: the mean over seeds and its Student t band (`intervals.band`).

    Names stand at the right ends. Arms of one colour differ by dashes, which the names then show.

    Args:
        ax: where to draw.
        x: [T], mostly environment steps (ticks read 100k, 2M).
        arms: name -> [seeds, T]. One seed has no band, a NaN leaves a gap; where all values lie in
            [0, 1] the axis shows all of [0, 1].
        label_x, label_y: axis labels with units.
        level: of the band.

    Raises:
        ValueError: one line: an arm is not [seeds, T], or there is none.
    """
    x = numbers(x, "x", (1,))
    if not arms:
        raise ValueError("curves need at least one arm.")
    values = {name: numbers(arm, f"arm {name!r}", (2,), finite=False) for name, arm in arms.items()}
    seen: list[str] = []
    ends = []
    for name, array in values.items():
        if array.shape[1] != len(x):
            raise ValueError(f"arm {name!r} must be [seeds, {len(x)}], not {list(array.shape)}.")
        color, (mean, low, high) = arm_color(name), band(array, level)
        dash = _DASHES[seen.count(color) % len(_DASHES)]
        seen.append(color)
        ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(x, mean, color=color, linestyle=dash, label=name)
        known = np.flatnonzero(np.isfinite(mean))
        ends.append((mean[known[-1]] if len(known) else 0.0, name, color, dash))
    ax.set(xlabel=label_x, ylabel=label_y)
    if not any(((array < 0) | (array > 1)).any() for array in values.values()):
        ax.set_ylim(-0.03, 1.03)
    ax.margins(x=0.01)
    ax.xaxis.set_major_formatter(short_number)
    _label_ends(ax, ends)


def _label_ends(ax: Axes, ends: list[tuple[float, str, str, str]]) -> None:
    """Name each line at its right end, moved apart where the ends are close."""
    low, high = ax.get_ylim()
    gap = 1.25 * mpl.rcParams["font.size"] * ax.figure.dpi / 72 / ax.bbox.height * (high - low)
    ends = sorted(ends)
    places: list[float] = []
    for y, *_ in ends:
        places.append(max(y, places[-1] + gap) if places else y)
    ceiling = high
    for i in reversed(range(len(places))):  # push back what the first pass moved above the top
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    dashed = len({color for *_, color, _ in ends}) < len(ends)
    line: dict[str, Any] = {"arrowstyle": "-", "relpos": (0, 0.5), "shrinkA": 3, "shrinkB": 5}
    line["linewidth"] = mpl.rcParams["lines.linewidth"]
    for y, (_, name, color, dash) in zip(places, ends, strict=True):
        ax.annotate(
            name,
            (1, y),
            (36 if dashed else 5, 0),  # points
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            arrowprops=line | {"color": color, "linestyle": dash} if dashed else None,
            color=color,
            va="center",
            fontweight="bold",
        )


def bars(ax: Axes, arms: Mapping[str, Any], label: str) -> None:
    """Horizontal bars with 95% whiskers, the first arm on top.

    Args:
        ax: where to draw.
        arms: name -> `Interval`, or values [seeds] or [seeds, episodes] that `bootstrap` takes; for
            values each seed is a dot.
        label: of the x axis, with units.

    Raises:
        ValueError: one line: no arm, or values that have no interval.
    """
    if not arms:
        raise ValueError("bars need at least one arm.")
    for row, (name, arm) in enumerate(arms.items()):
        interval = arm if isinstance(arm, Interval) else bootstrap(arm)
        ax.barh(row, interval.estimate, height=0.62, color=arm_color(name), alpha=0.85)
        ax.plot([interval.low, interval.high], [row, row], **_WHISKER)
        if arm is not interval:
            scores = numbers(arm, name, (1, 2))
            scores = scores.reshape(len(scores), -1).mean(axis=1)  # [seeds]
            # Each dot at a height of its own: equal seeds must not hide one another.
            heights = row + np.linspace(-0.18, 0.18, len(scores))
            ax.scatter(scores, heights, s=14, color="white", edgecolors=palette.INK, zorder=3)
        ax.text(1.015, row, str(interval), transform=ax.get_yaxis_transform(), va="center")
    ax.set_yticks(range(len(arms)), list(arms))
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.set_xlabel(label)


class _Strip(Figure):
    """Not pyplot's, which a notebook would show twice; so it has to say how to show itself."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def film_strip(frames: Any, columns: int = 8, captions: Sequence[str] | None = None) -> Figure:
    """Frames side by side, in rows of `columns`; make it the last line of a cell to show it.

    Args:
        frames: uint8 [T, H, W, 3].
        columns: frames in a row.
        captions: T short texts, one under each frame.

    Raises:
        ValueError: one line: another shape or type, or not one caption for each frame.
    """
    frames = np.asarray(frames.cpu() if hasattr(frames, "cpu") else frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames) or frames.dtype != np.uint8:
        got = f"{frames.dtype} {list(frames.shape)}"
        raise ValueError(f"frames must be uint8 [T, H, W, 3] with T of at least 1, not {got}.")
    if captions is not None and len(captions) != len(frames):
        raise ValueError(f"{len(frames)} frames need as many captions, not {len(captions)}.")
    side = 7 / positive_int(columns, "columns")  # inches
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    high = side * frames.shape[1] / frames.shape[2] + (0.2 if captions else 0)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = _Strip(figsize=(columns * side, rows * high), dpi=110, layout=layout)
    for i, ax in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        ax.axis("off")
        if i < len(frames):
            ax.imshow(frames[i], interpolation="nearest")
            if captions:
                ax.text(0.5, -0.04, captions[i], transform=ax.transAxes, ha="center", va="top")
    return figure
