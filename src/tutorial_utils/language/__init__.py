"""Text that becomes behaviour: programs and their interpreter, grammar and corpus, language models.

Nothing that a language model wrote is ever run as Python, and networks live among the models.
"""

from __future__ import annotations

from .programs import ProgramError, compile_reward

__all__ = [
    "ProgramError",
    "backends",
    "compile_reward",
    "corpus",
    "grammar",
    "small_model",
]
