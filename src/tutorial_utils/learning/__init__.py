"""Algorithms that train a policy: PPO, DPPO, offline losses, reinforcement learning of tokens.

The networks that they train are models; what they are measured by is evidence.
"""

__all__ = ["dppo", "history", "offline", "ppo", "vla_rl"]
