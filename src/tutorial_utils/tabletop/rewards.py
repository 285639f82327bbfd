"""The rewards of each task: success, and the oracle's hints on the way to it.

The oracle reward is success plus F = Phi(s') - Phi(s), where Phi is minus the scaled distance that
is left: progress is paid as it is made, and taken back when it is lost. Along an episode the hints
add up to Phi(s_T) - Phi(s_0), whatever the robot did in between, so a detour earns nothing, and a
robot that waits earns nothing in every step, whatever the discount of the learner.

This is the potential-based form of Ng, Harada and Russell (1999) for a discount of 1. Theirs has
gamma * Phi(s') and keeps the best policies exactly as they are for a learner with that gamma; but
with Phi below 0 it pays (gamma - 1) * Phi(s) to a robot that waits, and learners of other discounts
collect that instead of succeeding. For a learner with a discount below 1 the form here is theirs
plus (1 - gamma) * Phi(s'): a small price, in each step, of the distance that is left. Another
difference is a failure, where their Phi is 0: here a robot that drives into the obstacle keeps what
it was paid on the way. Success still earns more than any other end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .._validate import one_of
from .contact import distance
from .tasks import GRASP_RADIUS, REACH_RADIUS
from .world import World

REWARDS = ("sparse", "oracle")
RewardFn = Callable[[Mapping[str, Tensor]], Tensor]

_SCALE = 0.5  # potential per table unit of distance
_STAGE = 0.3  # extra distance charged for a stage (press, grasp) that is still to come
_FAR = 3.0  # more than any way to a disc, so that to press or to finish a disc always raises Phi


def potential(world: World) -> Tensor:
    """Phi [N] of the state of each robot: minus the scaled distance that is left, 0 in success."""
    if world.targets:
        return -_SCALE * _left_to_place(world)
    left = distance(world.gripper, world.zones[:, 0])
    arrived = left < REACH_RADIUS
    if world.task.obstacle:
        left = _left_around(world, world.task.obstacle.radius)
    return torch.where(arrived, 0.0, -_SCALE * left)


def shaped_reward(success: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The oracle reward [N]: success plus Phi(s') - Phi(s)."""
    return success + after - before


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
        left = torch.where(world.pressed > 0.5, left, press + carry[0] + _FAR)
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


# Rewards written by others


def fields(world: World, action: Tensor) -> dict[str, Tensor]:
    """The named quantities that a reward function may read, each [N] or [N, 2] or [N, 3]."""
    named = {"action": action}
    named["gripper"] = world.gripper.T.contiguous()  # norms of strided rows are 3 times slower
    named["closed"] = world.closed
    named["holding"] = world.held.amax(0) if world.num_objects else torch.zeros_like(world.closed)
    for name, things in (("object", world.objects), ("zone", world.zones)):
        count = things.shape[1]
        for i in range(count):
            named[name if count == 1 else f"{name}_{i}"] = things[:, i].T.contiguous()
    if world.task.button:
        named |= {"button": world.button.T.contiguous(), "pressed": world.pressed}
    if world.disc:
        named["obstacle" if world.task.obstacle else "hazard"] = world.disc_center.T
    return named


def checked(reward: object, robots: int, name: str = "reward") -> Tensor:
    """What a reward function returned, in float32.

    Raises:
        ValueError: it is no tensor [robots].
    """
    if not isinstance(reward, Tensor) or reward.shape != (robots,):
        shape = tuple(reward.shape) if isinstance(reward, Tensor) else type(reward).__name__
        raise ValueError(f"the {name} must be a tensor [{robots}], not {shape}.")
    return reward.to(torch.float32)


def reward_per_arm(rewards: Mapping[str, str | RewardFn]) -> str | RewardFn:
    """One reward for all robots of an environment, whose arms are equal blocks of its robots."""
    for each in rewards.values():
        if not callable(each):
            one_of(each, REWARDS, "reward")
    if len(rewards) == 1:
        return next(iter(rewards.values()))

    def reward(fields: Mapping[str, Tensor]) -> Tensor:
        robots, parts = len(fields["success"]) // len(rewards), []
        for i, (arm, each) in enumerate(rewards.items()):
            own = {name: x[i * robots : (i + 1) * robots] for name, x in fields.items()}
            part = each(own) if callable(each) else own[each]
            parts.append(checked(part, robots, f"reward {arm!r}"))
        return torch.cat(parts)

    return reward
