"""Held-out evaluation: the same first episodes for everyone, counted up to their end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutorial_utils.evidence import bootstrap, evaluate, run_mode
from tutorial_utils.models import ActorCritic
from tutorial_utils.tabletop import Chunks, Expert, Shift, TabletopVectorEnv, get_task
from tutorial_utils.tabletop.acting import with_open_fingers

FIELDS = ("success", "returns", "cost", "steps")


@pytest.fixture(autouse=True)
def _no_offset(monkeypatch):
    monkeypatch.delenv("DUALITY_SEED", raising=False)


@pytest.fixture(scope="module")
def population() -> ActorCritic:
    """Four members that go in some direction, far enough to reach a zone now and then."""
    policy = ActorCritic((5,), seeds=[0, 1, 2, 3])
    policy.actor[-1].weight.data.mul_(100)
    return policy


def equal(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def first_episodes(task: str, act, episodes: int, seed: int, **options) -> dict[str, np.ndarray]:
    """What `evaluate` should count, from the autoresetting environment, robot by robot."""
    env = TabletopVectorEnv(task, episodes, **options)
    env.reset(seed=seed)
    counts = {name: np.zeros(episodes) for name in FIELDS}
    over = [False] * episodes
    while not all(over):
        _, reward, terminated, truncated, info = env.step(act(env))
        for i in range(episodes):
            if not over[i]:
                counts["success"][i] = max(counts["success"][i], info["success"][i].item())
                counts["returns"][i] += reward[i].item()
                counts["cost"][i] += info["cost"][i].item()
                counts["steps"][i] += 1
                over[i] = bool(terminated[i] or truncated[i])
    return counts


@pytest.mark.parametrize("task", ["PickPlace", "AroundObstacle", "PastHazard"])
def test_an_expert_is_counted_up_to_the_end_of_its_first_episode(task):
    expert = Expert(noise=0.5, success=0.6, clearance=-0.1 if task == "PastHazard" else 0.15)
    result = evaluate(expert, task, 40, seed=3, reward="oracle")
    wanted = first_episodes(task, lambda env: expert(env.world), 40, 3, reward="oracle")
    assert 0 < result.success.mean() < 1
    assert result.success.dtype == bool
    for name in FIELDS:
        assert getattr(result, name).shape == (1, 40)
        np.testing.assert_allclose(getattr(result, name)[0], wanted[name], atol=1e-5)
    assert (result.cost.sum() > 0) == (task == "PastHazard")
    assert len(set(result.steps[0])) > 1
    assert result.steps.max() <= get_task(task).horizon


def test_every_member_meets_the_same_episodes(population):
    starts = []

    def look(env, running):
        if not starts:
            assert running.all()
            starts.extend([env.world.episode.clone(), env.observe()])

    together = evaluate(population, "Reach", 25, on_step=look)
    assert together.success.shape == (4, 25)
    for start in starts:
        members = start.view(4, 25, -1)
        assert (members == members[:1]).all()
        assert len(members[0].unique(dim=0)) == 25
    for m in range(4):
        alone = evaluate(population.select(slice(m, m + 1)), "Reach", 25)
        np.testing.assert_array_equal(alone.success[0], together.success[m])
        np.testing.assert_array_equal(alone.steps[0], together.steps[m])
    assert len(np.unique(together.steps, axis=0)) > 1
    assert 0 < together.success.mean() < 1


def test_a_population_is_counted_as_its_members_act(population):
    member = population.select(slice(2, 3))
    result = evaluate(member, "Reach", 25, seed=8)
    with torch.inference_mode():
        wanted = first_episodes("Reach", lambda env: member(env.observe()[None])[0], 25, 8)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(result, name)[0], wanted[name], atol=1e-5)


def test_episodes_that_ended_count_no_more():
    """Every robot would score and pay at every step, if it were not over."""
    mask = []

    def act(obs):
        assert obs.shape == (1, 30, 5)
        return torch.cat((obs[..., 3:] - obs[..., :2], -torch.ones(1, 30, 1)), -1) * 9

    result = evaluate(
        lambda obs: act(obs).clamp(-1, 1),
        "Reach",
        30,
        reward=lambda fields: torch.ones_like(fields["sparse"]),
        on_step=lambda _, running: mask.append(running.clone()),
    )
    assert result.success.all()
    assert (result.returns == result.steps).all()
    assert len(np.unique(result.steps)) > 3
    mask = torch.stack(mask)  # [T + 1, E]: before each action, and once after the last
    assert np.array_equal(mask.sum(0), result.steps[0])
    assert mask[0].all()
    assert not mask[-1].any()
    assert (mask.int().diff(dim=0) <= 0).all()


def test_what_robots_pay_after_their_episode_does_not_count():
    """Each robot drives to the zone on a way without cost, and then into the hazard."""
    over, inside = [], []

    def look(env, running):
        over.append(~running)
        inside.append((env.world.cost() > 0) & ~running)
        obs = env.observe()  # [E, D]: the gripper first, the hazard last
        goal = torch.where(over[-1][:, None], obs[:, -2:], Expert()(env.world)[:, :2])
        aim = (goal - obs[:, :2]) / env.task.max_step
        move = torch.where(over[-1][:, None], aim, goal)
        plan[:] = torch.cat((move.clamp(-1, 1), -torch.ones(20, 1)), 1)

    plan = torch.zeros(20, 3)
    result = evaluate(lambda obs: plan[None], "PastHazard", 20, seed=4, on_step=look)
    assert result.success.all()
    assert torch.stack(inside).any()  # somebody was in the hazard, when it was over
    assert not result.cost.any()


def test_repeatable(population):
    for options in ({}, {"deterministic": False}, {"shift": Shift(slip=0.1, wind=(0.1, 0.0))}):
        first = evaluate(population, "Reach", 20, seed=1, **options)
        assert equal(first, evaluate(population, "Reach", 20, seed=1, **options))
        assert not equal(first, evaluate(population, "Reach", 20, seed=2, **options))
    sampled = evaluate(population, "Reach", 20, seed=1, deterministic=False)
    assert not equal(sampled, evaluate(population, "Reach", 20, seed=1))


def test_sampling_adds_noise_of_the_policys_width():
    policy = ActorCritic((5,), seeds=[0], log_std=-1.0)
    for layer in (policy.actor[-1].weight, policy.actor[-1].bias):
        layer.data.zero_()
    actions = []

    def look(env, running):
        actions.append(getattr(env, "action", None))

    evaluate(policy, "Reach", 500, deterministic=False, on_step=look)
    spread = torch.stack(actions[1:]).std()
    assert spread.item() == pytest.approx(np.exp(-1.0), rel=0.02)
    actions.clear()
    evaluate(policy, "Reach", 5, on_step=look)
    assert not torch.stack(actions[1:]).any()


def test_the_seed_is_the_books_evaluation_seed(monkeypatch):
    expert = Expert(noise=0.5)
    result = evaluate(expert, "PickPlace", 15)
    assert equal(result, evaluate(expert, "PickPlace", 15, seed=run_mode.evaluation_seed()))
    assert not equal(result, evaluate(expert, "PickPlace", 15, seed=0))
    monkeypatch.setenv("DUALITY_SEED", "1")
    assert not equal(result, evaluate(expert, "PickPlace", 15))


def test_intervals(population):
    several = evaluate(population, "Reach", 25)
    assert several.interval() == bootstrap(several.success)
    one = evaluate(Expert(success=0.5), "Reach", 200)
    interval = one.interval()
    assert interval == bootstrap(one.success[0])
    assert interval.estimate == pytest.approx(one.success.mean())
    # Some 200 coins: 1.96 standard errors of 0.035 on either side
    assert 0.05 < interval.high - interval.estimate < 0.09
    assert 0.05 < interval.estimate - interval.low < 0.09


def test_an_environment_of_ones_own():
    class Still(TabletopVectorEnv):
        def __init__(self, *args, share, **options):
            super().__init__(*args, **options)
            self.share = share

        def advance(self, actions):
            return super().advance(actions * self.share)

    expert = Expert()
    assert not evaluate(expert, "Reach", 20, make_env=Still, share=0.0).success.any()
    assert equal(
        evaluate(expert, "Reach", 20, make_env=Still, share=1.0), evaluate(expert, "Reach", 20)
    )


def test_images_and_functions():
    policy = ActorCritic((32, 32, 3), seeds=[0, 1], hidden=16)
    result = evaluate(policy, "Reach", 3, obs="image")
    assert result.success.shape == (2, 3)
    seen = []

    def act(obs):
        seen.append(set(obs))
        return torch.zeros(1, 3, 3)

    evaluate(act, "Reach", 3, obs="all")
    assert seen[0] == {"state", "image", "instruction"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evaluate(Expert(), "Rech", 3), ["Did you mean 'Reach'"]),
        (lambda: evaluate(Expert(), "Reach", 0), ["episodes", "0"]),
        (lambda: evaluate(Expert(), "Reach", 2, seed=-3), ["seed", "-3"]),
        (lambda: evaluate(Expert(), "Reach", 2, size=20), ["size", "20"]),
        (lambda: evaluate(lambda obs: torch.zeros(1, 5, 3), "Reach", 2), ["(2, 3)", "(5, 3)"]),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=r".") as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert all(word in text for word in words)


def test_a_function_with_members_sees_a_population():
    class Both:
        members = 2

        def __call__(self, obs):  # [2, E, D]
            aim = obs[..., 3:5] - obs[..., :2]  # from the gripper to the zone
            still = torch.zeros_like(aim[1])
            move = torch.stack((aim[0].clamp(-1, 1), still))
            return torch.cat((move, -torch.ones_like(move[..., :1])), -1)

    found = evaluate(Both(), "Reach", 20)
    assert found.success.shape == (2, 20)
    assert found.success[0].all()
    assert not found.success[1].all()


def test_chunks_are_carried_out_before_the_next_look():
    seen = []

    def plan(obs):
        seen.append(obs)
        return torch.arange(6.0).expand(2, 5, 6) + 10 * len(seen)

    policy = Chunks(plan, length=3, members=2)
    obs = torch.zeros(2, 5, 7)
    actions = [policy(obs + t) for t in range(5)]
    assert [float(o[0, 0, 0]) for o in seen] == [0.0, 3.0]
    assert [a[0, 0].tolist() for a in actions] == [
        [10.0, 11.0, -1.0],
        [12.0, 13.0, -1.0],
        [14.0, 15.0, -1.0],
        [20.0, 21.0, -1.0],
        [22.0, 23.0, -1.0],
    ]


def test_actions_that_move_the_fingers_stay_as_they_are():
    action = torch.rand(2, 4, 3)
    assert with_open_fingers(action).equal(action)
