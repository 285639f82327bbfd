"""Thousands of robots behind Gymnasium's vector interface, with torch tensors in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from .._validate import one_of, positive_int
from . import goals
from .observations import OBSERVATIONS, Obs, replaced, space
from .rendering import render
from .rewards import REWARDS, RewardFn, checked, fields, potential, shaped_reward
from .sentences import instructions
from .streams import Seeds, mix, robot_keys
from .tasks import Shift, Task, get_task
from .world import World

IMAGE_SIZES = (32, 64)
AUTORESET = ("same_step", "next_step", "disabled")

Info = dict[str, Any]


class TabletopVectorEnv(gymnasium.vector.VectorEnv[Obs, Tensor, Tensor]):
    """A batch of robots that start their next episode by themselves.

    Args:
        task: name, Gymnasium id or `Task`.
        num_envs: number of robots N.
        obs: "state" (float32 [N, D]), "image" (uint8 [N, size, size, 3]), "state+image" (a dict of
            both), "all" (with the instructions too) or "goal" (observation, achieved_goal and
            desired_goal, see `goals`; episodes then go on after success).
        reward: "sparse" (1 on success), "oracle" (success plus the progress of the step, see
            `rewards`; it suits a learner of any discount) or a function of the named quantities in
            `rewards.fields` that returns float [N].
        size: side of the images in pixels, 32 or 64; 32 is too small for the convolutions that
            Stable-Baselines3's CnnPolicy and other Atari networks begin with.
        distractors: discs and zones of other colours that the task does not use.
        shift: differences between training and test (a mapping of them, as JSON has it, will do).
        device: where the tensors live.
        max_episode_steps: when episodes are truncated, by default at the task's horizon.
        terminate_on_success: whether success ends an episode. If not, each step in which the task
            is solved is rewarded. By default it does, except where `obs` is "goal".
        autoreset_mode: "same_step", "next_step" or "disabled", as Gymnasium defines them.

    `step` returns (obs, reward [N], terminated [N], truncated [N], info). `info` holds "success",
    its other name "is_success", "failure" (bool [N]) and "cost" (float [N]). They
    describe the state that the action led to, before any reset. With "same_step" `info` also holds
    "final_obs", the observation of that state, valid in every row, and what Gymnasium adds where an
    episode ended: "_final_obs", "final_info", "_final_info".

    Everything is torch. `gymnasium.wrappers.vector.ArrayConversion(envs, env_xp=torch,
    target_xp=numpy)` is the same batch for clients that want numpy.
    """

    def __init__(
        self,
        task: str | Task = "PickPlace",
        num_envs: int = 1,
        obs: str = "state",
        reward: str | RewardFn = "sparse",
        size: int = 32,
        distractors: int = 0,
        shift: Shift | Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        terminate_on_success: bool | None = None,
        autoreset_mode: str | AutoresetMode = "same_step",
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
        shift = Shift(**shift) if isinstance(shift, Mapping) else shift
        self.world = World(self.task, num_envs, device, shift, distractors)
        self._set_clock(max_episode_steps, terminate_on_success, autoreset_mode)
        self._set_render_mode(render_mode)
        goal, width = self.obs_kind == "goal", len(self.world.state)
        self.single_observation_space = goals.space(self.world) if goal else space(obs, width, size)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = torch.arange(num_envs, device=self.device)
        self.started = False  # whether `reset` has been called
        self._keys = torch.zeros_like(self._everyone)  # one stream per robot
        self._number = torch.zeros_like(self._everyone)  # episodes started, per robot
        self._over = torch.zeros_like(self._everyone, dtype=torch.bool)  # robots to start next step
        self._before = torch.zeros(num_envs, device=self.device)  # potential before the action
        self._instructions = [""] * num_envs

    def _set_clock(
        self,
        max_episode_steps: int | None,
        terminate_on_success: bool | None,
        autoreset_mode: str | AutoresetMode,
    ) -> None:
        """What ends an episode and what starts the next one."""
        steps = self.task.horizon if max_episode_steps is None else max_episode_steps
        self.max_episode_steps = positive_int(steps, "max_episode_steps")
        ends = self.obs_kind != "goal" if terminate_on_success is None else terminate_on_success
        self.terminate_on_success = bool(ends)
        mode = getattr(autoreset_mode, "name", autoreset_mode)
        one_of(str(mode).lower(), AUTORESET, "autoreset_mode")
        self.autoreset_mode = AutoresetMode[str(mode).upper()]
        self.metadata = {"autoreset_mode": self.autoreset_mode}

    def _set_render_mode(self, mode: str | None) -> None:
        if mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', not {mode!r}.")
        self.render_mode = mode
        self.metadata |= {"render_modes": ["rgb_array"], "render_fps": 10}

    # ---------------------------------------------------------------- Gymnasium

    def reset(
        self,
        *,
        seed: Seeds | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Obs, Info]:
        """Start a new episode for every robot.

        Args:
            seed: an int (0 or more) for all robots, a list or array of one seed per robot, or an
                int64 tensor [N] of stream keys, see `robot_keys`; robots with equal keys start
                equal episodes. None goes on with new episodes.
            options: {"stagger": True} spreads the robots over the length of an episode, so that
                time limits do not fall on the same step; it shortens the first episodes.
                {"reset_mask": bool [N]} starts those robots alone, for autoreset "disabled".
        """
        if seed is None and not self.started:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        options = options or {}
        chosen = self._chosen(options.get("reset_mask"))
        if seed is not None:
            keys = robot_keys(seed, self.num_envs, self.device)
            self._keys = torch.where(chosen, keys, self._keys)
            self._number.masked_fill_(chosen, 0)
            self.started = True
        self._start(self._everyone[chosen])
        self._over = self._over & ~chosen
        if options.get("stagger"):
            spread = (mix(self.world.episode, 3000) & 0x7FFFFFFF) % self.max_episode_steps
            self.world.elapsed.copy_(torch.where(chosen, spread, self.world.elapsed))
        return self.observe(), self._facts()

    def step(self, actions: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Info]:
        """Act with `actions` [N, 3]; robots whose episode ended start the next one.

        Raises:
            ResetNeeded: with autoreset "disabled", for robots whose episode is over.
        """
        if self.autoreset_mode is AutoresetMode.DISABLED and self._over.any():
            raise ResetNeeded('reset(options={"reset_mask": done}) robots whose episode is over.')
        reward, terminated, truncated, info = self.advance(actions)
        if self.autoreset_mode is AutoresetMode.DISABLED:
            self._over = terminated | truncated
            return self.observe(), reward, terminated, truncated, info
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            return self._next_step(reward, terminated, truncated, info)
        done = terminated | truncated
        robots = done.nonzero().squeeze(1)
        if not len(robots):
            obs = info["final_obs"] = self.observe()
            return obs, reward, terminated, truncated, info
        last = self.observe(robots)
        final = info | {f"_{name}": done for name in info}
        self._start(robots)
        obs = self.observe()
        info |= {"final_obs": replaced(obs, robots, last), "_final_obs": done}
        info |= {"final_info": final, "_final_info": done}
        return obs, reward, terminated, truncated, info

    def _next_step(
        self, reward: Tensor, terminated: Tensor, truncated: Tensor, info: Info
    ) -> tuple[Obs, Tensor, Tensor, Tensor, Info]:
        """Robots whose episode ended in the step before start the next one and did not act."""
        over = self._over
        if over.any():
            self._start(over.nonzero().squeeze(1))
            reward = reward.masked_fill(over, 0.0)
            terminated, truncated = terminated & ~over, truncated & ~over
            info = {name: x.masked_fill(over, 0) for name, x in info.items()}
        self._over = terminated | truncated
        return self.observe(), reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One RGB frame of 256 px per robot."""
        return tuple(render(self.world, 256).cpu().numpy()) if self.render_mode else None

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """The sparse reward of any goals [..., G]: float32 [...]. See `goals`."""
        return goals.compute_reward(self.task, self.reward, achieved_goal, desired_goal)

    # ---------------------------------------------------------------- one step without a reset

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Info]:
        """One step of all robots without autoreset: reward, terminated, truncated, info."""
        if not self.started:
            raise ResetNeeded("call reset() before step().")
        self.action = self._checked(actions)  # kept for those who watch
        world = self.world
        world.step(self.action)
        info = self._facts()
        success, failure = info["success"], info["failure"]
        terminated = success | failure if self.terminate_on_success else failure
        truncated = (world.elapsed >= self.max_episode_steps) & ~terminated
        reward = success.float()
        if self.reward != "sparse":
            after = potential(world)
            oracle = shaped_reward(reward, self._before, after)
            self._before = after
            if callable(self.reward):
                known = fields(world, self.action) | {"sparse": reward, "oracle": oracle}
                known |= {name: info[name] for name in ("success", "failure", "cost")}
                reward = checked(self.reward(known), self.num_envs)
            else:
                reward = oracle
        return reward, terminated, truncated, info

    def _facts(self) -> Info:
        """What `info` says about the state of each robot."""
        success = self.world.success()
        facts = {"success": success, "is_success": success}
        return facts | {"failure": self.world.failure(), "cost": self.world.cost()}

    def _checked(self, actions: object) -> Tensor:
        """The actions as a float32 tensor [N, 3] on the device.

        Raises:
            ValueError: wrong shape, or NaN or infinite entries.
        """
        actions = torch.as_tensor(actions, dtype=torch.float32, device=self.device).detach()
        if actions.shape != (self.num_envs, 3):
            raise ValueError(
                f"actions must have shape ({self.num_envs}, 3), not {tuple(actions.shape)}: "
                "dx, dy and grip for each robot."
            )
        if not actions.isfinite().all():
            raise ValueError("actions must be finite: at least one is NaN or infinite.")
        return actions

    def _chosen(self, mask: object) -> Tensor:
        """Which robots to start, bool [N].

        Raises:
            ValueError: the mask is no bool [N] with at least one True, or nothing has started yet.
        """
        chosen = (
            torch.ones_like(self._over) if mask is None else torch.as_tensor(mask).to(self.device)
        )
        if chosen.dtype != torch.bool or chosen.shape != (self.num_envs,) or not chosen.any():
            raise ValueError(f"reset_mask must be bool [{self.num_envs}] with at least one True.")
        if not (self.started or chosen.all()):
            raise ValueError("reset all robots before you reset some of them with reset_mask.")
        return chosen

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
        if self.obs_kind == "goal":
            return goals.observe(self.world, robots)
        if self.obs_kind == "image":
            return render(self.world, self.size, robots)
        state = self.world.state if robots is None else self.world.state[:, robots]
        state = state.T.clone(memory_format=torch.contiguous_format)  # [M, D]
        if self.obs_kind == "state":
            return state
        image = render(self.world, self.size, robots)
        if self.obs_kind == "state+image":
            return {"state": state, "image": image}
        everyone = range(self.num_envs) if robots is None else robots.tolist()
        words = tuple(self._instructions[robot] for robot in everyone)
        return {"state": state, "image": image, "instruction": words}
