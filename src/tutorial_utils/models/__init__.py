"""Networks for a whole population, and the losses of their own training.

Nothing here improves a policy by its rewards: that is learning. The modules in lower case are
imported by name: not every chapter needs what they load.
"""

from __future__ import annotations

from .actor_critic import ActorCritic, PatchEncoder, SquashedActor
from .population import Network, PopulationLinear, Stack

__all__ = [
    "ActorCritic",
    "Network",
    "PatchEncoder",
    "PopulationLinear",
    "SquashedActor",
    "Stack",
    "chains",
    "diffusion",
    "dual_encoder",
    "gpt",
    "joint_embedding",
    "pictures",
    "rssm",
    "video",
    "vla",
    "vla_training",
    "vlm",
    "vlm_training",
]
