"""The world model: what it may see, what its losses count, and its number codes."""

from __future__ import annotations

import math

import pytest
import torch

from tutorial_utils.models import rssm
from tutorial_utils.models.rssm import KINDS, RSSM, symexp, symlog, two_hot

P, B, T = 2, 3, 6


def model(kind: str = "discrete") -> RSSM:
    torch.manual_seed(0)
    net = RSSM(5, 2, [0, 1], kind, deter=16, hidden=16)
    for weight in net.parameters():  # heads begin as zeros, which would hide a leak
        weight.data += 0.1 * torch.randn_like(weight)
    return net


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(P, B, T, 5, generator=g), torch.randn(P, B, T, 2, generator=g)


def noise() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(P)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_dream_sees_no_observation_after_its_start(kind: str):
    net, (obs, action) = model(kind), data()
    scrambled = torch.cat((obs[:, :, :3], data(1)[0][:, :, 3:]), 2)
    dreams = []
    for seen in (obs, scrambled):
        state = net.observe(seen, action, noise()).at(2)
        dreams.append(net.imagine(state, action[:, :, 3:], noise()))
    assert all(torch.equal(a, b) for a, b in zip(*dreams, strict=True))
    late = net.observe(scrambled, action, noise()), net.observe(obs, action, noise())
    assert not torch.equal(late[0].z, late[1].z)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaks_over_a_reset(kind: str):
    net, (obs, action) = model(kind), data()
    first = torch.zeros(P, B, T)
    first[:, :, 3] = 1
    other = torch.cat((data(1)[0][:, :, :3], obs[:, :, 3:]), 2)
    before = torch.cat((data(1)[1][:, :, :4], action[:, :, 4:]), 2)
    a, b = net.observe(obs, action, noise(), first), net.observe(other, before, noise(), first)
    assert all(torch.equal(x[:, :, 3:], y[:, :, 3:]) for x, y in zip(a, b, strict=True))
    a, b = net.observe(obs, action, noise()), net.observe(other, before, noise())
    assert not torch.equal(a.h[:, :, 3:], b.h[:, :, 3:])


def test_an_action_reaches_the_step_that_it_led_to_and_no_earlier_one():
    net, (obs, action) = model(), data()
    changed = action.clone()
    changed[:, :, 3] += 1
    a, b = net.observe(obs, action, noise()), net.observe(obs, changed, noise())
    assert torch.equal(a.h[:, :, :3], b.h[:, :, :3])
    assert (a.h[:, :, 3] != b.h[:, :, 3]).any(-1).all()


def test_the_prior_is_blind_to_the_observation_of_its_own_step():
    net, (obs, action) = model(), data()
    changed = obs.clone()
    changed[:, :, 3] += 1
    a, b = net.observe(obs, action, noise()), net.observe(changed, action, noise())
    assert torch.equal(a.prior[:, :, :4], b.prior[:, :, :4])
    assert not torch.equal(a.posterior[:, :, 3], b.posterior[:, :, 3])


@pytest.mark.parametrize(("nats", "pays"), [(0.9, False), (1.1, True)])
def test_free_nats_count_over_all_categoricals_together(nats: float, pays: bool):
    """0.9 nats over eight categoricals, each of them well below 1, are free; 1.1 nats are not."""
    net = model()
    low, high = 0.0, 20.0
    prior = torch.zeros(P, B, T, 64)
    for _ in range(60):  # a peak on the first class of each group, as high as the nats ask
        middle = (low + high) / 2
        posterior = torch.zeros_like(prior)
        posterior[..., ::8] = middle
        low, high = (middle, high) if net.kl(posterior, prior).mean() < nats else (low, middle)
    assert net.kl(posterior, prior).mean().item() == pytest.approx(nats, abs=1e-4)
    prior.requires_grad_(), posterior.requires_grad_()
    latents = rssm.Latents(torch.zeros(P, B, T, 16), torch.zeros(P, B, T, 64), prior, posterior)
    terms = net.losses(latents, data()[0], torch.zeros(P, B, T), torch.ones(P, B, T), free=1.0)
    (terms["dynamics"] + terms["representation"]).sum().backward()
    assert (prior.grad.abs().sum() > 0) == pays
    assert (posterior.grad.abs().sum() > 0) == pays


def test_balance_sends_each_gradient_to_one_side():
    net, (obs, _) = model(), data()
    stats = torch.randn(2, P, B, T, 64).requires_grad_()
    latents = rssm.Latents(torch.zeros(P, B, T, 16), torch.zeros(P, B, T, 64), *stats)
    terms = net.losses(latents, obs, torch.zeros(P, B, T), torch.ones(P, B, T), free=0.0)
    for name, moved in (("dynamics", 0), ("representation", 1)):
        (gradient,) = torch.autograd.grad(terms[name].sum(), stats, retain_graph=True)
        assert gradient[moved].abs().sum() > 0
        assert gradient[1 - moved].abs().sum() == 0
    torch.testing.assert_close(0.1 * terms["dynamics"], terms["representation"])


def test_divergence_is_that_of_torch():
    a, b = torch.randn(2, P, B, 64)
    for kind in KINDS:
        net = model(kind)
        if kind == "discrete":
            sides = [torch.distributions.Categorical(net.probs(x)) for x in (a, b)]
        else:
            sides = [torch.distributions.Normal(*net.gaussian(x)) for x in (a, b)]
        wanted = torch.distributions.kl_divergence(*sides).sum(-1)
        torch.testing.assert_close(net.kl(a, b), wanted, rtol=1e-4, atol=1e-4)


def test_draws_follow_the_mixed_probabilities_and_pass_their_gradient_on():
    net = model()
    stats = torch.full((1, 20_000, 64), -30.0)
    stats[..., ::8] = 0.0  # each group is sure of its first class
    stats.requires_grad_()
    z = net.draw(stats, torch.rand(1, 20_000, 8, generator=noise()[0]))
    rate = z.unflatten(-1, (8, 8))[..., 0].mean().item()
    assert rate == pytest.approx(1 - rssm.UNIMIX * 7 / 8, abs=0.001)
    z[..., 1].sum().backward()
    assert stats.grad[..., 0].abs().sum() > 0


def test_members_do_not_depend_on_their_company():
    obs, action = data()
    both = RSSM(5, 2, [0, 1]).observe(obs, action, noise())
    alone = RSSM(5, 2, [1]).observe(obs[1:], action[1:], noise()[1:])
    torch.testing.assert_close(both.z[1:], alone.z)


def test_symexp_undoes_symlog():
    x = torch.tensor([-1e4, -3.0, -0.5, 0.0, 1e-3, 1.0, 500.0])
    torch.testing.assert_close(symexp(symlog(x)), x)
    assert symlog(torch.tensor(math.e - 1)).item() == pytest.approx(1.0)


def test_two_hot_decodes_to_its_value():
    bins = symexp(torch.linspace(-3, 3, 41))
    x = torch.tensor([0.0, 1.0, -7.3, 0.01, 19.0, bins[7].item()])
    weights = two_hot(x, bins)
    torch.testing.assert_close(weights @ bins, x)
    assert ((weights > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(x)))
    assert (two_hot(torch.tensor([99.0]), bins) @ bins).item() == pytest.approx(bins[-1].item())


def test_a_new_model_expects_no_reward():
    net, (obs, action) = RSSM(5, 2, [0, 1]), data()
    _, reward, _ = net.heads(net.observe(obs, action, noise()).features)
    torch.testing.assert_close(
        reward.softmax(-1) @ net.bins, torch.zeros(P, B, T), atol=1e-5, rtol=0
    )
