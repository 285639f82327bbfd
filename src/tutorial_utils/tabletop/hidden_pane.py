"""Two doors and a hidden pane of glass, for world models (base_models, and the one for RL to come).

A wall with two doors parts the table. A coin decides in which door a pane of glass stands, and no
picture shows it. A lamp in the lower half does, while the gripper is near it. Who tries the door
with the glass stays before it. The moves of an episode are planned where there is no glass, so
they never tell which door is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .rendering import render
from .streams import Seeds, robot_keys
from .tasks import TASKS, Task
from .world import World

STEPS = 16  # observations of an episode
STEP = 0.18  # table units of a full action
_LAMP, _NEAR = ((0.0,), (-0.42,)), 0.2
_ENDS = (-1.0, -0.8, -0.2, 0.2, 0.8, 1.0)  # of the pieces of the wall, along x
_DARK, _SHADES = (170.0, 170, 170), ((0.0, 114, 178), (230.0, 159, 0))  # of the lamp


class Episodes(NamedTuple):
    """N episodes of T steps."""

    obs: Tensor  # [N, T, 6]: gripper, zone, lamp says left, lamp says right
    action: Tensor  # [N, T, 2], taken before the observation; zeros at the start
    reward: Tensor  # [N, T], 1 in the zone
    coin: Tensor  # [N], the open door: -1 left, 1 right
    side: Tensor  # [N], the door that is tried
    fork: Tensor  # [N], the first step at which the glass matters; T if it never does
    other: Tensor  # [N, T, 6], the observations if the other door were open


def gate(glass: Sequence[int] = ()) -> Task:
    """The task with a pane in these doors, of -1 (left) and 1 (right)."""
    shut = [0, 2, 4] + [2 + door for door in glass]
    walls = tuple((_ENDS[i], _ENDS[i + 1], 0.0, 0.12) for i in shut)
    low, high = (-0.3, 0.3, -0.88, -0.83), (-0.7, 0.7, 0.6, 0.8)  # gripper, zone
    task = replace(TASKS["Reach"], name="HiddenPane", walls=walls, max_step=STEP)
    return replace(task, gripper_area=low, zone_area=high)


def _start(count: int, seed: Seeds, glass: Sequence[int]) -> World:
    world = World(gate(glass), count)
    world.reset(torch.arange(count), robot_keys(seed, count, world.device))
    return world


class Doors:
    """N robots before the doors, which a policy moves step by step.

    Args:
        coin: the open door of each robot, [N]: -1 left, 1 right.
        seed: of the places where gripper and zone begin, as in `robot_keys`.
    """

    def __init__(self, coin: Tensor, seed: Seeds) -> None:
        self.coin = coin
        self._worlds = [_start(len(coin), seed, (-door,)) for door in (-1, 1)]

    def place(self, obs: Tensor) -> None:
        """Put gripper and zone where these observations [N, 6] have them."""
        for world in self._worlds:
            world.gripper.copy_(obs[:, :2].T)
            world.zones[:, 0] = obs[:, 2:4].T

    def observe(self) -> tuple[Tensor, Tensor]:
        """Observation [N, 6], and reward [N]: 1 in the zone."""
        world = self._worlds[0]
        lit = ((world.gripper - torch.tensor(_LAMP)).norm(dim=0) < _NEAR).float()
        lamp = lit * torch.stack((self.coin < 0, self.coin > 0))
        obs = torch.cat((world.gripper, world.zones[:, 0], lamp)).T
        return obs, world.success().float()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Move by `action` [N, 2]; what `observe` then says."""
        left, right = self._worlds
        for world in self._worlds:
            world.step(F.pad(action, (0, 1), value=-1.0))  # the fingers stay open
        gripper = torch.where(self.coin < 0, left.gripper, right.gripper)
        for world in self._worlds:
            world.gripper.copy_(gripper)
        return self.observe()


def _plans(count: int, seed: int, wander: float, look: float, stops: int) -> tuple[Tensor, Tensor]:
    """Moves [N, T - 1, 3] made where there is no glass, and the door that they try, [N]."""
    g, robots = torch.Generator().manual_seed(seed), torch.arange(count)
    world, draw = _start(count, seed, ()), torch.rand(5, count, generator=g)
    side = torch.where(draw[0] < 0.5, -1.0, 1.0)
    place = torch.stack((1.2 * draw[3] - 0.6, 0.6 * draw[4] - 0.8))
    below = torch.stack((0.5 * side, torch.full_like(side, -0.25)))
    above = below + torch.tensor([[0.0], [0.65]])
    way = [place * torch.tensor([[(-1.0) ** i], [1.0]]) for i in range(stops)]
    lamp = torch.tensor(_LAMP).expand_as(place)
    goals = torch.stack((lamp, *way, below, above, world.zones[:, 0]))  # [S, 2, N]
    stage = (draw[1] >= look).long()  # who does not look begins after the lamp
    drift, moves = 0.8 * torch.randn(2, count, generator=g), []
    for _ in range(STEPS - 1):
        off = goals[stage, :, robots].T - world.gripper
        stage = (stage + (off.norm(dim=0) < 0.15)).clamp_max(len(goals) - 1)
        off = goals[stage, :, robots].T - world.gripper
        noise = torch.randn(2, count, generator=g)
        drift = 0.7 * drift + 0.5 * noise + torch.tensor([[0.0], [0.1]])
        move = (off / STEP).clamp(-1, 1) + 0.15 * noise
        move = torch.where(draw[2] < wander, drift, move).clamp(-1, 1)
        moves.append(F.pad(move.T, (0, 1), value=-1.0))  # the fingers stay open
        world.step(moves[-1])
    return torch.stack(moves, 1), side


def _live(moves: Tensor, seed: int, door: int) -> Tensor:
    """Observation and reward [N, T, 7] of these moves if only this door is open."""
    doors = Doors(torch.full((len(moves),), float(door)), seed)
    rows = [doors.observe(), *(doors.step(move[:, :2]) for move in moves.unbind(1))]
    return torch.stack([torch.cat((obs, reward[:, None]), 1) for obs, reward in rows], 1)


def episodes(
    count: int, seed: int, wander: float = 0.25, look: float = 0.67, stops: int = 1
) -> Episodes:
    """Episodes of plans with noise. Of the open door they know nothing.

    Args:
        wander: share of them that drift about without a plan.
        look: share of plans that go by the lamp; all try a door at random.
        stops: random places on the way from the lamp to the door.
    """
    moves, side = _plans(count, seed, wander, look, stops)
    robots = torch.arange(count)
    right = robots % 2
    both = torch.stack([_live(moves, seed, door) for door in (-1, 1)])
    seen, other = both[right, robots], both[1 - right, robots]  # [N, T, 7]
    same = (both[0, ..., :2] == both[1, ..., :2]).all(-1)  # [N, T]
    fork, action = same.long().cumprod(1).sum(1), F.pad(moves[..., :2], (0, 0, 1, 0))
    coin = right * 2.0 - 1
    return Episodes(seen[..., :6], action, seen[..., 6], coin, side, fork, other[..., :6])


def picture(obs: Tensor, size: int = 16) -> Tensor:
    """The table as a camera sees it: uint8 [N, size, size, 3] of observations [N, 6]."""
    world = _start(len(obs), 0, ())
    world.gripper.copy_(obs[:, :2].T)
    world.zones[:, 0] = obs[:, 2:4].T
    world.zone_color.fill_(2)
    world.closed.fill_(1.0)  # one dark spot
    frames, k, on = render(world, size), size // 16, obs[:, 4:].clamp(0, 1)
    off = (1 - on.sum(1, keepdim=True)).clamp(0, 1) * torch.tensor(_DARK)
    color = (on @ torch.tensor(_SHADES) + off).clamp(0, 255).to(torch.uint8)
    frames[:, 10 * k : 12 * k, 7 * k : 9 * k] = color[:, None, None]
    return frames
