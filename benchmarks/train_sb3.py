"""Stable-Baselines3's own algorithms on the lab, learning and keeping what they learnt.

    python benchmarks/train_sb3.py PPO PickPlace --ends       three seeds; success ends the episode
    python benchmarks/train_sb3.py SAC PickPlace              episodes go on after success
    python benchmarks/train_sb3.py HER PickPlace --seeds 1    the sparse reward alone

Each line is one training: the success on 200 held-out episodes after each tenth of it, of the mean
action, in the last step of the episode, so that a robot that moves on from the goal does not count.
Stable-Baselines3 rounds each tenth up to whole rollouts.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from stable_baselines3 import PPO, SAC, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm

from tutorial_utils.tabletop import TASKS
from tutorial_utils.tabletop.sb3 import SB3VecEnv

EPISODES, EVALUATION_SEED = 200, 10_000
SMALL = {"net_arch": [128, 128]}
# The discount of PPO and SAC is Stable-Baselines3's own, 0.99.
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], int, dict[str, Any], dict[str, Any]]] = {
    "PPO": (
        PPO,
        64,
        {"reward": "oracle"},
        {"n_steps": 64, "batch_size": 512, "learning_rate": 1e-3},
    ),
    "SAC": (
        SAC,
        16,
        {"reward": "oracle"},
        {
            "gradient_steps": 4,
            "learning_rate": 1e-3,
            "ent_coef": "auto_0.05",  # the default starts at 1, more than this reward can pay
            "policy_kwargs": SMALL,
        },
    ),
    "HER": (
        SAC,
        128,
        {"obs": "goal"},
        {
            "replay_buffer_class": HerReplayBuffer,
            "gradient_steps": 16,
            "learning_rate": 1e-3,
            "learning_starts": 50_000,
            "gamma": 0.95,
            "ent_coef": 0.1,
            "policy_kwargs": SMALL,
        },
    ),
}
STEPS = {
    ("PPO", "Reach"): 100_000,
    ("PPO", "PickPlace"): 400_000,
    ("SAC", "Reach"): 20_000,
    ("SAC", "PickPlace"): 80_000,
}


def success(model: BaseAlgorithm, task: str, options: dict[str, Any]) -> float:
    """The share of held-out episodes whose last step is a success."""
    envs = SB3VecEnv(task, EPISODES, **options)
    envs.seed(EVALUATION_SEED)
    obs, last, running = envs.reset(), np.zeros(EPISODES, bool), np.ones(EPISODES, bool)
    while running.any():
        action, _ = model.predict(obs, deterministic=True)
        obs, _, done, infos = envs.step(action)
        last = np.where(running, [info["is_success"] for info in infos], last)
        running &= ~done
    return float(last.mean())


def train(name: str, task: str, seed: int, ends: bool, steps: int) -> None:
    """Train once and print the success after each tenth."""
    algorithm, robots, options, arguments = ALGORITHMS[name]
    options = {**options, "terminate_on_success": ends}
    policy = "MultiInputPolicy" if "obs" in options else "MlpPolicy"
    model = algorithm(policy, SB3VecEnv(task, robots, **options), seed=seed, **arguments)
    start, rates = time.perf_counter(), []
    for tenth in range(10):
        model.learn(steps // 10, reset_num_timesteps=tenth == 0)
        rates.append(f"{success(model, task, options):.2f}")
    form = "success ends the episode" if ends else "episodes go on"
    took = f"{model.num_timesteps:,} steps in {time.perf_counter() - start:.0f} s"
    print(f"{name} {task}, {form}, seed {seed}: {' '.join(rates)} ({took})", flush=True)


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--ends", action="store_true", help="success ends the episode")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of the whole training")
    options = parser.parse_args()
    steps = options.steps or STEPS.get((options.algorithm, options.task), 1_000_000)
    for seed in range(options.seeds):
        train(options.algorithm, options.task, seed, options.ends, steps)


if __name__ == "__main__":
    main()
