"""PPO for policies that act through a chain of Gaussian steps (Ren et al. 2024, arXiv 2409.00588).

The steps of the chain are actions of an inner decision process whose only reward is what the robot
gets for the chunk at its end. P members train at once, as in `ppo`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._validate import positive_int
from ..models.actor_critic import ActorCritic
from ..models.chains import ChainPolicy
from ..models.population import PopulationLinear, Stack
from ..tabletop.acting import with_open_fingers
from ..tabletop.observations import as_tensor
from ..tabletop.streams import robot_keys
from ..tabletop.tasks import Task
from ..tabletop.vector_env import TabletopVectorEnv
from . import ppo

# Other streams than the initial weights; below 2**32, the part of a seed that torch looks at.
_NOISE, _SHUFFLES = 2**28, 2**29


@dataclass(frozen=True)
class DPPOConfig:
    """The hyperparameters of a run."""

    robots: int = 100  # per member; each plays one episode in an iteration
    length: int = 4  # actions in a chunk
    minibatches: int = 80  # per iteration
    batch: int = 250  # denoising steps in a minibatch, per member
    learning_rate: float = 6e-4
    critic_rate: float = 1e-3
    gamma: float | None = None  # per action; None takes the task's
    lam: float = 0.95  # of generalised advantage estimation
    gamma_denoising: float = 0.99  # per denoising step before the last
    clip: float = 0.05  # of the ratio, at the last step
    clip_first: float = 0.001  # at the first step
    average: bool = True  # log-probabilities over the D numbers of a chunk; else their sum
    max_grad_norm: float = 1.0


DEFAULT = DPPOConfig()


@dataclass
class Episodes:
    """One episode of each of n robots of P members, in T chunks."""

    obs: Tensor  # [P, T, n, S], before the chunk
    next_obs: Tensor  # [P, T, n, S], after it
    chain: Tensor  # [P, T, n, K' + 1, D]
    log_prob: Tensor  # [P, T, n, K'], of the steps when they were drawn
    reward: Tensor  # [P, T, n], discounted sum over the chunk
    success: Tensor  # [P, T, n], within the chunk
    terminated: Tensor  # [P, T, n], within the chunk
    active: Tensor  # [P, T, n], false after the end of the episode


@dataclass
class Run:
    """A fine-tuned population and its training curves."""

    policy: ChainPolicy
    episodes: np.ndarray  # [U], of one member
    seconds: np.ndarray  # [U]
    success: np.ndarray  # [P, U], of the exploring policy


def clip_widths(steps: int, config: DPPOConfig = DEFAULT) -> Tensor:
    """How far the ratio may move at each of K' steps [K']: exponentially wider to the last."""
    place = torch.linspace(0, 1, steps) if steps > 1 else torch.ones(1)
    share = torch.expm1(3 * place) / math.expm1(3)
    return config.clip_first + (config.clip - config.clip_first) * share


@torch.no_grad()
def collect(
    env: TabletopVectorEnv,
    policy: ChainPolicy,
    length: int,
    generators: Sequence[torch.Generator],
    gamma: float = 1.0,
    explore: bool = True,
) -> Episodes:
    """Play a new episode with every robot of `env`, which belong to the members in equal blocks."""
    p, rows = policy.members, []
    obs = as_tensor(env.reset()[0]).unflatten(0, (p, -1))
    running = torch.ones(obs.shape[:2], dtype=torch.bool)
    for start in range(0, env.task.horizon, length):
        chain, log_prob = policy.sample(obs, generators, explore)
        plan = with_open_fingers(chain[:, :, -1].unflatten(-1, (length, -1)))  # [P, n, H, 3]
        active, reward, success = running, torch.zeros(running.shape), ~running.new_ones(1)
        for h, action in enumerate(plan.unbind(2)[: env.task.horizon - start]):
            gained, ended, _, info = env.advance(action.flatten(0, 1))
            reward = reward + gamma**h * running * gained.view(p, -1)
            success = success | running & info["success"].view(p, -1)
            running = running & ~ended.view(p, -1)
        new = as_tensor(env.observe()).unflatten(0, (p, -1))
        rows.append((obs, new, chain, log_prob, reward, success, active & ~running, active))
        obs = new
    return Episodes(*(torch.stack(x, 1) for x in zip(*rows, strict=True)))


@torch.no_grad()
def advantages(
    data: Episodes, critic: nn.Module, gamma: float, config: DPPOConfig = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Standardised advantages of the chunks and targets of the critic, [P, T, n].

    An advantage is 0 after the end of the episode. The critic sees only the robot's observation,
    as in the paper: one value for all K' steps. `gamma` is the discount of a single action.
    """
    value, following = (
        critic(x.flatten(1, 2)).view_as(data.reward) for x in (data.obs, data.next_obs)
    )
    done = data.terminated.clone()
    done[:, -1] = True  # the time limit cuts the sum, but is not the end of the world
    discount = gamma**config.length
    raw = ppo.gae(data.reward, value, following, data.terminated, done, discount, config.lam)
    count = data.active.sum((1, 2), keepdim=True)
    mean = (raw * data.active).sum((1, 2), keepdim=True) / count
    variance = ((raw - mean).square() * data.active).sum((1, 2), keepdim=True) / count
    return (raw - mean) / (variance.sqrt() + 1e-8) * data.active, raw + value


def dppo_loss(
    log_prob: Tensor,
    old: Tensor,
    advantage: Tensor,
    step: Tensor,
    steps: int,
    size: int,
    config: DPPOConfig = DEFAULT,
) -> Tensor:
    """The clipped surrogate of single denoising steps, negated, [P, B].

    Args:
        log_prob, old: of the steps, now and when they were drawn, [P, B].
        advantage: of the chunks that they led to, [P, B].
        step: place in the chain, 0 to K' - 1, [P, B]; steps: K'; size: D.
    """
    ratio = torch.exp((log_prob - old) / (size if config.average else 1))
    advantage = config.gamma_denoising ** (steps - 1 - step) * advantage
    width = clip_widths(steps, config)[step]
    clipped = ratio.clamp(1 - width, 1 + width)
    return -torch.minimum(ratio * advantage, clipped * advantage)


def _minibatches(
    active: Tensor, steps: int, config: DPPOConfig, generators: Sequence[torch.Generator]
) -> Iterator[Tensor]:
    """Numbers [P, B] of denoising steps, chunk * K' + place in the chain, in random order.

    Only of chunks before the end of their episode. A member goes through all of its steps before it
    sees one again.
    """
    total, rows = config.minibatches * config.batch, []
    for own, generator in zip(active, generators, strict=True):
        chunk = own.nonzero()
        cells = (chunk * steps + torch.arange(steps)).flatten()
        rounds = range(-(-total // len(cells)))
        order = [torch.randperm(len(cells), generator=generator) for _ in rounds]
        rows.append(cells[torch.cat(order)[:total]])
    yield from torch.stack(rows).split(config.batch, 1)


def update(
    policy: ChainPolicy,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Episodes,
    config: DPPOConfig,
    gamma: float,
    generators: Sequence[torch.Generator],
) -> None:
    """Gradient steps of policy and critic on minibatches of the denoising steps of the episodes."""
    advantage, target = advantages(data, critic, gamma, config)
    tensors = (data.obs, data.chain, data.log_prob, advantage, target, data.active)
    obs, chain, old, advantage, target, active = (x.flatten(1, 2) for x in tensors)
    k, member = policy.steps, torch.arange(policy.members)[:, None]
    for part in _minibatches(active, k, config, generators):
        row, step = part // k, part % k  # [P, B]
        seen, before, after = obs[member, row], chain[member, row, step], step + 1
        log_prob = policy.log_prob(seen, before, chain[member, row, after], step)
        gain = advantage[member, row]
        loss = dppo_loss(log_prob, old[member, row, step], gain, step, k, policy.size, config)
        error = (critic(seen)[..., 0] - target[member, row]).square()
        optimizer.zero_grad()
        (loss + 0.25 * error).mean(1).sum().backward()
        ppo.clip_gradients(policy.actor, config.max_grad_norm)
        optimizer.step()


def _streams(policy: ChainPolicy, first: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + first) for seed in policy.seeds]


def _critic(env: TabletopVectorEnv, policy: ChainPolicy) -> Stack:
    """A value function that starts at 0: as long as nothing succeeds, no chunk has an advantage.

    Advantages are standardised. Those of a random critic would be as large as any, and would carry
    a policy whose successes are rare away before it finds one.
    """
    critic = ActorCritic((len(env.world.state),), policy.seeds).critic
    nn.init.zeros_(cast("PopulationLinear", critic[-1]).weight)
    return critic


def fine_tune(
    policy: ChainPolicy,
    task: str | Task,
    episodes: int,
    config: DPPOConfig = DEFAULT,
    progress: bool = True,
    on_iteration: Callable[[int, Episodes], None] | None = None,
    **env_options: Any,
) -> Run:
    """Train the policy in place by the reward of the environment (by default success alone).

    Args:
        episodes: of each member.
        on_iteration: called after each iteration with its number and its data.
        env_options: passed to the environment (shift, reward).
    """
    p, n = policy.members, config.robots
    iterations = positive_int(episodes, "episodes") // n
    if not iterations:
        raise ValueError(f"need at least {n} episodes, one for each robot, not {episodes}.")
    env = TabletopVectorEnv(task, p * n, **env_options)
    env.reset(seed=torch.cat([robot_keys(seed, n, env.device) for seed in policy.seeds]))
    gamma = env.task.gamma if config.gamma is None else config.gamma
    noise, shuffles = _streams(policy, _NOISE), _streams(policy, _SHUFFLES)
    critic = _critic(env, policy)
    actor = {"params": policy.actor.parameters(), "lr": config.learning_rate}
    value = {"params": critic.parameters(), "lr": config.critic_rate}
    optimizer = torch.optim.Adam([actor, value], fused=True)
    success, seconds, began = [], [], time.perf_counter()
    for i in tqdm(range(iterations), unit="iteration", disable=not progress, leave=False):
        data = collect(env, policy, config.length, noise, gamma)
        update(policy, critic, optimizer, data, config, gamma, shuffles)
        success.append(data.success.any(1).float().mean(1))
        seconds.append(time.perf_counter() - began)
        if on_iteration:
            on_iteration(i, data)
    played = n * np.arange(1, iterations + 1)
    return Run(policy, played, np.array(seconds), torch.stack(success, 1).numpy())
