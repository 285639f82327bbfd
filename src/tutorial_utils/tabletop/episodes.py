"""Recorded episodes as tensors: every step with its successor, or with the actions that follow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sized

import minari
import torch
from torch import Tensor

from .._validate import one_of, positive_int


def ends_with_observation(episode: minari.EpisodeData, observations: Sized) -> bool:
    """Whether the observations (or a part of them) hold the one after the last step.

    Raises:
        ValueError: there are neither as many as steps nor one more.
    """
    seen, steps = len(observations), len(episode)
    lengths = {len(x) for x in (episode.actions, episode.terminations, episode.truncations)}
    if seen - steps not in (0, 1) or lengths != {steps}:
        raise ValueError(
            f"episode {episode.id} has {seen} observations for {steps} rewards and "
            f"{len(episode.actions)} actions: T actions need T + 1 (or T) observations."
        )
    return seen > steps


def transitions(dataset: Iterable[minari.EpisodeData], part: str = "state") -> dict[str, Tensor]:
    """All steps of all episodes, one after the other.

    Args:
        dataset: one of Minari, or some of its episodes.
        part: of observations that are dicts; published sets often call it "observation".

    Returns:
        obs and next_obs [N, D], action [N, A], reward [N] in float32 (images stay uint8),
        terminated and truncated, bool [N], episode, int64 [N].
    """
    rows, cut = [], 0
    for i, e in enumerate(dataset):
        obs = e.observations
        obs = obs[one_of(part, obs, "part")] if isinstance(obs, dict) else obs
        whole = ends_with_observation(e, obs)
        cut, steps = cut + (not whole), len(e) - (not whole)
        obs = torch.as_tensor(obs)
        obs = obs if obs.dtype == torch.uint8 else obs.float()
        numbers = (torch.as_tensor(x[:steps]).float() for x in (e.actions, e.rewards))
        flags = (torch.as_tensor(x[:steps]).bool() for x in (e.terminations, e.truncations))
        rows.append((obs[:-1], obs[1:], *numbers, *flags, torch.full((steps,), i)))
    if not rows:
        raise ValueError(
            "there are no episodes: check the dataset, or the condition of its filter."
        )
    if cut:
        warnings.warn(
            f"{cut} of {len(rows)} episodes lack the observation after their last step: "
            "that step is left out.",
            stacklevel=2,
        )
    names = ("obs", "next_obs", "action", "reward", "terminated", "truncated", "episode")
    return {name: torch.cat(x) for name, x in zip(names, zip(*rows, strict=True), strict=True)}


def chunks(
    dataset: Iterable[minari.EpisodeData], length: int, gamma: float = 1.0, part: str = "state"
) -> dict[str, Tensor]:
    """Every step of every episode with the `length` actions from there on.

    None crosses the end of an episode: there the last action is repeated, `steps` says how many are
    real, and the reward counts those alone.

    Returns:
        obs [N, D], chunk [N, length, A], reward [N] (discounted by gamma within the chunk),
        next_obs [N, D] (after its real actions), terminated [N] (within the chunk), steps [N].
    """
    flat = transitions(dataset, part)
    start = torch.arange(len(flat["episode"]))
    last = torch.searchsorted(flat["episode"], flat["episode"], right=True) - 1  # of its episode
    length = positive_int(length, "length")
    at = torch.minimum(start[:, None] + torch.arange(length), last[:, None])  # [N, length]
    steps = (last - start + 1).clamp_max(length)
    real = torch.arange(length) < steps[:, None]
    reward = flat["reward"][at] * real * gamma ** torch.arange(length)
    end = start + steps - 1
    return {
        "obs": flat["obs"],
        "chunk": flat["action"][at],
        "reward": reward.sum(1),
        "next_obs": flat["next_obs"][end],
        "terminated": flat["terminated"][end],
        "steps": steps,
    }
