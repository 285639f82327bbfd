"""Networks for a whole population, and the losses of their own training.

Nothing here improves a policy by its rewards: that is learning. The modules in lower case are
imported by name: not every chapter needs what they load.
"""

from __future__ import annotations

from .actor_critic import ActorCritic, SquashedActor
from .population import PopulationLinear

__all__ = [
    "ActorCritic",
    "PopulationLinear",
    "SquashedActor",
    "chains",
    "diffusion",
    "dual_encoder",
    "gpt",
    "pictures",
    "video",
    "vla",
    "vla_training",
    "vlm",
    "vlm_training",
]
