"""Reinforcement learning of token policies by success alone.

Robots of a group start from the same state, and a chunk is good if its episode went better than the
others of its group: RLOO (Ahmadian et al. 2024, arXiv 2402.14740) and GRPO (Shao et al. 2024, arXiv
2402.03300), used on vision-language-action models by Li et al. (2025, arXiv 2509.09674) and Tan et
al. (2025, arXiv 2505.17016). PPO compares with a value function instead, and needs no groups.
Written for the fine-tuning of a VLA; the coming chapter on adaptation needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._validate import one_of, positive_int
from ..models.population import PopulationLinear
from ..models.vla import VLA
from ..tabletop.observations import as_everything
from ..tabletop.streams import robot_keys
from ..tabletop.tasks import Task
from ..tabletop.vector_env import TabletopVectorEnv
from . import ppo

# Other streams than the initial weights; below 2**32, the part of a seed that torch looks at.
_NOISE, _SHUFFLES = 2**28, 2**29
KINDS = ("grpo", "rloo", "ppo", "imitate")


@dataclass(frozen=True)
class RLConfig:
    """Settings of `fine_tune`.

    Args:
        kind: "grpo", "rloo", "ppo" (with a value function) or "imitate" (copy what succeeded).
        robots: they play one episode each per iteration, in groups of `group`.
        dynamic: leave out groups that all fail or all succeed.
        shared: the robots of a group start from the same state (never for "ppo").
        temperature: of the sampled tokens, and of their log-probabilities.
        clip, clip_high: the ratio of a token may fall by `clip` and rise by `clip_high`.
        batch: decisions in a minibatch.
        gamma, lam: of PPO's generalised advantage estimates, per decision. Whole episodes are
            compared within groups without a discount, so PPO has none either by default.
    """

    kind: str = "grpo"
    robots: int = 128
    group: int = 8
    dynamic: bool = True
    shared: bool = True
    temperature: float = 1.0
    clip: float = 0.2
    clip_high: float = 0.28
    learning_rate: float = 1e-3  # decays linearly to 0
    critic_rate: float = 1e-3
    epochs: int = 1
    batch: int = 64
    max_grad_norm: float = 1.0
    gamma: float = 1.0
    lam: float = 0.95

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, "kind")
        if positive_int(self.robots, "robots") % positive_int(self.group, "group", 2):
            raise ValueError(f"robots ({self.robots}) must be a multiple of group ({self.group}).")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature!r}.")

    @property
    def same_start(self) -> int:
        """How many robots share a start."""
        return self.group if self.shared and self.kind != "ppo" else 1


DEFAULT = RLConfig()


@dataclass
class Episodes:
    """N episodes of one policy, T decisions each at most."""

    image: Tensor  # uint8 [N, T, S, S, 3], what each decision saw, 0 after the end
    words: Tensor  # [N, L]
    tokens: Tensor  # [N, T, 3 H]
    log_prob: Tensor  # [N, T, 3 H], when they were drawn
    active: Tensor  # bool [N, T], false after the end of the episode
    success: Tensor  # bool [N], the only reward
    steps: int  # of the environment, until the ends of the episodes


@dataclass
class Run:
    """The course of a training, a number per iteration."""

    success: list[float] = field(default_factory=list)  # of the exploring policy
    kept: list[float] = field(default_factory=list)  # share of the groups with both outcomes
    updates: list[int] = field(default_factory=list)  # gradient steps so far
    steps: list[int] = field(default_factory=list)  # environment steps so far
    seconds: list[float] = field(default_factory=list)

    def add(self, success: float, kept: float, updates: int, steps: int, seconds: float) -> None:
        """Append an iteration; its `updates` and `steps` are added to those before."""
        self.success.append(success)
        self.kept.append(kept)
        self.updates.append(updates + (self.updates[-1] if self.updates else 0))
        self.steps.append(steps + (self.steps[-1] if self.steps else 0))
        self.seconds.append(seconds)


@torch.no_grad()
def collect(
    env: TabletopVectorEnv, policy: VLA, noise: torch.Generator, temperature: float = 1.0
) -> Episodes:
    """Play a new episode with every robot of `env`, which observes "all"."""
    n, device = env.num_envs, env.device
    obs, rows = as_everything(env.reset()[0]), []
    steps = torch.zeros((), dtype=torch.int64, device=device)
    image = obs["image"]  # of the robots that need a decision
    words = policy.vocabulary.encode(obs["instruction"]).to(device)
    running = torch.ones(n, dtype=torch.bool, device=device)
    success = torch.zeros_like(running)
    for start in range(0, env.task.horizon, policy.length):
        uniform = torch.rand(n, 3 * policy.length, generator=noise).to(device)
        tokens, log_prob = torch.zeros_like(uniform, dtype=torch.long), torch.zeros_like(uniform)
        live = running.nonzero()[:, 0]  # only these need a decision
        if not len(live):
            break
        context = policy.context(image[None], words[live][None])
        drawn = policy.decoder.draw(context, uniform[live][None], temperature)
        tokens[live], log_prob[live] = drawn[0], policy.log_prob(context, drawn, temperature)[0]
        frames = image.new_zeros(n, *image.shape[1:])
        frames[live] = image
        rows.append((frames, tokens, log_prob, running))
        for action in policy.actions(tokens).unbind(1)[: env.task.horizon - start]:
            _, terminated, truncated, info = env.advance(action)
            steps += running.sum()
            success = success | running & info["success"]
            running = running & ~(terminated | truncated)
        image = as_everything(env.observe(running.nonzero()[:, 0]))["image"]
    image, tokens, log_prob, active = (torch.stack(x, 1) for x in zip(*rows, strict=True))
    return Episodes(image, words, tokens, log_prob, active, success, int(steps))


def group_advantages(reward: Tensor, group: int, kind: str = "grpo") -> Tensor:
    """Advantages [N] of rewards [N], compared within `group` in a row.

    RLOO subtracts the mean of the *others*, which is G / (G - 1) (R - mean);
    GRPO divides R - mean by the standard deviation. A uniform group gets 0.
    """
    r = reward.view(-1, group)
    deviation = r - r.mean(1, keepdim=True)
    if kind == "rloo":
        return (group / (group - 1) * deviation).flatten()
    return (deviation / (r.std(1, keepdim=True, correction=0) + 1e-6)).flatten()


def mixed_groups(success: Tensor, group: int) -> Tensor:
    """Whether the group of each episode [N] has both failures and successes, bool [N]."""
    share = success.view(-1, group).float().mean(1)
    return ((share > 0) & (share < 1)).repeat_interleave(group)


def token_loss(
    log_prob: Tensor, old: Tensor, advantage: Tensor, config: RLConfig = DEFAULT
) -> Tensor:
    """The clipped surrogate of the tokens of a decision, negated, [B].

    Args:
        log_prob, old: of each token, now and when it was drawn, [B, 3 H].
        advantage: of the decision, [B].
    """
    ratio = torch.exp(log_prob - old)
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip_high)
    advantage = advantage[:, None]
    return -torch.minimum(ratio * advantage, clipped * advantage).mean(1)


def _values(policy: VLA, critic: nn.Module, data: Episodes) -> Tensor:
    """V of what each decision saw, [N, T]; 0 after the end of the episode."""
    n, t = data.active.nonzero().unbind(1)
    value = torch.zeros_like(data.active, dtype=torch.float)
    value[n, t] = critic(policy.context(data.image[n, t][None], data.words[n][None]))[0, :, 0]
    return value


@torch.no_grad()
def _judged(
    policy: VLA, critic: nn.Module, data: Episodes, config: RLConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Advantage and target of the value [N, T] of each decision, and which to learn from."""
    if config.kind != "ppo":
        kept = data.active
        advantage = group_advantages(data.success.float(), config.group, config.kind)
        if config.kind == "imitate":
            kept = kept & data.success[:, None]
        elif config.dynamic:
            kept = kept & mixed_groups(data.success, config.group)[:, None]
        advantage = advantage[:, None].expand_as(kept)
        return advantage, torch.zeros_like(advantage), kept
    value = _values(policy, critic, data)
    last = data.active.clone()
    last[:, :-1] &= ~data.active[:, 1:]
    reward = (last & data.success[:, None]).float()
    following = torch.cat((value[:, 1:], torch.zeros_like(value[:, :1])), 1)
    gained, now, later, ends = (x.T[None] for x in (reward, value, following, last))  # [1, T, N]
    # the time limit counts as a failure
    raw = ppo.gae(gained, now, later, ends, ends, config.gamma, config.lam)[0].T
    std, mean = torch.std_mean(raw[data.active])
    return (raw - mean) / (std + 1e-8), raw + value, data.active


def update(
    policy: VLA,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Episodes,
    config: RLConfig,
    shuffles: torch.Generator,
) -> int:
    """Gradient steps on minibatches of the decisions to learn from; returns how many."""
    advantage, target, kept = _judged(policy, critic, data, config)
    rows, count = kept.nonzero().cpu(), 0
    trained = optimizer.param_groups[0]["params"]  # a frozen part may hold an old gradient
    for _ in range(config.epochs):
        order = rows[torch.randperm(len(rows), generator=shuffles)].to(kept.device)
        for part in order.split(config.batch) if len(order) else ():
            n, t = part.unbind(1)
            context = policy.context(data.image[n, t][None], data.words[n][None])
            log_prob = policy.log_prob(context, data.tokens[n, t][None], config.temperature)[0]
            if config.kind == "imitate":
                loss = -log_prob.mean(1)
            else:
                loss = token_loss(log_prob, data.log_prob[n, t], advantage[n, t], config)
            if config.kind == "ppo":
                error = critic(context.detach())[0, :, 0] - target[n, t]
                loss = loss + 0.5 * error.square()
            optimizer.zero_grad()
            loss.mean().backward()
            nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            optimizer.step()
            count += 1
    return count


def _optimizer(policy: VLA, critic: nn.Module, config: RLConfig) -> torch.optim.Optimizer:
    """Adam with one rate for the parts of the policy that train and one for the critic."""
    weights = [x for x in policy.parameters() if x.requires_grad]
    groups = [(weights, config.learning_rate), (critic.parameters(), config.critic_rate)]
    return torch.optim.Adam([{"params": w, "lr": rate} for w, rate in groups], fused=True)


def fine_tune(
    policy: VLA,
    task: str | Task,
    iterations: int,
    config: RLConfig = DEFAULT,
    progress: bool = True,
    seed: int | None = None,
    on_episodes: Callable[[int, Episodes], None] | None = None,
    **env_options: Any,
) -> Run:
    """Train a policy of one member in place.

    Args:
        seed: of starts and noise; by default that of the policy.
        on_episodes: called with the number of the iteration and its data before each update.
        env_options: passed to the environment (shift, distractors, device).
    """
    if policy.members != 1:
        raise ValueError(f"fine_tune takes one member, not {policy.members}: use select(member).")
    seed = policy.seeds[0] if seed is None else seed
    run, began = Run(), time.perf_counter()
    env = TabletopVectorEnv(task, config.robots, obs="all", size=policy.size, **env_options)
    starts = robot_keys(seed, config.robots // config.same_start, env.device)
    env.reset(seed=starts.repeat_interleave(config.same_start))
    noise, shuffles = (torch.Generator().manual_seed(seed + x) for x in (_NOISE, _SHUFFLES))
    critic = PopulationLinear(policy.hidden, 1, [shuffles], 0.0).to(env.device)  # starts at 0
    optimizer = _optimizer(policy, critic, config)
    for i in tqdm(range(iterations), unit="iteration", disable=not progress, leave=False):
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - i / iterations)
        data = collect(env, policy, noise, config.temperature)
        share = data.success.float().mean().item()
        if on_episodes:
            on_episodes(i, data)
        count = update(policy, critic, optimizer, data, config, shuffles)
        kept = mixed_groups(data.success, config.group).float().mean().item()
        run.add(share, kept, count, data.steps, time.perf_counter() - began)
    return run
