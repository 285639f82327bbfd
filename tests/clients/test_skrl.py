"""skrl on the lab: its wrappers around one robot and around the native batch."""

from __future__ import annotations

import gymnasium
import pytest
import torch

pytest.importorskip("skrl", reason="skrl is not installed")
from skrl.envs.wrappers.torch import wrap_env

import tutorial_utils  # noqa: F401 (registers the environments)


@pytest.mark.parametrize("kind", ["state", "state+image", "goal"])
def test_single_environments(kind):
    env = wrap_env(gymnasium.make("Tabletop/PickPlace-v0", obs=kind))
    first, _ = env.reset()
    obs, reward, terminated, truncated, _ = env.step(torch.zeros(1, 3))
    assert obs.shape == first.shape
    assert reward.shape == terminated.shape == truncated.shape == (1, 1)


def test_the_native_batch():
    env = wrap_env(gymnasium.make_vec("Tabletop/PickPlaceDense-v0", num_envs=4))
    env.reset()
    total = torch.zeros(4, 1)
    for _ in range(40):
        obs, reward, _, truncated, _ = env.step(torch.rand(4, 3) * 2 - 1)
        total += reward
    assert obs.shape == (4, 8)
    assert truncated.all()
    assert total.std() > 0
