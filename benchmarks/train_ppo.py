"""PPO for a population beside Stable-Baselines3: same task, settings, process and thread."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import deque

import numpy as np
import torch
from common import Row, sgemm_peak
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from tutorial_utils.ppo import PPOConfig, train
from tutorial_utils.tabletop import TabletopEnv, TabletopVectorEnv

SEEDS, CONFIG = 5, PPOConfig()


class NativeVecEnv(VecEnv):
    """The batched lab as Stable-Baselines3 wants it: numpy, and the last observation in infos."""

    def __init__(self, num_envs: int) -> None:
        self.env = TabletopVectorEnv("PickPlace", num_envs, reward="oracle")
        super().__init__(num_envs, self.env.single_observation_space, self.env.single_action_space)
        self.start_seed = 0

    def reset(self) -> np.ndarray:
        obs, _ = self.env.reset(seed=self.start_seed, options={"stagger": True})
        return obs.numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = torch.from_numpy(actions)

    def step_wait(self):
        obs, reward, terminated, truncated, info = self.env.step(self.actions)
        done = (terminated | truncated).numpy()
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        last, success = info["final_obs"].numpy(), info["success"].numpy()
        for i in done.nonzero()[0]:
            infos[i] = {
                "terminal_observation": last[i],
                "TimeLimit.truncated": bool(truncated[i]),
                "is_success": bool(success[i]),
            }
        return obs.numpy(), reward.numpy(), done, infos

    def close(self) -> None: ...

    def get_attr(self, name, indices=None):
        return [None] * self.num_envs

    def set_attr(self, name, value, indices=None) -> None: ...

    def env_method(self, name, *args, indices=None, **kwargs):
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper, indices=None) -> list[bool]:
        return [False] * self.num_envs


class Watch(BaseCallback):
    """Wall-clock time at which 95% of the last 100 episodes succeeded."""

    def __init__(self) -> None:
        super().__init__()
        self.last: deque[bool] = deque(maxlen=100)
        self.reached: float | None = None
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        self.last.extend(i["is_success"] for i in self.locals["infos"] if "is_success" in i)
        if self.reached is None and len(self.last) == 100 and np.mean(self.last) >= 0.95:
            self.reached = time.perf_counter() - self.start
        return True


def sb3(env: VecEnv, seed: int) -> PPO:
    """Stable-Baselines3's PPO with the settings of `PPOConfig`."""
    batch = CONFIG.robots * CONFIG.rollout // CONFIG.minibatches
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: CONFIG.learning_rate * left,
        n_steps=CONFIG.rollout,
        batch_size=batch,
        n_epochs=CONFIG.epochs,
        gamma=0.98,
        gae_lambda=CONFIG.lam,
        clip_range=CONFIG.clip,
        max_grad_norm=CONFIG.max_grad_norm,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "net_arch": [CONFIG.hidden, CONFIG.hidden],
            "activation_fn": torch.nn.LeakyReLU,
            "log_std_init": -0.5,
        },
    )


def run_sb3(env: VecEnv, seed: int, steps: int) -> tuple[float, float | None]:
    """Steps per second, and seconds to 95% success."""
    env.start_seed = seed
    model, watch = sb3(env, seed), Watch()
    start = time.perf_counter()
    model.learn(steps, callback=watch)
    return steps / (time.perf_counter() - start), watch.reached


def run_ours(steps: int, seeds: int = SEEDS) -> tuple[float, float | None]:
    """Steps per second of all members, and seconds until the last of them is at 95% success."""
    start = time.perf_counter()
    run = train("PickPlace", {"oracle": "oracle"}, range(seeds), steps, progress=False)
    speed = seeds * run.steps[-1] / (time.perf_counter() - start)
    there = run.success[0] >= 0.95  # [seeds, U]
    reached = run.seconds[there.argmax(1)].max() if there.any(1).all() else None
    return speed, reached


def flops_per_step() -> float:
    """Multiply-adds of both networks, counted by hand, times 2, per environment step.

    One pass through a network costs 2 * (8 h + h h + h out). A step takes an actor pass to act,
    two critic passes for the advantages, and in each epoch three passes of both (forward, and two
    for the gradients).
    """
    h = CONFIG.hidden
    actor, critic = (2 * (8 * h + h * h + h * out) for out in (3, 1))
    return actor + 2 * critic + 3 * CONFIG.epochs * (actor + critic)


def peak_memory_mb() -> float:
    """Peak resident memory of the 5-seed run in a process of its own."""
    code = "import sys; sys.path.insert(0, 'benchmarks'); import train_ppo; train_ppo.memory_run()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory_run() -> None:
    """Train as a chapter does, then print the peak in MB."""
    run_ours(100_000)
    scale = 1 if sys.platform == "darwin" else 1024
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20))


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figures, and lines to print below the table."""
    steps = 10_240 if quick else 102_400
    native, dummy = NativeVecEnv(CONFIG.robots), None
    ours, theirs, reached = [], [], []
    run_ours(5_120), run_sb3(native, 0, 5_120)  # warm up
    for seed in range(1 if quick else SEEDS):  # in turns, so that a busy moment hits both
        ours.append(run_ours(steps))
        speed, seconds = run_sb3(native, seed, steps)
        theirs.append(speed)
        reached.append(seconds)
    dummy = DummyVecEnv([lambda: TabletopEnv("PickPlace", reward="oracle")] * CONFIG.robots)
    dummy_speed, _ = run_sb3(dummy, 0, 2_560 if quick else 10_240)
    fast, slow, peak = np.median([x[0] for x in ours]), np.median(theirs), sgemm_peak()
    what = f"PPO, {SEEDS} seeds, PickPlace"
    table = [
        Row(what, fast, "steps/s", "SB3, native VecEnv", slow, None, 4),
        Row(what, fast, "steps/s", "SB3, DummyVecEnv", dummy_speed, None, 15),
    ]
    used = fast * flops_per_step() / 1e9
    memory = peak_memory_mb()
    lines = [
        f"- matrix products of PPO: {used:.1f} GFLOP/s, {used / peak:.0%} of the sgemm peak "
        f"of one thread ({peak:.0f} GFLOP/s)",
        f"- peak resident memory of the {SEEDS}-seed run: {memory:.0f} MB "
        f"(target 700: {'met' if memory < 700 else 'missed'})",
    ]
    if not quick and all(reached) and all(x[1] for x in ours):
        own = np.median([x[1] for x in ours])
        lines.append(
            f"- time to 95% success of all {SEEDS} seeds: {own:.1f} s; SB3 on the native VecEnv, "
            f"one seed after another: {sum(reached):.1f} s ({sum(reached) / own:.1f} times as long)"
        )
    return table, lines
