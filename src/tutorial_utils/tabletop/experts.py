"""Scripted experts: closed-loop controllers that see the world's state, for demonstrations.

An expert keeps no memory. What differs between episodes (which way round, whether it is flawed) is
drawn from the episode's own stream, so demonstrations do not depend on the batch they ran in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import one_of
from .contact import distance
from .streams import mix, normal, uniform
from .tasks import GRASP_RADIUS
from .world import World

_MISS = 0.35  # a flawed expert aims this far from the zone
_ROUTES = ("both", "left", "right")


@dataclass(frozen=True)
class Expert:
    """A controller for every task of the lab.

    Args:
        noise: standard deviation of Gaussian noise on dx and dy, in units of a full action.
        success: share of episodes in which the expert means to succeed; in the others it misses the
            zone, or heads straight into the obstacle. Noise can only lower the measured rate.
        route: side on which obstacle and hazard are passed: "both" draws it for each episode.
        clearance: distance kept from obstacle and hazard, in table units.
    """

    noise: float = 0.0
    success: float = 1.0
    route: str = "both"
    clearance: float = 0.15

    def __post_init__(self) -> None:
        one_of(self.route, _ROUTES, "route")
        if not 0 <= self.success <= 1:
            raise ValueError(f"success must be between 0 and 1, not {self.success!r}.")
        if self.noise < 0:
            raise ValueError(f"noise must be 0 or more, not {self.noise!r}.")

    def __call__(self, world: World) -> Tensor:
        """Actions [N, 3] for the robots of `world`."""
        draws = uniform(mix(world.episode, 4000), torch.arange(2, device=world.device))  # [2, N]
        flawed = draws[0] >= self.success
        if world.targets:
            target, closed = self._place(world, flawed)
        else:
            target, closed = self._reach(world, flawed, self._side(draws[1]))
        motion = (target - world.gripper) / world.task.max_step  # [2, N]
        motion = motion / motion.abs().amax(0).clamp_min(1.0)  # straight, at most a full action
        if self.noise:
            key = mix(mix(world.episode, 4001), world.elapsed)
            motion = motion + self.noise * normal(key, torch.arange(2, device=world.device))
        grip = torch.where(closed, 1.0, -1.0)
        return torch.cat((motion.clamp(-1.0, 1.0), grip[None])).T.contiguous()

    def _side(self, draw: Tensor) -> Tensor:
        """-1 (left) or 1 (right) for each robot."""
        if self.route == "both":
            return torch.where(draw < 0.5, -1.0, 1.0)
        return torch.full_like(draw, -1.0 if self.route == "left" else 1.0)

    def _reach(self, world: World, flawed: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Next waypoint [2, N] on the way to the zone, fingers open."""
        zone, gripper = world.zones[:, 0], world.gripper
        way = zone
        if world.disc:  # beside the disc until it is passed
            offset = (world.disc.radius + self.clearance) * side
            level = torch.where(gripper[1] < world.disc_center[1] - 0.33, -0.3, 0.3)
            beside = torch.stack((world.disc_center[0] + offset, world.disc_center[1] + level))
            way = torch.where(gripper[1] < world.disc_center[1] + 0.25, beside, zone)
        if world.task.obstacle:
            wrong = zone  # straight into the obstacle
        else:  # stop short
            gap = distance(zone, gripper)
            wrong = gripper + (zone - gripper) / gap.clamp_min(1e-6) * (gap - _MISS)
        return torch.where(flawed, wrong, way), torch.zeros_like(flawed)

    def _place(self, world: World, flawed: Tensor) -> tuple[Tensor, Tensor]:
        """Where to go [2, N] and whether to close the fingers [N], for the first disc to do."""
        k, gripper = world.targets, world.gripper
        todo = world.placed().logical_not() | (world.held[:k] > 0.5)  # [k, N]
        first = todo.int().argmax(0).expand(2, 1, -1)
        disc = world.objects.gather(1, first)[:, 0]  # [2, N]
        aim = world.zones.gather(1, first)[:, 0]
        if world.task.graspable:  # let go beside the zone
            side = torch.where(aim[1] > 0, -1.0, 1.0)
            wrong = torch.stack((aim[0], aim[1] + _MISS * side))
        else:  # stop short, as a disc that is pushed past the zone could cross it
            wrong = aim + (disc - aim) / distance(disc, aim).clamp_min(1e-6) * _MISS
        aim = torch.where(flawed, wrong, aim)
        handle = self._carry if world.task.graspable else self._push
        target, closed = handle(world, disc, aim)
        if world.task.button:
            press = world.pressed < 0.5
            closed = torch.where(press, distance(gripper, world.button) < 0.06, closed)
            target = torch.where(press, world.button, target)
        finished = ~todo.any(0)  # where success does not end the episode: stay, fingers open
        return torch.where(finished, gripper, target), closed & ~finished

    @staticmethod
    def _carry(world: World, disc: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        holding = (world.held > 0.5).any(0)
        arrived = distance(world.gripper, aim) < 0.05
        close = (distance(world.gripper, disc) < 0.06) & (world.closed < 0.5)
        return torch.where(holding, aim, disc), torch.where(holding, ~arrived, close)

    @staticmethod
    def _push(world: World, disc: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """Hover to the far side of the disc, close the fingers there, push along the line."""
        gap = distance(disc, aim)
        back = (disc - aim) / gap.clamp_min(1e-6)  # [2, N]
        offset = world.gripper - disc
        along = (offset * back).sum(0)  # how far behind the disc
        across = distance(offset, along * back)
        behind = (along > GRASP_RADIUS - 0.03) & (across < 0.03) & (along < GRASP_RADIUS + 0.12)
        push = behind & (gap > 0.02)
        start = disc + back * (GRASP_RADIUS + 0.03)
        return torch.where(push, aim + back * (GRASP_RADIUS - 0.01), start), push
