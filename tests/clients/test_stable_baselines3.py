"""Stable-Baselines3 on the lab: its own vectorised environments, ours, and hindsight replay."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from helpers import one_line

pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
from stable_baselines3 import PPO, SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from tutorial_utils.tabletop import TASKS
from tutorial_utils.tabletop.sb3 import SB3VecEnv

SMALL = {"policy_kwargs": {"net_arch": [16]}, "verbose": 0}


def numbers(envs: SB3VecEnv, steps: int) -> list[tuple]:
    """What `steps` random steps returned."""
    rng = np.random.default_rng(0)
    return [envs.step(rng.uniform(-1, 1, (len(envs.reset_infos), 3))) for _ in range(steps)]


@pytest.mark.parametrize("kind", ["state", "goal", "state+image", "image"])
def test_the_adapter_steps_the_batch(kind):
    envs = SB3VecEnv("PickPlace", 3, obs=kind, reward="sparse", terminate_on_success=True)
    twin = SB3VecEnv("PickPlace", 3, obs=kind, reward="sparse", terminate_on_success=True)
    for each in (envs, twin):
        each.seed(5)
        each.reset()
    for got, same in zip(numbers(envs, 41), numbers(twin, 41), strict=True):
        for part in (got, same):
            assert part[1].shape == part[2].shape == (3,)
        for name in got[0] if isinstance(got[0], dict) else [...]:
            np.testing.assert_array_equal(got[0][name], same[0][name])


def test_the_end_of_an_episode_is_told_as_stable_baselines_tells_it():
    """Beside `make_vec_env` with its Monitor: the same keys, lengths, and last observation."""
    ours = SB3VecEnv("Reach", 2, reward="oracle")
    theirs = make_vec_env("Tabletop/ReachDense-v0", 2)
    rng = np.random.default_rng(1)
    for envs in (ours, theirs):
        envs.seed(0)
        obs = envs.reset()
    total = np.zeros(2)
    for t in range(30):
        last = obs
        action = rng.uniform(-0.1, 0.1, (2, 3))
        obs, reward, done, infos = ours.step(action)
        *_, known = theirs.step(action)
        total += reward
        assert done.all() == (t == 29)
    assert ({"terminal_observation", "TimeLimit.truncated", "is_success"}) <= set(known[0])
    assert set(infos[0]) == {"terminal_observation", "TimeLimit.truncated", "is_success", "episode"}
    assert infos[1]["TimeLimit.truncated"] is known[1]["TimeLimit.truncated"] is True
    assert infos[1]["episode"]["l"] == known[1]["episode"]["l"] == 30
    assert infos[1]["episode"]["r"] == pytest.approx(total[1], abs=1e-5)
    moved = np.abs(infos[1]["terminal_observation"] - last[1]).max()
    assert 0 < moved < 0.013  # one step of a tenth of a full action further


def test_success_is_no_truncation():
    envs = SB3VecEnv("Reach", 64)
    envs.seed(0)
    envs.reset()
    seen = set()
    for _ in range(60):
        aim = (envs.batch.world.zones[:, 0] - envs.batch.world.gripper).numpy()
        _, _, done, infos = envs.step(np.vstack([np.sign(aim), -np.ones(64)]).T)
        seen |= {
            (bool(x["is_success"]), x["TimeLimit.truncated"])
            for x, end in zip(infos, done, strict=True)
            if end
        }
    assert (True, False) in seen
    assert (True, True) not in seen


@pytest.mark.parametrize("kind", ["state", "goal"])
def test_training_evaluation_and_normalisation_run(kind):
    policy = "MultiInputPolicy" if kind == "goal" else "MlpPolicy"
    envs = VecNormalize(SB3VecEnv("PickPlace", 8, obs=kind))
    model = PPO(policy, envs, n_steps=8, batch_size=32, **SMALL).learn(128)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it warns where no Monitor is found
        rewards, lengths = evaluate_policy(
            model, SB3VecEnv("PickPlace", 8, obs=kind), 8, return_episode_rewards=True
        )
    assert len(rewards) == 8
    assert all(0 < n <= 40 for n in lengths)


@pytest.mark.parametrize("native", [True, False])
def test_hindsight_replay(native):
    """The rewards that the buffer computes anew are those of the relabelled goals."""
    if native:
        envs = SB3VecEnv("Push", 4, obs="goal")
    else:
        envs = gymnasium.make("Tabletop/Push-v0", obs="goal")
    model = SAC(
        "MultiInputPolicy",
        envs,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4},
        learning_starts=400,
        seed=0,
        **SMALL,
    ).learn(500)
    batch = model.replay_buffer.sample(256)
    achieved, desired = (
        batch.next_observations[name].numpy() for name in ("achieved_goal", "desired_goal")
    )
    near = np.linalg.norm(achieved - desired, axis=1) < 0.15
    np.testing.assert_array_equal(batch.rewards[:, 0].numpy(), near.astype(np.float32))
    assert 0.05 < near.mean() < 0.95  # hindsight finds successes among random actions
    assert not batch.dones.any()  # a time limit is no end


@pytest.mark.parametrize("task", list(TASKS))
def test_compute_reward_is_the_reward_of_the_step(task):
    """For one robot and for many, whatever was reached: what Gymnasium-Robotics asks for."""
    env = gymnasium.make(f"Tabletop/{task}-v0", obs="goal")
    rows, rewards = [], []
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(20):
        obs, reward, *_, info = env.step(env.action_space.sample())
        rows.append(obs)
        rewards.append(reward)
        goals = obs["achieved_goal"], obs["desired_goal"]
        assert env.unwrapped.compute_reward(*goals, info) == reward
        assert env.unwrapped.compute_reward(obs["achieved_goal"], obs["achieved_goal"], info) == 1
    many = (np.stack([x[name] for x in rows]) for name in ("achieved_goal", "desired_goal"))
    np.testing.assert_array_equal(env.unwrapped.compute_reward(*many, [{}] * 20), rewards)


def test_a_disc_that_is_held_is_not_placed():
    env = gymnasium.make("Tabletop/PickPlace-v0", obs="goal").unwrapped
    placed, held = np.array([0.1, 0.2, 0.0], np.float32), np.array([0.1, 0.2, 1.0], np.float32)
    assert env.compute_reward(placed, placed, {}) == 1
    assert env.compute_reward(held, placed, {}) == 0
    assert env.compute_reward(held, held, {}) == 1  # a goal in hindsight


def test_what_the_adapter_cannot_do():
    with pytest.raises(ValueError, match="words") as error:
        SB3VecEnv("PickPlace", 2, obs="all")
    one_line(error, "state+image")
    env = gymnasium.make("Tabletop/PickPlaceDense-v0", obs="goal").unwrapped
    with pytest.raises(ValueError, match="sparse") as error:
        env.compute_reward(np.zeros(3), np.zeros(3), {})
    one_line(error, "goals alone")
