"""Each task as a goal: what is reached, what is wanted, and the reward that follows from the two.

A goal lists where the things that a task moves should be: x and y of each disc and, where the robot
can grasp, whether the disc is in the fingers; without discs, x and y of the gripper. The task wants
the discs in their zones and let go of. With hindsight (Andrychowicz et al. 2017) any goal that was
reached may become the wanted one, a disc that is still held included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .contact import distance
from .observations import Named
from .tasks import PLACE_RADIUS, REACH_RADIUS, Task
from .world import World


def observe(world: World, robots: Tensor | None = None) -> Named:
    """observation [M, D], achieved_goal and desired_goal [M, G] of the robots `robots`."""
    k = world.targets
    things = world.objects[:, :k] if k else world.gripper[:, None]  # [2, k, N]
    achieved, desired = [*things], [*world.zones[:, : max(k, 1)]]  # x and y, each [k, N]
    if k and world.task.graspable:
        achieved, desired = (
            [*achieved, world.held[:k]],
            [*desired, torch.zeros_like(world.held[:k])],
        )
    parts = {
        "observation": world.state,
        "achieved_goal": torch.stack(achieved, 1).flatten(0, 1),  # [G, N], disc by disc
        "desired_goal": torch.stack(desired, 1).flatten(0, 1),
    }
    rows = slice(None) if robots is None else robots
    return {
        name: x[:, rows].T.clone(memory_format=torch.contiguous_format) for name, x in parts.items()
    }


def space(world: World) -> spaces.Dict:
    """The space of one robot's goal observation."""
    sizes = {name: x.shape[1] for name, x in observe(world).items()}
    return spaces.Dict({name: spaces.Box(-1.0, 1.0, (n,), np.float32) for name, n in sizes.items()})


def compute_reward(task: Task, reward: object, achieved: Any, desired: Any) -> Any:
    """The sparse reward of any goals [..., G], as Gymnasium-Robotics has it: float32 [...].

    Raises:
        ValueError: the environment's reward is not a function of the goals alone, or G is not that
            of the task.
    """
    if reward != "sparse":
        raise ValueError('compute_reward needs reward="sparse": no other depends on goals alone.')
    k = max(task.objects, 1)
    width = 3 if task.objects and task.graspable else 2
    a, b = (torch.as_tensor(x, dtype=torch.float32) for x in (achieved, desired))
    if {a.shape[-1:], b.shape[-1:]} != {(k * width,)}:
        raise ValueError(f"a goal of {task.name} has {k * width} numbers: see goals.")
    a, b = (x.unflatten(-1, (k, width)).movedim(-1, 0) for x in (a, b))  # [2 or 3, ..., k]
    near = distance(a, b) < (PLACE_RADIUS if task.objects else REACH_RADIUS)
    same = (near & ((a[2:] > 0.5) == (b[2:] > 0.5)).all(0)).all(-1)  # held or free as wanted
    return same.numpy().astype(np.float32)[()]
