"""The physics of the lab: thousands of planar, quasi-static robots in a handful of tensors.

Everything is stored coordinate first and robot last, so that each operation runs over contiguous
memory; `World.state` is one float32 tensor [D, N] and every named quantity is a view of its rows.

The rules, one sentence each. An open gripper hovers and touches nothing. Fingers that close within
`GRASP_RADIUS` of a disc grasp the nearest one, lift it and carry it; they let go only where it does
not land on another. Closed, empty fingers push. Walls stop the gripper axis by axis. A step that
would push a disc off the table, into a wall or into another disc does not happen.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .._validate import positive_int
from .colors import draw
from .contact import distance, push
from .places import free_places
from .streams import mix, uniform
from .tasks import (
    BUTTON_RADIUS,
    CLEARANCE,
    GRASP_RADIUS,
    OBJECT_RADIUS,
    PLACE_RADIUS,
    REACH_RADIUS,
    Shift,
    Task,
)

_EDGE = 1.0 - CLEARANCE
_SPACING = 0.30  # between everything that is placed at random: more than any radius that matters


class World:
    """The state of N robots, and how an action changes it.

    Args:
        task: what is on the table.
        num_envs: N.
        device: where the tensors live.
        shift: differences from the nominal robot.
        distractors: further discs and zones, of other colours, that the task does not use.
    """

    def __init__(
        self,
        task: Task,
        num_envs: int,
        device: str | torch.device = "cpu",
        shift: Shift | None = None,
        distractors: int = 0,
    ) -> None:
        positive_int(distractors, "distractors", least=0)
        limit = 0 if task.obstacle or task.hazard else 2
        if distractors > limit:
            raise ValueError(f"{task.name} takes at most {limit} distractors, not {distractors}.")
        self.task, self.shift, self.device = task, shift or Shift(), torch.device(device)
        self.num_envs = positive_int(num_envs, "num_envs")
        self.targets = task.objects
        self.num_objects = task.objects + (distractors if task.objects else 0)
        self.num_zones = task.zones + distractors
        self._layout()
        n = num_envs
        self.episode = torch.zeros(n, dtype=torch.int64, device=self.device)  # key of its stream
        self.elapsed = torch.zeros(n, dtype=torch.int64, device=self.device)
        self._colors = torch.zeros(  # discs first, drawn when something looks at them
            self.num_objects + self.num_zones, n, dtype=torch.int64, device=self.device
        )
        self._colorless = torch.zeros(n, dtype=torch.bool, device=self.device)
        self.previous = self.gripper.clone()  # where the gripper came from, for swept collisions
        self._draws = torch.arange(1024, device=self.device)
        areas = [task.gripper_area] + [task.object_area] * self.num_objects
        areas += [task.zone_area] * self.num_zones + [task.button_area] * task.button
        box = torch.tensor(areas, device=self.device).T[..., None, None]  # [4, E, 1, 1]
        self._low, self._span = box[[0, 2]], box[[1, 3]] - box[[0, 2]]  # each [2, E, 1, 1]

    def _layout(self) -> None:
        """Allocate `state` [D, N] and name its rows; the order is the order of observations."""
        k, z = self.num_objects, self.num_zones
        sizes = {"gripper": 2, "closed": 1, "held": k, "object": 2 * k, "zone": 2 * z}
        if self.task.button:
            sizes |= {"button": 2, "pressed": 1}
        self.disc = self.task.obstacle or self.task.hazard
        if self.disc:
            sizes |= {"disc": 2}
        ends = torch.tensor(list(sizes.values())).cumsum(0).tolist()
        self.rows = {name: slice(e - sizes[name], e) for name, e in zip(sizes, ends, strict=True)}
        self.state = torch.zeros(ends[-1], self.num_envs, device=self.device)
        self._name_rows()

    def _name_rows(self) -> None:
        """The views of `state` under their names."""
        k, z, n = self.num_objects, self.num_zones, self.num_envs
        view = {name: self.state[rows] for name, rows in self.rows.items()}
        none = self.state[:0]
        self.gripper = view["gripper"]  # [2, N]
        self.closed = view["closed"][0]  # [N], 1 when the fingers are closed
        self.held = view["held"]  # [K, N], 1 for the disc in the fingers
        self.objects = view["object"].view(2, k, n)  # [2, K, N]
        self.zones = view["zone"].view(2, z, n)  # [2, Z, N]
        self.button = view.get("button", none)  # [2, N], without a button [0, N]
        self.pressed = view["pressed"][0] if self.task.button else torch.zeros_like(self.closed)
        self.disc_center = view.get("disc", none)  # [2, N], obstacle or hazard; without one [0, N]

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        """A pickled world has its views apart from its state: make them anew."""
        self.__dict__ |= attributes
        self._name_rows()

    # ---------------------------------------------------------------- the start of an episode

    def reset(self, robots: Tensor, episode: Tensor) -> None:
        """Start the episodes with keys `episode` [M] for the robots with indices `robots` [M]."""
        start = torch.zeros(len(self.state), len(robots), device=self.device)  # [D, M]
        places = free_places(self._low, self._span, episode, _SPACING)  # [2, E, M]
        k, z = self.num_objects, self.num_zones
        start[self.rows["gripper"]] = places[:, 0]
        start[self.rows["object"]] = places[:, 1 : 1 + k].flatten(0, 1)
        start[self.rows["zone"]] = places[:, 1 + k : 1 + k + z].flatten(0, 1)
        if self.task.button:
            start[self.rows["button"]] = places[:, 1 + k + z]
        if self.disc or self.task.mirrored_start:
            draws = uniform(episode, self._draws[:3])  # [3, M]
        if self.disc:
            x0, x1, y0, y1 = self.disc.center
            start[self.rows["disc"].start] = x0 + (x1 - x0) * draws[0]
            start[self.rows["disc"].start + 1] = y0 + (y1 - y0) * draws[1]
        if self.task.mirrored_start:
            start[0] *= torch.where(draws[2] < 0.5, -1.0, 1.0)
        self.state[:, robots] = start
        self.previous[:, robots] = start[self.rows["gripper"]]
        self.episode[robots] = episode
        self.elapsed[robots] = 0
        self._colorless[robots] = True

    # ---------------------------------------------------------------- its colours

    @property
    def object_color(self) -> Tensor:
        """Which of `COLORS` each disc has, int64 [K, N]."""
        return self._colored()[: self.num_objects]

    @property
    def zone_color(self) -> Tensor:
        """Which of `COLORS` each zone has, int64 [Z, N]."""
        return self._colored()[self.num_objects :]

    @torch.inference_mode()  # may be asked for within it and outside
    def _colored(self) -> Tensor:
        """The colours, after those of the episodes that began since the last call are drawn."""
        robots = self._colorless.nonzero()[:, 0]
        if len(robots):
            counts = (self.num_objects, self.num_zones)
            self._colors[:, robots] = draw(self.task, self.shift, *counts, self.episode[robots])
            self._colorless.zero_()
        return self._colors

    # ---------------------------------------------------------------- one step

    def step(self, action: Tensor) -> None:
        """Apply actions [N, 3] (dx, dy, grip in [-1, 1]; the fingers close when grip > 0)."""
        action = action.T.clamp(-1.0, 1.0)  # [3, N]
        closing = action[2] > 0
        old = self.gripper.clone()
        new = self._move(old, self._shifted(action[:2]))
        self.elapsed += 1
        if self.num_objects:
            new, closing = self._handle(old, new, closing)
        self.previous.copy_(old)
        self.gripper.copy_(new)
        self.closed.copy_(closing)
        if self.task.button:
            touch = closing & (distance(new, self.button) < BUTTON_RADIUS)
            self.pressed.copy_(torch.maximum(self.pressed, touch.float()))

    def _shifted(self, motion: Tensor) -> Tensor:
        """The motion [2, N] that the robot really makes, in units of a full action."""
        s = self.shift
        if not s.moves:
            return motion
        cos, sin = math.cos(s.rotation), math.sin(s.rotation)
        x = s.gain * (cos * motion[0] - sin * motion[1]) + s.wind[0]
        y = s.gain * (sin * motion[0] + cos * motion[1]) + s.wind[1]
        return torch.stack((x - s.inward * self.gripper[0].sign(), y)).clamp(-1.5, 1.5)

    def _move(self, old: Tensor, motion: Tensor) -> Tensor:
        """Move, first along x, then along y; an axis that would enter a wall stays."""
        new = (old + self.task.max_step * motion).clamp(-_EDGE, _EDGE)
        if self.task.walls:
            x = torch.where(self._in_wall(torch.stack((new[0], old[1]))), old[0], new[0])
            y = torch.where(self._in_wall(torch.stack((x, new[1]))), old[1], new[1])
            new = torch.stack((x, y))
        return new

    def _in_wall(self, point: Tensor) -> Tensor:
        """Whether points [2, ..., N] are nearer than `CLEARANCE` to a standing wall."""
        inside = torch.zeros_like(point[0], dtype=torch.bool)
        for x0, x1, y0, y1 in self.task.walls:
            inside |= (
                (point[0] > x0 - CLEARANCE)
                & (point[0] < x1 + CLEARANCE)
                & (point[1] > y0 - CLEARANCE)
                & (point[1] < y1 + CLEARANCE)
            )
        return inside & (self.pressed < 0.5) if self.task.button else inside

    def _handle(self, old: Tensor, new: Tensor, closing: Tensor) -> tuple[Tensor, Tensor]:
        """Grasp, carry, let go and push. Returns gripper [2, N] and fingers [N] after the step."""
        was_closed, was_held = self.closed > 0.5, self.held > 0.5  # [N], [K, N]
        gap = distance(self.objects, new[:, None])  # [K, N]
        held = was_held
        if self.task.graspable:
            grasp = (gap <= GRASP_RADIUS) & ~was_closed & closing
            if self.num_objects > 1:
                grasp &= gap == gap.amin(0)
            held = was_held | grasp
            stuck = self._occupied(new, was_held)  # nothing is let go of onto another disc
            closing = closing | stuck
            held = held & closing
            if self.shift.slip:
                stuck = stuck | self._occupied(old, was_held)  # where it would fall
                held = held & (stuck | ~self._slips())
        carried = held | (was_held & ~closing)
        objects = torch.where(carried, new[:, None], self.objects)  # [2, K, N]
        pushing = closing & ~held.any(0)
        hit = pushing & (gap < GRASP_RADIUS)
        if hit.any():
            objects = torch.where(hit, push(self.objects, old, new, GRASP_RADIUS), objects)
            blocked = self._blocked(objects) & hit.any(0)
            new = torch.where(blocked, old, new)
            closing = torch.where(blocked, was_closed, closing)
            held = torch.where(blocked, was_held, held)
            objects = torch.where(blocked, self.objects, objects)
        self.objects.copy_(objects)
        self.held.copy_(held)
        return new, closing

    def _occupied(self, new: Tensor, was_held: Tensor) -> Tensor:
        """Whether letting go at `new` would put the held disc onto another one, [N]."""
        if self.num_objects == 1:
            return torch.zeros_like(was_held[0])
        near = distance(self.objects, new[:, None]) < 2 * OBJECT_RADIUS
        return was_held.any(0) & (near & ~was_held).any(0)

    def _slips(self) -> Tensor:
        draw = uniform(mix(self.episode, self.elapsed), self._draws[:1])[0]  # [N]
        return draw < self.shift.slip

    def _blocked(self, objects: Tensor) -> Tensor:
        """Where discs at `objects` [2, K, N] leave the table, enter a wall or overlap, [N]."""
        blocked = ((objects.abs() > _EDGE).any(0) | self._in_wall(objects)).any(0)
        for i in range(self.num_objects):
            for j in range(i):
                blocked |= distance(objects[:, i], objects[:, j]) < 2 * OBJECT_RADIUS
        return blocked

    # ---------------------------------------------------------------- what the step achieved

    def placed(self) -> Tensor:
        """Which of the task's discs lie in their zones and are not held, bool [targets, N]."""
        k = self.targets
        near = distance(self.objects[:, :k], self.zones[:, :k]) < PLACE_RADIUS
        return near & (self.held[:k] < 0.5)

    def success(self) -> Tensor:
        """The task's success predicate, bool [N]."""
        if self.targets:
            return self.placed().all(0)
        return distance(self.gripper, self.zones[:, 0]) < REACH_RADIUS

    def failure(self) -> Tensor:
        """Whether the gripper swept over the obstacle in the last step, bool [N]."""
        if self.task.obstacle is None:
            return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        path = self.gripper - self.previous  # [2, N]
        to_center = self.disc_center - self.previous
        share = (path * to_center).sum(0) / (path * path).sum(0).clamp_min(1e-12)
        nearest = self.previous + share.clamp(0.0, 1.0) * path
        return distance(nearest, self.disc_center) < self.task.obstacle.radius

    def cost(self) -> Tensor:
        """1 for a step that ends inside the hazard, float32 [N]."""
        if self.task.hazard is None:
            return torch.zeros(self.num_envs, device=self.device)
        return (distance(self.gripper, self.disc_center) < self.task.hazard.radius).float()
