"""Policies that make a chunk of actions in a chain of Gaussian steps.

A diffusion policy (Chi et al. 2023) makes a chunk by denoising. Each denoising step is a Gaussian
with a log-probability, so reinforcement learning can treat it as an action of its own (Ren et al.
2024, arXiv 2409.00588). A Gaussian policy is the same with a chain of one step. P members at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._validate import positive_int
from ..tabletop.acting import Chunks
from .diffusion import Denoiser, Scheduler, normal


class ChainPolicy(nn.Module):
    """What the two kinds of policy share: K' Gaussian steps from `before` to `after`.

    Attributes:
        actor: the network that is trained; a copy of the one handed in.
        steps: K', the length of the chain.
        std: standard deviation of each step while exploring, the last step first, [K'].
    """

    std: Tensor

    def __init__(self, base: Denoiser, steps: int) -> None:
        super().__init__()
        self.actor = copy.deepcopy(base).requires_grad_(True)
        self.steps, self.size, self.seeds = steps, base.size, base.seeds

    @property
    def members(self) -> int:
        """P."""
        return len(self.seeds)

    def mean(self, obs: Tensor, x: Tensor, level: Tensor | int) -> Tensor:
        """Mean [P, B, D] of the step from x [P, B, D] at a level below K' ([P, B] or a number)."""
        raise NotImplementedError

    def sample(
        self, obs: Tensor, generators: Sequence[torch.Generator], explore: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Chains x_K', ..., x_0 [P, B, K' + 1, D] for obs [P, B, S], and log-probabilities of
        their steps [P, B, K']. Without exploration the noise is that of deployment."""
        raise NotImplementedError

    def log_prob(self, obs: Tensor, before: Tensor, after: Tensor, step: Tensor) -> Tensor:
        """log N(after; mean(before), std^2), [P, B], summed over the D numbers of a chunk.

        Args:
            obs: [P, B, S].
            before, after: neighbours in a chain, [P, B, D].
            step: place of `before` in its chain, 0 to K' - 1, [P, B].
        """
        level = self.steps - 1 - step
        std = self.std[level][..., None]
        return _log_normal((after - self.mean(obs, before, level)) / std, std)

    def deployed(self, length: int, seed: int) -> Chunks:
        """The policy for `evaluate`, in chunks of `length` actions, without exploration."""
        generators = [torch.Generator().manual_seed(seed + i) for i in range(self.members)]

        def plan(obs: Tensor) -> Tensor:
            return self.sample(obs, generators, explore=False)[0][:, :, -1]

        return Chunks(plan, length, self.members)


def _log_normal(z: Tensor, std: Tensor) -> Tensor:
    """log N of a deviation of z [..., D] standard deviations, summed over D."""
    return (-0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


class DiffusionPolicy(ChainPolicy):
    """A denoiser whose last K' steps are trained, behind a frozen copy that takes the first ones.

    Args:
        base: the pre-trained denoiser.
        levels: its noise schedule.
        tuned: K'; all steps by default.
        floor: least standard deviation of a step while exploring.
    """

    bar: Tensor  # [K]
    of_data: Tensor  # [K], as are the others
    of_noisy: Tensor
    sigma: Tensor

    def __init__(
        self, base: Denoiser, levels: Scheduler, tuned: int | None = None, floor: float = 0.1
    ) -> None:
        count: int = levels.config["num_train_timesteps"]
        super().__init__(base, count if tuned is None else positive_int(tuned, "tuned"))
        if self.steps > count:
            raise ValueError(f"tuned must be at most {count}, the number of levels, not {tuned}.")
        if not floor > 0:
            raise ValueError(f"floor must be above 0, not {floor!r}: the last step has no noise.")
        self.frozen = copy.deepcopy(base).requires_grad_(False)
        bar = levels.alphas_cumprod  # [K]
        before = torch.cat((torch.ones(1), bar[:-1]))
        beta = 1 - bar / before
        self.register_buffer("bar", bar)
        self.register_buffer("of_data", before.sqrt() * beta / (1 - bar))
        self.register_buffer("of_noisy", (1 - beta).sqrt() * (1 - before) / (1 - bar))
        self.register_buffer("sigma", ((1 - before) / (1 - bar) * beta).sqrt())
        self.register_buffer("std", self.sigma.clamp_min(floor))

    def mean(self, obs: Tensor, x: Tensor, level: Tensor | int) -> Tensor:
        return self._posterior(self.actor, obs, x, level)

    def _posterior(self, network: Denoiser, obs: Tensor, x: Tensor, level: Tensor | int) -> Tensor:
        """Mean of q(x_{k-1} | x_k, x_0) at the predicted x_0, which is cut to [-1, 1]."""
        bar, a, b = (
            y[level][..., None] if isinstance(level, Tensor) else y[level]
            for y in (self.bar, self.of_data, self.of_noisy)
        )
        x0 = ((x - (1 - bar).sqrt() * network(x, level, obs)) / bar.sqrt()).clamp(-1, 1)
        return a * x0 + b * x

    @torch.no_grad()
    def sample(
        self,
        obs: Tensor,
        generators: Sequence[torch.Generator],
        explore: bool = True,
    ) -> tuple[Tensor, Tensor]:
        x = normal((obs.shape[1], self.size), generators)
        chain, log_probs = [x], []
        for k in reversed(range(len(self.bar))):
            network = self.actor if k < self.steps else self.frozen
            std = (self.std if explore else self.sigma)[k]
            z = normal(x.shape[1:], generators).clamp(-3, 3)
            x = self._posterior(network, obs, x, k) + std * z
            if k < self.steps:
                chain.append(x)
                log_probs.append(_log_normal(z, std))
            else:
                chain = [x]
        return torch.stack(chain, 2), torch.stack(log_probs, 2)


class GaussianPolicy(ChainPolicy):
    """A regression of the chunk with Gaussian noise around it: a chain of one step.

    Args:
        base: predicts the chunk from a vector of zeros at time 0.
        std: standard deviation while exploring.
    """

    def __init__(self, base: Denoiser, std: float = 0.1) -> None:
        super().__init__(base, 1)
        if not std > 0:
            raise ValueError(f"std must be above 0, not {std!r}.")
        self.register_buffer("std", torch.tensor([std]))

    def mean(self, obs: Tensor, x: Tensor, level: Tensor | int) -> Tensor:
        return self.actor(torch.zeros_like(x), 0.0, obs)

    @torch.no_grad()
    def sample(
        self, obs: Tensor, generators: Sequence[torch.Generator], explore: bool = True
    ) -> tuple[Tensor, Tensor]:
        start = obs.new_zeros(*obs.shape[:2], self.size)
        z = normal(start.shape[1:], generators).clamp(-3, 3) * explore
        after = self.mean(obs, start, 0) + self.std * z
        return torch.stack((start, after), 2), _log_normal(z, self.std)[..., None]
