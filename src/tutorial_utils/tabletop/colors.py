"""Which colours the discs and the zones of an episode have."""

from __future__ import annotations

import torch
from torch import Tensor

from .streams import mix, uniform
from .tasks import COLORS, TASKS, Shift, Task


def draw(task: Task, shift: Shift, objects: int, zones: int, episode: Tensor) -> Tensor:
    """Numbers in `COLORS` for the episodes with keys `episode` [M], obeying `shift.pairs`.

    Returns:
        int64 [objects + zones, M]: distinct among the discs, and distinct among the zones.
    """
    c, index = len(COLORS), list(TASKS).index(task.name) if task.name in TASKS else 0
    draws = uniform(mix(episode, 2000), torch.arange(2 * c, device=episode.device))  # [2C, M]
    discs, areas = draws[:c].argsort(0), draws[c:].argsort(0)[:zones]  # shuffles of the palette
    if task.same_color:
        areas = discs[:zones]
    elif shift.pairs != "all":
        pair = index + areas[0] + (discs[0] if objects else 0)  # [M]
        if shift.pairs == "unseen":
            move = -pair
        else:
            move = torch.where(pair % c == 0, 1 + mix(episode, 2001) % (c - 1), 0)
        areas = (areas + move) % c
    return torch.cat((discs[:objects], areas))
