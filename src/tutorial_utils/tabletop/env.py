"""One robot behind Gymnasium's usual interface, in numpy: a view on the batched environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch

from .observations import Obs
from .rendering import render
from .vector_env import TabletopVectorEnv

Seen = np.ndarray | dict[str, Any]  # what one robot observes


class TabletopEnv(gymnasium.Env[Seen, np.ndarray]):
    """One robot. The options are those of `TabletopVectorEnv`, which does all the work.

    `reset(seed=s)` starts the episode that robot 0 of a batch with the same seed starts; the same
    actions lead to the same numbers, bit for bit.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's name)

    def __init__(
        self, task: str = "PickPlace", render_mode: str | None = None, **options: Any
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', not {render_mode!r}.")
        self.batch = TabletopVectorEnv(task, 1, **options)
        self.render_mode = render_mode
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """Start an episode: (obs, info). Without a seed, the next one of the stream."""
        super().reset(seed=seed)
        if seed is None and not self.batch.started:
            seed = int(self.np_random.integers(2**31))
        obs, _ = self.batch.reset(seed=seed, options=options)
        self._running = True
        return _first(obs), {}

    def step(self, action: np.ndarray) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Act: (obs, reward, terminated, truncated, info), as Gymnasium has it."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("call reset() before step().")
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (3,):
            raise ValueError(f"action must have shape (3,), not {action.shape}: dx, dy and grip.")
        reward, terminated, truncated, info = self.batch.advance(torch.from_numpy(action)[None])
        self._running = not (terminated | truncated).item()
        info = {name: value.item() for name, value in info.items()}
        flags = bool(terminated), bool(truncated)
        return _first(self.batch.observe()), float(reward), *flags, info

    def render(self) -> np.ndarray | None:
        """An RGB frame of 256 px, or None without a render mode."""
        return render(self.batch.world, 256)[0].cpu().numpy() if self.render_mode else None


def _first(obs: Obs) -> Seen:
    """Row 0 of an observation, in numpy."""
    if isinstance(obs, torch.Tensor):
        return obs[0].cpu().numpy()
    state, image = _first(obs["state"]), _first(obs["image"])
    return {"state": state, "image": image, "instruction": obs["instruction"][0]}
