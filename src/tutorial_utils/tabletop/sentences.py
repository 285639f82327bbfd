"""What the robot is told, in words."""

from __future__ import annotations

from torch import Tensor

from .streams import mix
from .tasks import COLORS
from .world import World

MAX_LENGTH = 96
CHARACTERS = "abcdefghijklmnopqrstuvwxyz ,"


def instructions(world: World, robots: Tensor) -> list[str]:
    """The instruction of each robot in `robots` [M]; which template is drawn once per episode."""
    task = world.task
    templates = task.paraphrases if world.shift.paraphrase else task.instructions
    choice = (mix(world.episode[robots], 2002) % len(templates)).tolist()
    zone = world.zone_color[0, robots].tolist()
    disc = world.object_color[0, robots].tolist() if world.num_objects else zone
    return [
        templates[c].format(object=COLORS[o], zone=COLORS[z])
        for c, o, z in zip(choice, disc, zone, strict=True)
    ]
