"""The denoiser of the book beside the same architecture in a plain loop with `diffusers`; DPPO.

Ours trains and samples five seeds at once. The peer is one network of `torch.nn.Linear` layers with
`diffusers`' scheduler and averaged weights, one seed after another.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import torch
from common import Row, rates
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from tutorial_utils.learning import dppo
from tutorial_utils.models import diffusion
from tutorial_utils.models.chains import DiffusionPolicy

SEEDS, LEVELS, SIZE, CONDITION, BATCH = 5, 10, 8, 7, 128
EPISODES, SECONDS = 2_000, 120  # of each seed of DPPO, and the target
DATA, OBS = torch.rand(2_000, SIZE) * 2 - 1, torch.rand(2_000, CONDITION)


class Plain(nn.Module):
    """The same network for one seed, in `torch.nn`."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        widths = [SIZE + 16 + CONDITION, hidden, hidden, hidden]
        parts = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.SiLU())]
        self.network = nn.Sequential(*parts, nn.Linear(hidden, SIZE))
        self.register_buffer("frequency", torch.exp(torch.linspace(0, math.log(10), 8)))

    def forward(self, x: Tensor, level: Tensor, obs: Tensor) -> Tensor:
        angle = level[:, None] / LEVELS * self.frequency
        return self.network(torch.cat((x, angle.sin(), angle.cos(), obs), -1))


def ours_training(steps: int) -> Callable[[], int]:
    """Minibatch steps of all seeds."""

    def work() -> int:
        network = diffusion.Denoiser(SIZE, CONDITION, range(SEEDS), horizon=LEVELS)
        loss = diffusion.noise_loss(diffusion.scheduler(LEVELS))
        diffusion.fit(network, DATA, OBS, loss, steps, BATCH, progress=False)
        return steps * SEEDS

    return work


def plain_training(steps: int) -> Callable[[], int]:
    """The loop of a tutorial."""
    levels = DDPMScheduler(LEVELS, beta_schedule="squaredcos_cap_v2")

    def work() -> int:
        network = Plain()
        average = EMAModel(network.parameters(), decay=0.995)
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(steps):
            rows = torch.randint(len(DATA), (BATCH,))
            noise, k = torch.randn(BATCH, SIZE), torch.randint(LEVELS, (BATCH,))
            noisy = levels.add_noise(DATA[rows], noise, k)
            loss = (network(noisy, k, OBS[rows]) - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.step(network.parameters())
        return steps

    return work


def ours_sampling(rows: int) -> Callable[[], int]:
    """Chunks of all seeds."""
    network = diffusion.Denoiser(SIZE, CONDITION, range(SEEDS), horizon=LEVELS)
    levels, obs = diffusion.scheduler(LEVELS), torch.rand(SEEDS, rows, CONDITION)

    def work() -> int:
        diffusion.sample(network, levels, obs, torch.Generator().manual_seed(0))
        return SEEDS * rows

    return work


def plain_sampling(rows: int) -> Callable[[], int]:
    """The same number of rows for one seed."""
    network, obs = Plain(), torch.rand(rows, CONDITION)
    levels = DDPMScheduler(LEVELS, beta_schedule="squaredcos_cap_v2")
    levels.set_timesteps(LEVELS)

    @torch.inference_mode()
    def work() -> int:
        x = torch.randn(rows, SIZE)
        for k in levels.timesteps:
            x = levels.step(network(x, k.expand(rows), obs), k, x).prev_sample
        return rows

    return work


def dppo_seconds(episodes: int) -> float:
    """Seconds of a fine-tuning run of all seeds."""
    network = diffusion.Denoiser(SIZE, CONDITION, range(SEEDS), horizon=LEVELS)
    policy = DiffusionPolicy(network, diffusion.scheduler(LEVELS))
    start = time.perf_counter()
    dppo.fine_tune(policy, "AroundObstacle", episodes, progress=False)
    return time.perf_counter() - start


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figures, and lines to print below the table."""
    steps, chunks, episodes = (20, 50, 100) if quick else (200, 200, EPISODES)
    repeats = 1 if quick else 5
    train = rates({"ours": ours_training(steps), "plain": plain_training(steps)}, repeats)
    draw = rates({"ours": ours_sampling(chunks), "plain": plain_sampling(chunks)}, repeats)
    table = [
        Row(what, speed["ours"], unit, "a plain diffusers loop, one seed", speed["plain"])
        for what, unit, speed in (
            (f"denoiser, {SEEDS} seeds at once, training", "seed-steps/s", train),
            (f"denoiser, {SEEDS} seeds at once, {LEVELS} denoising steps", "chunks/s", draw),
        )
    ]
    spent = dppo_seconds(episodes)
    met = "met" if spent < SECONDS else "missed"
    note = f"- DPPO, {SEEDS} seeds x {episodes:,} episodes: {spent:.0f} s"
    return table, [note + ("." if quick else f" (target: under {SECONDS} s, {met}).")]
