"""Learning a generative policy and a critic from a fixed set of actions, P members at a time.

The losses of Diffusion-QL (Wang et al. 2023, arXiv 2208.06193), IDQL (Hansen-Estruch et al. 2023,
arXiv 2304.10573, on the critic of IQL, Kostrikov et al. 2022, arXiv 2110.06169) and flow Q-learning
(Park et al. 2025, arXiv 2502.02538). An action is a flat vector in [-1, 1], for example a chunk.
Written for pre-training; fine-tuning in the noise space or by a critic, a coming chapter, needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..models.actor_critic import ActorCritic
from ..models.chains import DiffusionPolicy
from ..models.diffusion import Denoiser, normal
from ..models.population import Network

_TWINS = (2**28, 2**29)  # the two critics start from different weights


class TwinCritic(Network):
    """Two action values of each member and their slowly moving averages.

    Args:
        obs, action: lengths S and D.
        seeds: one per member.
        hidden: width of the two hidden layers.
        average: decay of the averages, which are the targets.
        layer_norm: whether each hidden layer is normalised, without weights of its own.
    """

    def __init__(
        self,
        obs: int,
        action: int,
        seeds: Sequence[int],
        hidden: int = 128,
        average: float = 0.995,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.online = nn.ModuleList(
            ActorCritic((obs + action,), [seed + twin for seed in seeds], hidden=hidden).critic
            for twin in _TWINS
        )
        if layer_norm:
            self.online = nn.ModuleList(_normalised(critic, hidden) for critic in self.online)
        self.target = AveragedModel(self.online, multi_avg_fn=get_ema_multi_avg_fn(average))
        self.target.requires_grad_(False)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q_1 and Q_2, [2, P, B], for obs [P, B, S] and action [P, B, D]."""
        return _values(self.online, obs, action)

    def averaged(self, obs: Tensor, action: Tensor) -> Tensor:
        """The values of the averages, [2, P, B]: gradients reach the action, never the critics."""
        return _values(cast("nn.ModuleList", self.target.module), obs, action)

    def loss(self, obs: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """The squared error of both to `target` [P, B], of each member [P]."""
        return (self(obs, action) - target).square().sum(0).mean(1)

    def follow(self) -> None:
        """Move the averages; call it after each step of the optimiser."""
        self.target.update_parameters(self.online)


def _normalised(critic: nn.Module, hidden: int) -> nn.Sequential:
    """The critic with a layer normalisation after each of its hidden matrices."""
    first, second, *rest = critic.children()
    entry, bend = first.children()
    norm = nn.LayerNorm(hidden, elementwise_affine=False)
    return nn.Sequential(entry, norm, bend, second, norm, *rest)


def _values(critics: nn.ModuleList, obs: Tensor, action: Tensor) -> Tensor:
    pair = torch.cat((obs, action), -1)
    return torch.stack([critic(pair)[..., 0] for critic in critics])


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(error < 0)| error^2: with 0.5 half the squared error, towards 1 a maximum."""
    if not 0 < expectile < 1:
        raise ValueError(f"expectile must lie between 0 and 1, not {expectile!r}.")
    weight = torch.where(error < 0, 1 - expectile, expectile)
    return weight * error.square()


def value_term(q: Tensor) -> Tensor:
    """What an actor pays for values [2, P, B] of its actions, [P].

    The mean of the first critic, negated, divided by the mean size of the
    second one, so that it does not depend on the scale of the reward.
    """
    return -q[0].mean(1) / q[1].detach().abs().mean(1).clamp_min(1e-6)


def generate(policy: DiffusionPolicy, obs: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Actions [P, B, D] of the trained denoiser, through which gradients flow, in every step."""
    x = normal((obs.shape[1], policy.size), generators)
    for k in reversed(range(policy.steps)):
        x = policy.mean(obs, x, k) + policy.sigma[k] * normal(x.shape[1:], generators)
    return x.clamp(-1, 1)


def flow_action(flow: Denoiser, obs: Tensor, noise: Tensor, steps: int = 10) -> Tensor:
    """Where the flow carries the noise [P, B, D], cut to [-1, 1]; gradients flow through it."""
    x = noise
    for i in range(steps):
        x = x + flow(x, i / steps, obs) / steps
    return x.clamp(-1, 1)


def one_step(student: Denoiser, obs: Tensor, noise: Tensor) -> Tensor:
    """Actions [P, B, D] of a student that maps noise to an action in one call."""
    return student(noise, 0.0, obs)


def distillation_loss(
    student: Denoiser,
    flow: Denoiser,
    obs: Tensor,
    noise: Tensor,
) -> Tensor:
    """Squared distance of the student's action to the flow's, [P].

    Both start from the same noise; the flow gets no gradient.
    """
    with torch.no_grad():
        taught = flow_action(flow, obs, noise)
    return (one_step(student, obs, noise) - taught).square().mean((1, 2))


@torch.no_grad()
def best_of(
    act: Callable[[Tensor], Tensor], critic: TwinCritic, obs: Tensor, candidates: int
) -> Tensor:
    """The action [P, B, D] of the largest value among several that `act` draws for each obs."""
    many = obs.repeat_interleave(candidates, 1)  # [P, B N, S]
    action: Tensor = act(many).unflatten(1, (-1, candidates))  # [P, B, N, D]
    value = critic.averaged(many, action.flatten(1, 2)).amin(0).view(action.shape[:3])
    best = value.argmax(-1)[..., None, None].expand(-1, -1, 1, action.shape[-1])
    return action.gather(2, best)[:, :, 0]
