"""Pictures of the table with statements about them: what vision-language models learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tabletop.rendering import render
from ..tabletop.scenes import NAMES, RELATIONS, Statements, ask, found, scenes
from ..tabletop.tasks import COLORS
from .vla import Vocabulary
from .vlm import ANSWERS, WHICH

EACH = 4  # statements about a picture at a time
DESCRIBE = "describe the {disc} disc"
SIDE = "on which side of the {zone} zone is the {disc} disc"
_REFRESH = 200  # steps after which there are others


def vocabulary() -> Vocabulary:
    """All words of statements and questions."""
    said = [
        text.format(disc=color, zone=color)
        for relation in RELATIONS.values()
        for text in (*relation.templates, *relation.paraphrases, DESCRIBE, SIDE)
        for color in COLORS
    ]
    return Vocabulary([*said, *ANSWERS, WHICH])


class Pictures:
    """N tables with equally many things, their pictures, and four statements about each.

    Statement i is about picture i // 4. `truth`, `words` and `weight` have a row for each.
    """

    def __init__(
        self,
        known: Vocabulary,
        count: int,
        things: int,
        seed: int,
        size: int = 32,
        button: bool = True,
    ) -> None:
        self.world = scenes(count, things, seed, button=button)
        self.image = render(self.world, size)  # uint8 [N, S, S, 3]
        self.known, self.generator = known, torch.Generator().manual_seed(seed)
        self.renew()

    def renew(self) -> None:
        """Make other statements.

        Batches are drawn by `weight`, so that they hold as many true as false statements of each
        relation: a sentence alone says nothing of the answer.
        """
        parts = [ask(self.world, self.generator) for _ in range(EACH)]
        columns = zip(*(vars(said).values() for said, _ in parts), strict=True)
        self.said = Statements(*(torch.stack(x, 1).flatten() for x in columns))
        self.truth = torch.stack([truth for _, truth in parts], 1).flatten()
        self.words = self.known.encode(self.said.words())  # [4 N, L]
        cell = 2 * self.said.relation + self.truth
        self.weight = 1.0 / cell.bincount(minlength=2 * len(NAMES))[cell]

    def draw(
        self, count: int, generator: torch.Generator | None = None, true: bool = False
    ) -> Tensor:
        """Numbers of statements [count]; with `true` only of those that are."""
        weight = self.weight * self.truth if true else self.weight
        return torch.multinomial(weight, count, True, generator=generator or self.generator)

    def things(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where the disc and the zone of statements [M] are, and gripper and button of the table.

        Returns:
            x and y of the four, [M, 4, 2], and whether they are on the table, [M, 4].
        """
        w, said, m = self.world, self.said.of(rows), rows // EACH
        has_disc, disc = found(w.object_color[:, m], said.disc, w.objects[:, :, m])
        has_zone, zone = found(w.zone_color[:, m], said.zone, w.zones[:, :, m])
        there = torch.ones_like(has_disc)
        button = w.button[:, m] if w.task.button else torch.zeros_like(disc)
        places = torch.stack((disc, zone, w.gripper[:, m], button))  # [4, 2, M]
        exists = (has_disc, has_zone, there, there & w.task.button)
        return places.permute(2, 0, 1), torch.stack(exists, 1)


def turn(pools: list[Pictures], step: int) -> Pictures:
    """The pool whose turn it is; now and then all make other statements."""
    if step % _REFRESH == 0 and step:
        for pool in pools:
            pool.renew()
    return pools[step % len(pools)]
