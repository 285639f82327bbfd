"""The lab beside MuJoCo: robot-steps and frames per second, one process, one thread."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's software renderer: one thread, as ours

import gymnasium
import torch
from common import Row, rates

from tutorial_utils.tabletop import TASKS, TabletopVectorEnv, render

BATCH = 4096
TARGETS = {"PickPlace": (2e6, 250), "Reach": (2e6, 250)}  # robot-steps/s, times the peer


def stepping(task: str, steps: int) -> Callable[[], int]:
    """Random actions through `TabletopVectorEnv.step`, episodes restarting by themselves."""
    env = TabletopVectorEnv(task, BATCH)
    env.reset(seed=0, options={"stagger": True})
    actions = torch.rand(16, BATCH, 3) * 2 - 1

    @torch.inference_mode()
    def work() -> int:
        for i in range(steps):
            env.step(actions[i % 16])
        return steps * BATCH

    return work


def drawing(size: int) -> Callable[[], int]:
    """Frames of `size` pixels."""
    env = TabletopVectorEnv("PickPlace", BATCH)
    env.reset(seed=0)

    @torch.inference_mode()
    def work() -> int:
        return len(render(env.world, size))

    return work


def reacher(steps: int) -> Callable[[], int]:
    """Random actions in MuJoCo's Reacher, with resets."""
    env = gymnasium.make("Reacher-v5")
    env.reset(seed=0)
    env.action_space.seed(0)

    def work() -> int:
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        return steps

    return work


def fetch(size: int, frames: int) -> Callable[[], int]:
    """Frames of `size` pixels from FetchPush; raises what the driver raises without OpenGL."""
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make("FetchPush-v4", render_mode="rgb_array", width=size, height=size)
    env.reset(seed=0)
    shape = env.render().shape
    if shape[:2] != (size, size):
        raise RuntimeError(f"the renderer drew {shape[0]} x {shape[1]} px instead of {size}.")

    def work() -> int:
        for _ in range(frames):
            env.render()
        return frames

    return work


def stepping_rows(steps: int) -> list[Row]:
    """Every task beside Reacher-v5, the nearest task of MuJoCo's and its fastest arm."""
    sides = {task: stepping(task, steps) for task in TASKS}
    speed = rates(sides | {"Reacher-v5": reacher(20 * steps)})
    return [
        Row(
            f"{task}, batch {BATCH}, random actions",
            speed[task],
            "robot-steps/s",
            "Reacher-v5",
            speed["Reacher-v5"],
            *TARGETS.get(task, (None, None)),
            work=sides[task],
        )
        for task in TASKS
    ]


def rendering_rows(frames: int) -> tuple[list[Row], list[str]]:
    """Images of 32 and 64 px beside FetchPush-v4 at the same size; a line where that fails."""
    ours, peers, notes = {size: drawing(size) for size in (32, 64)}, {}, []
    try:
        peers = {size: fetch(size, frames) for size in ours}
    except Exception as error:  # no OpenGL here: whatever the driver raises
        reason = (str(error).splitlines() or [""])[0]
        notes = [f"- no frames of FetchPush-v4: {type(error).__name__}: {reason}"]
    speed = rates(
        {f"ours {size}": side for size, side in ours.items()}
        | {f"peer {size}": side for size, side in peers.items()}
    )
    rows = [
        Row(
            f"PickPlace at {size} px, batch {BATCH}",
            speed[f"ours {size}"],
            "frames/s",
            f"FetchPush-v4 at {size} px",
            speed.get(f"peer {size}"),
            *target,
            work=ours[size],
        )
        for size, target in ((32, (4e4, 100)), (64, (None, None)))
    ]
    return rows, notes


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figures, and lines to print below the table."""
    rendering, notes = rendering_rows(5 if quick else 40)
    return stepping_rows(10 if quick else 100) + rendering, notes
