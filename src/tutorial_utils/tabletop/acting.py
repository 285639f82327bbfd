"""How anything acts in the lab: scripted experts, networks, functions, and chunks of actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from .experts import Expert
from .vector_env import TabletopVectorEnv

# A function from observations [P, E, ...] to actions [P, E, 3], such as a network of P members.
Policy = Expert | Callable[[Any], Tensor]


@runtime_checkable
class Exploring(Protocol):
    """A policy that can also draw its action."""

    def __call__(self, obs: Any) -> Tensor: ...

    def explore(self, obs: Any, generator: torch.Generator) -> Tensor:
        """Drawn actions [P, E, 3] for observations [P, E, ...]."""
        ...


def act(
    policy: Policy, env: TabletopVectorEnv, members: int, noise: torch.Generator | None = None
) -> Tensor:
    """Actions [N, 3] for the robots of `env`; with `noise`, drawn ones if it can `explore`."""
    if isinstance(policy, Expert):
        return policy(env.world)
    obs = env.observe()
    if isinstance(obs, Tensor):
        obs = obs.view(members, -1, *obs.shape[1:])
    if noise is not None and isinstance(policy, Exploring):
        return policy.explore(obs, noise).reshape(-1, 3)
    return policy(obs).reshape(-1, 3)


class Chunks:
    """Plans `length` actions at a time and executes them all before it looks again.

    Make a new one for each evaluation: it remembers where in its chunk it is.

    Args:
        plan: from observations [P, E, ...] to chunks [P, E, length * A].
        members: P.
    """

    def __init__(self, plan: Callable[[Any], Tensor], length: int, members: int) -> None:
        self.plan, self.length, self.members = plan, length, members
        self._chunk, self._step = torch.empty(0), 0

    def __call__(self, obs: Any) -> Tensor:
        """The next action [P, E, 3]; the fingers stay open where a chunk has only moves."""
        at = self._step % self.length
        if at == 0:
            self._chunk = self.plan(obs).unflatten(-1, (self.length, -1))  # [P, E, H, A]
        self._step += 1
        return with_open_fingers(self._chunk[:, :, at])


def with_open_fingers(move: Tensor) -> Tensor:
    """Actions [..., 3] of moves [..., 2]; what has 3 numbers already stays as it is."""
    return F.pad(move, (0, 3 - move.shape[-1]), value=-1.0)
