"""TorchRL on the lab: specs of single environments and of the native batch, rollouts, infos."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchrl", reason="torchrl is not installed")
from torchrl.envs import GymEnv, GymWrapper, check_env_specs

from tutorial_utils.tabletop import TabletopVectorEnv


@pytest.mark.parametrize("kind", ["state", "image", "state+image", "goal"])
def test_single_environments(kind):
    env = GymEnv("Tabletop/PickPlace-v0", obs=kind)
    check_env_specs(env)
    assert env.rollout(60)["next", "truncated"].sum() == 1


# With same-step autoreset TorchRL reads no final observations of several parts, of Gymnasium's own
# vector environments neither.
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("state", "same_step"), ("image", "same_step")]
    + [(kind, "disabled") for kind in ("state", "image", "state+image", "goal")],
)
def test_the_native_batch(kind, mode):
    env = GymWrapper(TabletopVectorEnv("PickPlace", 4, obs=kind, autoreset_mode=mode))
    check_env_specs(env)
    run = env.rollout(90, break_when_any_done=False)
    assert run.shape == (4, 90)
    assert (run["next", "truncated"].sum(1) == 2).all()


def test_infos_become_entries():
    env = GymEnv("Tabletop/PickPlace-v0").auto_register_info_dict()
    check_env_specs(env)
    assert env.rollout(3)["next", "is_success"].dtype == torch.bool
