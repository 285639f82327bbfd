"""Pictures of the table, and statements about them that are true or false.

What a vision-language model learns from. A statement names a relation, the colour of a disc and, in
most relations, the colour of a zone; its words come from one of several templates, some of which
turn the order round, so that a model which only counts words cannot know who is where.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._validate import positive_int
from .contact import distance
from .streams import mix, robot_keys, uniform
from .tasks import COLORS, PLACE_RADIUS, REACH_RADIUS, Shift, Task
from .world import World

_TABLE = Task("Table", "a table to look at", (), (), 1, objects=1, button=True)
_APART = 0.12  # how much further left, in table units, a disc must be to be called left of a zone
_BESIDE = 0.40  # from the button


@dataclass(frozen=True)
class Relation:
    """How a relation is said. `opposite` is what swapping the two things makes of it, if any."""

    templates: tuple[str, ...]
    paraphrases: tuple[str, ...]  # held out
    opposite: str | None = None


RELATIONS: dict[str, Relation] = {
    "held": Relation(
        ("the gripper holds the {disc} disc", "the {disc} disc is in the fingers"),
        ("the {disc} puck has been grasped",),
    ),
    "in": Relation(
        ("the {disc} disc is in the {zone} zone", "the {zone} zone contains the {disc} disc"),
        ("the {disc} puck lies on the {zone} area",),
    ),
    "left": Relation(
        (
            "the {disc} disc is left of the {zone} zone",
            "the {zone} zone is right of the {disc} disc",
        ),
        ("the {disc} puck is on the left of the {zone} area",),
        "right",
    ),
    "right": Relation(
        (
            "the {disc} disc is right of the {zone} zone",
            "the {zone} zone is left of the {disc} disc",
        ),
        ("the {disc} puck is on the right of the {zone} area",),
        "left",
    ),
    "beside": Relation(
        ("the {disc} disc is near the button", "the button is near the {disc} disc"),
        ("the {disc} puck lies beside the button",),
    ),
    "reached": Relation(
        ("the gripper is in the {zone} zone", "the {zone} zone is under the gripper"),
        ("the robot hand is over the {zone} area",),
    ),
}
NAMES = tuple(RELATIONS)
_NAMED = torch.tensor(
    [[f"{{{x}}}" in RELATIONS[n].templates[0] for x in ("disc", "zone")] for n in NAMES]
)  # [R, 2]


@dataclass(frozen=True)
class Statements:
    """N statements as numbers: of `NAMES`, of `COLORS` twice, and of a template, each int64 [N]."""

    relation: Tensor
    disc: Tensor
    zone: Tensor
    template: Tensor

    def __len__(self) -> int:
        return len(self.relation)

    def of(self, rows: Tensor) -> Statements:
        """Those with the numbers `rows` [M]."""
        return Statements(*(x[rows] for x in vars(self).values()))

    def words(self, paraphrase: bool = False) -> list[str]:
        """The sentences; with `paraphrase`, in words that are held out."""
        rows = zip(*(x.tolist() for x in vars(self).values()), strict=True)
        sentences = []
        for relation, disc, zone, template in rows:
            said = RELATIONS[NAMES[relation]]
            ways = said.paraphrases if paraphrase else said.templates
            text = ways[template % len(ways)]
            sentences.append(text.format(disc=COLORS[disc], zone=COLORS[zone]))
        return sentences

    def swapped(self) -> Statements:
        """The same with the two colours exchanged."""
        return replace(self, disc=self.zone, zone=self.disc)

    def opposed(self) -> Statements:
        """The same with the opposite relation, where there is one."""
        table = [NAMES.index(RELATIONS[n].opposite or n) for n in NAMES]
        return replace(self, relation=torch.tensor(table)[self.relation])


def scenes(
    count: int,
    things: int = 2,
    seed: int = 0,
    shift: Shift | None = None,
    button: bool = True,
) -> World:
    """A world of `count` random tables with this many discs and zones (1 to 3).

    In three tables of ten a disc is held, over a zone or elsewhere, and in four or five one lies in
    a zone; an open gripper is over a disc, over a zone or elsewhere. The rest is as it falls.
    """
    if not 1 <= positive_int(things, "things") <= 3:
        raise ValueError(f"things must be 1, 2 or 3, not {things}.")
    task = replace(_TABLE, button=button)
    world = World(task, positive_int(count, "count"), "cpu", shift, things - 1)
    robots = torch.arange(count)
    key = mix(robot_keys(seed, count, world.device), 4000 + things)
    world.reset(robots, key)
    draws = uniform(mix(key, 4010), torch.arange(7))  # [7, N]
    disc, zone = ((draws[i] * things).long() for i in (0, 1))
    away = 0.9 * PLACE_RADIUS * draws[2].sqrt()
    angle = 2 * torch.pi * draws[3]
    near = away * torch.stack((angle.cos(), angle.sin()))  # [2, N]
    place = world.zones[:, zone, robots] + near
    held = draws[4] < 0.3
    moved = torch.where(held, draws[5] < 0.5, draws[4] < 0.75)
    there = torch.where(moved, place, world.objects[:, disc, robots])
    world.objects[:, disc, robots] = there
    over_disc, over_zone = draws[6] < 0.3, draws[6] > 0.8
    hand = torch.where(over_zone, place, world.gripper)
    world.gripper.copy_(torch.where(held | over_disc, there, hand))
    world.closed.copy_(held)
    world.held[disc, robots] = held.float()
    return world


def found(colors: Tensor, wanted: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a thing of this colour is on the table [M], and where [2, M]."""
    match = colors == wanted  # [K, M]
    return match.any(0), (places * match).sum(1)


def named(said: Statements) -> Tensor:
    """Whether statements [M] name a disc and a zone, bool [M, 2]."""
    return _NAMED[said.relation]


def present(world: World, said: Statements, robots: Tensor) -> Tensor:
    """Whether what the statements name is on the tables `robots`, bool [M]."""
    there = torch.stack(
        [
            (colors[:, robots] == wanted).any(0)
            for colors, wanted in ((world.object_color, said.disc), (world.zone_color, said.zone))
        ],
        1,
    )
    return (there | ~named(said)).all(1)


def holds(world: World, said: Statements, robots: Tensor | None = None) -> Tensor:
    """Whether each statement is true of the table with the index beside it, bool [M].

    A statement about a thing that is not there is false.

    Args:
        robots: int64 [M]; by default statement i is about table i.
    """
    m = torch.arange(world.num_envs, device=world.device) if robots is None else robots
    if len(m) != len(said):
        raise ValueError(f"{len(said)} statements need as many tables, not {len(m)}.")
    has_disc, disc = found(world.object_color[:, m], said.disc, world.objects[:, :, m])
    has_zone, zone = found(world.zone_color[:, m], said.zone, world.zones[:, :, m])
    held = ((world.object_color[:, m] == said.disc) & (world.held[:, m] > 0.5)).any(0)
    dx, _ = disc - zone
    both = has_disc & has_zone
    none = torch.full((2, len(m)), 9.0, device=world.device)
    button = world.button[:, m] if world.task.button else none
    truth = {
        "held": held,
        "in": both & (distance(disc, zone) < PLACE_RADIUS) & ~held,
        "left": both & (dx < -_APART),
        "right": both & (dx > _APART),
        "beside": has_disc & (distance(disc, button) < _BESIDE),
        "reached": has_zone & (distance(world.gripper[:, m], zone) < REACH_RADIUS),
    }
    table = torch.stack([truth[name] for name in NAMES])  # [R, M]
    return table.gather(0, said.relation[None])[0]


def is_held_out(said: Statements) -> Tensor:
    """Which statements name a disc and a zone that training leaves out: one pair in six."""
    return named(said).all(1) & left_out(said)


def left_out(said: Statements) -> Tensor:
    """Whether disc and zone, named or not, are a pair that training leaves out."""
    return (said.disc + said.zone) % len(COLORS) == 0


def ask(
    world: World, generator: torch.Generator, held_out: bool = False, tries: int = 20
) -> tuple[Statements, Tensor]:
    """A statement about each table, and whether it is true.

    All relations are as frequent. Two thirds of the statements are meant to be true; where `tries`
    find none, it is false. Nearly all name colours that are on the table. No statement is of a pair
    of colours that is held out; with `held_out` all are where the table has such a pair, and of a
    relation of two things.
    """
    n, k, shape = world.num_envs, world.num_objects, (tries, world.num_envs)

    def number(top: int) -> Tensor:
        return torch.randint(top, shape, generator=generator)

    kinds = _NAMED.all(1).nonzero()[:, 0] if held_out else torch.arange(len(NAMES))
    relation = kinds[torch.randint(len(kinds), (n,), generator=generator)].expand(shape)
    disc, zone = (c.gather(0, number(k)) for c in (world.object_color, world.zone_color))
    absent = torch.rand(shape, generator=generator) < 0.1
    disc = torch.where(absent, number(len(COLORS)), disc)
    template = number(2)
    tried = [Statements(*x) for x in zip(relation, disc, zone, template, strict=True)]
    truth = torch.stack([holds(world, said) for said in tried])
    fits = torch.stack([is_held_out(said) == held_out for said in tried])
    wanted = torch.rand(n, generator=generator) < 0.65
    # the first that fits and is as wanted, else the first that fits
    best = (fits.int() * 2 + (truth == wanted)).argmax(0)[None]
    said = Statements(*(x.gather(0, best)[0] for x in (relation, disc, zone, template)))
    if not held_out:  # on a table with one disc and one zone none may fit: ask about the disc
        alone = torch.where(is_held_out(said), NAMES.index("held"), said.relation)
        said = replace(said, relation=alone)
    return said, holds(world, said)
