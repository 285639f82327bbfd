"""The world model that never decodes."""

from __future__ import annotations

import torch

from tutorial_utils.models.joint_embedding import JointEmbedding, unlike

P, B, T = 2, 3, 6


def test_a_guess_sees_neither_its_own_observation_nor_a_later_one():
    g = torch.Generator().manual_seed(0)
    obs, action = torch.randn(P, B, T, 5, generator=g), torch.randn(P, B, T, 2, generator=g)
    net = JointEmbedding(5, 2, [0, 1], deter=8, hidden=8)
    changed = obs.clone()
    changed[:, :, 3:] += 1
    a, b = net.observe(obs, action), net.observe(changed, action)
    assert torch.equal(a.guess[:, :, :4], b.guess[:, :, :4])
    assert not torch.equal(a.guess[:, :, 4], b.guess[:, :, 4])
    late = action.clone()
    late[:, :, 3] += 1
    c = net.observe(obs, late)
    assert torch.equal(a.guess[:, :, :3], c.guess[:, :, :3])
    assert not torch.equal(a.guess[:, :, 3], c.guess[:, :, 3])
    assert all(x.shape == (P,) for x in net.losses(a, g).values())


def test_collapse_costs_and_a_gaussian_does_not():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2000, 8, generator=g)
    fine = unlike(x, g)
    assert fine < 2
    assert all(unlike(y, g) > 20 * fine for y in (0 * x, 0.3 * x, x + 1, x.sign() * 2))
