"""Networks for a whole population, and the losses of their own training.

Nothing here improves a policy by its rewards: that is learning. The modules `chains`,
`diffusion`, `gpt`, `vla` and `vla_training` are imported by name: not every chapter needs what they
load.
"""

from __future__ import annotations

from .actor_critic import ActorCritic
from .population import PopulationLinear

__all__ = [
    "ActorCritic",
    "PopulationLinear",
    "chains",
    "diffusion",
    "gpt",
    "vla",
    "vla_training",
]
