"""Proximal policy optimisation (Schulman et al. 2017) for a population trained in one call.

Every tensor has a leading axis P: one member per reward function and seed. Members share nothing
but the clock: environments, exploration noise, advantage normalisation, gradient clipping and
weights are each member's own, so a member trains as it would alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._validate import positive_int
from ..models.actor_critic import ActorCritic
from ..tabletop.observations import as_tensor
from ..tabletop.rewards import RewardFn, reward_per_arm
from ..tabletop.streams import robot_keys
from ..tabletop.tasks import Task
from ..tabletop.vector_env import TabletopVectorEnv
from .history import History, Run

# Another stream than the initial weights; below 2**32, the part of a seed that torch looks at.
_NOISE = 2**27


@dataclass(frozen=True)
class PPOConfig:
    """The hyperparameters of a run; `gamma` None takes the task's discount."""

    robots: int = 128  # per member
    rollout: int = 10  # steps between updates
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 3e-3  # decays linearly to 0
    gamma: float | None = None
    lam: float = 0.95  # of generalised advantage estimation
    clip: float = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    max_grad_norm: float = 0.5
    hidden: int = 64
    normalize_advantage: bool = True
    bootstrap_truncation: bool = True  # a time limit is not the end of the world


DEFAULT = PPOConfig()


@dataclass(frozen=True)
class Teacher:
    """A policy towards whose actions a training is pulled.

    Its term in the loss is lambda times the squared distance of the mean
    action to the teacher's, in the states that the student visits: refined
    policy distillation (Jülg et al. 2025, arXiv 2503.05833).

    Args:
        ask: called before each step; returns actions [P, W, A] for the
            first W robots of each member.
        weight: lambda, or a function of the share of the training that is
            done, from 0 to 1.
    """

    ask: Callable[[TabletopVectorEnv], Tensor]
    weight: float | Callable[[float], float] = 1.0

    def weight_at(self, share: float) -> float:
        """Lambda after this share of the training."""
        return self.weight(share) if callable(self.weight) else self.weight


@dataclass
class Rollout:
    """What P members saw and did in T steps with n robots each."""

    obs: Tensor  # [P, T, n, *obs]
    next_obs: Tensor  # [P, T, n, *obs], before any reset
    action: Tensor  # [P, T, n, A]
    log_prob: Tensor  # [P, T, n]
    reward: Tensor  # [P, T, n]
    terminated: Tensor  # [P, T, n]
    truncated: Tensor  # [P, T, n]
    success: Tensor  # [P, T, n]
    taught: Tensor | None = None  # [P, T, W, A], the teacher's actions for the first W robots


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016), all [P, T, n].

    `next_value` is V of the state that the action led to. Termination
    removes it; truncation keeps it, but cuts the sum, as the next row
    belongs to another episode. So does the end of the rollout.
    """
    delta = reward + gamma * next_value * (~terminated) - value
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        running = delta[:, t] + gamma * lam * (~done[:, t]) * running
        advantage[:, t] = running
    return advantage


def ppo_loss(
    policy: ActorCritic,
    obs: Tensor,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    config: PPOConfig,
) -> Tensor:
    """The loss of each member, [P], on a minibatch [P, B]."""
    if config.normalize_advantage:
        std, mean = torch.std_mean(advantage, 1, keepdim=True)
        advantage = (advantage - mean) / (std + 1e-8)
    ratio = torch.exp(policy.log_prob(policy(obs), action) - old_log_prob)
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)  # [P, B]
    value_error = 0.5 * (policy.value(obs) - target).square()  # [P, B]
    loss = (config.value_coef * value_error - surrogate).mean(1)
    if config.entropy_coef:
        loss = loss - config.entropy_coef * policy.entropy()
    return loss


def distillation_loss(policy: ActorCritic, obs: Tensor, taught: Tensor) -> Tensor:
    """Mean squared distance, [P], of the mean actions to `taught` [P, B, A]."""
    return (policy(obs) - taught).square().sum(-1).mean(1)


def clip_gradients(network: nn.Module, max_norm: float) -> None:
    """Scale each member's gradient to a norm of at most `max_norm`."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]  # each [P, in, out]
    norm = torch.cat([g.flatten(1) for g in gradients], 1).norm(dim=1)  # [P]
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0).view(-1, 1, 1)
    for g in gradients:
        g.mul_(scale)


def _answer(teacher: Teacher, env: TabletopVectorEnv, members: int, robots: int) -> Tensor:
    action = teacher.ask(env)
    if action.dim() != 3 or action.shape[::2] != (members, 3) or not 0 < len(action[0]) <= robots:
        raise ValueError(
            f"a teacher must answer with actions [{members}, W, 3] for W of the {robots} robots of "
            f"each member, not {list(action.shape)}."
        )
    return action


@torch.inference_mode()
def collect(
    env: TabletopVectorEnv,
    policy: ActorCritic,
    obs: Tensor,
    noise: Tensor,
    teacher: Teacher | None = None,
) -> tuple[Rollout, Tensor]:
    """Act for T steps with exploration noise [P, T, n, A]; also returns the next observation."""
    p, steps, n, _ = noise.shape
    std, rows, taught = policy.log_std.exp(), [], []
    for t in range(steps):
        if teacher:
            taught.append(_answer(teacher, env, p, n))
        mean = policy(obs)  # [P, n, A]
        action = mean + std * noise[:, t]
        new_obs, reward, terminated, truncated, info = env.step(action.flatten(0, 1))
        seen = (info["final_obs"], reward, terminated, truncated, info["success"])
        next_obs, *rest = (x.view(p, n, *x.shape[1:]) for x in seen)
        rows.append((obs, next_obs, action, policy.log_prob(mean, action), *rest))
        obs = as_tensor(new_obs).view(p, n, *obs.shape[2:])
    data = Rollout(*(torch.stack(x, 1) for x in zip(*rows, strict=True)))
    if teacher:
        data.taught = torch.stack(taught, 1)
    return data, obs


def update(
    policy: ActorCritic,
    optimizer: torch.optim.Optimizer,
    data: Rollout,
    config: PPOConfig,
    gamma: float,
    generator: torch.Generator,
    weight: float = 0.0,
) -> None:
    """Several epochs of minibatch gradient steps on one rollout.

    `weight` is the teacher's lambda, where the rollout has one.
    """
    obs, reward = data.obs.flatten(1, 2), data.reward  # [P, T * n, ...]
    with torch.no_grad():
        value = policy.value(obs).view_as(reward)
        next_value = policy.value(data.next_obs.flatten(1, 2)).view_as(reward)
    done = data.terminated | data.truncated
    ended = data.terminated if config.bootstrap_truncation else done
    advantage = gae(reward, value, next_value, ended, done, gamma, config.lam)
    rest = (data.action, data.log_prob, advantage, advantage + value)
    batch = (obs, *(x.flatten(1, 2) for x in rest))
    if data.taught is not None:
        watched = data.obs[:, :, : data.taught.shape[2]]
        lesson = [x.flatten(1, 2).clone() for x in (watched, data.taught)]
    for _ in range(config.epochs):
        order = torch.randperm(obs.shape[1], generator=generator)
        for rows in order.to(obs.device).chunk(config.minibatches):
            optimizer.zero_grad()
            seen, action, old, gain, target = (x.index_select(1, rows) for x in batch)
            loss = ppo_loss(policy, seen, action, old, gain, target, config)
            if data.taught is not None:
                loss = loss + weight * distillation_loss(policy, *lesson)
            loss.sum().backward()
            clip_gradients(policy, config.max_grad_norm)
            optimizer.step()


def _members(
    env: TabletopVectorEnv, seeds: Sequence[int], config: PPOConfig
) -> tuple[Tensor, ActorCritic, list[torch.Generator]]:
    """First observations [P, n, *obs], policy and exploration noise, all of each member's own."""
    keys = torch.cat([robot_keys(seed, config.robots, env.device) for seed in seeds])
    obs = as_tensor(env.reset(seed=keys, options={"stagger": True})[0])
    obs = obs.unflatten(0, (len(seeds), -1))
    policy = ActorCritic(obs.shape[2:], seeds, hidden=config.hidden).to(env.device)
    return obs, policy, [torch.Generator().manual_seed(seed + _NOISE) for seed in seeds]


def _pull(teacher: Teacher | None, share: float) -> float:
    return teacher.weight_at(share) if teacher else 0.0


def train(
    task: str | Task,
    rewards: Mapping[str, str | RewardFn],
    seeds: Sequence[int],
    total_steps: int,
    config: PPOConfig = DEFAULT,
    progress: bool = True,
    on_update: Callable[[int, Rollout], None] | None = None,
    teacher: Teacher | None = None,
    make_env: Callable[..., TabletopVectorEnv] = TabletopVectorEnv,
    **env_options: Any,
) -> Run[ActorCritic]:
    """Train one member per reward function and seed, each for `total_steps` environment steps.

    Args:
        rewards: of each arm: "sparse", "oracle" or a function of its robots' `fields()`.
        on_update: called after each update with its number and its data.
        teacher: pulls all members towards its actions; without one this is plain PPO.
        make_env, env_options: the environment's class, and what it takes (obs, size, shift, ...).
    """
    arms, members = list(rewards), list(seeds) * len(rewards)  # the seed of each member
    p, n = len(members), config.robots
    updates = positive_int(total_steps, "total_steps") // (n * config.rollout)
    if not (p and updates):
        raise ValueError(f"need a reward, a seed and at least {n * config.rollout} total_steps.")
    env = make_env(task, p * n, reward=reward_per_arm(rewards), **env_options)
    obs, policy, streams = _members(env, members, config)
    gamma = env.task.gamma if config.gamma is None else config.gamma
    history = History(p, n, updates, env.device)
    optimizer = torch.optim.Adam(policy.parameters(), fused=True)
    shuffles = torch.Generator().manual_seed(0)  # shared, so that it depends on no member
    for i in tqdm(range(updates), unit="update", disable=not progress, leave=False):
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - i / updates)
        noise = [torch.randn(config.rollout, n, 3, generator=stream) for stream in streams]
        data, obs = collect(env, policy, obs, torch.stack(noise).to(env.device), teacher)
        update(policy, optimizer, data, config, gamma, shuffles, _pull(teacher, i / updates))
        history.add(i, data.reward, data.terminated | data.truncated, data.success)
        if on_update:
            on_update(i, data)
    return Run(arms, list(seeds), policy, *history.arrays(len(arms)))
