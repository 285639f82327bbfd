"""Small diffusion and flow models over flat vectors, P members at a time.

A network that predicts noise (Ho et al. 2020) or velocity (Lipman et al. 2023) from a noisy vector,
its noise level and a condition; training with averaged weights; sampling with a scheduler of
`diffusers`. What a vector means (a trajectory, a chunk of actions) is the caller's business.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from .._validate import positive_int
from .population import Network, PopulationLinear, Stack

with warnings.catch_warnings(action="ignore"):  # of notebooks without widgets
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

_FREQUENCIES = 8
# Another stream than the initial weights; below 2**32, the part of a seed that torch looks at.
_NOISE = 2**27

Scheduler = DDPMScheduler | DDIMScheduler
# (network, x [P, B, D], condition [P, B, C], one generator per member) -> loss [P, B]
Loss = Callable[["Denoiser", Tensor, Tensor, Sequence[torch.Generator]], Tensor]


def scheduler(levels: int, ddim: bool = False) -> Scheduler:
    """The squared-cosine noise schedule (Nichol and Dhariwal 2021) with this many noise levels.

    Predicted data are cut to [-1, 1] in every step, so scale them to it.
    """
    kind = DDIMScheduler if ddim else DDPMScheduler
    made: Scheduler = kind(
        positive_int(levels, "levels"),
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        timestep_spacing="trailing",  # few steps begin at the highest level, which is noise
    )
    return made


class Denoiser(Network):
    """An MLP per member: noisy vector, time and condition in, noise (or velocity) out.

    Args:
        size: D, length of a vector.
        condition: C, length of the condition; 0 for none.
        seeds: one per member.
        horizon: the time that counts as 1 (the number of noise levels; 1 for a flow).
        hidden, layers: width and number of the hidden layers.
    """

    frequency: Tensor

    def __init__(
        self,
        size: int,
        condition: int,
        seeds: Sequence[int],
        horizon: float = 1.0,
        hidden: int = 128,
        layers: int = 3,
    ) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.size, self.horizon, self.seeds = size, horizon, list(seeds)
        widths = [size + 2 * _FREQUENCIES + condition, *[hidden] * layers]
        parts: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            parts += [PopulationLinear(a, b, generators, math.sqrt(2)), nn.SiLU(inplace=True)]
        self.network = Stack(*parts, PopulationLinear(hidden, size, generators, 0.1))
        frequency = torch.exp(torch.linspace(0, math.log(10), _FREQUENCIES))
        self.register_buffer("frequency", frequency)

    @property
    def members(self) -> int:
        """P."""
        return len(self.seeds)

    def forward(self, x: Tensor, time: Tensor | float, condition: Tensor) -> Tensor:
        """[P, B, D] for x [P, B, D], time [P, B] or one number, condition [P, B, C]."""
        time = torch.as_tensor(time, dtype=x.dtype, device=x.device).expand(x.shape[:2])
        angle = time[..., None] / self.horizon * self.frequency  # [P, B, F]
        return self.network(torch.cat((x, angle.sin(), angle.cos(), condition), -1))


def normal(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Gaussian noise [P, *shape], each member's from its own generator."""
    return torch.stack([torch.randn(*shape, generator=g) for g in generators])


def noise_loss(levels: Scheduler) -> Loss:
    """The squared error of the predicted noise at a random level (Ho et al. 2020, eq. 14)."""
    count: int = levels.config["num_train_timesteps"]

    def loss(
        network: Denoiser, x: Tensor, condition: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        _, b, d = x.shape
        k = torch.stack([torch.randint(count, (b,), generator=g) for g in generators])  # [P, B]
        noise = normal((b, d), generators)
        level = cast("torch.IntTensor", k.flatten())
        noisy = levels.add_noise(x.flatten(0, 1), noise.flatten(0, 1), level).view_as(x)
        return (network(noisy, k, condition) - noise).square().mean(-1)

    return loss


def flow_loss(
    network: Denoiser, x: Tensor, condition: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    """The squared error of the velocity on the line from noise to data (Lipman et al. 2023)."""
    _, b, d = x.shape
    t = torch.stack([torch.rand(b, generator=g) for g in generators])  # [P, B]
    noise = normal((b, d), generators)
    point = torch.lerp(noise, x, t[..., None])
    return (network(point, t, condition) - (x - noise)).square().mean(-1)


def fit(
    network: Denoiser,
    data: Tensor,
    condition: Tensor,
    loss: Loss,
    steps: int,
    batch: int = 128,
    learning_rate: float = 2e-3,
    average: float = 0.995,
    progress: bool = True,
) -> tuple[Denoiser, Tensor]:
    """Train on random minibatches; returns the network of averaged weights and losses [steps, P].

    Args:
        data, condition: [N, D] and [N, C], shared by all members, or [P, N, D] and [P, N, C].
        average: decay of the exponential moving average of the weights, which is what to sample.
    """
    p, n = network.members, data.shape[-2]
    if not n:
        raise ValueError("there is no data to train on.")
    data, condition = (x.expand(p, *x.shape[-2:]) for x in (data, condition))
    generators = [torch.Generator().manual_seed(seed + _NOISE) for seed in network.seeds]
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(average))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    losses, member = torch.zeros(steps, p), torch.arange(p)[:, None]
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - i / steps)
        rows = torch.stack([torch.randint(n, (batch,), generator=g) for g in generators])  # [P, B]
        each = loss(network, data[member, rows], condition[member, rows], generators).mean(1)
        optimizer.zero_grad()
        each.sum().backward()  # members share no weight
        optimizer.step()
        averaged.update_parameters(network)
        losses[i] = each.detach()
    return cast("Denoiser", averaged.module).requires_grad_(False), losses


def _grid(levels: Scheduler, steps: int) -> tuple[Scheduler, list[int], list[int]]:
    """A scheduler that steps from each level visited to the next, and at last to clean data.

    Returns:
        Also the numbers of these levels for this scheduler, and those for the network.
    """
    levels.set_timesteps(steps)
    visited = levels.timesteps[:steps]  # rounding errors of diffusers may add a level -1
    if isinstance(levels, DDPMScheduler):
        levels.set_timesteps(timesteps=visited.tolist())
        return levels, visited.tolist(), visited.tolist()
    # DDIM takes steps of one size: it gets a schedule without the levels in between.
    short = copy.copy(levels)
    short.alphas_cumprod = levels.alphas_cumprod[visited.flip(0)]
    short.set_timesteps(levels.config["num_train_timesteps"])
    return short, list(reversed(range(steps))), visited.tolist()


@torch.inference_mode()
def sample(
    network: Denoiser,
    levels: Scheduler,
    condition: Tensor,
    generator: torch.Generator,
    steps: int | None = None,
) -> Tensor:
    """Vectors [P, B, D] for the condition [P, B, C], from pure noise.

    Args:
        steps: noise levels to visit; all by default.
    """
    count: int = levels.config["num_train_timesteps"]
    steps = count if steps is None else positive_int(steps, "steps")
    if steps > count:
        raise ValueError(f"steps must be at most {count}, the number of levels, not {steps}.")
    extra: dict[str, Any] = {"generator": generator}
    if isinstance(levels, DDIMScheduler):
        # Where it cuts the predicted data, it has to derive the noise anew from what is left.
        extra["use_clipped_model_output"] = True
    levels, places, visited = _grid(levels, steps)
    x = torch.randn(*condition.shape[:2], network.size, generator=generator)
    for i, k in zip(places, visited, strict=True):
        noise = network(x, k, condition)
        x = levels.step(noise, i, x, return_dict=False, **extra)[0]
    return x


@torch.inference_mode()
def flow(network: Denoiser, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
    """Follow the velocity from noise [P, B, D] at time 0 to data at time 1, with Euler's method."""
    x = noise
    for i in range(positive_int(steps, "steps")):
        x = x + network(x, i / steps, condition) / steps
    return x
