"""Algorithms that train a policy: PPO, soft actor-critic, DPPO, offline losses, learning of tokens.

The networks that they train are models; what they are measured by is evidence.
"""

__all__ = ["dppo", "history", "offline", "ppo", "sac", "vla_rl"]
