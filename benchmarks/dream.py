"""Steps of imagination of the population's world model, beside one member after another.

The peer has the same architecture in `torch.nn` layers, a network for each seed, and dreams the
same batch for one seed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import Row, rates
from torch import Tensor, nn

from tutorial_utils.models.rssm import RSSM, UNIMIX, gated

SEEDS, OBS, ACTIONS, GROUPS, CLASSES, DETER, BATCH = 5, 6, 2, 4, 16, 64, 128


class Plain(nn.Module):
    """What a dream needs of one member: cell, prior and reward."""

    def __init__(self) -> None:
        super().__init__()
        stoch = GROUPS * CLASSES
        self.cell = nn.Linear(DETER + stoch + ACTIONS, 3 * DETER)
        self.prior = nn.Sequential(nn.Linear(DETER, 64), nn.SiLU(), nn.Linear(64, stoch))
        self.reward = nn.Sequential(nn.Linear(DETER + stoch, 64), nn.SiLU(), nn.Linear(64, 41))

    def forward(self, h: Tensor, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = gated(self.cell(torch.cat((h, z, action), -1)), h)
        plain = self.prior(h).unflatten(-1, (GROUPS, CLASSES)).softmax(-1)
        p = (1 - UNIMIX) * plain + UNIMIX / CLASSES
        drawn = torch.multinomial(p.flatten(0, 1), 1).view(-1, GROUPS)
        z = nn.functional.one_hot(drawn, CLASSES).flatten(1).float()
        return h, z, self.reward(torch.cat((h, z), -1))


def ours(steps: int) -> Callable[[], int]:
    """Dreams of all seeds at once."""
    net = RSSM(OBS, ACTIONS, range(SEEDS), groups=GROUPS, classes=CLASSES, deter=DETER)
    streams = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
    state, action = net.start(BATCH), torch.rand(SEEDS, BATCH, steps, ACTIONS) * 2 - 1

    @torch.no_grad()
    def work() -> int:
        dream = net.imagine(state, action, streams)
        net.reward(dream.features.flatten(1, 2))
        return SEEDS * BATCH * steps

    return work


def one_by_one(steps: int) -> Callable[[], int]:
    """The same dreams, one seed after another."""
    nets = [Plain() for _ in range(SEEDS)]
    action = torch.rand(SEEDS, BATCH, steps, ACTIONS) * 2 - 1

    @torch.no_grad()
    def work() -> int:
        for net, moves in zip(nets, action, strict=True):
            h, z = torch.zeros(BATCH, DETER), torch.zeros(BATCH, GROUPS * CLASSES)
            for t in range(steps):
                h, z, _ = net(h, z, moves[:, t])
        return SEEDS * BATCH * steps

    return work


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figures, and no lines below the table."""
    steps = 5 if quick else 15
    speed = rates({"ours": ours(steps), "plain": one_by_one(steps)}, 1 if quick else 15)
    what = f"world model, {SEEDS} seeds at once, dreams of {steps} steps"
    peer = "a plain loop over seeds"
    return [Row(what, speed["ours"], "imagined steps/s", peer, speed["plain"])], []
