"""Stable-Baselines3 on the lab: its own vectorised environments, ours, and hindsight replay."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from helpers import one_line

pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
from stable_baselines3 import PPO, SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from tutorial_utils.tabletop import TASKS, Expert, TabletopVectorEnv
from tutorial_utils.tabletop.sb3 import TOLD, SB3VecEnv

SMALL = {"policy_kwargs": {"net_arch": [16]}, "verbose": 0}


@pytest.mark.parametrize("kind", ["state", "goal", "state+image", "image"])
def test_the_adapter_steps_the_batch(kind):
    """Robot i starts where a single environment with its seed does and gets what the batch says."""
    options = {"obs": kind, "reward": "oracle", "terminate_on_success": True}
    envs, batch = SB3VecEnv("PickPlace", 3, **options), TabletopVectorEnv("PickPlace", 3, **options)
    envs.seed(5)
    got, wanted = envs.reset(), batch.reset(seed=[5, 6, 7])[0]
    rng = np.random.default_rng(0)
    for _ in range(41):
        for name in got if isinstance(got, dict) else [...]:
            np.testing.assert_array_equal(got[name], wanted[name])
        action = rng.uniform(-1, 1, (3, 3)).astype(np.float32)
        got, reward, done, infos = envs.step(action)
        wanted, paid, terminated, truncated, info = batch.step(torch.from_numpy(action))
        np.testing.assert_array_equal(reward, paid)
        np.testing.assert_array_equal(done, terminated | truncated)
        for i, told in enumerate(infos):
            assert {name: told[name] for name in TOLD} == {name: info[name][i] for name in TOLD}
    fresh = envs.reset()  # without a seed: the next episodes, and statistics from zero
    assert not np.array_equal(
        *(
            x["state"] if kind == "state+image" else x["observation"] if kind == "goal" else x
            for x in (fresh, got)
        )
    )
    for _ in range(40):
        *_, infos = envs.step(np.zeros((3, 3)))
    assert [told["episode"]["l"] for told in infos] == [40] * 3


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
    np.testing.assert_allclose(infos[0]["terminal_observation"], known[0]["terminal_observation"])
    assert set(known[0]) <= set(infos[0])
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
    batch = TabletopVectorEnv(task, 50, obs="goal")
    batch.reset(seed=0)
    expert, rewards, goals = Expert(noise=0.4), [], []
    for _ in range(TASKS[task].horizon - 1):
        obs, reward, *_ = batch.step(expert(batch.world))
        goals.append((obs["achieved_goal"], obs["desired_goal"]))
        rewards.append(reward)
    achieved, desired = (torch.stack(x) for x in zip(*goals, strict=True))  # [T, 50, G]
    rewards = torch.stack(rewards).numpy()
    assert set(rewards.flatten()) == {0, 1}
    np.testing.assert_array_equal(batch.compute_reward(achieved, desired, {}), rewards)
    np.testing.assert_array_equal(
        batch.compute_reward(achieved.double().numpy(), desired, {}), rewards
    )
    env = gymnasium.make(f"Tabletop/{task}-v0", obs="goal").unwrapped
    for a, d, r in zip(achieved[:, 0], desired[:, 0], rewards[:, 0], strict=True):
        assert env.compute_reward(a.numpy(), d.numpy(), {}) == r
        assert env.compute_reward(a.numpy(), a.numpy(), {}) == 1


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
    with pytest.raises(ValueError, match="resets within a step") as error:
        SB3VecEnv("PickPlace", 2, autoreset_mode="next_step")
    one_line(error, "same_step")
    env = gymnasium.make("Tabletop/Sort-v0", obs="goal").unwrapped
    with pytest.raises(ValueError, match="6 numbers") as error:
        env.compute_reward(np.zeros(4), np.zeros(4), {})
    one_line(error, "Sort")
    env = gymnasium.make("Tabletop/PickPlaceDense-v0", obs="goal").unwrapped
    with pytest.raises(ValueError, match="sparse") as error:
        env.compute_reward(np.zeros(3), np.zeros(3), {})
    one_line(error, "goals alone")
