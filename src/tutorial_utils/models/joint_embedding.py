"""A world model that never decodes, for a population (base_models, and the one for RL to come).

An encoder embeds each observation, and a recurrent predictor guesses the next embedding from the
ones before and the actions. Two terms train both at once (LeWorldModel: Maes et al. 2026): the
error of the guess, and a term against collapse, which asks that the embeddings look Gaussian from
random sides. (Their predictor is a causal transformer.) Time counts as in `rssm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .population import PopulationLinear, Stack
from .rssm import gated

_SIDES, _POINTS, _FAR = 16, 17, 4.0  # random directions; places at which waves are compared


class Guesses(NamedTuple):
    """What the model makes of B sequences of T steps."""

    embedding: Tensor  # [P, B, T, E]
    memory: Tensor  # [P, B, T, H], from all steps before
    guess: Tensor  # of the embedding, from the memory alone, [P, B, T, E]


class JointEmbedding(nn.Module):
    """Encoder, gated recurrent memory, and predictor.

    Args:
        obs: length of an observation.
        actions: length of an action.
        seeds: one per member.
        size: length E of an embedding.
        deter: length H of the memory.
        hidden: width of encoder and predictor.
    """

    def __init__(
        self,
        obs: int,
        actions: int,
        seeds: Sequence[int],
        size: int = 32,
        deter: int = 64,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def head(inputs: int) -> Stack:
            first = PopulationLinear(inputs, hidden, generators, math.sqrt(2))
            return Stack(first, nn.SiLU(), PopulationLinear(hidden, size, generators, 1.0))

        self.encoder, self.deter = head(obs), deter
        self.cell = PopulationLinear(deter + size + actions, 3 * deter, generators, 1.0)
        self.predictor = head(deter)

    def observe(self, obs: Tensor, action: Tensor) -> Guesses:
        """Of obs [P, B, T, obs] and the actions before them [P, B, T, A]."""
        e = self.encoder(obs.flatten(1, 2)).unflatten(1, obs.shape[1:3])
        h = e.new_zeros(*e.shape[:2], self.deter)
        rows = [h]
        for t in range(1, obs.shape[2]):
            h = gated(self.cell(torch.cat((h, e[:, :, t - 1], action[:, :, t]), -1)), h)
            rows.append(h)
        memory = torch.stack(rows, 2)
        return Guesses(e, memory, self.predictor(memory.flatten(1, 2)).view_as(e))

    def losses(self, seen: Guesses, generator: torch.Generator) -> dict[str, Tensor]:
        """Both terms of each member, [P]; the second one is not yet weighted."""
        wrong = (seen.guess - seen.embedding)[:, :, 1:].square().mean((1, 2, 3))
        return {"prediction": wrong, "collapse": unlike(seen.embedding.flatten(1, 2), generator)}


def unlike(x: Tensor, generator: torch.Generator) -> Tensor:
    """How unlike a standard Gaussian x [P, N, E] looks from random sides, [P].

    For each side, the statistic of Epps and Pulley: the mean wave exp(i t x) against the one that a
    Gaussian has, exp(-t^2 / 2), in the square over many t.
    """
    sides = F.normalize(torch.randn(x.shape[-1], _SIDES, generator=generator), dim=0)
    t = torch.linspace(_FAR / (_POINTS - 1), _FAR, _POINTS)
    wanted = torch.exp(-t.square() / 2)
    angle = (x @ sides)[..., None] * t  # [P, N, sides, points]
    off = (angle.cos().mean(1) - wanted).square() + angle.sin().mean(1).square()
    return len(x[0]) * (t[1] - t[0]) * (off * wanted).sum(-1).mean(-1)
