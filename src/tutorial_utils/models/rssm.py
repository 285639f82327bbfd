"""A recurrent state-space model: a world model that dreams, for a population of P members.

The latent state has a deterministic part h, which a gated recurrent cell carries on, and a part z
that is drawn (PlaNet: Hafner et al. 2019). The losses are those of DreamerV3 (Hafner et al. 2025).

Time counts observations: `action[..., t, :]` was taken before `obs[..., t, :]` was seen, and led to
it. The action of the first step of an episode is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._validate import one_of
from .population import PopulationLinear, Stack

KINDS = ("discrete", "gaussian", "deterministic")
UNIMIX = 0.01  # share of the uniform distribution in each categorical
_LEAST = 0.1  # standard deviation of a Gaussian latent


class Latents(NamedTuple):
    """The latent states of B sequences of T steps."""

    h: Tensor  # [P, B, T, H], from all steps before
    z: Tensor  # [P, B, T, Z]: drawn from the posterior in `observe`, from the prior in `imagine`
    prior: Tensor  # statistics of z from h alone, [P, B, T, S]
    posterior: Tensor  # and from h and the observation; in `imagine` those of the prior

    @property
    def features(self) -> Tensor:
        """h and z side by side, which the heads read, [P, B, T, H + Z]."""
        return torch.cat((self.h, self.z), -1)

    def at(self, t: int) -> tuple[Tensor, Tensor]:
        """h [P, B, H] and z [P, B, Z] of one step, from which `imagine` goes on."""
        return self.h[:, :, t], self.z[:, :, t]


def symlog(x: Tensor) -> Tensor:
    """The logarithm of the size of x, with its sign; near 0 it is x."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Weights [..., K] on the two neighbours of x [...] in `bins` [K], whose mean is x."""
    x = x.clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, x.contiguous()).clamp(1, len(bins) - 1)
    low, high = bins[above - 1], bins[above]
    share = ((x - low) / (high - low))[..., None]  # of the upper neighbour
    return F.one_hot(above - 1, len(bins)) * (1 - share) + F.one_hot(above, len(bins)) * share


def gated(sums: Tensor, h: Tensor) -> Tensor:
    """The next memory of a gated recurrent cell with Dreamer's gates, from its sums [..., 3 H]."""
    reset, new, update = sums.chunk(3, -1)
    update = torch.sigmoid(update - 1)  # at first it rather keeps than replaces
    return update * torch.tanh(torch.sigmoid(reset) * new) + (1 - update) * h


class RSSM(nn.Module):
    """Encoder, recurrent state-space model, and heads for observation, reward and continuation.

    Args:
        obs: length of an observation; a picture comes as the vector of its pixels.
        actions: length of an action.
        seeds: one per member.
        kind: of z: "discrete" (categoricals), "gaussian", "deterministic" (only its mean).
        deter: length H of h.
        groups, classes: their product S counts the statistics; a Gaussian z has S / 2 numbers.
        hidden: width of encoder, prior, posterior and heads.
        top: the largest reward, after `symlog`.
    """

    bins: Tensor

    def __init__(
        self,
        obs: int,
        actions: int,
        seeds: Sequence[int],
        kind: str = "discrete",
        deter: int = 64,
        groups: int = 8,
        classes: int = 8,
        hidden: int = 64,
        top: float = 3.0,
    ) -> None:
        super().__init__()
        self.kind, self.groups, self.classes = one_of(kind, KINDS, "kind"), groups, classes
        self.deter, self.members, size = deter, len(seeds), groups * classes
        self.stoch = size // 2 if kind == "gaussian" else size
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def linear(inputs: int, outputs: int, gain: float = math.sqrt(2)) -> PopulationLinear:
            return PopulationLinear(inputs, outputs, generators, gain)

        def head(inputs: int, outputs: int, gain: float) -> Stack:
            return Stack(linear(inputs, hidden), nn.SiLU(), linear(hidden, outputs, gain))

        features = deter + self.stoch
        self.encoder = Stack(linear(obs, hidden), nn.SiLU(), linear(hidden, hidden), nn.SiLU())
        self.cell = linear(features + actions, 3 * deter, 1.0)
        self.prior = head(deter, size, 1.0)
        self.posterior = head(deter + hidden, size, 1.0)
        self.decoder = head(features, obs, 1.0)
        self.reward = head(features, 41, 0.0)  # zeros: it begins with no opinion
        self.cont = head(features, 1, 0.0)
        self.register_buffer("bins", symexp(torch.linspace(-top, top, 41)))

    def step(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """The next h [P, B, H]."""
        return gated(self.cell(torch.cat((h, z, action), -1)), h)

    def probs(self, stats: Tensor) -> Tensor:
        """Probabilities [..., groups, classes] of discrete latents, from logits [..., S]."""
        plain: Tensor = stats.unflatten(-1, (self.groups, self.classes)).softmax(-1)
        return (1 - UNIMIX) * plain + UNIMIX / self.classes

    def gaussian(self, stats: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [..., Z] of latents that are not discrete."""
        if self.kind == "deterministic":
            return stats, torch.ones_like(stats)
        mean, width = stats.chunk(2, -1)
        return mean, F.softplus(width) + _LEAST

    def noise(self, generators: Sequence[torch.Generator], *shape: int) -> Tensor:
        """What draws z, [P, *shape, ...], each member's from its own generator."""
        draw = torch.rand if self.kind == "discrete" else torch.randn
        size = self.groups if self.kind == "discrete" else self.stoch
        return torch.stack([draw(*shape, size, generator=g) for g in generators])

    def draw(self, stats: Tensor, noise: Tensor) -> Tensor:
        """z [..., Z]. A discrete draw passes its gradient straight to the probabilities."""
        if self.kind == "discrete":
            p = self.probs(stats)
            chosen = (p.cumsum(-1) < noise[..., None]).sum(-1).clamp_max(self.classes - 1)
            return (F.one_hot(chosen, self.classes) + p - p.detach()).flatten(-2)
        mean, std = self.gaussian(stats)
        return mean if self.kind == "deterministic" else mean + std * noise

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        """h [P, B, H] and z [P, B, Z] before the first step: zeros."""
        zeros = self.bins.new_zeros(self.members, batch, self.deter + self.stoch)
        return zeros[..., : self.deter], zeros[..., self.deter :]

    def observe(
        self,
        obs: Tensor,
        action: Tensor,
        generators: Sequence[torch.Generator],
        first: Tensor | None = None,
    ) -> Latents:
        """The latents of what was seen.

        Args:
            obs, action: [P, B, T, ...] each; see the top of this module for their order.
            generators: one per member.
            first: 1 where an episode begins, [P, B, T]; by default at the first step alone.
        """
        h, z = self.start(obs.shape[1])
        seen = self.encoder(symlog(obs).flatten(1, 2)).unflatten(1, obs.shape[1:3])
        noise = self.noise(generators, *obs.shape[1:3])
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(obs.shape[2]):
            before = action[:, :, t]
            if t == 0:
                before = torch.zeros_like(before)
            elif first is not None:
                old = 1 - first[:, :, t, None]
                h, z, before = h * old, z * old, before * old
            h = self.step(h, z, before)
            stats = self.posterior(torch.cat((h, seen[:, :, t]), -1))
            z = self.draw(stats, noise[:, :, t])
            rows.append((h, z, stats))
        hs, zs, posterior = (torch.stack(x, 2) for x in zip(*rows, strict=True))
        prior = self.prior(hs.flatten(1, 2)).unflatten(1, obs.shape[1:3])
        return Latents(hs, zs, prior, posterior)

    def imagine(
        self, state: tuple[Tensor, Tensor], action: Tensor, generators: Sequence[torch.Generator]
    ) -> Latents:
        """The latents after `state` if these actions [P, B, T, A] follow, without observations."""
        h, z = state
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for t, noise in enumerate(self.noise(generators, *action.shape[1:3]).unbind(2)):
            h = self.step(h, z, action[:, :, t])
            stats = self.prior(h)
            z = self.draw(stats, noise)
            rows.append((h, z, stats))
        hs, zs, prior = (torch.stack(x, 2) for x in zip(*rows, strict=True))
        return Latents(hs, zs, prior, prior)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observation [P, B, T, obs] after `symlog`, logits of reward and of continuation."""
        flat = features.flatten(1, 2)
        parts = (self.decoder(flat), self.reward(flat), self.cont(flat)[..., 0])
        obs, reward, cont = (x.unflatten(1, features.shape[1:3]) for x in parts)
        return obs, reward, cont

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        """KL(q | p) in nats of latents with statistics [..., S], summed over all of z: [...]."""
        if self.kind == "discrete":
            q, p = self.probs(q), self.probs(p)
            return (q * (q.log() - p.log())).sum((-2, -1))
        (m, s), (n, t) = self.gaussian(q), self.gaussian(p)
        apart = (s.square() + (m - n).square()) / (2 * t.square())
        return (t.log() - s.log() + apart - 0.5).sum(-1)

    def losses(
        self,
        latents: Latents,
        obs: Tensor,
        reward: Tensor,
        cont: Tensor,
        precision: Tensor | float = 1.0,
        free: float = 1.0,
        balance: float = 0.1,
    ) -> dict[str, Tensor]:
        """The terms of the loss of each member, [P].

        Args:
            latents: of `observe`.
            obs, reward, cont: [P, B, T, obs], [P, B, T] and [P, B, T].
            precision: of an observation, one number or [obs]: one over twice its variance.
            free: nats of divergence per step that cost nothing, counted over all of z.
            balance: how much the posterior comes to the prior, which comes to it with weight 1.
        """
        seen, reward_logits, cont_logits = self.heads(latents.features)
        q, p = latents.posterior, latents.prior
        each = {
            "observation": (precision * (seen - symlog(obs)).square()).sum(-1),
            "reward": -(two_hot(reward, self.bins) * reward_logits.log_softmax(-1)).sum(-1),
            "continuation": F.binary_cross_entropy_with_logits(cont_logits, cont, reduction="none"),
            "dynamics": self.kl(q.detach(), p).clamp_min(free),
            "representation": balance * self.kl(q, p.detach()).clamp_min(free),
        }
        return {name: x.mean((1, 2)) for name, x in each.items()}
