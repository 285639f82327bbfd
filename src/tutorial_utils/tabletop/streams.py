"""Counter-based random numbers: one independent stream per robot and episode.

A draw depends on (seed, robot, episode, counter) alone, never on how many robots are simulated
beside it or on the order of resets. That is what makes a single environment equal to robot 0 of a
batch, and a population member equal to the same member trained alone. The mixing function is the
finaliser of SplitMix64 (Steele, Lea, Flood 2014) on int64 tensors, on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def mix(key: Tensor, counter: Tensor | int) -> Tensor:
    """Hash `key` and `counter` (int64, broadcast) into a new key of the same shape."""
    step = (counter + 1) * _GOLDEN
    if isinstance(step, int):  # Python's integers do not wrap around
        step = (step + 2**63) % 2**64 - 2**63
    x = key + step
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MIX_2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def uniform(key: Tensor, counters: Tensor) -> Tensor:
    """Uniform float32 numbers in [0, 1) for each counter and key.

    Args:
        key: int64 [N], one stream per robot.
        counters: int64 [C], which draws of the stream to take.

    Returns:
        float32 [C, N].
    """
    bits = mix(key[None], counters[:, None])  # [C, N]
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32) * (1.0 / (1 << 24))


def normal(key: Tensor, counters: Tensor) -> Tensor:
    """Standard normal float32 numbers (Box-Muller), shaped as in `uniform`."""
    radius = (-2 * torch.log1p(-uniform(key, 2 * counters))).sqrt()
    return radius * torch.cos(2 * torch.pi * uniform(key, 2 * counters + 1))


Seeds = int | Tensor | np.ndarray | Sequence[int | None]


def robot_keys(seed: Seeds, num_robots: int, device: torch.device) -> Tensor:
    """One key per robot, int64 [N].

    Args:
        seed: an int for all robots, from which each derives its own key; or one seed per robot in a
            list or array, each as a single environment takes it (None draws one); or the keys
            themselves, a tensor.
        num_robots: N.
        device: where the keys go.

    Raises:
        ValueError: a negative seed, one that is no whole number, or not one per robot.
    """
    robots = torch.arange(num_robots, device=device)
    if isinstance(seed, Tensor):
        if seed.is_floating_point():
            raise ValueError(f"seeds must be whole numbers, not {seed.dtype}.")
        return _one_each(seed, robots)
    many = isinstance(seed, Sequence) or np.ndim(seed) == 1
    each: list[Any] = [*seed] if many else [seed]  # type: ignore[misc]
    each = [np.random.SeedSequence().generate_state(1)[0] if s is None else s for s in each]
    if not all(isinstance(s, SupportsIndex) and index(s) >= 0 for s in each):
        raise ValueError(f"a seed must be a whole number of 0 or more, not {seed!r}.")
    keys = torch.tensor([index(s) % 2**63 for s in each])
    return (
        mix(_one_each(keys, robots), 0) if many else mix(keys.to(device).expand(num_robots), robots)
    )


def _one_each(seeds: Tensor, robots: Tensor) -> Tensor:
    if seeds.shape != robots.shape:
        raise ValueError(
            f"seeds must have shape ({len(robots)},), not {tuple(seeds.shape)}: one per robot."
        )
    return seeds.to(robots.device, torch.int64)
