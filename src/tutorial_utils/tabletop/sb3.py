"""The batched lab as a vectorised environment of Stable-Baselines3 (extra `robotics`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices
except ModuleNotFoundError as error:
    message = f"{error}: pip install 'duality-book[robotics]' or stable-baselines3."
    raise ModuleNotFoundError(message) from None

from .observations import Obs, has_words, tensors
from .tasks import Task
from .vector_env import TabletopVectorEnv

TOLD = ("success", "is_success", "failure", "cost")  # of the batch's info


class SB3VecEnv(VecEnv):
    """N robots for `PPO("MlpPolicy", SB3VecEnv("PickPlace", 64, reward="oracle"))`.

    It takes the place of `make_vec_env` with its N separate environments. Where an episode ends,
    `infos` hold "terminal_observation", "TimeLimit.truncated", "is_success" and "episode", so that
    neither `Monitor` nor `VecMonitor` is needed.

    Args:
        task, num_envs, options: those of `TabletopVectorEnv`. For `CnnPolicy` take obs="image" and
            size=64; obs="all" has words, for which Stable-Baselines3 knows no space.
    """

    def __init__(self, task: str | Task = "PickPlace", num_envs: int = 1, **options: Any) -> None:
        self.batch = TabletopVectorEnv(task, num_envs, **options)
        if self.batch.obs_kind == "all":
            raise ValueError('Stable-Baselines3 has no space for words: use obs="state+image".')
        if self.batch.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                'Stable-Baselines3 resets within a step: use autoreset_mode="same_step".'
            )
        space = self.batch.single_observation_space
        self.render_mode = self.batch.render_mode
        super().__init__(num_envs, space, self.batch.single_action_space)
        self.metadata["render_fps"] = self.batch.metadata["render_fps"]
        self._actions = torch.empty(0)
        self._return, self._length = np.zeros(num_envs), np.zeros(num_envs, int)

    def reset(self) -> Any:
        """Start all episodes anew; after `seed`, where single environments with these would start.

        What `set_options` gave the first robot holds for all.
        """
        seed = None if self._seeds[0] is None else self._seeds
        self._seeds = [None] * self.num_envs
        self._return[:], self._length[:] = 0, 0
        options, self._options = self._options[0], [{} for _ in range(self.num_envs)]
        return _numpy(self.batch.reset(seed=seed, options=options)[0])

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what to do."""
        self._actions = torch.as_tensor(actions)

    @torch.inference_mode()
    def step_wait(self) -> Any:
        """Act: (obs, reward, done, infos)."""
        obs, reward, terminated, truncated, info = self.batch.step(self._actions)
        rewards = reward.clone().cpu().numpy()  # PPO adds to it
        done, cut = (terminated | truncated).cpu().numpy(), truncated.cpu().numpy()
        self._return += rewards
        self._length += 1
        told = [info[name].cpu().numpy() for name in TOLD]
        infos: list[dict[str, Any]] = [
            dict(zip(TOLD, row, strict=True)) | {"TimeLimit.truncated": False}
            for row in zip(*told, strict=True)
        ]
        if done.any():
            last = _numpy(info["final_obs"])
            for i in done.nonzero()[0]:
                row = (
                    {name: x[i] for name, x in last.items()} if isinstance(last, dict) else last[i]
                )
                episode = {"r": self._return[i], "l": self._length[i]}
                infos[i] |= {"terminal_observation": row, "episode": episode}
                infos[i]["TimeLimit.truncated"] = bool(cut[i])
            self._return[done], self._length[done] = 0, 0
        return _numpy(obs), rewards, done, infos

    def close(self) -> None:
        """Nothing to close."""

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One frame per robot."""
        return self.batch.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the batch, once for each robot asked for."""
        return [getattr(self.batch, attr_name)] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole batch."""
        setattr(self.batch, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch, such as `compute_reward`: its answer for each robot asked."""
        return [getattr(self.batch, method_name)(*args, **kwargs)] * self._count(indices)

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """The episodes' statistics are here, as `Monitor` would write them; else no wrapper is."""
        return [wrapper_class.__name__ == "Monitor"] * self._count(indices)

    def _count(self, indices: VecEnvIndices) -> int:
        return len(list(self._get_indices(indices)))


def _numpy(obs: Obs) -> Any:
    """An observation in numpy."""
    assert not has_words(obs)
    if isinstance(obs, torch.Tensor):
        return obs.cpu().numpy()
    return {name: x.cpu().numpy() for name, x in tensors(obs).items()}
