"""The lab beside MuJoCo: robot-steps and frames per second, one process, one thread."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("MUJOCO_GL", "egl")

import gymnasium
import gymnasium_robotics
import torch
from common import Row, rates

from tutorial_utils.tabletop import TASKS, TabletopVectorEnv
from tutorial_utils.tabletop.render import render

BATCH = 4096


def ours(task: str, steps: int) -> Callable[[], int]:
    env = TabletopVectorEnv(task, BATCH)
    env.reset(seed=0, options={"stagger": True})
    actions = torch.rand(16, BATCH, 3) * 2 - 1

    def work() -> int:
        for i in range(steps):
            env.step(actions[i % 16])
        return steps * BATCH

    return work


def peer(name: str, steps: int, frames: bool = False, **options: object) -> Callable[[], int]:
    """A Gymnasium environment with random actions; with `frames`, only rendering counts."""
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(name, **options)
    env.reset(seed=0)
    env.action_space.seed(0)

    def work() -> int:
        for _ in range(steps):
            if frames:
                env.render()
                continue
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        return steps

    return work


def drawing(size: int) -> Callable[[], int]:
    env = TabletopVectorEnv("PickPlace", BATCH)
    env.reset(seed=0)

    def work() -> int:
        render(env.world, size)
        return BATCH

    return work


def stepping_rows(steps: int) -> list[Row]:
    sides = {task: ours(task, steps) for task in TASKS}
    speed = rates(sides | {"Reacher-v5": peer("Reacher-v5", 20 * steps)})
    targets = {"PickPlace": (2e6, 250), "Reach": (2e6, 250)}
    return [
        Row(
            f"{task}, batch {BATCH}, random actions",
            speed[task],
            "robot-steps/s",
            "Reacher-v5",
            speed["Reacher-v5"],
            *targets.get(task, (None, None)),
        )
        for task in TASKS
    ]


def rendering_rows(frames: int) -> list[Row]:
    sides = {"32": drawing(32), "64": drawing(64)}
    name = "FetchPush-v4"
    try:
        sides[name] = peer(name, frames, True, render_mode="rgb_array", width=32, height=32)
        speed = rates(sides)
    except Exception as error:  # no OpenGL on this machine: whatever the driver raises
        print(f"no frames of {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
        speed = rates({side: sides[side] for side in ("32", "64")})
    beside = (f"{name} at 32 px", speed.get(name))
    return [
        Row("PickPlace at 32 px", speed["32"], "frames/s", *beside, 4e4, 100),
        Row("PickPlace at 64 px", speed["64"], "frames/s", *beside),
    ]


def rows(quick: bool = False) -> list[Row]:
    """Every figure of the lab."""
    return stepping_rows(10 if quick else 100) + rendering_rows(5 if quick else 40)
