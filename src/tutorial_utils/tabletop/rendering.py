"""Draws the table: soft-edged discs and boxes, batched, into uint8 images of any size.

A shape covers a pixel by its signed distance, clamped to [0, 1]: edges are smooth and motion below
one pixel shows. It touches only a small window of the image. Near the border that window moves
inwards instead of being cut, so the windows of a batch have one size and no pixel twice: a plain
gather and scatter, with nothing to mask. From 96 px on, for people, light falls from the top left.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .._palette import BY_NAME, GREY, INK, PAPER, RED, rgb
from .tasks import BUTTON_RADIUS, COLORS, OBJECT_RADIUS, PLACE_RADIUS, REACH_RADIUS, Box
from .world import World

_CHUNK = 1 << 18  # pixels drawn together on a processor: they stay in its cache
_FINGER = 0.05
_ROUND = 0.03  # radius of the corners of a box
_SPREAD = (0.15, 0.04, 0.10)  # of the fingers from the centre: open, closed, around a disc

Number = Tensor | float  # one per robot [M], or one for all


def render(world: World, size: int = 32, robots: Tensor | None = None) -> Tensor:
    """Camera images of the robots with indices `robots` (all by default).

    Args:
        size: side of the image in pixels, 8 to 1024.

    Returns:
        uint8 [M, size, size, 3].
    """
    if not 8 <= size <= 1024:
        raise ValueError(f"image size must be between 8 and 1024 pixels, not {size}.")
    if robots is None:
        robots = torch.arange(world.num_envs, device=world.device)
    frames = torch.empty(len(robots), size * size * 3, dtype=torch.uint8, device=world.device)
    chunk = max(_CHUNK // size**2 if world.device.type == "cpu" else len(robots), 1)
    for part, pixels in zip(robots.split(chunk), frames.split(chunk), strict=True):
        _Canvas(world, part, size, pixels).draw()
    return frames.view(-1, size, size, 3)


@dataclass(frozen=True)
class _Palette:
    """RGB [3] in 0..255 of everything, `things` [6, 3]."""

    paper: Tensor
    ink: Tensor
    grey: Tensor
    red: Tensor
    white: Tensor
    things: Tensor
    stone: Tensor
    dark: Tensor


@functools.lru_cache(maxsize=8)
def _palette(dim: float, device: torch.device) -> _Palette:
    """The colours, moved towards grey by `dim`."""
    colors = {"paper": PAPER, "ink": INK, "grey": GREY, "red": RED, "white": "#FFFFFF"}
    table = {name: torch.tensor(rgb(color), dtype=torch.float32) for name, color in colors.items()}
    table["things"] = torch.tensor([rgb(BY_NAME[name]) for name in COLORS], dtype=torch.float32)
    table["stone"] = torch.lerp(table["paper"], table["ink"], 0.8)
    table["dark"] = 0.6 * table["grey"]
    grey = table["grey"]
    return _Palette(**{n: torch.lerp(c, grey, dim).to(device) for n, c in table.items()})


class _Canvas:
    """Draws some robots into `pixels` [M, size * size * 3]."""

    def __init__(self, world: World, robots: Tensor, size: int, pixels: Tensor) -> None:
        self.world, self.robots, self.size, self.pixels = world, robots, size, pixels
        self.scale = size / 2  # pixels per table unit
        self.fine = size >= 96  # for people
        self.color = _palette(world.shift.dim, world.device)

    def draw(self) -> None:
        """Everything on the table, from the bottom up."""
        w, m, color = self.world, self.robots, self.color
        self.pixels.copy_(self._table().add(0.5).to(torch.uint8).flatten())
        if w.task.hazard:
            self._hazard(w.disc_center[:, m], w.task.hazard.radius)
        for i in range(w.num_zones):
            self._zone(w.zones[:, i, m], color.things[w.zone_color[i, m]])
        if w.task.button:
            self._button(w.button[:, m], w.pressed[m])
        if w.task.obstacle:
            self._cylinder(w.disc_center[:, m], w.task.obstacle.radius, color.stone, 0.16)
        for wall in w.task.walls:
            self._wall(wall, 1.0 - 0.85 * w.pressed[m] if w.task.button else 1.0)
        for i in range(w.num_objects):
            height = 0.05 + 0.07 * w.held[i, m]
            tint = color.things[w.object_color[i, m]]
            self._cylinder(w.objects[:, i, m], OBJECT_RADIUS, tint, height)
        self._gripper(w.gripper[:, m], w.closed[m], w.held[:, m].sum(0))

    def _table(self) -> Tensor:
        """The empty table, RGB [size, size, 3]; with a grid, a frame and round corners if fine."""
        color = self.color
        if not self.fine:
            return color.paper.expand(self.size, self.size, 3)
        side = (torch.arange(self.size, device=color.paper.device) + 0.5) / self.scale - 1
        cells = [(side + camera) % 0.25 - 0.125 for camera in self.world.shift.camera]
        lines = [_inside(0.5, (0.125 - cell.abs()) * self.scale) for cell in cells]
        corner = 0.06 * self.scale
        beyond = (side.abs() - 1) * self.scale + corner
        far = _beyond(beyond, beyond[:, None])
        whole = _inside(corner, far)
        ink = 0.05 * torch.maximum(lines[0], lines[1].flip(0)[:, None])
        ink = ink + 0.3 * (whole - _inside(corner - 1.3, far))
        image = torch.lerp(color.paper, color.ink, ink[..., None])
        return torch.lerp(color.white, image, whole[..., None])

    def _hazard(self, at: Tensor, radius: float) -> None:
        if not self.fine:
            return self.disc(at, radius, self.color.red, 0.35)
        dx, dy, index = self._window(at, radius, radius)
        far, wide = _length(dx, dy), 0.17 * self.scale  # hatched at 45 degrees
        stripes = _inside(0.18 * wide, ((dx + dy) % wide - wide / 2).abs() * 0.7)
        cover = _inside(radius * self.scale, far) * (0.16 + 0.22 * stripes)
        ring = _inside(0.0125 * self.scale, (far - (radius - 0.0125) * self.scale).abs())
        self._blend(index, torch.maximum(cover, 0.75 * ring), self.color.red)

    def _zone(self, at: Tensor, color: Tensor) -> None:
        radius = (PLACE_RADIUS if self.world.targets else REACH_RADIUS) + 0.03
        dx, dy, index = self._window(at, radius, radius)
        far, rim = _length(dx, dy), 0.042 if self.fine else 0.06
        light = _inside((radius - rim) * self.scale, far).mul_(0.65)
        self._blend(index, _inside(radius * self.scale, far).mul_(0.9).sub_(light), color)

    def _button(self, at: Tensor, pressed: Tensor) -> None:
        self._cylinder(at, BUTTON_RADIUS, self.color.grey, 0.06)
        self.disc(at, 0.095, self.color.ink)
        self.disc(at, 0.08, self.color.red, 1.0 - 0.65 * pressed)
        if self.fine:
            self.disc(at - self._cast(0.06), 0.03, self.color.white, 0.5 - 0.5 * pressed, blur=0.06)

    def _wall(self, wall: Box, standing: Number) -> None:
        x0, x1, y0, y1 = wall
        at = self._vector(x0 + x1, y0 + y1).expand(2, len(self.robots)) / 2
        x, y = (x1 - x0) / 2, (y1 - y0) / 2
        if self.fine:
            self.box(at + self._cast(0.1), x, y, self.color.ink, 0.3 * standing, blur=0.05)
        self.box(at, x, y, self.color.dark, standing)
        if self.fine:
            self.box(at, x - 0.02, y, self.color.grey, standing)

    def _gripper(self, at: Tensor, closed: Tensor, holding: Tensor) -> None:
        """Two fingers: apart when open, together when closed, around a disc when holding it."""
        free = _SPREAD[0] + closed * (_SPREAD[1] - _SPREAD[0])
        spread = free + holding * (_SPREAD[2] - free)  # [M]
        if self.fine:
            return self._hand(at, spread + 0.025 * holding, closed - holding)
        dx, dy, index = self._window(at, max(_SPREAD) + _FINGER, _FINGER)
        far = _length(dx.abs() - spread[:, None, None] * self.scale, dy)
        self._blend(index, _inside(_FINGER * self.scale, far), self.color.ink)

    def _hand(self, at: Tensor, spread: Tensor, low: Number) -> None:
        """A parallel gripper from above: two jaws on a rail, `low` when they push."""
        ink, rail = self.color.ink, at + self._vector(0.0, 0.15)
        jaws = [at + self._vector(0.0, 0.02) + self._vector(s, 0.0) * spread for s in (-1, 1)]
        parts = [(jaw, 0.036, 0.09, ink) for jaw in jaws]
        parts.append((rail, 0.19, 0.045, torch.lerp(ink, self.color.grey, 0.3)))
        for at, x, y, _ in parts:
            self.box(at + self._cast(0.14 - 0.06 * low), x, y, ink, 0.16, blur=0.06)
        for at, x, y, _ in parts:
            self.box(at, x + 0.014, y + 0.014, self.color.paper, 0.9)
        for at, x, y, color in parts:
            self.box(at, x, y, color)
        self.disc(rail, 0.03, self.color.grey)

    def _cylinder(self, at: Tensor, radius: float, color: Tensor, height: Number) -> None:
        """Something round, seen from above."""
        if not self.fine:
            return self.disc(at, radius, color)
        self.disc(at + self._cast(height), radius, self.color.ink, 0.28, blur=0.06)
        self.disc(at, radius, torch.lerp(color, self.color.ink, 0.4))
        self.disc(at, radius - 0.015, color)
        self.disc(at, radius - 0.04, self.color.white, 0.2)

    def _cast(self, height: Number) -> Tensor:
        """Where the shadow of something at `height` falls, relative to it: [2, M] or [2, 1]."""
        return self._vector(0.35, -0.5) * height

    def _vector(self, x: float, y: float) -> Tensor:
        return self.color.ink.new_tensor([[x], [y]])

    def disc(
        self, at: Tensor, radius: float, color: Tensor, alpha: Number = 1.0, blur: float = 0.0
    ) -> None:
        """Blend a disc around `at` [2, M], in table units; with an edge of a pixel + `blur`."""
        dx, dy, index = self._window(at, radius + blur / 2, radius + blur / 2)
        cover = _inside(radius * self.scale, _length(dx, dy), blur * self.scale)
        self._blend(index, cover, color, alpha)

    def box(
        self, at: Tensor, x: float, y: float, color: Tensor, alpha: Number = 1.0, blur: float = 0.0
    ) -> None:
        """Blend a box of half sides `x` and `y` with slightly round corners, as `disc` does."""
        dx, dy, index = self._window(at, x + blur / 2, y + blur / 2)
        beyond_x = dx.abs() - (x - _ROUND) * self.scale
        beyond_y = dy.abs() - (y - _ROUND) * self.scale
        cover = _inside(_ROUND * self.scale, _beyond(beyond_x, beyond_y), blur * self.scale)
        self._blend(index, cover, color, alpha)

    def _window(self, at: Tensor, reach_x: float, reach_y: float) -> tuple[Tensor, Tensor, Tensor]:
        """The pixels that a shape at `at` [2, M] can touch.

        Returns:
            dx [M, 1, W] and dy [M, H, 1] from the centre (in pixels, y downwards), and where the
            window's red, green and blue stand in `pixels`, [M, 3 * H * W].
        """
        camera = self.world.shift.camera
        column, dx = self._side(at[0] - camera[0], reach_x)
        row, dy = self._side(camera[1] - at[1], reach_y)
        y, x, c = (torch.arange(n, device=dx.device) for n in (dy.shape[1], dx.shape[1], 3))
        inner = (y[:, None] * self.size + x) * 3 + c[:, None, None]  # [3, H, W]
        start = (row * self.size + column) * 3  # [M]
        return dx[:, None], dy[:, :, None], start[:, None] + inner.flatten()

    def _side(self, at: Tensor, reach: float) -> tuple[Tensor, Tensor]:
        """First pixel [M] of a window and its distances [M, W] to `at` [M] along one axis."""
        at = (at + 1) * self.scale - 0.5
        reach = reach * self.scale + 0.5
        count = min(int(2 * reach) + 1, self.size)
        first = (at - reach).ceil_().clamp_(0, self.size - count)
        steps = torch.arange(count, device=at.device)
        return first.long(), (first - at)[:, None] + steps

    def _blend(self, index: Tensor, cover: Tensor, color: Tensor, alpha: Number = 1.0) -> None:
        """Mix `color` ([3] or [M, 3]) into a window with weights `cover` [M, H, W] * `alpha`."""
        cover = cover * (alpha[:, None, None] if isinstance(alpha, Tensor) else alpha)
        old = self.pixels.gather(1, index).float().unflatten(1, (3, -1))  # [M, 3, H * W]
        change = (color.view(-1, 3, 1) - old).mul_(cover.flatten(1)[:, None])
        self.pixels.scatter_(1, index, old.add_(change).add_(0.5).to(torch.uint8).flatten(1))


def _length(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt_()


def _beyond(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a box, from the distances `x` and `y` beyond its sides."""
    return _length(x.clamp_min(0.0), y.clamp_min(0.0)) + torch.maximum(x, y).clamp_max(0.0)


def _inside(radius: float, far: Tensor, blur: float = 0.0) -> Tensor:
    """How much of a pixel at distance `far` lies within `radius`; all in pixels."""
    edge = 1 / (1 + blur)
    return (far * -edge).add_(radius * edge + 0.5).clamp_(0.0, 1.0)
