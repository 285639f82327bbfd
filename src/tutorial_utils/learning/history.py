"""What the training of a population leaves: its policies and its learning curves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from .._validate import one_of


class _Population(Protocol):
    def select(self, members: slice) -> Self: ...


_Policy = TypeVar("_Policy", bound=_Population)


@dataclass
class Run(Generic[_Policy]):
    """A trained population: arms x seeds members, arm by arm."""

    arms: list[str]
    seeds: list[int]
    policy: _Policy
    steps: np.ndarray  # [U], environment steps per member after each update
    seconds: np.ndarray  # [U]
    success: np.ndarray  # [arms, seeds, U], share of the episodes that ended since the last update
    returns: np.ndarray  # [arms, seeds, U], their mean return under the member's own reward

    def arm(self, name: str) -> _Policy:
        """The members of one arm, one per seed."""
        first = self.arms.index(one_of(name, self.arms, "arm")) * len(self.seeds)
        return self.policy.select(slice(first, first + len(self.seeds)))


class History:
    """Success and return of the episodes that ended in each update, per member.

    Args:
        members, robots, updates: P, n and U.
    """

    def __init__(self, members: int, robots: int, updates: int, device: torch.device) -> None:
        self.success = torch.zeros(members, updates, device=device)
        self.returns = torch.zeros(members, updates, device=device)
        self.steps, self.seconds = np.zeros(updates, dtype=int), np.zeros(updates)
        self._running = torch.zeros(members, robots, device=device)  # return so far
        self._start = time.perf_counter()

    def add(self, i: int, reward: Tensor, done: Tensor, success: Tensor) -> None:
        """Record update `i` from its rewards, ends and successes [P, T, n].

        Where no episode ended, the last value stays.
        """
        total = torch.zeros_like(self._running)
        for t in range(done.shape[1]):
            self._running += reward[:, t]
            total += self._running * done[:, t]
            self._running *= ~done[:, t]
        ends = done.sum((1, 2))  # [P]
        for curve, value in ((self.success, success.sum((1, 2))), (self.returns, total.sum(1))):
            last = curve[:, i - 1] if i else torch.zeros_like(curve[:, 0])
            curve[:, i] = torch.where(ends > 0, value / ends.clamp_min(1), last)
        self.steps[i] = (i + 1) * reward[0].numel()
        self.seconds[i] = time.perf_counter() - self._start

    def arrays(self, arms: int) -> tuple[np.ndarray, ...]:
        """Steps of a member and seconds [U], success and return [arms, seeds, U]."""
        curves = (self.success, self.returns)
        success, returns = (x.cpu().numpy().reshape(arms, -1, x.shape[1]) for x in curves)
        return self.steps, self.seconds, success, returns
