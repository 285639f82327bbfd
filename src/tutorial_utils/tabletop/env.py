"""One robot behind Gymnasium's usual interface, in numpy: a view on the batched environment."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import torch

from .observations import Obs, has_words, tensors
from .rendering import render
from .vector_env import Info, TabletopVectorEnv

Seen = np.ndarray | dict[str, Any]  # what one robot observes


class TabletopEnv(gymnasium.Env[Seen, np.ndarray]):
    """One robot. The options are those of `TabletopVectorEnv`, which does all the work.

    Only the time limit differs: this class has none unless `max_episode_steps` says so, because
    `gymnasium.make` brings its own, at the task's horizon or at its argument `max_episode_steps`.

    `reset(seed=s)` starts the episode that robot 0 of a batch with the same seed starts; the same
    actions lead to the same numbers, bit for bit.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's name)

    def __init__(
        self,
        task: str = "PickPlace",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        steps = sys.maxsize if max_episode_steps is None else max_episode_steps
        self.batch = TabletopVectorEnv(
            task, 1, render_mode=render_mode, max_episode_steps=steps, **options
        )
        self.render_mode = render_mode
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        if (
            self.batch.obs_kind == "goal"
        ):  # clients take an environment that has it for one of goals
            self.compute_reward = self.batch.compute_reward
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, Info]:
        """Start an episode: (obs, info). Without a seed, the next one of the stream."""
        super().reset(seed=seed)
        if seed is None and not self.batch.started:
            seed = int(self.np_random.integers(2**31))
        obs, info = self.batch.reset(seed=seed, options=options)
        self._running = True
        return _first(obs), _facts(info)

    def step(self, action: np.ndarray) -> tuple[Seen, float, bool, bool, Info]:
        """Act: (obs, reward, terminated, truncated, info), as Gymnasium has it."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("call reset() before step().")
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (3,):
            raise ValueError(f"action must have shape (3,), not {action.shape}: dx, dy and grip.")
        reward, terminated, truncated, info = self.batch.advance(torch.from_numpy(action)[None])
        self._running = not (terminated | truncated).item()
        flags = bool(terminated), bool(truncated)
        return _first(self.batch.observe()), float(reward), *flags, _facts(info)

    def render(self) -> np.ndarray | None:
        """An RGB frame of 256 px, or None without a render mode."""
        return render(self.batch.world, 256)[0].cpu().numpy() if self.render_mode else None


def _facts(info: Info) -> Info:
    """Row 0 of `info`, in arrays without a dimension: what every client can stack."""
    return {name: value[0].cpu().numpy() for name, value in info.items()}


def _first(obs: Obs) -> Seen:
    """Row 0 of an observation, in numpy."""
    if isinstance(obs, torch.Tensor):
        return obs[0].cpu().numpy()
    parts: dict[str, Any] = {name: x[0].cpu().numpy() for name, x in tensors(obs).items()}
    return parts | {"instruction": obs["instruction"][0]} if has_words(obs) else parts
