"""The two doors: what the robot may know, and when."""

from __future__ import annotations

import numpy as np
import torch

from tutorial_utils.tabletop import hidden_pane
from tutorial_utils.tabletop.hidden_pane import STEPS, Doors, episodes, gate, picture


def test_the_coin_shows_in_the_lamp_and_at_the_glass_and_nowhere_else():
    e = episodes(400, 0)
    lit = e.obs[..., 4:].sum(-1) > 0
    assert torch.equal(e.obs[..., 5] - e.obs[..., 4], lit * e.coin[:, None])
    time = torch.arange(STEPS)
    before = time < e.fork[:, None]
    assert torch.equal(e.obs[before][:, :4], e.other[before][:, :4])
    stopped = (e.fork < STEPS) & (e.side != e.coin)
    assert (e.obs[stopped, -1, 1] < 0).float().mean() > 0.9
    assert abs(torch.corrcoef(torch.stack((e.coin, e.side)))[0, 1]) < 0.2


def test_plans_do_not_know_the_coin():
    e = episodes(2000, 3, wander=0.0)
    assert (e.action[:, 0] == 0).all()
    way = e.action.cumsum(1).flatten(1)  # a linear reading of all moves tells nothing of the coin
    x, y = torch.cat((way, torch.ones(len(way), 1)), 1).numpy(), e.coin.numpy()
    w, _, rank, _ = np.linalg.lstsq(x[:1500], y[:1500])  # torch's loses the rank of zero columns
    assert rank > 20
    assert abs((x[1500:] @ w * y[1500:] > 0).mean() - 0.5) < 0.08


def test_an_action_led_to_the_observation_beside_it():
    e = episodes(200, 1)
    moved, asked = e.obs[:, 1:, :2] - e.obs[:, :-1, :2], hidden_pane.STEP * e.action[:, 1:]
    free = (moved - asked).abs().amax(-1) < 1e-5  # where neither wall nor edge is near
    low = (e.obs[:, :-1, 1] < -0.35) & (e.obs[:, :-1, :2].abs() < 0.7).all(-1)
    assert free[low].all()
    assert low.sum() > 300


def test_a_pane_is_a_wall_that_pictures_do_not_show():
    assert len(gate().walls) == 3
    assert len(gate((1,)).walls) == 4
    e = episodes(20, 2)
    dark = e.obs[:, 0]
    assert torch.equal(picture(dark), picture(e.other[:, 0]))
    on = dark.clone()
    on[:, 4] = 1.0
    assert (picture(on) != picture(dark)).flatten(1).any(1).all()


def test_robots_at_the_doors_repeat_a_recorded_episode_and_can_be_placed():
    e = episodes(60, 4)
    doors = Doors(e.coin, 4)
    again = Doors(e.coin, 5)
    again.place(doors.observe()[0])
    for t in range(STEPS):
        for robots in (doors, again):
            obs, reward = robots.step(e.action[:, t]) if t else robots.observe()
            assert torch.equal(obs, e.obs[:, t])
            assert torch.equal(reward, e.reward[:, t])
