"""Gymnasium's own tools on the lab: wrappers, vector environments, time limits, pickling."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import warnings

import cloudpickle
import gymnasium
import joblib
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeAwareObservation
from gymnasium.wrappers import vector as wrappers
from helpers import one_line

from tutorial_utils.tabletop import TASKS, TabletopEnv, TabletopVectorEnv

PICK = "Tabletop/PickPlace-v0"


def numpy_view(**options) -> gymnasium.vector.VectorEnv:
    """The native batch in numpy, as the README makes it."""
    pytest.importorskip("array_api_compat", reason="gymnasium[array-api] is not installed")
    envs = gymnasium.make_vec("Tabletop/PickPlaceDense-v0", num_envs=5, **options)
    return wrappers.ArrayConversion(envs, env_xp=torch, target_xp=np)


def play(envs, steps: int = 90) -> list:
    """What the last of these random steps returned; every robot ends two episodes."""
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(steps):
        result = envs.step(envs.action_space.sample())
    return list(result)


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_episode_statistics(mode):
    envs = wrappers.RecordEpisodeStatistics(numpy_view(autoreset_mode=mode))
    play(envs)
    assert len(envs.return_queue) == 10
    assert set(envs.length_queue) == {40}  # random actions never succeed here


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_normalised_rewards(mode):
    envs = wrappers.NormalizeReward(numpy_view(autoreset_mode=mode))
    reward = play(envs)[1]
    assert isinstance(reward, np.ndarray)
    assert np.isfinite(reward).all()


def test_normalised_observations():
    envs = wrappers.NormalizeObservation(numpy_view(autoreset_mode="next_step"))
    obs = play(envs)[0]
    assert isinstance(obs, np.ndarray)
    assert (abs(obs.mean(0)) < 4).all()
    wrong = numpy_view()  # Gymnasium normalises observations with next-step autoreset alone
    with pytest.raises(ValueError, match="NEXT_STEP"):
        play(wrappers.NormalizeObservation(wrong))


def test_lists_of_infos():
    infos = play(wrappers.DictInfoToList(numpy_view()), 40)[4]
    assert len(infos) == 5
    assert {"success", "is_success", "final_obs", "final_info"} <= set(infos[0])


@pytest.mark.parametrize("kind", ["goal", "state+image", "image", "all"])
def test_the_numpy_view_of_every_observation(kind):
    obs = play(numpy_view(obs=kind))[0]
    parts = obs if isinstance(obs, dict) else {"": obs}
    kinds = {name: tuple if name == "instruction" else np.ndarray for name in parts}
    assert {name: type(x) for name, x in parts.items()} == kinds


def test_same_step_autoreset_says_what_gymnasium_says():
    """Where an episode ended: masks, the last observation and the last info."""
    ours = gymnasium.make_vec(PICK, num_envs=3)
    theirs = gymnasium.make_vec(
        PICK,
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
    )
    ours.reset(seed=[1, 2, 3])
    theirs.reset(seed=[1, 2, 3])
    for _ in range(40):
        action = theirs.action_space.sample()
        got = ours.step(torch.from_numpy(action))
        wanted = theirs.step(action)
        for a, b in zip(got[:4], wanted[:4], strict=True):
            np.testing.assert_array_equal(a, b)
    info, known = got[4], wanted[4]
    assert set(known) - set(info) == {f"_{name}" for name in known["final_info"] if name[0] != "_"}
    np.testing.assert_array_equal(info["_final_obs"], known["_final_obs"])
    np.testing.assert_array_equal(info["final_obs"], np.stack(known["final_obs"]))
    for name, value in known["final_info"].items():
        np.testing.assert_array_equal(info["final_info"][name], value)


def test_disabled_autoreset_is_that_of_gymnasium():
    disabled = gymnasium.vector.AutoresetMode.DISABLED
    ours = gymnasium.make_vec(PICK, num_envs=3, autoreset_mode="disabled", max_episode_steps=7)
    theirs = gymnasium.make_vec(
        PICK,
        num_envs=3,
        vectorization_mode="sync",
        max_episode_steps=7,
        vector_kwargs={"autoreset_mode": disabled},
    )
    assert ours.metadata["autoreset_mode"] == disabled
    ours.reset(seed=[1, 2, 3])
    theirs.reset(seed=[1, 2, 3])
    for t in range(1, 22):
        action = theirs.action_space.sample()
        got, wanted = ours.step(torch.from_numpy(action)), theirs.step(action)
        for a, b in zip(got[:4], wanted[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        done = got[2] | got[3]
        assert done.all() == (t % 7 == 0)
        if done.any():
            options = {"reset_mask": done.numpy()}
            again, _ = ours.reset(options=dict(options))
            np.testing.assert_array_equal(again, theirs.reset(options=dict(options))[0])
    before = ours.observe()
    alone, _ = ours.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal((alone == before).all(1), [True, False, True])


def test_a_masked_reset_leaves_the_others_alone():
    """Their state, their clock and their stream: also where the mask comes with a seed."""
    options = {"autoreset_mode": "disabled", "max_episode_steps": 9}
    envs, twin = (TabletopVectorEnv("Reach", 2, **options) for _ in range(2))
    first = envs.reset(seed=0)[0]
    twin.reset(seed=0)
    envs.step(torch.zeros(2, 3))
    mask = torch.tensor([True, False])
    again, _ = envs.reset(seed=0, options={"reset_mask": mask, "stagger": True})
    assert torch.equal(again[0], first[0])
    assert envs.world.elapsed[1] == 1
    assert torch.equal(
        envs.reset(options={"reset_mask": ~mask})[0][1], twin.reset()[0][1]
    )  # the second episode of its stream


def test_disabled_autoreset_waits_for_a_reset():
    envs = TabletopVectorEnv("Reach", 2, autoreset_mode="disabled", max_episode_steps=1)
    envs.reset(seed=0)
    done = envs.step(torch.zeros(2, 3))[3]
    with pytest.raises(ResetNeeded, match="reset_mask") as error:
        envs.step(torch.zeros(2, 3))
    one_line(error, "over")
    envs.reset(options={"reset_mask": done})
    envs.step(torch.zeros(2, 3))


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_stepping_with_inference_mode_and_without(mode):
    envs = TabletopVectorEnv("AroundObstacle", 3, autoreset_mode=mode, max_episode_steps=4)
    envs.reset(seed=0)
    with torch.inference_mode():
        for _ in range(4):
            envs.step(torch.zeros(3, 3))
    obs, _ = envs.reset()
    again, *_ = envs.step(torch.zeros(3, 3, requires_grad=True))  # no gradient goes through
    assert not again.requires_grad
    assert again.shape == obs.shape


def test_a_reset_forgets_who_was_to_start():
    envs = TabletopVectorEnv("Reach", 2, autoreset_mode="next_step", max_episode_steps=3)
    envs.reset(seed=0)
    for _ in range(3):
        cut = envs.step(torch.zeros(2, 3))[3]
    assert cut.all()
    start, _ = envs.reset()
    moved, *_ = envs.step(torch.ones(2, 3))
    assert not torch.equal(moved, start)  # it acts: nobody is started in its place


@pytest.mark.parametrize("mask", [[True], np.zeros(2, bool), np.array([0, 1])])
def test_masks_that_cannot_be(mask):
    envs = TabletopVectorEnv("Reach", 2, autoreset_mode="disabled")
    with pytest.raises(ValueError, match="reset_mask") as error:
        envs.reset(seed=0, options={"reset_mask": mask})
    one_line(error, "bool [2]")
    with pytest.raises(ValueError, match="reset all robots") as error:
        envs.reset(seed=0, options={"reset_mask": np.array([True, False])})
    one_line(error, "reset_mask")


def test_next_step_autoreset_is_that_of_gymnasium():
    ours = gymnasium.make_vec(PICK, num_envs=3, autoreset_mode="next_step")
    theirs = gymnasium.make_vec(PICK, num_envs=3, vectorization_mode="sync")
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    ours.reset(seed=[1, 2, 3])
    theirs.reset(seed=[1, 2, 3])
    for _ in range(90):
        action = theirs.action_space.sample()
        got, wanted = ours.step(torch.from_numpy(action)), theirs.step(action)
        for a, b in zip(got[:4], wanted[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        for name, x in got[4].items():
            np.testing.assert_array_equal(x, wanted[4][name])


@pytest.mark.parametrize("seed", [[7, 8], np.array([7, 8]), (7, 8)])
def test_one_seed_per_robot(seed):
    """As `SyncVectorEnv` has it: robot i starts where a single environment with that seed does."""
    obs, _ = TabletopVectorEnv("Sort", 2).reset(seed=seed)
    for i, s in enumerate([7, 8]):
        np.testing.assert_array_equal(obs[i], TabletopEnv("Sort").reset(seed=s)[0])
    again, _ = TabletopVectorEnv("Sort", 2).reset(seed=[7, None])
    assert torch.equal(again[0], obs[0])
    assert not torch.equal(again[1], obs[1])


def test_any_whole_number_is_a_seed():
    big = TabletopEnv("Reach").reset(seed=2**70 + 1)[0]
    np.testing.assert_array_equal(
        TabletopVectorEnv("Reach", 2).reset(seed=[2**70 + 1, 0])[0][0], big
    )
    three = TabletopVectorEnv("Reach", 2).reset(seed=3)[0]
    assert torch.equal(TabletopVectorEnv("Reach", 2).reset(seed=np.int64(3))[0], three)


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        ([1], ["(2,)", "(1,)"]),
        ([1, -2], ["0 or more"]),
        ([1.5, 2], ["whole"]),
        (1.5, ["whole", "1.5"]),
        (np.array([0.5, 1.0]), ["whole"]),
        (torch.tensor([0.5, 1.0]), ["whole", "float32"]),
    ],
)
def test_seeds_that_cannot_be(seed, words):
    with pytest.raises(ValueError, match="must") as error:
        TabletopVectorEnv("Reach", 2).reset(seed=seed)
    one_line(error, *words)


# Ids, time limits and ends of episodes


def steps_of(env) -> int:
    """How long an episode of random actions lasts."""
    env.reset(seed=0)
    env.action_space.seed(0)
    for t in range(1, 1000):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            return t
    return 1000


@pytest.mark.parametrize("task", list(TASKS))
def test_time_limits_are_those_of_gymnasium(task):
    env = gymnasium.make(f"Tabletop/{task}-v0", terminate_on_success=False)
    assert env.spec.max_episode_steps == TASKS[task].horizon
    assert gymnasium.make_vec(f"Tabletop/{task}-v0").max_episode_steps == TASKS[task].horizon
    assert TimeAwareObservation(env).reset(seed=0)[0].shape == (len(env.reset()[0]) + 1,)


def test_another_time_limit():
    assert steps_of(gymnasium.make(PICK)) == 40
    assert steps_of(gymnasium.make(PICK, max_episode_steps=200)) == 200
    assert steps_of(gymnasium.make(PICK, max_episode_steps=7)) == 7
    envs = gymnasium.make_vec(PICK, num_envs=2, max_episode_steps=7)
    envs.reset(seed=0)
    cut = [envs.step(torch.zeros(2, 3))[3].all().item() for _ in range(14)]
    assert cut == [False] * 6 + [True] + [False] * 6 + [True]


@pytest.mark.parametrize("task", list(TASKS))
def test_dense_ids_pay_the_oracle(task):
    dense = gymnasium.make(f"Tabletop/{task}Dense-v0")
    oracle = gymnasium.make(f"Tabletop/{task}-v0", reward="oracle")
    dense.reset(seed=4)
    oracle.reset(seed=4)
    rewards = []
    for _ in range(8):
        action = dense.action_space.sample()
        rewards.append(dense.step(action)[1])
        assert rewards[-1] == oracle.step(action)[1]
    assert any(rewards)
    told = dense.spec.to_json()
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(told))
    assert again.unwrapped.batch.reward == "oracle"


def test_infos_have_the_same_keys_from_the_start():
    env = gymnasium.make(PICK)
    _, first = env.reset(seed=0)
    *_, later = env.step(env.action_space.sample())
    assert set(first) == set(later) == {"success", "is_success", "failure", "cost"}
    assert all(isinstance(x, np.ndarray) for x in later.values())  # what clients can stack


def test_where_success_ends_an_episode():
    """It does, but in the goal form and where one says so; then each further step is paid."""
    for kind, given, ends in [
        ("state", None, True),
        ("goal", None, False),
        ("state", False, False),
    ]:
        envs = TabletopVectorEnv("Reach", 2, obs=kind, terminate_on_success=given)
        envs.reset(seed=0)
        envs.world.gripper.copy_(envs.world.zones[:, 0])
        for _ in range(2):
            reward, terminated, _, info = envs.advance(torch.zeros(2, 3))
            assert reward.tolist() == [1, 1]
            assert info["success"].all()
            assert terminated.tolist() == [ends, ends]
    crash = TabletopVectorEnv("AroundObstacle", 2, terminate_on_success=False)
    crash.reset(seed=0)
    crash.world.gripper.copy_(crash.world.disc_center)
    assert crash.advance(torch.zeros(2, 3))[1].all()  # a failure is an end all the same


# Copies and other processes


def trajectory(env, steps: int = 45) -> list:
    """Numbers of the coming steps, over the end of an episode; the same actions every time."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 3).astype(np.float32))
        rows.append((obs.tolist(), float(reward), bool(terminated), bool(truncated)))
        if terminated or truncated:
            rows.append(env.reset()[0].tolist())
    return rows


def begun() -> gymnasium.Env:
    env = gymnasium.make("Tabletop/SortDense-v0", max_episode_steps=30)
    env.reset(seed=3)
    for _ in range(5):
        env.step(np.array([0.4, -0.7, 1.0], np.float32))
    return env


@pytest.mark.parametrize(
    "copied",
    [
        lambda env: pickle.loads(pickle.dumps(env)),
        lambda env: cloudpickle.loads(cloudpickle.dumps(env)),
        copy.deepcopy,
    ],
    ids=["pickle", "cloudpickle", "deepcopy"],
)
def test_a_copy_goes_on_to_the_bit(copied):
    env = begun()
    twin = copied(env)
    assert trajectory(twin) == trajectory(env)
    assert trajectory(twin) == trajectory(env)  # and goes on on its own


def test_the_batch_survives_pickling():
    envs = TabletopVectorEnv("AroundObstacle", 6, obs="image", reward="oracle")
    envs.reset(seed=2)
    twin = pickle.loads(pickle.dumps(envs))
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        action = torch.rand(6, 3, generator=generator) * 2 - 1
        for a, b in zip(envs.step(action)[:4], twin.step(action)[:4], strict=True):
            assert torch.equal(a, b)


def test_other_processes_make_the_same_trajectory():
    wanted = trajectory(begun())
    assert joblib.Parallel(2)(joblib.delayed(trajectory)(begun()) for _ in range(2)) == [wanted] * 2
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(trajectory, (begun(),)) == wanted


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_environments_side_by_side(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        envs = gymnasium.make_vec(PICK, num_envs=2, vectorization_mode=mode)
        envs.reset(seed=0)
        *_, info = envs.step(envs.action_space.sample())
        envs.close()
    assert info["is_success"].dtype == bool
    assert info["cost"].tolist() == [0.0, 0.0]
