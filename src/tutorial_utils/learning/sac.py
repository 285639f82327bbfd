"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) for a population trained in one call.

Every tensor has a leading axis P: one member per reward function and seed, with a replay of its
own. The critics are normalised by layer (Ball et al. 2023, arXiv 2302.02948), which keeps them from
overestimating actions that nobody tried. Exploration with a model's proposals, and the coming
chapter on policy-agnostic fine-tuning, learn with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._validate import positive_int
from ..models.actor_critic import SquashedActor
from ..tabletop.observations import as_tensor
from ..tabletop.rewards import RewardFn, reward_per_arm
from ..tabletop.streams import robot_keys
from ..tabletop.tasks import Task
from ..tabletop.vector_env import TabletopVectorEnv
from .history import History, Run
from .offline import TwinCritic

_NOISE, _ROWS = 2**27, 2**26  # other streams than the initial weights

# Observation of the environment -> what the policy sees, [N, D].
Features = Callable[[Any], Tensor]
# Environment, what the policy sees [P, n, D], its actions [P, n, A], and the share of the training
# that is done -> the actions that the robots carry out and that are stored, or a pair: those that
# they carry out, and those that are stored (of a policy that corrects another controller).
Guide = Callable[[TabletopVectorEnv, Tensor, Tensor, float], Tensor | tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SACConfig:
    """The hyperparameters of a run; `gamma` None takes the task's discount."""

    robots: int = 16  # per member
    updates: int = 4  # gradient steps after each step of the robots
    batch: int = 128
    capacity: int = 200_000  # transitions in the replay of a member; the oldest are overwritten
    warmup: int = 2_000  # environment steps of a member with uniform actions, without training
    learning_rate: float = 1e-3
    gamma: float | None = None
    average: float = 0.995  # of the target critics
    alpha: float = 0.05  # temperature at the start; its logarithm is learnt
    target_entropy: float = -3.0  # minus the number of actions
    hidden: int = 64


DEFAULT = SACConfig()


class Replay:
    """The last transitions of every member: obs, action, reward, next obs, whether it ended."""

    def __init__(self, members: int, capacity: int, obs: int, actions: int, device: Any) -> None:
        widths = (obs, actions, 1, obs, 1)
        self._rows = torch.zeros(members, capacity, sum(widths), device=device)
        self._widths, self._next, self.size = widths, 0, 0

    def add(self, *parts: Tensor) -> None:
        """Store n transitions of each member; parts [P, n, width] in the order of the class."""
        rows = torch.cat(parts, -1)
        capacity = self._rows.shape[1]
        where = (self._next + torch.arange(rows.shape[1], device=rows.device)) % capacity
        self._rows.index_copy_(1, where, rows)
        self._next = (self._next + rows.shape[1]) % capacity
        self.size = min(self.size + rows.shape[1], capacity)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Rows of each member: obs [P, B, D], action, reward [P, B], next obs, ended [P, B]."""
        row = torch.randint(self.size, (batch,), generator=generator).to(self._rows.device)
        obs, action, reward, after, ended = self._rows[:, row].split(self._widths, -1)
        return obs, action, reward[..., 0], after, ended[..., 0]


class Learner:
    """Actor, twin critics and temperature of each member, and one gradient step of them all."""

    def __init__(
        self, obs: int, seeds: Sequence[int], config: SACConfig, gamma: float, device: Any
    ) -> None:
        self.config, self.gamma = config, gamma
        self.actor = SquashedActor(obs, seeds, hidden=config.hidden).to(device)
        self.critic = TwinCritic(obs, 3, seeds, config.hidden, config.average, layer_norm=True).to(
            device
        )
        start = torch.full((len(seeds), 1), math.log(config.alpha), device=device)
        self.log_alpha = nn.Parameter(start)  # [P, 1]
        self._optimizers = [
            torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
            for parameters in (
                self.critic.online.parameters(),
                self.actor.parameters(),
                [self.log_alpha],
            )
        ]

    def target(self, reward: Tensor, after: Tensor, ended: Tensor, noise: Tensor) -> Tensor:
        """r + gamma (1 - ended) (min Q(s', a') - alpha log pi(a' | s')), [P, B]."""
        with torch.no_grad():
            action, log_prob = self.actor.sample(after, noise)
            value = self.critic.averaged(after, action).amin(0)
            soft: Tensor = value - self.log_alpha.exp() * log_prob
            return reward + self.gamma * (1 - ended) * soft

    def step(self, batch: tuple[Tensor, ...], noise: Tensor) -> None:
        """One step of critics, actor and temperature; noise [2, P, B, A]."""
        obs, action, reward, after, ended = batch
        critics, actor, temperature = self._optimizers
        target = self.target(reward, after, ended, noise[0])
        self._descend(critics, self.critic.loss(obs, action, target))
        proposed, log_prob = self.actor.sample(obs, noise[1])
        self.critic.online.requires_grad_(False)
        value = self.critic(obs, proposed).amin(0)
        self._descend(actor, (self.log_alpha.detach().exp() * log_prob - value).mean(1))
        self.critic.online.requires_grad_(True)
        surprise = log_prob.detach() + self.config.target_entropy
        self._descend(temperature, -(self.log_alpha.exp() * surprise).mean(1))
        self.critic.follow()

    @staticmethod
    def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.sum().backward()  # members share no weight, so the sum trains each by its own loss
        optimizer.step()


class _Robots:
    """The robots of all members and what they see, step by step."""

    def __init__(self, env: TabletopVectorEnv, seeds: Sequence[int], features: Features) -> None:
        self.env, self.features, self.members = env, features, len(seeds)
        robots = env.num_envs // len(seeds)
        keys = torch.cat([robot_keys(seed, robots, env.device) for seed in seeds])
        first, _ = env.reset(seed=keys, options={"stagger": True})
        self.obs = self._each(features(first))  # [P, n, D]

    def _each(self, x: Tensor) -> Tensor:
        return x.view(self.members, -1, *x.shape[1:])

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Next obs before any reset, reward, terminated, done, success, all [P, n, ...]."""
        new, reward, terminated, truncated, info = self.env.step(action.flatten(0, 1))
        done, seen = terminated | truncated, self.features(new)
        after = self.features(info["final_obs"]) if done.any() else seen
        self.obs = self._each(seen)
        rest = (after, reward, terminated, done, info["success"])
        a, b, c, d, e = (self._each(x) for x in rest)
        return a, b, c, d, e


def train(
    task: str | Task,
    rewards: Mapping[str, str | RewardFn],
    seeds: Sequence[int],
    total_steps: int,
    config: SACConfig = DEFAULT,
    progress: bool = True,
    features: Features = as_tensor,
    guide: Guide | None = None,
    on_start: Callable[[Learner], None] | None = None,
    on_update: Callable[[int, Learner, Replay], None] | None = None,
    rounds: int = 20,
    **env_options: Any,
) -> Run[SquashedActor]:
    """Train one member per reward function and seed, each for `total_steps` environment steps.

    Args:
        rewards: of each arm: "sparse", "oracle" or a function of its robots' `fields()`.
        features: what the policy sees of an observation.
        guide: changes the actions before the robots carry them out; without one this is plain SAC.
        on_start: called before the first step, for example to change the initial weights.
        on_update: called after each of `rounds` parts, with its number, learner and replay.
        env_options: passed to the environment (obs, size, shift, distractors, device).
    """
    members, n = list(seeds) * len(rewards), config.robots  # the seed of each member
    steps = positive_int(total_steps, "total_steps") // (n * positive_int(rounds, "rounds"))
    if not (members and steps):
        raise ValueError(f"need a reward, a seed and at least {n * rounds} total_steps.")
    env = TabletopVectorEnv(task, len(members) * n, reward=reward_per_arm(rewards), **env_options)
    robots = _Robots(env, members, features)
    learner, replay = _student(robots, members, config, total_steps, on_start)
    history = History(len(members), n, rounds, env.device)
    draws = _draws(members, config, env.device)
    for i in tqdm(range(rounds), unit="round", disable=not progress, leave=False):
        shares = ((i * steps + t) / (rounds * steps) for t in range(steps))
        rows = [_advance(robots, learner, replay, draws, guide, share) for share in shares]
        history.add(i, *(torch.stack(x, 1) for x in zip(*rows, strict=True)))
        if on_update:
            on_update(i, learner, replay)
    return Run(list(rewards), list(seeds), learner.actor, *history.arrays(len(rewards)))


def _student(
    robots: _Robots,
    members: Sequence[int],
    config: SACConfig,
    total_steps: int,
    on_start: Callable[[Learner], None] | None,
) -> tuple[Learner, Replay]:
    """What learns, and what it remembers."""
    env, width = robots.env, robots.obs.shape[-1]
    gamma = env.task.gamma if config.gamma is None else config.gamma
    capacity = min(config.capacity, total_steps)
    learner = Learner(width, members, config, gamma, env.device)
    if on_start:
        on_start(learner)
    return learner, Replay(len(members), capacity, width, 3, env.device)


def _draws(
    seeds: Sequence[int], config: SACConfig, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """Of each step: uniform numbers and normal noise to act [2, P, n, A], noise to learn, rows."""
    streams = [torch.Generator().manual_seed(seed + _NOISE) for seed in seeds]
    rows = torch.Generator().manual_seed(_ROWS)  # shared, so that it depends on no member
    act, learn = (config.robots, 3), (config.updates, 2, config.batch, 3)
    while True:
        uniform = torch.stack([torch.rand(act, generator=g) for g in streams]) * 2 - 1
        normal = torch.stack([torch.randn(act, generator=g) for g in streams])
        noise = torch.stack([torch.randn(learn, generator=g) for g in streams], 2)
        yield torch.stack((uniform, normal)).to(device), noise.to(device), rows


def _advance(
    robots: _Robots,
    learner: Learner,
    replay: Replay,
    draws: Iterator[tuple[Tensor, Tensor, torch.Generator]],
    guide: Guide | None,
    share: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of all robots and the updates after it: reward, done and success [P, n]."""
    config, obs = learner.config, robots.obs
    (uniform, normal), noise, rows = next(draws)
    warm = replay.size < config.warmup
    with torch.no_grad():
        action = uniform if warm else learner.actor.sample(obs, normal)[0]
        if guide:
            action = guide(robots.env, obs, action, share)
    carried, stored = action if isinstance(action, tuple) else (action, action)
    after, reward, terminated, done, success = robots.step(carried)
    replay.add(obs, stored, reward[..., None], after, terminated[..., None].float())
    if not warm:
        for k in range(config.updates):
            learner.step(replay.draw(config.batch, rows), noise[k])
    return reward, done, success
