"""Counter-based random numbers: one independent stream per robot and episode.

A draw depends on (seed, robot, episode, counter) alone, never on how many robots are simulated
beside it or on the order of resets. That is what makes a single environment equal to robot 0 of a
batch, and a population member equal to the same member trained alone. The mixing function is the
finaliser of SplitMix64 (Steele, Lea, Flood 2014) on int64 tensors, on any device.
"""

from __future__ import annotations

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


def robot_keys(seed: int | Tensor, num_robots: int, device: torch.device) -> Tensor:
    """One key per robot: derived from an int seed, or the given int64 [N] seeds themselves.

    Raises:
        ValueError: a negative seed, or not one seed per robot.
    """
    if isinstance(seed, Tensor):
        if seed.shape != (num_robots,):
            raise ValueError(
                f"seeds must have shape ({num_robots},), not {tuple(seed.shape)}: one per robot."
            )
        return seed.to(device, torch.int64)
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}.")
    robots = torch.arange(num_robots, device=device)
    return mix(torch.full((num_robots,), seed, dtype=torch.int64, device=device), robots)
