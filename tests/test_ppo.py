"""PPO: its equations by hand, and a population that trains as its members would alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import one_line
from torch import nn

from tutorial_utils.learning import ppo
from tutorial_utils.learning.ppo import (
    PPOConfig,
    Run,
    Teacher,
    clip_gradients,
    gae,
    ppo_loss,
    train,
)
from tutorial_utils.models import ActorCritic
from tutorial_utils.models.actor_critic import PatchEncoder
from tutorial_utils.tabletop import TabletopVectorEnv, get_task

# Two runs that only differ in the shape of their matrix products round differently, and Adam
# divides by the size of the gradient; after three updates weights agree to this.
TOLERANCE = 1e-4
SMALL = PPOConfig(robots=16, rollout=8)
THREE = 3 * 16 * 8


def small(rewards, seeds, steps=THREE, config=SMALL, task="Reach", **options) -> Run:
    return train(task, rewards, seeds, steps, config, progress=False, **options)


def weights(policy: ActorCritic) -> dict[str, torch.Tensor]:
    return {name: x.detach() for name, x in policy.named_parameters()}


def assert_same_weights(a: ActorCritic, b: ActorCritic) -> None:
    for name, x in weights(a).items():
        torch.testing.assert_close(x, weights(b)[name], atol=TOLERANCE, rtol=0)


# Advantages


def test_gae_by_hand():
    """gamma = lambda = 1/2; the episode ends at t = 1 by termination, at t = 2 by truncation."""
    rows = {
        "reward": [1.0, 2.0, 3.0, 4.0],
        "value": [0.5, 1.0, 1.5, 2.0],
        "next_value": [1.0, 9.0, 4.0, 3.0],
    }
    tensors = [torch.tensor(x).view(1, 4, 1) for x in rows.values()]
    terminated = torch.tensor([False, True, False, False]).view(1, 4, 1)
    done = torch.tensor([False, True, True, False]).view(1, 4, 1)
    # delta: 1 + 1/2 - 1/2; 2 - 1 (terminated); 3 + 4/2 - 3/2 (truncated); 4 + 3/2 - 2
    # sums: the ends at t = 1 and t = 2 cut; only t = 0 adds a quarter of its successor
    wanted = torch.tensor([1.25, 1.0, 3.5, 3.5]).view(1, 4, 1)
    assert torch.equal(gae(*tensors, terminated, done, 0.5, 0.5), wanted)


@pytest.fixture(scope="module")
def episodes():
    generator = torch.Generator().manual_seed(0)
    p, t, n = 2, 30, 5
    reward, value, next_value = torch.randn(3, p, t, n, generator=generator, dtype=torch.float64)
    terminated = torch.rand(p, t, n, generator=generator) < 0.1
    truncated = (torch.rand(p, t, n, generator=generator) < 0.1) & ~terminated
    value_ = next_value.clone()  # within an episode V(next) is the next row's V
    inner = ~(terminated | truncated)[:, :-1]
    value[:, 1:] = torch.where(inner, value_[:, :-1], value[:, 1:])
    return reward, value, next_value, terminated, terminated | truncated


def test_gae_with_lambda_1_is_the_discounted_return(episodes):
    reward, value, next_value, terminated, done = (x.numpy() for x in episodes)
    gamma = 0.9
    wanted = np.zeros_like(reward)
    for p, t, n in np.ndindex(reward.shape):
        k, factor = t, 1.0
        while True:  # walk to the end of the episode or of the rollout
            wanted[p, t, n] += factor * reward[p, k, n]
            factor *= gamma
            if done[p, k, n] or k == reward.shape[1] - 1:
                wanted[p, t, n] += factor * next_value[p, k, n] * (not terminated[p, k, n])
                break
            k += 1
    advantage = gae(*episodes, gamma, 1.0).numpy()
    np.testing.assert_allclose(advantage, wanted - value, atol=2e-6)  # gamma in float32


def test_gae_with_lambda_0_is_the_td_error(episodes):
    reward, value, next_value, terminated, _ = episodes
    wanted = reward + 0.9 * next_value * (~terminated) - value
    assert torch.equal(gae(*episodes, 0.9, 0.0), wanted)


# The loss


class Fixed:
    """A policy that gives chosen numbers."""

    def __init__(self, log_prob, value, entropy) -> None:
        self.new, self.v, self.h = log_prob, value, entropy

    def __call__(self, obs):
        return obs

    def log_prob(self, mean, action):
        return self.new

    def value(self, obs):
        return self.v

    def entropy(self):
        return self.h


RATIO = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1, 0.9]])
ADVANTAGE = torch.tensor([[2.0, -2.0, 2.0, -2.0, 1.0, -1.0]])
# min(r A, clip(r, 0.8, 1.2) A):
SURROGATE = [2.4, -3.0, 1.0, -1.6, 1.1, -0.9]


def test_loss_by_hand():
    old = torch.full((1, 6), -0.7)
    new = (old + RATIO.log()).requires_grad_()
    value = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    target = torch.tensor([[1.0, 3.0, 1.0, 1.0, 1.0, 0.0]])
    policy = Fixed(new, value, torch.tensor([2.0]))
    config = PPOConfig(normalize_advantage=False, clip=0.2, value_coef=0.5, entropy_coef=0.1)
    loss = ppo_loss(policy, None, None, old, ADVANTAGE, target, config)
    wanted = -sum(SURROGATE) / 6 + 0.5 * (0.5 * (4 + 1) / 6) - 0.1 * 2.0
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(wanted, abs=1e-6)
    loss.sum().backward()
    # d(r A) / d log_prob = r A; nothing where the clipped term is the smaller one
    wanted = -RATIO * ADVANTAGE / 6
    wanted[0, 0] = wanted[0, 3] = 0.0
    torch.testing.assert_close(new.grad, wanted)
    assert new.grad[0, 0] == new.grad[0, 3] == 0


def test_advantages_are_normalised_per_member():
    generator = torch.Generator().manual_seed(0)
    advantage = torch.randn(2, 50, generator=generator) * torch.tensor([[3.0], [0.1]]) + 5
    log_prob = 0.05 * torch.randn(2, 50, generator=generator)
    policy = Fixed(log_prob, torch.zeros(2, 50), torch.zeros(2))
    zeros = torch.zeros(2, 50)
    loss = ppo_loss(policy, None, None, zeros, advantage, zeros, PPOConfig())
    wanted = []
    for a, r in zip(advantage.double().numpy(), log_prob.double().exp().numpy(), strict=True):
        a = (a - a.mean()) / a.std(ddof=1)
        wanted.append(-np.minimum(r * a, r.clip(0.8, 1.2) * a).mean())
    np.testing.assert_allclose(loss.numpy(), wanted, atol=1e-5)


# The policy


def test_log_prob_and_entropy_are_those_of_a_normal_distribution():
    policy = ActorCritic((5,), seeds=[0, 1])
    generator = torch.Generator().manual_seed(0)
    policy.log_std.data.uniform_(-1, 1, generator=generator)
    mean, action = torch.randn(2, 2, 7, 3, generator=generator)
    normal = torch.distributions.Normal(mean, policy.log_std.exp())
    torch.testing.assert_close(policy.log_prob(mean, action), normal.log_prob(action).sum(-1))
    torch.testing.assert_close(policy.entropy(), normal.entropy().sum(-1)[:, 0])


def test_a_member_does_not_depend_on_its_company():
    both, one = ActorCritic((5,), seeds=[3, 8]), ActorCritic((5,), seeds=[8])
    for name, x in weights(both).items():
        assert torch.equal(x[1:], weights(one)[name])
    obs = torch.randn(2, 4, 5)
    torch.testing.assert_close(both(obs)[1:], one(obs[1:]))
    torch.testing.assert_close(both.value(obs)[1:], one.value(obs[1:]))
    assert not torch.allclose(
        both(obs[:1].expand(2, -1, -1))[0], both(obs[:1].expand(2, -1, -1))[1]
    )


def test_weights_start_orthogonal():
    weight = ActorCritic((20,), seeds=[0, 1]).actor[1].weight
    eye = torch.eye(64).expand(2, -1, -1)
    torch.testing.assert_close(weight @ weight.mT, 2 * eye, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [32, 64])
def test_the_patch_encoder_is_two_strided_convolutions(size):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, size, size, 3), generator=generator, dtype=torch.uint8)
    encoder = PatchEncoder(size, [torch.Generator().manual_seed(s) for s in (0, 1)], features=8)
    for layer in (encoder.patch, encoder.merge, encoder.head):
        nn.init.normal_(layer.bias, generator=generator)
    out = encoder(images)
    for p in range(2):
        x = images[p].permute(0, 3, 1, 2).float() / 127.5 - 1  # [B, 3, H, W]
        for layer, kernel, channels in ((encoder.patch, 4, 3), (encoder.merge, 2, 16)):
            weight = layer.weight[p].view(kernel, kernel, channels, -1).permute(3, 2, 0, 1)
            x = torch.relu(nn.functional.conv2d(x, weight, layer.bias[p, 0], stride=kernel))
        flat = x.permute(0, 2, 3, 1).flatten(1)
        wanted = torch.tanh(flat @ encoder.head.weight[p] + encoder.head.bias[p])
        torch.testing.assert_close(out[p], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(5,), (32, 32, 3)])
def test_select_copies(shape):
    policy = ActorCritic(shape, seeds=[0, 1, 2], hidden=16)
    chosen = policy.select(slice(1, 3))
    assert chosen.members == 2
    obs = torch.rand(2, 4, *shape)
    obs = (255 * obs).to(torch.uint8) if len(shape) == 3 else obs
    before = policy(torch.cat((obs[:1], obs)))[1:].detach().clone()
    torch.testing.assert_close(chosen(obs), before)
    for parameter in chosen.parameters():
        parameter.data.add_(1.0)
    torch.testing.assert_close(policy(torch.cat((obs[:1], obs)))[1:], before)
    assert not torch.allclose(chosen(obs), before)


# Rollouts and updates


@pytest.fixture(scope="module")
def rollout():
    """A policy and what it did in staggered episodes."""
    env = TabletopVectorEnv("Reach", 64, reward="oracle")
    obs = env.reset(seed=0, options={"stagger": True})[0].view(2, 32, -1)
    policy = ActorCritic(obs.shape[2:], seeds=[0, 1])
    noise = torch.randn(2, 20, 32, 3, generator=torch.Generator().manual_seed(0))
    data, last = ppo.collect(env, policy, obs, noise)
    return policy, data, noise, last


def test_rollouts_are_consistent(rollout):
    policy, data, noise, last = rollout
    assert data.obs.shape == data.next_obs.shape == (2, 20, 32, 5)
    assert data.action.shape == (2, 20, 32, 3)
    ends = data.terminated | data.truncated
    for name in ("log_prob", "reward", "terminated", "truncated", "success"):
        assert getattr(data, name).shape == (2, 20, 32)
    assert 0 < ends.sum() < 200
    following = torch.cat((data.obs[:, 1:], last[:, None]), 1)
    same = (following == data.next_obs).all(-1)
    assert torch.equal(same, ~ends)
    with torch.no_grad():
        mean = policy(data.obs.flatten(1, 2)).view_as(data.action)
    wanted = mean + policy.log_std.exp()[:, None] * noise
    torch.testing.assert_close(data.action, wanted)


def test_the_ratio_is_1_before_the_first_update(rollout):
    """Up to rounding: the products of 32 and of 640 rows may add in another order, which moves a
    mean near 0.01 and with it a log-probability near -3 by a few float32 steps of 2e-7."""
    policy, data, *_ = rollout
    with torch.no_grad():
        new = policy.log_prob(policy(data.obs.flatten(1, 2)), data.action.flatten(1, 2))
    assert (torch.exp(new - data.log_prob.flatten(1, 2)) - 1).abs().max() < 1e-6


def test_clip_gradients_per_member():
    policy = ActorCritic((5,), seeds=[0, 1, 2], hidden=8)
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([10.0, 1e-3, 0.1])
    for x in policy.parameters():
        x.grad = torch.randn(x.shape, generator=generator) * scale.view(-1, 1, 1)
    before = torch.cat([x.grad.flatten(1) for x in policy.parameters()], 1)
    clip_gradients(policy, 0.5)
    after = torch.cat([x.grad.flatten(1) for x in policy.parameters()], 1)
    norm = before.norm(dim=1)
    assert norm[1] < 0.5 < norm[2]
    torch.testing.assert_close(
        after, before * torch.tensor([0.5, norm[1], 0.5])[:, None] / norm[:, None]
    )
    assert torch.equal(after[1], before[1])
    torch.testing.assert_close(after.norm(dim=1)[[0, 2]], torch.tensor([0.5, 0.5]))


def test_without_the_bootstrap_targets_change_at_truncations_only(rollout, monkeypatch):
    policy, data, *_ = rollout
    targets = {}
    for bootstrap in (True, False):
        config = PPOConfig(epochs=1, minibatches=1, lam=0.0, bootstrap_truncation=bootstrap)
        kept = []

        def loss(policy, obs, action, log_prob, advantage, target, config, kept=kept):
            kept.append(target)
            return ppo_loss(policy, obs, action, log_prob, advantage, target, config)

        monkeypatch.setattr(ppo, "ppo_loss", loss)
        copy = policy.select(slice(0, 2))
        optimizer = torch.optim.Adam(copy.parameters(), lr=0.0)
        ppo.update(copy, optimizer, data, config, 0.9, torch.Generator().manual_seed(5))
        order = torch.randperm(640, generator=torch.Generator().manual_seed(5))
        targets[bootstrap] = torch.empty_like(kept[0])
        targets[bootstrap][:, order] = kept[0]
    truncated = data.truncated.flatten(1, 2)
    assert truncated.any()
    assert torch.equal(targets[True] != targets[False], truncated)
    torch.testing.assert_close(targets[False][truncated], data.reward.flatten(1, 2)[truncated])
    with torch.no_grad():
        next_value = policy.value(data.next_obs.flatten(1, 2))
    wanted = data.reward.flatten(1, 2) + 0.9 * next_value * ~data.terminated.flatten(1, 2)
    torch.testing.assert_close(targets[True], wanted)


# Populations


@pytest.fixture(scope="module")
def pair() -> Run:
    return small({"oracle": "oracle"}, [4, 9])


@pytest.mark.parametrize("i", [0, 1])
def test_seeds_train_as_they_would_alone(pair, i):
    alone = small({"oracle": "oracle"}, [[4, 9][i]])
    assert_same_weights(pair.policy.select(slice(i, i + 1)), alone.policy)
    np.testing.assert_array_equal(pair.success[:, i], alone.success[:, 0])
    np.testing.assert_allclose(pair.returns[:, i], alone.returns[:, 0], atol=1e-3)
    start = ActorCritic((5,), seeds=[[4, 9][i]])
    moved = (weights(start)["actor.1.weight"] - weights(alone.policy)["actor.1.weight"]).abs()
    assert moved.max() > 100 * TOLERANCE  # so that the comparison means something


def test_arms_train_as_they_would_alone(pair):
    def far(fields):
        return -fields["gripper"].square().sum(1)

    arms = {"sparse": "sparse", "oracle": "oracle", "far": far}
    together = small(arms, [4, 9])
    assert together.arms == list(arms)
    assert together.policy.members == 6
    assert_same_weights(together.arm("oracle"), pair.policy)
    for name, reward in arms.items():
        alone = small({name: reward}, [4, 9])
        assert_same_weights(together.arm(name), alone.policy)
        np.testing.assert_allclose(
            together.returns[together.arms.index(name)], alone.returns[0], atol=1e-3
        )
    with pytest.raises(AssertionError):
        assert_same_weights(together.arm("far"), pair.policy)


def test_a_reward_function_sees_the_rows_of_its_arm():
    kept, seen = {"a": [], "b": []}, []

    def reward(name):
        def function(fields):
            kept[name].append(fields["gripper"].clone())
            assert {len(x) for x in fields.values()} == {2 * SMALL.robots}
            return fields["oracle"]

        return function

    rewards = {"a": reward("a"), "sparse": "sparse", "b": reward("b")}
    small(rewards, [0, 1], on_update=lambda i, data: seen.append((i, data.next_obs.clone())))
    assert [i for i, _ in seen] == [0, 1, 2]
    gripper = torch.cat([obs[..., :2] for _, obs in seen], 1)  # [P, T, n, 2]
    for name, members in (("a", slice(0, 2)), ("b", slice(4, 6))):
        wanted = gripper[members].transpose(0, 1).flatten(1, 2)  # [T, 2 n, 2]
        assert torch.equal(torch.stack(kept[name]), wanted)


def test_the_run_tells_what_happened(pair):
    assert pair.arms == ["oracle"]
    assert pair.seeds == [4, 9]
    assert pair.success.shape == pair.returns.shape == (1, 2, 3)
    assert pair.steps.tolist() == [128, 256, 384]
    assert pair.seconds.shape == (3,)
    assert (np.diff(pair.seconds) > 0).all()
    assert np.isfinite(pair.returns).all()
    assert ((pair.success >= 0) & (pair.success <= 1)).all()


def test_success_and_returns_are_those_of_the_finished_episodes():
    rollouts = []
    config = replace(SMALL, rollout=20)
    run = small(
        {"sparse": "sparse"}, [0, 1], 6 * 320, config, on_update=lambda _, d: rollouts.append(d)
    )
    for i, data in enumerate(rollouts):
        ends = (data.terminated | data.truncated).sum((1, 2))
        assert (ends > 0).all()
        good = (data.success.sum((1, 2)) / ends).numpy()
        np.testing.assert_allclose(run.success[0, :, i], good, rtol=1e-6)
        # Under the sparse reward the return of an episode is its success.
        np.testing.assert_allclose(run.returns[0, :, i], good, rtol=1e-6)


def test_same_seeds_same_run(pair):
    again = small({"oracle": "oracle"}, [4, 9])
    for name, x in weights(pair.policy).items():
        assert torch.equal(x, weights(again.policy)[name])


def test_gamma_0_is_not_the_default():
    runs = [small({"o": "oracle"}, [0], config=replace(SMALL, gamma=g)) for g in (0.0, 0.98, None)]
    assert get_task("Reach").gamma == 0.98
    value = [weights(run.policy)["critic.3.weight"] for run in runs]
    assert not torch.equal(value[0], value[1])
    assert torch.equal(value[1], value[2])


def test_images():
    run = small({"oracle": "oracle"}, [0, 1], config=PPOConfig(robots=8, rollout=6), obs="image")
    start = ActorCritic((32, 32, 3), seeds=[0, 1])
    for name, x in weights(run.policy).items():
        assert x.isfinite().all()
        assert not torch.equal(x, weights(start)[name]), name


def test_learning():
    run = small({"oracle": "oracle"}, [0, 1], 25_000, PPOConfig())
    assert run.steps[-1] <= 25_000
    assert (run.success[0, :, -1] > 0.9).all()
    assert (run.success[0, :, 0] < 0.5).all()


# A teacher at the side


class Tutor:
    """Answers with what a linear layer makes of the state of the first `robots` of each member."""

    def __init__(self, members: int, robots: int = 4) -> None:
        self.members, self.robots, self.asked = members, robots, []
        self.layer = nn.Linear(5, 3)

    def __call__(self, env: TabletopVectorEnv) -> torch.Tensor:
        state = env.observe().unflatten(0, (self.members, -1))[:, : self.robots]
        self.asked.append(state)
        return self.layer(state)


def test_a_teacher_of_weight_0_changes_no_bit(pair):
    tutor = Tutor(2)
    guided = small({"oracle": "oracle"}, [4, 9], teacher=Teacher(tutor, 0.0))
    assert len(tutor.asked) == 3 * SMALL.rollout
    for name, x in weights(pair.policy).items():
        assert torch.equal(x, weights(guided.policy)[name])
    pulled = small({"oracle": "oracle"}, [4, 9], teacher=Teacher(tutor))
    with pytest.raises(AssertionError):
        assert_same_weights(pair.policy, pulled.policy)


def test_the_teacher_is_asked_about_what_the_student_sees_and_is_not_trained():
    tutor, seen = Tutor(2), []
    run = small(
        {"sparse": "sparse"},
        [4, 9],
        teacher=Teacher(tutor),
        on_update=lambda i, data: seen.append(data),
    )
    for i, data in enumerate(seen):
        asked = torch.stack(tutor.asked[i * SMALL.rollout : (i + 1) * SMALL.rollout], 1)
        assert torch.equal(data.obs[:, :, :4], asked)
        torch.testing.assert_close(data.taught, tutor.layer(asked))
    assert run.policy.members == 2
    assert all(x.grad is None for x in tutor.layer.parameters())


def test_distillation_loss_by_hand():
    policy = ActorCritic((5,), seeds=[0, 1], hidden=8)
    obs, taught = torch.randn(2, 6, 5), torch.randn(2, 6, 3)
    mean = policy(obs)
    loss = ppo.distillation_loss(policy, obs, taught)
    for p in range(2):
        rows = [sum((mean[p, b, a] - taught[p, b, a]) ** 2 for a in range(3)) for b in range(6)]
        torch.testing.assert_close(loss[p], sum(rows) / 6)
    loss.sum().backward()
    assert policy.log_std.grad is None  # the spread belongs to the reward
    assert all(x.grad is None for x in policy.critic.parameters())


def test_without_a_reward_the_student_becomes_its_teacher():
    """In each state: answers that were paired with other states would give their mean."""
    shares = []

    def answer(state: torch.Tensor) -> torch.Tensor:
        return state[..., [1, 0, 3]]

    def weight(share: float) -> float:
        shares.append(share)
        return 1.0

    run = small(
        {"nothing": lambda fields: torch.zeros_like(fields["sparse"])},
        [4, 9],
        60 * 128,
        config=replace(SMALL, normalize_advantage=False),
        teacher=Teacher(lambda env: answer(env.observe().unflatten(0, (2, -1))[:, :4]), weight),
    )
    state = TabletopVectorEnv("Reach", 64).reset(seed=9)[0].unflatten(0, (2, -1))
    with torch.no_grad():
        error = (run.policy(state) - answer(state)).square().mean()
    spread = answer(state).flatten(0, 1).var(0).mean()
    assert error < 0.1 * spread
    assert shares == [i / 60 for i in range(60)]


@pytest.mark.parametrize("shape", [(2, 4, 2), (1, 4, 3), (2, 17, 3), (8, 3)])
def test_a_teacher_must_answer_for_robots_of_each_member(shape):
    teacher = Teacher(lambda env: torch.zeros(shape))
    with pytest.raises(ValueError, match="teacher") as error:
        small({"sparse": "sparse"}, [4, 9], teacher=teacher)
    one_line(error, "[2, W, 3]", str(list(shape)))


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small({"o": "oracle"}, [0], 100), ["at least 128 total_steps"]),
        (lambda: small({"o": "oracle"}, [0], 0), ["total_steps", "0"]),
        (lambda: small({"o": "oracle"}, [0], 1e4), ["total_steps", "whole number"]),
        (lambda: small({"o": "oracle"}, []), ["seed"]),
        (lambda: small({}, [0]), ["reward"]),
        (lambda: small({"o": "orcle"}, [0]), ["Did you mean 'oracle'"]),
        (lambda: small({"o": "orcle", "s": "sparse"}, [0]), ["Did you mean 'oracle'"]),
        (lambda: small({"o": "oracle"}, [0], task="Rech"), ["Did you mean 'Reach'"]),
        (lambda: small({"o": "oracle"}, [-1]), ["seed", "-1"]),
        (lambda: small({"o": "oracle"}, [0], obs="pixels"), ["obs", "image"]),
        (lambda: small({"o": lambda f: f["gripper"]}, [0]), ["[16]", "(16, 2)"]),
        (lambda: small({"o": lambda f: f["gripper"], "s": "sparse"}, [0]), ["'o'", "(16, 2)"]),
        (
            lambda: small(
                {"a": lambda f: f["sparse"][:8], "b": lambda f: f["sparse"].repeat(2)[:24]}, [0]
            ),
            ["'a'", "[16]", "(8,)"],
        ),
        (lambda: small({"a": lambda f: 0.0, "s": "sparse"}, [0]), ["'a'", "float"]),
        (lambda: small({"sparse": "sparse"}, [0], obs="all"), ['obs="state"']),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=r".") as error:
        call()
    one_line(error, *words)


def test_an_unknown_arm(pair):
    with pytest.raises(ValueError, match="sparse") as error:
        pair.arm("sparse")
    one_line(error, "oracle")


def test_entropy_of_the_initial_policy():
    wanted = 3 * (-0.5 + 0.5 * math.log(2 * math.pi * math.e))
    assert ActorCritic((5,), seeds=[0]).entropy().item() == pytest.approx(wanted)


def test_the_environment_may_be_a_subclass():
    """Its episodes start where it says, and it gets its own options."""
    starts = []

    class Near(TabletopVectorEnv):
        def __init__(self, task, num_envs, reward, at):
            super().__init__(task, num_envs, reward=reward)
            self.at = at

        def _start(self, robots):
            super()._start(robots)
            self.world.gripper[:, robots] = self.at
            starts.append(len(robots))

    config = ppo.PPOConfig(robots=4, rollout=3)
    run = ppo.train("Reach", {"a": "sparse"}, [0, 1], 12, config, False, make_env=Near, at=0.25)
    assert starts[0] == 8
    assert run.success.shape == (1, 2, 1)
