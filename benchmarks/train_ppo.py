"""PPO for a population beside Stable-Baselines3: same task and settings, one process, one thread.

Stable-Baselines3 trains one seed after another, on the same batched robots through `SB3VecEnv`
(nearly all its time goes to PPO) and on its own `DummyVecEnv` of single environments (the usual
way).
Both sides take the same rollouts, epochs, minibatches, learning rate, discount, clipping and
networks.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable

import torch
from common import Row, processor, sgemm_peak
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from tutorial_utils.learning.ppo import PPOConfig, Rollout, train
from tutorial_utils.tabletop import TabletopEnv, TabletopVectorEnv, get_task
from tutorial_utils.tabletop.sb3 import SB3VecEnv

TASK, SEEDS, CONFIG = "PickPlace", 5, PPOConfig()
STEPS = 102_400  # per seed
MEMORY_MB = 700  # target


class Stopwatch:
    """Notes when 95% of a member's last 100 finished episodes succeeded, for each of P members."""

    def __init__(self, members: int = 1) -> None:
        self.start = time.perf_counter()
        self.last = [deque(maxlen=100) for _ in range(members)]
        self.reached: list[float | None] = [None] * members

    def add(self, member: int, successes: Iterable[bool]) -> None:
        """Count finished episodes of a member."""
        last = self.last[member]
        last.extend(successes)
        if self.reached[member] is None and len(last) == 100 and sum(last) >= 95:
            self.reached[member] = time.perf_counter() - self.start

    def on_update(self, _: int, data: Rollout) -> None:
        """For `train`."""
        for member, ends in enumerate(data.terminated | data.truncated):
            self.add(member, data.success[member][ends].tolist())

    @property
    def seconds(self) -> float | None:
        """When the slowest member was there, None if one never was."""
        return None if None in self.reached else max(self.reached)


class OnStep(BaseCallback):
    """Hands the finished episodes of Stable-Baselines3 to a stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch

    def _on_step(self) -> bool:
        ends = self.locals["dones"].nonzero()[0]
        self.watch.add(0, [self.locals["infos"][i].get("is_success", False) for i in ends])
        return True


def run_ours(steps: int) -> tuple[float, float | None]:
    """Steps per second of all members together, and seconds until the last one is at 95%."""
    watch = Stopwatch(SEEDS)
    run = train(
        TASK,
        {"oracle": "oracle"},
        range(SEEDS),
        steps,
        CONFIG,
        progress=False,
        on_update=watch.on_update,
    )
    return SEEDS * run.steps[-1] / (time.perf_counter() - watch.start), watch.seconds


def run_sb3(env: VecEnv, seed: int, steps: int) -> tuple[float, float | None]:
    """The same of Stable-Baselines3's PPO with the settings of `PPOConfig`, for one seed."""
    watch = Stopwatch()
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: CONFIG.learning_rate * left,
        n_steps=CONFIG.rollout,
        batch_size=CONFIG.robots * CONFIG.rollout // CONFIG.minibatches,
        n_epochs=CONFIG.epochs,
        gamma=get_task(TASK).gamma,
        gae_lambda=CONFIG.lam,
        clip_range=CONFIG.clip,
        ent_coef=CONFIG.entropy_coef,
        vf_coef=CONFIG.value_coef / 2,  # its value loss lacks the factor 1/2
        max_grad_norm=CONFIG.max_grad_norm,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "net_arch": [CONFIG.hidden, CONFIG.hidden],
            "activation_fn": torch.nn.LeakyReLU,
            "log_std_init": -0.5,
            "optimizer_kwargs": {"eps": 1e-8},
        },
    )
    model.learn(steps, callback=OnStep(watch))
    return model.num_timesteps / (time.perf_counter() - watch.start), watch.seconds


def flops_per_step() -> float:
    """Floating-point operations of the matrix products, per environment step, counted by hand.

    One row through a network with d inputs and widths h, h, out costs 2 * (d h + h h + h out). A
    step takes the actor to act, the critic twice for the advantages (of obs and next_obs), and in
    each epoch both networks forward and twice that backward.
    """
    d, h = TabletopVectorEnv(TASK).single_observation_space.shape[0], CONFIG.hidden
    actor, critic = (2 * (d * h + h * h + h * out) for out in (3, 1))
    return actor + 2 * critic + 3 * CONFIG.epochs * (actor + critic)


def peak_memory_mb() -> float:
    """Peak resident memory of a run of 5 seeds as a chapter starts it, in a process of its own.

    Linux hands the peak of the parent on in `ru_maxrss`, but not in `VmHWM`.
    """
    code = (
        "import resource; from pathlib import Path; from tutorial_utils.learning.ppo import train\n"
        f"train({TASK!r}, {{'oracle': 'oracle'}}, range({SEEDS}), {STEPS}, progress=False)\n"
        "status, peak = Path('/proc/self/status'), resource.getrusage(0).ru_maxrss\n"
        "lines = status.read_text().splitlines() if status.exists() else []\n"
        "print(next((s.split()[1] for s in lines if s.startswith('VmHWM')), peak))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return int(done.stdout) * unit / 1e6


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figures, and lines to print below the table."""
    seeds, steps = (1, STEPS // 10) if quick else (SEEDS, STEPS)
    native = SB3VecEnv(TASK, CONFIG.robots, reward="oracle")
    native.set_options({"stagger": True})
    limit = get_task(TASK).horizon
    single = DummyVecEnv(
        [lambda: TabletopEnv(TASK, max_episode_steps=limit, reward="oracle")] * CONFIG.robots
    )
    for _ in (run_ours(5_120), run_sb3(native, 0, 5_120), run_sb3(single, 0, 1_280)):
        pass  # warm up
    ours, batched, one_by_one = [], [], []
    for seed in range(seeds):  # in turns, so that a busy moment hits all
        ours.append(run_ours(steps))
        batched.append(run_sb3(native, seed, steps))
        one_by_one.append(run_sb3(single, seed, steps // 20))
    fast, slow, slowest = (
        statistics.median(speed for speed, _ in side) for side in (ours, batched, one_by_one)
    )
    what = f"PPO, {TASK}, {SEEDS} seeds at once"
    table = [
        Row(what, fast, "steps/s", peer, speed, None, least, work=lambda: run_ours(5_120))
        for peer, speed, least in (
            ("SB3 PPO, the same batched robots", slow, 4),
            ("SB3 PPO, DummyVecEnv", slowest, 15),
        )
    ]
    table.append(
        Row(f"SB3 PPO, {TASK}, SB3VecEnv", slow, "steps/s", "DummyVecEnv", slowest, None, 4)
    )
    used, peak, memory = fast * flops_per_step() / 1e9, sgemm_peak(), peak_memory_mb()
    notes = [
        f"- Matrix products of our PPO, environment included in the time: {used:.1f} GFLOP/s, "
        f"{used / peak:.0%} of the sgemm peak of one thread ({peak:.0f} GFLOP/s, {processor()}).",
        f"- Peak resident memory of our {SEEDS}-seed run: {memory:.0f} MB "
        f"(target: under {MEMORY_MB} MB, {'met' if memory < MEMORY_MB else 'missed'}).",
    ]
    return table, notes + ([] if quick else [time_to_success(ours, batched)])


def time_to_success(
    ours: list[tuple[float, float | None]], batched: list[tuple[float, float | None]]
) -> str:
    """Wall-clock time until 95% of the last 100 training episodes of every seed succeeded."""
    own, others = [x for _, x in ours if x is not None], [x for _, x in batched if x is not None]
    text = f"- Seconds until every one of {SEEDS} seeds succeeds in 95% of 100 training episodes: "
    text += f"ours {statistics.median(own):.1f}" if len(own) == len(ours) else "ours not all there"
    if len(others) < len(batched):
        return f"{text}; SB3 on the same robots: {len(others)} of {SEEDS} seeds got there."
    total = f"; SB3 on the same robots, one seed after another, {sum(others):.1f}"
    if len(own) < len(ours):
        return f"{text}{total}."
    return f"{text}{total} ({sum(others) / statistics.median(own):.1f} times as long)."
