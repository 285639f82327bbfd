"""The oracle reward of each task: potential-based, so that it cannot change what is optimal.

With F = gamma * Phi(s') - Phi(s) and Phi = 0 in terminal states, the discounted sum of F along an
episode that terminates is -Phi(s_0), whatever the robot did (Ng, Harada, Russell 1999). Where a
time limit cuts it, gamma^T * Phi(s_T) is left over; a learner that bootstraps there accounts for
it. The discount must be the task's. Phi is minus the scaled work that is left, so it guides
exploration.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .contact import distance
from .tasks import GRASP_RADIUS
from .world import World

_SCALE = 0.5  # potential per table unit of distance
_STAGE = 0.3  # extra distance charged for a stage (press, grasp) that is still to come
_FAR = 3.0  # more than any way to a disc, so that finishing one disc always raises Phi


def potential(world: World) -> Tensor:
    """Phi [N] of the state of each robot: minus the scaled distance that is left to go."""
    if world.targets:
        left = _left_to_place(world)
    elif world.task.obstacle:
        left = _left_around(world, world.task.obstacle.radius)
    else:
        left = distance(world.gripper, world.zones[:, 0])
    return -_SCALE * left


def shaped_reward(
    success: Tensor, terminated: Tensor, before: Tensor, after: Tensor, gamma: float
) -> Tensor:
    """The oracle reward [N]: sparse success plus gamma * Phi(s') - Phi(s), Phi(terminal) = 0."""
    return success + gamma * torch.where(terminated, 0.0, after) - before


def _left_to_place(world: World) -> Tensor:
    """Distance left [N]: gripper to button, to the first disc not yet placed, discs to zones."""
    k = world.targets
    held, placed = world.held[:k] > 0.5, world.placed()  # [k, N]
    target, zone = world.objects[:, :k], world.zones[:, :k]  # [2, k, N]
    carry = distance(target, zone)  # [k, N]
    approach = target
    if not world.task.graspable:  # the place to push from, behind the disc
        approach = target + (target - zone) / carry.clamp_min(1e-6) * GRASP_RADIUS
    reach = distance(approach, world.gripper[:, None]) + _STAGE  # [k, N]
    reach = torch.where(held, 0.0, reach)
    if k > 1:
        first = placed.logical_not().cumsum(0).eq(1) & ~placed  # [k, N], the disc to do next
        wait = torch.where(held, 0.0, _FAR)  # for discs whose turn has not come
        reach = torch.where(first | held, reach, wait)
    left = torch.where(placed, 0.0, carry + reach).sum(0)
    if world.task.button:
        press = distance(world.gripper, world.button) + 2 * _STAGE
        left = torch.where(world.pressed > 0.5, left, press + carry[0] + 1.0)
    return left


def _left_around(world: World, radius: float) -> Tensor:
    """Length [N] of the shortest way to the zone around the obstacle (two tangents and an arc)."""
    a, b = world.gripper - world.disc_center, world.zones[:, 0] - world.disc_center  # [2, N]
    r = radius + 0.03
    a_len = torch.sqrt((a * a).sum(0)).clamp_min(r)
    b_len = torch.sqrt((b * b).sum(0)).clamp_min(r)
    angle = torch.acos(((a * b).sum(0) / (a_len * b_len)).clamp(-1.0, 1.0))
    arc = angle - torch.acos(r / a_len) - torch.acos(r / b_len)
    tangents = torch.sqrt(a_len**2 - r**2) + torch.sqrt(b_len**2 - r**2)
    return torch.where(arc > 0, tangents + r * arc, distance(a, b))
