"""Actor and critic networks for a whole population, of states or of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .population import Network, PopulationLinear, Stack

_LOG_STD = (-5.0, 2.0)  # of a squashed actor, before the tanh


class PatchEncoder(Network):
    """Images to features with strided convolutions whose kernel equals their stride.

    Such a convolution is a linear layer on patches, so it runs as one batched product per layer:
    4x4 patches to 16 channels, 2x2 of those to 32 channels, then all places to `features`.
    """

    def __init__(self, size: int, generators: Sequence[torch.Generator], features: int) -> None:
        super().__init__()
        gain = math.sqrt(2)
        self.patch = PopulationLinear(4 * 4 * 3, 16, generators, gain)
        self.merge = PopulationLinear(2 * 2 * 16, 32, generators, gain)
        self.head = PopulationLinear((size // 8) ** 2 * 32, features, generators, gain)

    def forward(self, images: Tensor) -> Tensor:  # uint8 [P, B, H, W, 3] -> [P, B, features]
        p, b, side = images.shape[0], images.shape[1], images.shape[2] // 4
        x = images.float().div_(127.5).sub_(1.0)
        x = x.view(p, b, side, 4, side, 4, 3).transpose(3, 4).reshape(p, b * side * side, 48)
        x = torch.relu(self.patch(x)).view(p, b, side // 2, 2, side // 2, 2, 16)
        x = x.transpose(3, 4).reshape(p, b * (side // 2) ** 2, 64)
        x = torch.relu(self.merge(x)).view(p, b, -1)
        return torch.tanh(self.head(x))


class ActorCritic(Network):
    """A Gaussian policy and a value function per member, in separate networks.

    Args:
        obs_shape: shape of one observation: (D,) for states, (H, W, 3) for uint8 images.
        seeds: one per member.
        hidden: width of the two hidden layers.
        log_std: initial logarithm of the standard deviation of the actions.
    """

    def __init__(
        self,
        obs_shape: Sequence[int],
        seeds: Sequence[int],
        actions: int = 3,
        hidden: int = 64,
        log_std: float = -0.5,
    ) -> None:
        super().__init__()
        self.obs_shape, self.hidden = tuple(obs_shape), hidden
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.actor = self._network(generators, hidden, actions, last_gain=0.01)
        self.critic = self._network(generators, hidden, 1, last_gain=1.0)
        self.log_std = nn.Parameter(torch.full((len(seeds), 1, actions), log_std))

    def _network(
        self, generators: Sequence[torch.Generator], hidden: int, outputs: int, last_gain: float
    ) -> Stack:
        if len(self.obs_shape) == 3:
            first: nn.Module = PatchEncoder(self.obs_shape[0], generators, hidden)
        else:
            linear = PopulationLinear(self.obs_shape[0], hidden, generators, math.sqrt(2))
            first = nn.Sequential(linear, nn.LeakyReLU(0.01, inplace=True))
        return Stack(
            first,
            PopulationLinear(hidden, hidden, generators, math.sqrt(2)),
            nn.LeakyReLU(0.01, inplace=True),
            PopulationLinear(hidden, outputs, generators, last_gain),
        )

    @property
    def members(self) -> int:
        """P."""
        return len(self.log_std)

    def forward(self, obs: Tensor) -> Tensor:
        """The mean action [P, B, A] for observations [P, B, *obs_shape]."""
        return self.actor(obs)

    def value(self, obs: Tensor) -> Tensor:
        """V(obs), [P, B]."""
        return self.critic(obs)[..., 0]

    def log_prob(self, mean: Tensor, action: Tensor) -> Tensor:
        """log pi(action | obs) [P, B] of a Gaussian around `mean` [P, B, A], summed over A."""
        z = (action - mean) * torch.exp(-self.log_std)
        constant = self.log_std.sum(-1) + 0.5 * math.log(2 * math.pi) * mean.shape[-1]  # [P, 1]
        return -0.5 * (z * z).sum(-1) - constant

    def explore(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """An action [P, B, A] drawn from the policy."""
        mean = self(obs)
        draw = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + self.log_std.exp() * draw

    def entropy(self) -> Tensor:
        """Differential entropy of the policy of each member, [P]."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum((1, 2))

    def select(self, members: slice) -> ActorCritic:
        """A population of only these members, sharing no memory with this one."""
        kept = range(self.members)[members]
        shape = (self.log_std.shape[-1], self.hidden)
        chosen = ActorCritic(self.obs_shape, [0] * len(kept), *shape)
        chosen.load_state_dict({n: v[members].clone() for n, v in self.state_dict().items()})
        return chosen.to(self.log_std.device)


class SquashedActor(Network):
    """A Gaussian whose draws go through tanh, per member.

    Args:
        obs: length D of an observation.
        seeds: one per member.
    """

    def __init__(self, obs: int, seeds: Sequence[int], actions: int = 3, hidden: int = 128) -> None:
        super().__init__()
        self.members, self.shape = len(seeds), (obs, actions, hidden)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        gain = math.sqrt(2)
        self.network = Stack(
            PopulationLinear(obs, hidden, generators, gain),
            nn.ReLU(inplace=True),
            PopulationLinear(hidden, hidden, generators, gain),
            nn.ReLU(inplace=True),
            PopulationLinear(hidden, 2 * actions, generators, 0.01),
        )

    def gaussian(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [P, B, A] before the tanh, for obs [P, B, D]."""
        mean, log_std = self.network(obs).chunk(2, -1)
        return mean, log_std.clamp(*_LOG_STD)

    def forward(self, obs: Tensor) -> Tensor:
        """The deterministic action [P, B, A]: tanh of the mean."""
        return torch.tanh(self.gaussian(obs)[0])

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [P, B, A] of standard normal `noise`, and their log-probability [P, B].

        a = tanh(u), so log pi(a) = log N(u) - sum log(1 - tanh(u)^2), and the last term is
        2 (log 2 - u - softplus(-2 u)), which does not overflow.
        """
        mean, log_std = self.gaussian(obs)
        u = mean + log_std.exp() * noise
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        squash = 2 * (math.log(2) - u - F.softplus(-2 * u))
        return torch.tanh(u), (normal - squash).sum(-1)

    def explore(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """An action [P, B, A] drawn from the policy."""
        mean, _ = self.gaussian(obs)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return self.sample(obs, noise)[0]

    def select(self, members: slice) -> SquashedActor:
        """A population of only these members, sharing no memory with this one."""
        kept = range(self.members)[members]
        obs, actions, hidden = self.shape
        chosen = SquashedActor(obs, [0] * len(kept), actions, hidden)
        chosen.load_state_dict({n: v[members].clone() for n, v in self.state_dict().items()})
        return chosen.to(next(self.parameters()).device)
