"""Draws the table: soft-edged discs and boxes, batched, into uint8 images of any size.

A shape touches only the square window of pixels that can hold it, so that a 32 px frame of five
things costs microseconds. The same code draws observations (32 or 64 px) and figures (256 px).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..palette import BY_NAME, GREY, INK, PAPER, RED, rgb
from .tasks import BUTTON_RADIUS, COLORS, OBJECT_RADIUS, PLACE_RADIUS, REACH_RADIUS
from .world import World

_CHUNK = 256  # frames drawn together: their canvas stays in the processor's cache
_FINGER = 0.05
_SPREAD = (0.13, 0.04, 0.11)  # of the fingers from the centre: open, closed, around a disc


def render(world: World, size: int = 32, robots: Tensor | None = None) -> Tensor:
    """Camera images of the robots with indices `robots` (all by default).

    Args:
        size: side of the image in pixels, 8 or more.

    Returns:
        uint8 [M, size, size, 3].
    """
    if not 8 <= size <= 1024:
        raise ValueError(f"image size must be between 8 and 1024 pixels, not {size}.")
    if robots is None:
        robots = torch.arange(world.num_envs, device=world.device)
    frames = torch.empty(len(robots), size, size, 3, dtype=torch.uint8, device=world.device)
    for i in range(0, len(robots), _CHUNK):
        canvas = _Canvas(world, robots[i : i + _CHUNK], size)
        frames[i : i + _CHUNK] = canvas.draw()
    return frames


def _colors(names: list[str], dim: float, device: torch.device) -> Tensor:
    """RGB [len(names), 3] in 0..255, moved towards grey by `dim`."""
    table = torch.tensor([rgb(name) for name in names], dtype=torch.float32, device=device)
    return table + dim * (torch.tensor(rgb(GREY), device=device) - table)


class _Canvas:
    """The frames [M, size, size, 3] of some robots while they are drawn."""

    def __init__(self, world: World, robots: Tensor, size: int) -> None:
        self.world, self.robots, self.size = world, robots, size
        self.scale = size / 2  # pixels per table unit
        device, dim = world.device, world.shift.dim
        self.things = _colors([BY_NAME[name] for name in COLORS], dim, device)  # [6, 3]
        paper, self.ink, self.grey, self.red = _colors([PAPER, INK, GREY, RED], dim, device)
        self.paper = paper
        self.pixels = paper.repeat(len(robots), size * size, 1)  # [M, size * size, 3]
        self.frame = torch.arange(len(robots), device=device)[:, None]  # [M, 1]

    def draw(self) -> Tensor:
        """Everything on the table, from the bottom up."""
        w, m = self.world, self.robots
        if w.task.hazard:
            self.disc(w.disc_center[:, m], w.task.hazard.radius, self.red, 0.35)
        for i in range(w.num_zones):
            self._zone(w.zones[:, i][:, m], self.things[w.zone_color[i][m]])
        if w.task.button:
            up = 1.0 - 0.65 * w.pressed[m]
            self.disc(w.button[:, m], BUTTON_RADIUS, self.ink, 0.9, hole=0.09)
            self.disc(w.button[:, m], 0.08, self.red, up)
        if w.task.obstacle:
            self.disc(w.disc_center[:, m], w.task.obstacle.radius, self.ink, 0.8)
        for wall in w.task.walls:
            self._wall(wall, 1.0 - 0.85 * w.pressed[m] if w.task.button else None)
        for i in range(w.num_objects):
            place = w.objects[:, i][:, m]
            if self.size >= 96:  # a soft shadow, for people
                self.disc(place + 0.015, OBJECT_RADIUS, self.ink, 0.25, blur=0.04)
            self.disc(place, OBJECT_RADIUS, self.things[w.object_color[i][m]], 1.0)
        holding = (w.held[:, m] > 0.5).any(0)
        self._gripper(w.gripper[:, m], w.closed[m], holding)
        image = self.pixels.add_(0.5).to(torch.uint8).view(-1, self.size, self.size, 3)
        return image

    def _zone(self, center: Tensor, color: Tensor) -> None:
        radius = PLACE_RADIUS if self.world.targets else REACH_RADIUS
        self.disc(center, radius + 0.03, color, 0.9)
        self.disc(center, radius - 0.03, self.paper + 0.25 * (color - self.paper), 1.0)

    def _gripper(self, center: Tensor, closed: Tensor, holding: Tensor) -> None:
        """Two fingers: apart when open, together when closed, around a disc when holding it."""
        free = _SPREAD[0] + closed * (_SPREAD[1] - _SPREAD[0])
        spread = torch.where(holding, _SPREAD[2], free)  # [M]
        if self.size >= 96:  # the hand, for people
            hand = 0.10 + 0.06 * (spread / _SPREAD[0])
            self.disc(center, hand, self.ink, 0.25, hole=hand - 0.025)
        for side in (-1, 1):
            finger = torch.stack((center[0] + side * spread, center[1]))
            if self.size >= 96:
                self.disc(finger, _FINGER + 0.015, self.paper, 0.9)
            self.disc(finger, _FINGER, self.ink, 1.0)

    def disc(
        self,
        center: Tensor,
        radius: float | Tensor,
        color: Tensor,
        alpha: float | Tensor,
        hole: float | Tensor = 0.0,
        blur: float = 0.0,
    ) -> None:
        """Blend a disc (a ring with `hole` > 0) at `center` [2, M], in table units, into `pixels`.

        Args:
            radius, hole, alpha: a number or [M].
            color: RGB [3] or [M, 3].
            blur: width of the soft edge beyond one pixel.
        """
        camera = self.world.shift.camera
        x = (center[0] - camera[0] + 1) * self.scale - 0.5  # [M], in pixels
        y = (1 - center[1] + camera[1]) * self.scale - 0.5
        reach = float(torch.as_tensor(radius).max()) if isinstance(radius, Tensor) else radius
        half = math.ceil((reach + blur) * self.scale + 0.5)
        side = torch.arange(-half, half + 1, device=x.device)  # the window, [S]
        columns, rows = x.round().long()[:, None] + side, y.round().long()[:, None] + side  # [M, S]
        dx, dy = columns - x[:, None], rows - y[:, None]
        far = torch.sqrt((dy * dy)[:, :, None] + (dx * dx)[:, None])  # [M, S, S]
        edge = 1 / (1 + blur * self.scale)
        cover = _soft(radius, far, self.scale, edge)
        if isinstance(hole, Tensor) or hole > 0:
            cover = cover - _soft(hole, far, self.scale, edge)
        inside = ((columns >= 0) & (columns < self.size))[:, None]
        inside = inside & ((rows >= 0) & (rows < self.size))[:, :, None]
        alpha = alpha[:, None, None] if isinstance(alpha, Tensor) else alpha
        cover = (cover.clamp_min(0.0) * inside * alpha).flatten(1)  # [M, S * S]
        last = self.size - 1
        where = rows.clamp(0, last)[:, :, None] * self.size + columns.clamp(0, last)[:, None]
        self._blend(where.flatten(1), cover, color)

    def _blend(self, where: Tensor, cover: Tensor, color: Tensor) -> None:
        """Mix `color` into pixels `where` [M, A] with weights `cover` [M, A].

        Pixels beyond the border are clamped onto it with weight 0; adding (not writing) the change
        keeps those duplicates harmless.
        """
        index = where + self.frame * (self.size * self.size)  # [M, A]
        flat = self.pixels.view(-1, 3)
        old = flat[index]  # [M, A, 3]
        color = color[:, None] if color.dim() == 2 else color
        change = (color - old) * cover[..., None]
        flat.index_add_(0, index.flatten(), change.flatten(0, 1))

    def _wall(self, wall: tuple[float, float, float, float], alpha: Tensor | None) -> None:
        camera = self.world.shift.camera
        side = torch.arange(self.size, device=self.pixels.device) + 0.5
        x = side / self.scale - 1 + camera[0]
        y = 1 - side / self.scale + camera[1]
        across = _soft_box(x, wall[0], wall[1], self.scale)
        along = _soft_box(y, wall[2], wall[3], self.scale)
        cover = (along[:, None] * across[None]).flatten()[None, :, None]  # [1, size * size, 1]
        if alpha is not None:
            cover = cover * alpha[:, None, None]
        self.pixels += cover * (self.grey * 0.6 - self.pixels)


def _soft(radius: float | Tensor, far: Tensor, scale: float, edge: float) -> Tensor:
    """How much of a pixel at distance `far` [M, S, S] (in pixels) lies within `radius`."""
    radius = radius[:, None, None] if isinstance(radius, Tensor) else radius
    return ((radius * scale - far) * edge + 0.5).clamp(0.0, 1.0)


def _soft_box(x: Tensor, low: float, high: float, scale: float) -> Tensor:
    """How much of each pixel at `x` lies in [low, high]."""
    return (torch.minimum(x - low, high - x) * scale + 0.5).clamp(0.0, 1.0)
