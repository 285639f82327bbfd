"""Thousands of robots behind Gymnasium's vector interface, with torch tensors in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector.utils import batch_space
from torch import Tensor

from .._validate import one_of, positive_int
from .observations import OBSERVATIONS, Obs, replaced
from .rendering import render
from .rewards import potential, shaped_reward
from .sentences import CHARACTERS, MAX_LENGTH, instructions
from .streams import mix, robot_keys
from .tasks import Shift, Task, get_task
from .world import World

REWARDS = ("sparse", "oracle")
IMAGE_SIZES = (32, 64)

RewardFn = Callable[[Mapping[str, Tensor]], Tensor]


class TabletopVectorEnv(gymnasium.vector.VectorEnv[Obs, Tensor, Tensor]):
    """A batch of robots with same-step autoreset.

    Args:
        task: name, Gymnasium id or `Task`.
        num_envs: number of robots N.
        obs: "state" (float32 [N, D]), "image" (uint8 [N, size, size, 3]) or "all" (a dict of both
            and the instructions).
        reward: "sparse" (1 on success), "oracle" (potential-based, see `rewards`) or a function of
            `fields()` that returns float [N].
        size: side of the images in pixels, 32 or 64.
        distractors: discs and zones of other colours that the task does not use.
        shift: differences between training and test.
        device: where the tensors live.

    `step` returns (obs, reward [N], terminated [N], truncated [N], info). `info` holds "success",
    "failure" (bool [N]), "cost" (float [N]) and "final_obs": the observation that the action led
    to, before any reset, valid in every row.
    """

    def __init__(
        self,
        task: str | Task = "PickPlace",
        num_envs: int = 1,
        obs: str = "state",
        reward: str | RewardFn = "sparse",
        size: int = 32,
        distractors: int = 0,
        shift: Shift | None = None,
        device: str | torch.device = "cpu",
        render_mode: str | None = None,
    ) -> None:
        self.task = get_task(task)
        self.obs_kind = one_of(obs, OBSERVATIONS, "obs")
        if size not in IMAGE_SIZES:
            raise ValueError(f"size must be one of {IMAGE_SIZES} pixels, not {size!r}.")
        if not callable(reward):
            one_of(reward, REWARDS, "reward")
        self.num_envs = positive_int(num_envs, "num_envs")
        self.reward: str | RewardFn = reward
        self.size, self.device = size, torch.device(device)
        self.world = World(self.task, num_envs, device, shift, distractors)
        self.metadata = {
            "autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": 10,
        }
        self.render_mode = render_mode
        self.single_observation_space = self._space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = torch.arange(num_envs, device=self.device)
        self.started = False  # whether `reset` has been called
        self._keys = torch.zeros_like(self._everyone)  # one stream per robot
        self._number = torch.zeros_like(self._everyone)  # episodes started, per robot
        self._before = torch.zeros(num_envs, device=self.device)  # potential before the action
        self._instructions = [""] * num_envs

    def _space(self) -> spaces.Space[Any]:
        state = spaces.Box(-1.0, 1.0, (len(self.world.state),), np.float32)
        image = spaces.Box(0, 255, (self.size, self.size, 3), np.uint8)
        words = spaces.Text(MAX_LENGTH, charset=CHARACTERS)
        if self.obs_kind == "all":
            return spaces.Dict({"state": state, "image": image, "instruction": words})
        return state if self.obs_kind == "state" else image

    # ---------------------------------------------------------------- Gymnasium

    def reset(
        self, *, seed: int | Tensor | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start a new episode for every robot.

        Args:
            seed: an int (0 or more) for all robots, or an int64 tensor [N] of stream keys, one per
                robot; robots with equal keys start equal episodes. None goes on with new episodes.
            options: {"stagger": True} spreads the robots over the length of an episode, so that
                time limits do not fall on the same step; it shortens the first episodes.
        """
        if seed is None and not self.started:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if seed is not None:
            self._keys = robot_keys(seed, self.num_envs, self.device)
            self._number.zero_()
            self.started = True
        self._start(self._everyone)
        if options and options.get("stagger"):
            spread = mix(self.world.episode, 3000) & 0x7FFFFFFF
            self.world.elapsed.copy_(spread % self.task.horizon)
        return self.observe(), {}

    def step(self, actions: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Act with `actions` [N, 3]; robots whose episode ended start the next one."""
        reward, terminated, truncated, info = self.advance(actions)
        done = (terminated | truncated).nonzero().squeeze(1)
        if not len(done):
            obs = info["final_obs"] = self.observe()
            return obs, reward, terminated, truncated, info
        last = self.observe(done)
        self._start(done)
        obs = self.observe()
        info["final_obs"] = replaced(obs, done, last)
        return obs, reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One RGB frame of 256 px per robot."""
        return tuple(render(self.world, 256).cpu().numpy()) if self.render_mode else None

    # ---------------------------------------------------------------- one step without a reset

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """One step of all robots without autoreset: reward, terminated, truncated, info."""
        if not self.started:
            raise ResetNeeded("call reset() before step().")
        self.action = self._checked(actions)
        world = self.world
        world.step(self.action)
        success, failure = world.success(), world.failure()
        terminated = success | failure
        truncated = (world.elapsed >= self.task.horizon) & ~terminated
        info = {"success": success, "failure": failure, "cost": world.cost()}
        reward = success.float()
        if self.reward != "sparse":
            after = potential(world)
            oracle = shaped_reward(reward, terminated, self._before, after, self.task.gamma)
            self._before = after
            if callable(self.reward):
                known = {"sparse": reward, "oracle": oracle}
                reward = self._generated(self.reward, self.fields() | info | known)
            else:
                reward = oracle
        return reward, terminated, truncated, info

    def _checked(self, actions: object) -> Tensor:
        """The actions as a float32 tensor [N, 3] on the device.

        Raises:
            ValueError: wrong shape, or NaN or infinite entries.
        """
        actions = torch.as_tensor(actions, dtype=torch.float32, device=self.device)
        if actions.shape != (self.num_envs, 3):
            raise ValueError(
                f"actions must have shape ({self.num_envs}, 3), not {tuple(actions.shape)}: "
                "dx, dy and grip for each robot."
            )
        if not actions.isfinite().all():
            raise ValueError("actions must be finite: at least one is NaN or infinite.")
        return actions

    def _generated(self, function: RewardFn, fields: Mapping[str, Tensor]) -> Tensor:
        reward = function(fields)
        if not isinstance(reward, Tensor) or reward.shape != (self.num_envs,):
            shape = tuple(reward.shape) if isinstance(reward, Tensor) else type(reward).__name__
            raise ValueError(f"the reward must be a tensor [{self.num_envs}], not {shape}.")
        return reward.to(torch.float32)

    def _start(self, robots: Tensor) -> None:
        episode = mix(self._keys[robots], self._number[robots])
        self._number[robots] += 1
        self.world.reset(robots, episode)
        if self.obs_kind == "all":
            for robot, words in zip(robots.tolist(), instructions(self.world, robots), strict=True):
                self._instructions[robot] = words
        if self.reward != "sparse":
            self._before = potential(self.world)  # all robots: the few alone take as long

    # ---------------------------------------------------------------- what is seen

    def observe(self, robots: Tensor | None = None) -> Obs:
        """The observation of the robots with indices `robots` (all by default)."""
        if self.obs_kind == "image":
            return render(self.world, self.size, robots)
        state = self.world.state if robots is None else self.world.state[:, robots]
        state = state.T.clone(memory_format=torch.contiguous_format)  # [M, D]
        if self.obs_kind == "state":
            return state
        everyone = range(self.num_envs) if robots is None else robots.tolist()
        words = tuple(self._instructions[robot] for robot in everyone)
        image = render(self.world, self.size, robots)
        return {"state": state, "image": image, "instruction": words}

    def fields(self) -> dict[str, Tensor]:
        """The named quantities that a reward function may read, each [N] or [N, 2] or [N, 3]."""
        w, fields = self.world, {"action": self.action}
        fields["gripper"] = w.gripper.T.contiguous()  # norms of strided rows are 3 times slower
        fields["closed"] = w.closed
        fields["holding"] = w.held.amax(0) if w.num_objects else torch.zeros_like(w.closed)
        for name, things in (("object", w.objects), ("zone", w.zones)):
            count = things.shape[1]
            for i in range(count):
                fields[name if count == 1 else f"{name}_{i}"] = things[:, i].T.contiguous()
        if self.task.button:
            fields |= {"button": w.button.T.contiguous(), "pressed": w.pressed}
        if w.disc:
            fields["obstacle" if self.task.obstacle else "hazard"] = w.disc_center.T
        return fields


def reward_per_arm(rewards: Mapping[str, str | RewardFn]) -> str | RewardFn:
    """One reward for all robots of an environment, whose arms are equal blocks of its robots."""
    for each in rewards.values():
        if not callable(each):
            one_of(each, REWARDS, "reward")
    if len(rewards) == 1:
        return next(iter(rewards.values()))

    def reward(fields: Mapping[str, Tensor]) -> Tensor:
        robots, parts = len(fields["success"]) // len(rewards), []
        for i, (arm, each) in enumerate(rewards.items()):
            own = {name: x[i * robots : (i + 1) * robots] for name, x in fields.items()}
            part = each(own) if callable(each) else own[each]
            if not isinstance(part, Tensor) or part.shape != (robots,):
                shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise ValueError(f"the reward {arm!r} must be a tensor [{robots}], not {shape}.")
            parts.append(part)
        return torch.cat(parts)

    return reward
