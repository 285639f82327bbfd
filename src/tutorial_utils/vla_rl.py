"""Reinforcement learning for token policies, by success alone.

Groups of robots start from the same state, and a chunk is good if its episode did better than the
others of its group: RLOO (Ahmadian et al. 2024, arXiv 2402.14740) and GRPO (Shao et al. 2024, arXiv
2402.03300), as used on vision-language-action models by Li et al. (2025, arXiv 2509.09674). PPO
with a value head does without groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from . import ppo
from ._validate import one_of, positive_int
from .policies import PopulationLinear
from .tabletop import Task, get_task
from .tabletop.streams import robot_keys
from .tabletop.vector_env import TabletopVectorEnv
from .vla import VLA

# Other streams than the initial weights; below 2**32, the part of a seed that torch looks at.
_NOISE, _SHUFFLES = 2**28, 2**29


@dataclass(frozen=True)
class RLConfig:
    """Settings. `robots` play one episode each per iteration, in groups of `group`."""

    robots: int = 128
    group: int = 8
    advantage: str = "grpo"  # or "rloo", or "ppo"
    dynamic: bool = True  # leave out groups that all fail or all succeed
    temperature: float = 1.0
    clip: float = 0.2
    clip_high: float = 0.28
    learning_rate: float = 5e-4
    epochs: int = 2
    batch: int = 256  # chunks in a minibatch
    max_grad_norm: float = 1.0
    lam: float = 0.95  # of PPO's GAE


@dataclass
class Episodes:
    """N episodes of T decisions each, of one policy."""

    image: Tensor  # uint8 [N, T, S, S, 3]
    words: Tensor  # [N, L]
    tokens: Tensor  # [N, T, 3 H]
    log_prob: Tensor  # [N, T, 3 H], when they were drawn
    active: Tensor  # bool [N, T], false after the end of the episode
    success: Tensor  # bool [N]
    steps: int  # environment steps played until the ends of the episodes


@torch.no_grad()
def collect(env, policy, noise, temperature, shared=True) -> Episodes:
    n, h = env.num_envs, policy.length
    obs, _ = env.reset()
    words = policy.vocabulary.encode(obs["instruction"])[None]
    image = obs["image"]
    running = torch.ones(n, dtype=torch.bool)
    success, rows, steps = torch.zeros(n, dtype=torch.bool), [], 0
    for start in range(0, env.task.horizon, h):
        uniform = torch.rand(1, n, policy.decoder.tokens, generator=noise)
        context = policy.context(image[None], words)
        tokens = policy.decoder.draw(context, uniform, temperature)
        rows.append((image, tokens[0], policy.log_prob(context, tokens, temperature)[0], running))
        for action in policy.actions(tokens)[0].unbind(1)[: env.task.horizon - start]:
            _, ended, cut, info = env.advance(action)
            steps += int(running.sum())
            success |= running & info["success"]
            running = running & ~(ended | cut)
        if not running.any():
            break
        image = env.observe_image()
    image, tokens, log_prob, active = (torch.stack(x, 1) for x in zip(*rows))
    return Episodes(image, words[0], tokens, log_prob, active, success, steps)


def group_advantages(R, group, kind):
    R = R.view(-1, group)
    d = R - R.mean(1, keepdim=True)
    if kind == "rloo":
        return (d * group / (group - 1)).flatten()
    return (d / (R.std(1, keepdim=True, correction=0) + 1e-6)).flatten()


def token_loss(log_prob, old, advantage, config):
    ratio = torch.exp(log_prob - old)
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip_high)
    return -torch.minimum(ratio * advantage[:, None], clipped * advantage[:, None]).mean(-1)
