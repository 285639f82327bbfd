"""Losses that bring a critic and a generative policy together."""

import pytest
import torch
from helpers import one_line

from tutorial_utils.learning import offline
from tutorial_utils.models import diffusion as df
from tutorial_utils.models.chains import DiffusionPolicy

S, D, SEEDS, LEVELS = 3, 2, [3, 4], 5
OBS = torch.rand(2, 16, S, generator=torch.Generator().manual_seed(0)) * 2 - 1


def generators(seeds=SEEDS):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def actor(seeds=SEEDS):
    network = df.Denoiser(D, S, seeds, horizon=LEVELS, hidden=16)
    return DiffusionPolicy(network, df.scheduler(LEVELS))


def critic(seeds=SEEDS):
    return offline.TwinCritic(S, D, seeds, hidden=16)


def gradients(module):
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


# ------------------------------------------------------------------------------- the critics


def test_the_two_critics_differ_and_their_averages_follow():
    twins, action = critic(), torch.rand(2, 16, D)
    first, second = twins(OBS, action)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(twins.averaged(OBS, action), twins(OBS, action))
    twins.follow()  # the first call copies
    start = [p.clone() for p in twins.target.module.parameters()]
    with torch.no_grad():
        for p in twins.online.parameters():
            p.add_(1.0)
    twins.follow()
    for before, after in zip(start, twins.target.module.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.005, atol=1e-5, rtol=0)


def test_the_averages_pass_gradients_to_the_action_alone():
    twins, action = critic(), torch.rand(2, 16, D, requires_grad=True)
    twins.averaged(OBS, action).sum().backward()
    assert action.grad.abs().sum() > 0
    assert all(p.grad is None for p in twins.parameters())


def test_critic_loss_by_hand():
    twins, action, target = critic(), torch.rand(2, 16, D), torch.rand(2, 16)
    first, second = twins(OBS, action)
    known = (first - target).square().mean(1) + (second - target).square().mean(1)
    torch.testing.assert_close(twins.loss(OBS, action, target), known)


def test_expectile_loss_by_hand():
    error = torch.tensor([-2.0, 0.0, 3.0])
    torch.testing.assert_close(offline.expectile_loss(error, 0.9), torch.tensor([0.4, 0.0, 8.1]))
    torch.testing.assert_close(offline.expectile_loss(error, 0.5), error.square() / 2)


@pytest.mark.parametrize(("expectile", "expected"), [(0.5, 0.5), (0.9, 0.9), (0.1, 0.1)])
def test_the_minimum_of_the_expectile_loss(expectile, expected):
    """Of 0 and 1 with equal chance, the expectile is the value of its own name."""
    grid = torch.linspace(0, 1, 1001)
    loss = sum(offline.expectile_loss(x - grid, expectile) for x in (0.0, 1.0))
    assert grid[loss.argmin()] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("expectile", [0.0, 1.0, -1.0, float("nan")])
def test_an_expectile_out_of_range(expectile):
    with pytest.raises(ValueError, match="expectile") as error:
        offline.expectile_loss(torch.zeros(1), expectile)
    one_line(error, "between 0 and 1")


# ------------------------------------------------------------------------------- the actors


def test_a_hundred_times_the_reward_gives_the_same_actor_gradient():
    found = []
    for scale in (1.0, 100.0):
        policy, twins = actor(), critic()
        q = scale * twins.averaged(OBS, offline.generate(policy, OBS, generators()))
        offline.value_term(q).sum().backward()
        found.append(gradients(policy.actor))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert sum(g.abs().sum() for g in found[0]) > 0


def test_the_value_term_divides_by_a_constant():
    q = torch.tensor([[[1.0, 3.0]], [[-2.0, 4.0]]], requires_grad=True)  # [2, 1, 2]
    term = offline.value_term(q)
    assert term.item() == pytest.approx(-2 / 3)
    term.sum().backward()
    torch.testing.assert_close(q.grad[0], torch.full((1, 2), -0.5 / 3))
    assert not q.grad[1].any()


def test_the_gradient_of_cloning_does_not_depend_on_the_critic():
    """The losses share the actor, not their gradients: with weight 0 the critic has no say."""
    data, found = torch.rand(2, 16, D) * 2 - 1, []
    for seeds, weight in ((SEEDS, 0.0), ([8, 9], 0.0), (SEEDS, 1.0)):
        policy, twins, draws = actor(), critic(seeds), generators()
        loss = df.noise_loss(df.scheduler(LEVELS))(policy.actor, data, OBS, draws).mean(1)
        q = twins.averaged(OBS, offline.generate(policy, OBS, draws))
        (loss + weight * offline.value_term(q)).sum().backward()
        found.append(gradients(policy.actor))
    for one, other in zip(found[0], found[1], strict=True):
        torch.testing.assert_close(one, other)
    assert any(not torch.allclose(a, b) for a, b in zip(found[0], found[2], strict=True))


def test_generated_actions_are_those_of_the_deployed_policy():
    """The same noise gives the same action, as long as nothing is cut."""
    policy = actor()
    with torch.no_grad():
        made = offline.generate(policy, OBS, generators())
        sampled = policy.sample(OBS, generators(), explore=False)[0][:, :, -1]
    torch.testing.assert_close(made, sampled.clamp(-1, 1))


def test_every_denoising_step_gets_a_gradient():
    policy, levels = actor(), []
    forward = policy.actor.forward

    def noting(x, level, obs):
        x.requires_grad and levels.append(level)
        return forward(x, level, obs)

    policy.actor.forward = noting
    offline.generate(policy, OBS, generators()).sum().backward()
    assert levels == [3, 2, 1, 0]  # the noise itself needs none
    assert all(p.grad.abs().sum() > 0 for p in policy.actor.parameters())


def test_distillation_teaches_the_student_alone():
    flow, student = (df.Denoiser(D, S, seeds, hidden=16) for seeds in (SEEDS, [8, 9]))
    noise = torch.randn(2, 16, D)
    offline.distillation_loss(student, flow, OBS, noise).sum().backward()
    assert all(p.grad is None for p in flow.parameters())
    assert all(p.grad.abs().sum() > 0 for p in student.parameters())


def test_a_student_that_is_the_flow_has_nothing_to_learn():
    class Still(df.Denoiser):  # its flow stays where it is
        def forward(self, x, time, condition):
            return 0 * super().forward(x, time, condition)

    class Copy(df.Denoiser):
        def forward(self, x, time, condition):
            return x.clamp(-1, 1)

    loss = offline.distillation_loss(
        Copy(D, S, SEEDS), Still(D, S, SEEDS), OBS, torch.randn(2, 16, D)
    )
    torch.testing.assert_close(loss, torch.zeros(2))


def test_the_flow_is_followed_in_euler_steps():
    class Constant(df.Denoiser):
        def forward(self, x, time, condition):
            return torch.full_like(x, 0.5)

    noise = torch.tensor([[[-0.2, 0.9]]])
    found = offline.flow_action(Constant(D, 0, [0]), torch.zeros(1, 1, 0), noise, steps=3)
    torch.testing.assert_close(found, torch.tensor([[[0.3, 1.0]]]))  # the second one is cut


@pytest.mark.parametrize("candidates", [1, 7])
def test_the_best_candidate_is_taken(candidates):
    drawn = []

    def act(obs):
        drawn.append(torch.rand(*obs.shape[:2], D))
        return drawn[-1]

    twins = critic()
    best = offline.best_of(act, twins, OBS, candidates)
    each = drawn[0].unflatten(1, (16, candidates))  # [P, B, N, D]
    for p in range(2):
        for b in range(16):
            obs = OBS[:, b : b + 1].expand(-1, candidates, -1)
            values = twins.averaged(obs, each[:, b]).amin(0)[p]  # [N]
            assert best[p, b].equal(each[p, b, values.argmax()])


def test_members_share_nothing():
    action = torch.rand(2, 16, D)
    torch.testing.assert_close(critic()(OBS, action)[:, 1:], critic([4])(OBS[1:], action[1:]))
    both, alone = actor(), actor([4])
    torch.testing.assert_close(
        offline.generate(both, OBS, generators())[1:],
        offline.generate(alone, OBS[1:], generators([4])),
    )
