"""Short films of real rollouts: the table from above, the gripper's trail, what it was told."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from IPython.display import Image as Display
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from .. import _palette as palette
from .._validate import positive_int
from ..evidence.evaluation import evaluate
from ..tabletop.acting import Policy
from ..tabletop.rendering import render
from ..tabletop.sentences import instructions
from ..tabletop.tasks import Task
from ..tabletop.vector_env import TabletopVectorEnv
from .plots import film_strip

_COLORS = 64  # of a GIF; the last one is transparent
_STEP_MS, _HOLD_MS = 100, 1200
_SMOOTH = 3  # lines and letters are drawn this many times larger, then shrunk
_FADED = [int(0.93 * level) for level in range(256)]  # the trail, one step later


@runtime_checkable
class Population(Protocol):
    """P policies in one, of which some can be taken out."""

    members: int

    def select(self, members: slice) -> Policy:
        """Only these members."""
        ...


@dataclass(frozen=True)
class Recording:
    """E filmed episodes; one that has ended holds its last frame."""

    frames: np.ndarray  # uint8 [T, E, H, W, 3]: the table, W by W, and a caption below it
    instructions: tuple[str, ...]  # what each robot was told
    success: np.ndarray  # bool [E]
    steps: np.ndarray  # length of each episode, int [E]

    def gif(self) -> Display:
        """The episodes side by side, four in a row, as an endless animation."""
        data = _gif(np.stack([_grid(f) for f in self.frames]))
        return Display(data=data, format="gif")  # type: ignore[no-untyped-call]

    def save(self, path: str | Path) -> None:
        """Write the animation to `path`, which ends in .gif."""
        if Path(path).suffix != ".gif":
            raise ValueError(f"an animation is saved as .gif, not as {Path(path).name!r}.")
        Path(path).write_bytes(self.gif().data)

    def strip(self, columns: int = 8, episode: int = 0) -> Figure:
        """One episode at `columns` evenly spaced times, from its start to its end."""
        if not 0 <= episode < len(self.steps):
            raise ValueError(f"episode must be from 0 to {len(self.steps) - 1}, not {episode!r}.")
        times = np.linspace(0, self.steps[episode], positive_int(columns, "columns")).round()
        tables = self.frames[times.astype(int), episode, : self.frames.shape[3]]
        figure = film_strip(tables, columns, [f"step {t:.0f}" for t in times])
        figure.set_figheight(figure.get_figheight() + 0.15)
        figure.suptitle(self.instructions[episode], x=0.005, ha="left", fontsize="medium")
        for ax in figure.axes:
            ax.images[0].set_interpolation("lanczos")  # the pictures are larger than their places
        return figure


def record(
    policy: Policy,
    task: str | Task,
    episodes: int = 4,
    seed: int | None = None,
    size: int = 128,
    deterministic: bool = True,
    member: int = 0,
    captions: Sequence[str] | None = None,
    camera: int = 32,
    **env_options: Any,
) -> Recording:
    """Film `policy` in episodes that `evaluate` runs.

    Args:
        policy: what `evaluate` takes; of a population, only `member` is filmed.
        episodes: E.
        seed: of the episodes; by default the book's evaluation seed.
        size: side of the table in pixels, whatever the policy itself sees.
        deterministic: take the mean action of a population; else sample from it.
        captions: E texts to show in place of the instructions.
        camera: side in pixels of the images that the policy sees, if it does.
        env_options: passed to the environment (obs, shift, distractors, device).
    """
    if captions is not None and len(captions) != episodes:
        raise ValueError(f"{episodes} episodes need as many captions, not {len(captions)}.")
    if isinstance(policy, Population):
        if not 0 <= member < policy.members:
            raise ValueError(f"member must be from 0 to {policy.members - 1}, not {member!r}.")
        policy = policy.select(slice(member, member + 1))
    film, env_options = _Film(size), env_options | {"size": camera}
    result = evaluate(policy, task, episodes, seed, deterministic, film.watch, **env_options)
    success, steps = result.success[0], result.steps[0].astype(int)
    frames = []
    for e, band in enumerate(_bands(captions or film.words, size)):
        pictures = map(np.asarray, film.develop(e, steps[e], success[e]))
        shots = [np.concatenate((picture, band)) for picture in pictures]
        frames.append([shots[min(t, steps[e])] for t in range(max(steps) + 1)])
    return Recording(np.stack(frames, axis=1), tuple(film.words), success, steps)


def side_by_side(*recordings: Recording) -> Recording:
    """The episodes of all recordings as one, for example of two arms on the same starts."""
    high = max(r.frames.shape[2] for r in recordings)
    times, frames = np.arange(max(len(r.frames) for r in recordings)), []
    for r in recordings:
        held = r.frames[np.minimum(times, len(r.frames) - 1)]
        margin = ((0, 0), (0, 0), (0, high - held.shape[2]), (0, 0), (0, 0))
        frames.append(np.pad(held, margin, constant_values=255))
    words = sum((r.instructions for r in recordings), ())
    success = np.concatenate([r.success for r in recordings])
    steps = np.concatenate([r.steps for r in recordings])
    return Recording(np.concatenate(frames, axis=1), words, success, steps)


class _Film:
    """What `evaluate` lets us see, step by step."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.words: list[str] = []
        self.tables: list[np.ndarray] = []  # of [E, size, size, 3]
        self.grippers: list[np.ndarray] = []  # of [E, 3]: column, row, closed

    def watch(self, env: TabletopVectorEnv, _running: torch.Tensor) -> None:
        """Keep this moment of all robots."""
        world, (x, y) = env.world, env.world.shift.camera
        if not self.words:
            self.words = instructions(world, torch.arange(world.num_envs, device=world.device))
        self.tables.append(render(world, self.size).cpu().numpy())
        place = world.gripper[0] - x, y - world.gripper[1]
        column, row = ((at + 1) * self.size / 2 for at in place)
        self.grippers.append(torch.stack((column, row, world.closed), 1).cpu().numpy())

    def develop(self, episode: int, steps: int, success: bool) -> list[Image.Image]:
        """The pictures 0 to `steps` of one episode, the last one with its outcome."""
        side = self.size * _SMOOTH
        trail, last = Image.new("L", (side, side)), None
        shots: list[Image.Image] = []
        for table, gripper in zip(self.tables[: steps + 1], self.grippers, strict=False):
            x, y, closed = gripper[episode] * [_SMOOTH, _SMOOTH, 1]
            trail = trail.point(_FADED)
            strength, width = (170, 0.018) if closed else (120, 0.010)
            ImageDraw.Draw(trail).line([last or (x, y), (x, y)], strength, round(width * side))
            seen, last = trail.copy(), (x, y)
            hand = [x - 0.1 * side, y - 0.1 * side, x + 0.1 * side, y + 0.05 * side]
            ImageDraw.Draw(seen).rounded_rectangle(hand, 0.02 * side, 0)  # it is above its trail
            shots.append(Image.fromarray(table[episode]))
            _paint(shots[-1], seen, palette.INK)
        _judge(shots[-1], success, 12 if x > side / 2 else 88)
        return shots


def _paint(image: Image.Image, mask: Image.Image, color: str) -> None:
    """Colour `image` where a larger `mask` is white."""
    image.paste(color, mask=mask.resize(image.size, Image.Resampling.BOX))


def _judge(shot: Image.Image, success: bool, x: float) -> None:
    """A frame, and a check or a cross at the top, `x` percent from the left."""
    side = shot.width * _SMOOTH
    unit = side / 100
    frame, sign = Image.new("L", (side, side)), Image.new("L", (side, side))
    draw = ImageDraw.Draw(frame)
    draw.rounded_rectangle((0, 0, side - 1, side - 1), 3 * unit, 0, 255, round(2 * unit))
    draw.ellipse([at * unit for at in (x - 7.5, 4.5, x + 7.5, 19.5)], 255)
    check = (-3.6, 12.3, -0.9, 15), (-0.9, 15, 3.8, 9.2)
    cross = (-3, 9, 3, 15), (3, 9, -3, 15)
    for x0, y0, x1, y1 in check if success else cross:
        line = [(x + x0) * unit, y0 * unit, (x + x1) * unit, y1 * unit]
        ImageDraw.Draw(sign).line(line, 255, round(2 * unit))
    _paint(shot, frame, palette.GREEN if success else palette.RED)
    _paint(shot, sign, "white")


def _bands(texts: Sequence[str], width: int) -> list[np.ndarray]:
    """The captions below the tables, all of one height: uint8 [H, width, 3]."""
    points = max(9, round(0.085 * width)) * _SMOOTH
    font = ImageFont.load_default(points)
    wrapped, bands = [textwrap.wrap(text, 24) for text in texts], []
    size = width, 4 + max(map(len, wrapped)) * round(1.25 * points / _SMOOTH)
    for lines in wrapped:
        mask = Image.new("L", (size[0] * _SMOOTH, size[1] * _SMOOTH))
        place, text = (mask.width / 2, 4 * _SMOOTH), "\n".join(lines)
        ImageDraw.Draw(mask).text(place, text, 255, font, "ma", 0.25 * points, "center")
        band = Image.new("RGB", size, "white")
        _paint(band, mask, palette.INK)
        bands.append(np.asarray(band))
    return bands


def _grid(frames: np.ndarray, columns: int = 4, gap: int = 8) -> np.ndarray:
    """Pictures [E, H, W, 3] in rows of `columns`, on white."""
    count, high, wide, _ = frames.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.full((rows * (high + gap), columns * (wide + gap), 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        y, x = i // columns * (high + gap), i % columns * (wide + gap)
        grid[y : y + high, x : x + wide] = frame
    return grid[:-gap, :-gap]


def _quantise(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [T, H, W, 3] as numbers [T, H, W] of their 63 most useful colours [63, 3].

    The next colour is always the one that is missed most: far from all chosen ones, and frequent.
    """
    codes = pictures.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    found, counts = np.unique(codes, return_counts=True)
    colors = found[:, None] // [65536, 256, 1] % 256
    far, nearest = np.full(len(found), 1e9), np.zeros(len(found), np.uint8)
    table = np.zeros((_COLORS - 1, 3), np.uint8)
    for i in range(len(table)):
        table[i] = colors[(far * counts**0.4).argmax()]
        distance = ((colors - table[i]) ** 2).sum(1)
        nearest[distance < far] = i
        far = np.minimum(far, distance)
    return nearest[np.searchsorted(found, codes)], table


def _gif(pictures: np.ndarray) -> bytes:
    """An endless GIF with one palette; what a frame does not change is transparent in it."""
    shades, table = _quantise(pictures)
    shades[1:][shades[1:] == shades[:-1]] = _COLORS - 1
    images = [Image.fromarray(shade) for shade in shades]
    colors = table.tobytes() + bytes(3)
    for image in images:
        image.putpalette(colors)
    times = [_STEP_MS] * (len(images) - 1) + [_HOLD_MS]
    options = {"loop": 0, "disposal": 1, "transparency": _COLORS - 1, "palette": colors}
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=times, **options)
    return file.getvalue()
