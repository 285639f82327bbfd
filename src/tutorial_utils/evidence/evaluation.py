"""Held-out evaluation: the same fresh episodes for every policy, none of them trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._validate import positive_int
from ..tabletop.acting import Policy, act
from ..tabletop.streams import robot_keys
from ..tabletop.tasks import Task, get_task
from ..tabletop.vector_env import TabletopVectorEnv
from . import run_mode
from .intervals import Interval, bootstrap


@dataclass
class Evaluation:
    """What P policies did in E episodes each; arrays [P, E]."""

    success: np.ndarray  # bool
    returns: np.ndarray  # undiscounted sum of the reward
    cost: np.ndarray  # steps inside the hazard
    steps: np.ndarray  # length of the episode

    def interval(self) -> Interval:
        """Success rate and its 95% interval over members, or over the episodes of a single one."""
        return bootstrap(self.success if len(self.success) > 1 else self.success.T)


@torch.inference_mode()
def evaluate(
    policy: Policy,
    task: str | Task,
    episodes: int = 200,
    seed: int | None = None,
    deterministic: bool = True,
    on_step: Callable[[TabletopVectorEnv, Tensor], None] | None = None,
    make_env: Callable[..., TabletopVectorEnv] = TabletopVectorEnv,
    **env_options: Any,
) -> Evaluation:
    """Run each member of `policy` once through the same `episodes` starts.

    Args:
        policy: a population, a scripted expert, or a function from observations [P, E, ...] to
            actions [P, E, 3], where P is its attribute `members`, or 1 without one.
        seed: of the episodes; by default the book's evaluation seed, which no training uses.
        deterministic: take the mean action of a population; else sample from it.
        on_step: called before each action with the environment and which of its robots are still
            in their episode, bool [P * E]; and once after the last action.
        make_env, env_options: the environment's class, and what it takes (obs, size, reward, ...).
    """
    task, episodes = get_task(task), positive_int(episodes, "episodes")
    members = getattr(policy, "members", 1)
    env = make_env(task, members * episodes, **env_options)
    seed = run_mode.evaluation_seed() if seed is None else seed
    env.reset(seed=robot_keys(seed, episodes, env.device).repeat(members))
    noise = None if deterministic else torch.Generator(env.device).manual_seed(seed)
    arrays = _run(policy, env, members, noise, on_step)
    return Evaluation(*(x.view(members, episodes).cpu().numpy() for x in arrays))


def _run(
    policy: Policy,
    env: TabletopVectorEnv,
    members: int,
    noise: torch.Generator | None,
    on_step: Callable[[TabletopVectorEnv, Tensor], None] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Success, return, cost and length of the first episode of each robot."""
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    success, returns, cost, steps = (torch.zeros_like(running, dtype=torch.float) for _ in range(4))
    while running.any():  # the time limit ends every episode
        if on_step:
            on_step(env, running)
        reward, terminated, truncated, info = env.advance(act(policy, env, members, noise))
        steps += running
        returns += running * reward
        cost += running * info["cost"]
        success += running * info["success"]
        running = running & ~(terminated | truncated)
    if on_step:
        on_step(env, running)
    return success > 0, returns, cost, steps
