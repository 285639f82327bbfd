"""Where things stand at the start of an episode: at random, and apart from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from .contact import distance
from .streams import mix, uniform


def free_places(low: Tensor, span: Tensor, episode: Tensor, spacing: float) -> Tensor:
    """Random places [2, E, M], redrawn for the robots whose things are too close together.

    Args:
        low, span: [2, E, 1, 1], the area of each of the E things.
        episode: int64 [M], the key of each robot's episode.
        spacing: the least distance of any two things, in table units.

    Raises:
        RuntimeError: there is no room.
    """
    things, device = low.shape[1], low.device
    places = torch.empty(2, things, len(episode), device=device)
    todo = torch.arange(len(episode), device=device)
    which = torch.arange(1024, device=device)
    for attempt in range(250):
        counters = which[1 + 4 * attempt : 5 + 4 * attempt, None]  # four tries at a time
        draws = uniform(mix(episode[todo], counters).flatten(), which[: 2 * things])
        tried = low + span * draws.view(2, things, 4, -1)  # [2, E, 4, M]
        near = distance(tried[:, :, None], tried[:, None]) < spacing  # [E, E, 4, M]
        free = near.sum((0, 1)) == things  # [4, M]; each thing is near itself
        first = free.int().argmax(0).expand(2, things, 1, -1)
        places[:, :, todo] = tried.gather(2, first).squeeze(2)
        todo = todo[~free.any(0)]
        if not len(todo):
            return places
    raise RuntimeError("no room on the table; use fewer distractors.")
