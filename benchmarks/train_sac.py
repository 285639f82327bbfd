"""SAC for a population beside Stable-Baselines3: same task, settings and updates, one process.

Stable-Baselines3 trains one seed after another on the same batched robots through `SB3VecEnv`. Both
sides take as many gradient steps of the same batches and widths. Our critics have a layer
normalisation more, which Stable-Baselines3's have not.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from common import Row
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecEnv

from tutorial_utils.evidence import evaluate
from tutorial_utils.learning.sac import SACConfig, train
from tutorial_utils.tabletop import get_task
from tutorial_utils.tabletop.sb3 import SB3VecEnv

TASK, SEEDS, CONFIG = "Reach", 5, SACConfig()
STEPS = 16_000  # per seed
EPISODES = 200


def run_ours(steps: int) -> tuple[float, float]:
    """Steps per second of all members together, and their mean success on new episodes."""
    start = time.perf_counter()
    run = train(TASK, {"oracle": "oracle"}, range(SEEDS), steps, CONFIG, progress=False)
    speed = SEEDS * run.steps[-1] / (time.perf_counter() - start)
    return speed, float(evaluate(run.policy, TASK, EPISODES).success.mean())


def run_sb3(env: VecEnv, seed: int, steps: int) -> tuple[float, float]:
    """The same of Stable-Baselines3's SAC, for one seed."""
    model = SAC(
        "MlpPolicy",
        env,
        learning_rate=CONFIG.learning_rate,
        buffer_size=CONFIG.capacity,
        learning_starts=CONFIG.warmup,
        batch_size=CONFIG.batch,
        tau=1 - CONFIG.average,
        gamma=get_task(TASK).gamma,
        train_freq=1,
        gradient_steps=CONFIG.updates,
        ent_coef=f"auto_{CONFIG.alpha}",
        target_entropy=CONFIG.target_entropy,
        policy_kwargs={"net_arch": [CONFIG.hidden, CONFIG.hidden]},
        seed=seed,
        device="cpu",
    )
    start = time.perf_counter()
    model.learn(steps)
    speed = model.num_timesteps / (time.perf_counter() - start)

    def act(obs: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(model.predict(np.asarray(obs[0]), deterministic=True)[0])[None]

    return speed, float(evaluate(act, TASK, EPISODES).success.mean())


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figures, and lines to print below the table."""
    seeds, steps = (1, STEPS // 5) if quick else (SEEDS, STEPS)
    native = SB3VecEnv(TASK, CONFIG.robots, reward="oracle")
    native.set_options({"stagger": True})
    run_ours(3_200)  # warm up
    ours, theirs = [], []
    for seed in range(seeds):  # in turns, so that a busy moment hits both
        theirs.append(run_sb3(native, seed, steps))
        if seed < 2:  # one run of ours has all seeds
            ours.append(run_ours(steps))
    fast, slow = (statistics.median(speed for speed, _ in side) for side in (ours, theirs))
    what, peer = f"SAC, {TASK}, {SEEDS} seeds at once", "SB3 SAC, the same batched robots"
    table = [Row(what, fast, "steps/s", peer, slow, None, 3, work=lambda: run_ours(3_200))]
    good, other = (statistics.mean(success for _, success in side) for side in (ours, theirs))
    note = f"{steps:,} steps and as many updates: ours {good:.2f}, SB3 {other:.2f}."
    return table, [f"- SAC, success on {EPISODES} new episodes of {TASK} after {note}"]
