"""The lab: one robot for the whole book, its tasks, experts, pictures, words and demonstrations.

Nothing here learns or judges, and this room imports none of the others. `demonstrations`,
`hidden_pane`, `lerobot` and `streams` are imported by name. See `tasks` for what the robot can be
asked to do.
"""

from __future__ import annotations

import gymnasium

from .acting import Chunks, Policy, act
from .env import TabletopEnv
from .experts import Expert
from .rendering import render
from .rewards import potential
from .sentences import instructions
from .streams import robot_keys
from .tasks import COLORS, PLACE_RADIUS, TASKS, Shift, Task, get_task
from .vector_env import TabletopVectorEnv
from .world import World

__all__ = [
    "COLORS",
    "PLACE_RADIUS",
    "TASKS",
    "Chunks",
    "Expert",
    "Policy",
    "Shift",
    "TabletopEnv",
    "TabletopVectorEnv",
    "Task",
    "World",
    "act",
    "demonstrations",
    "get_task",
    "hidden_pane",
    "instructions",
    "lerobot",
    "potential",
    "render",
    "robot_keys",
    "scenes",
    "streams",
]


def _register() -> None:
    for task in TASKS.values():
        for name, reward in ((task.name, {}), (f"{task.name}Dense", {"reward": "oracle"})):
            if f"Tabletop/{name}-v0" not in gymnasium.registry:
                gymnasium.register(
                    f"Tabletop/{name}-v0",
                    entry_point=f"{__name__}:TabletopEnv",  # as text: the spec can be JSON
                    vector_entry_point=f"{__name__}:TabletopVectorEnv",
                    max_episode_steps=task.horizon,
                    kwargs={"task": task.name, **reward},
                )


_register()
