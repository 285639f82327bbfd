"""The lab: one robot for the whole book. See `tasks` for what it can be asked to do."""

from __future__ import annotations

import gymnasium

from .env import TabletopEnv
from .tasks import COLORS, TASKS, Shift, Task, get_task
from .vector_env import TabletopVectorEnv
from .world import World

__all__ = [
    "COLORS",
    "TASKS",
    "Shift",
    "TabletopEnv",
    "TabletopVectorEnv",
    "Task",
    "World",
    "get_task",
]


def _register() -> None:
    for task in TASKS.values():
        if task.env_id not in gymnasium.registry:
            gymnasium.register(
                task.env_id,
                entry_point=TabletopEnv,
                vector_entry_point=TabletopVectorEnv,
                kwargs={"task": task.name},
            )


_register()
