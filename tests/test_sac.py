"""Soft actor-critic: log-probability, target, replay, and members that share nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from tutorial_utils.learning import sac
from tutorial_utils.models.actor_critic import SquashedActor

SMALL = sac.SACConfig(robots=4, updates=1, batch=16, warmup=32, hidden=16)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_log_prob_is_that_of_a_gaussian_through_tanh() -> None:
    actor = SquashedActor(5, [0, 1], hidden=16)
    obs = noise(2, 7, 5)
    action, log_prob = actor.sample(obs, noise(2, 7, 3))
    mean, log_std = actor.gaussian(obs)
    known = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    torch.testing.assert_close(log_prob, known.log_prob(action).sum(-1), atol=1e-4, rtol=1e-4)


def test_log_prob_is_finite_where_tanh_saturates() -> None:
    actor = SquashedActor(2, [0], hidden=4)
    with torch.no_grad():
        actor.network[-1].bias[..., :3] = 40.0
    action, log_prob = actor.sample(torch.zeros(1, 1, 2), torch.zeros(1, 1, 3))
    assert (action == 1).all()
    # log(1 - tanh(u)^2) is 2 (log 2 - u) for large u
    expected = 3 * (-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 40))
    assert log_prob.item() == pytest.approx(expected, abs=0.1)


def test_target_by_hand() -> None:
    learner = sac.Learner(4, [0], SMALL, 0.9, "cpu")
    after, reward, draw = noise(1, 3, 4), torch.tensor([[1.0, 2.0, 3.0]]), noise(1, 3, 3)
    ended = torch.tensor([[0.0, 1.0, 0.0]])
    target = learner.target(reward, after, ended, draw)
    action, log_prob = learner.actor.sample(after, draw)
    q = learner.critic.averaged(after, action)
    for i in range(3):
        soft = min(q[0, 0, i], q[1, 0, i]) - SMALL.alpha * log_prob[0, i]
        hand = reward[0, i] + (0.9 * soft if i != 1 else 0)
        assert target[0, i].item() == pytest.approx(hand.item(), abs=1e-5)


def test_a_step_raises_the_temperature_of_a_policy_that_is_too_certain() -> None:
    batch = (noise(1, 8, 4), noise(1, 8, 3), noise(1, 8), noise(1, 8, 4), torch.zeros(1, 8))
    for bias, sign in ((-5.0, 1), (0.0, -1)):  # log std: entropy under and over the target
        learner = sac.Learner(4, [0], SMALL, 0.9, "cpu")
        with torch.no_grad():
            learner.actor.network[-1].bias[..., 3:] = bias
            before = learner.log_alpha.clone()
        learner.step(batch, noise(2, 1, 8, 3))
        assert sign * (learner.log_alpha - before).item() > 0


def test_replay_keeps_the_last_rows() -> None:
    replay = sac.Replay(2, 6, 1, 1, "cpu")
    for t in range(5):  # two rows at a time: 0 and 1 are overwritten by 3 and 4
        x = torch.full((2, 2, 1), float(t))
        replay.add(x, x, x, x, x)
    assert replay.size == 6
    obs, _, reward, _, _ = replay.draw(200, torch.Generator().manual_seed(0))
    assert obs.unique().tolist() == [2, 3, 4]
    assert (obs[..., 0] == reward).all()


def test_a_member_trains_as_it_would_alone() -> None:
    both = sac.train("Reach", {"oracle": "oracle"}, [3, 4], 400, SMALL, progress=False)
    alone = sac.train("Reach", {"oracle": "oracle"}, [4], 400, SMALL, progress=False)
    for a, b in zip(both.policy.parameters(), alone.policy.parameters(), strict=True):
        torch.testing.assert_close(a[1:], b, atol=1e-4, rtol=1e-3)


def test_a_guide_decides_what_is_stored() -> None:
    stored = []

    def still(env, obs, action, share):
        return torch.zeros_like(action)

    def look(i, learner, replay):
        stored.append(replay.draw(64, torch.Generator().manual_seed(0))[1])

    sac.train(
        "Reach", {"a": "sparse"}, [0], 400, SMALL, False, guide=still, on_update=look, rounds=2
    )
    assert len(stored) == 2
    assert all((x == 0).all() for x in stored)


def test_a_guide_may_store_another_action_than_is_carried_out() -> None:
    carried, stored = [], []

    def correct(env, obs, action, share):
        carried.append(getattr(env, "action", None))  # of the step before
        return torch.zeros_like(action), 0.5 * torch.ones_like(action)

    def look(i, learner, replay):
        stored.append(replay.draw(64, torch.Generator().manual_seed(0))[1])

    sac.train(
        "Reach", {"a": "sparse"}, [0], 8, SMALL, False, guide=correct, on_update=look, rounds=1
    )
    assert (stored[0] == 0.5).all()
    assert carried[0] is None
    assert (carried[1] == 0).all()


def test_on_start_may_change_the_initial_weights() -> None:
    def silence(learner: sac.Learner) -> None:
        with torch.no_grad():
            learner.actor.network[-1].weight.zero_()

    run = sac.train("Reach", {"a": "sparse"}, [0, 1], 16, SMALL, False, on_start=silence, rounds=1)
    assert (run.policy(noise(2, 7, 5)) == 0).all()


def test_too_few_steps_say_so() -> None:
    with pytest.raises(ValueError, match="total_steps"):
        sac.train("Reach", {"a": "sparse"}, [0], 10, SMALL, progress=False)


def test_it_learns_to_reach() -> None:
    config = sac.SACConfig(robots=16, updates=4, warmup=800, hidden=64, batch=64)
    run = sac.train("Reach", {"o": "oracle"}, [0, 1], 12_000, config, progress=False)
    assert run.success[0, :, -1].min() > run.success[0, :, 0].max() + 0.3
