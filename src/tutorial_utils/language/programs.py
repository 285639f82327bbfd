"""Reward programs that a language model wrote, compiled without ever running them as Python.

Language models can write the reward of a task as a program (Eureka: Ma et al. 2024, arXiv
2310.12931). What they write is hostile code until proven otherwise: it is parsed and translated
into a list of torch operations, each of which treats every robot by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._source import checked, extract, parse
from ._statements import Program
from ._words import ProgramError, fail, need

__all__ = ["ProgramError", "RewardProgram", "compile_reward", "extract"]


@dataclass(frozen=True, repr=False, eq=False)
class RewardProgram:
    """A compiled reward; see `compile_reward`."""

    source: str  # the program's text, helpers included
    components: tuple[str, ...]
    fields: tuple[str, ...]  # those that it reads
    _tape: Program
    _wanted: list[int]

    def __call__(self, values: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Score all robots: the total [N] and its components {name: [N]}, float32.

        `values` holds a tensor of any type, [N] or [N, k], for each field; others are ignored.
        ProgramError if a field is missing or has another shape, or a result is not finite.
        """
        rows = self.rows(values)
        if not abs(rows.sum().item()) < float("inf"):  # rarely of finite numbers
            finite = zip(["the reward", *self.components], rows.isfinite().all(dim=1), strict=True)
            bad = ", ".join(name for name, good in finite if not good)
            need(not bad, None, f"not finite for some robots: {bad}.")
        total, *components = rows.unbind()
        return total, dict(zip(self.components, components, strict=True))

    def rows(self, values: Mapping[str, Tensor]) -> Tensor:
        """The total and its components, finite or not: [1 + components, N]."""
        slots, n = self._tape.slots.copy(), None
        for name, slot in self._tape.loads.items():
            x, shape = values.get(name), self._tape.fields[name]
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            n = len(x) if n is None and isinstance(x, Tensor) and x.ndim else n
            if not isinstance(x, Tensor) or found != (n, *shape):
                fail(None, f"field {name!r} must be {[n or 'N', *shape]}, not {found}.")
            slots[slot] = x if x.dtype is torch.float32 else x.float()
        for slot, (function, operands) in self._tape.made.items():
            slots[slot] = function(*[slots[i] for i in operands])
        return torch.stack([slots[i] for i in self._wanted])


def compile_reward(source: str, fields: Mapping[str, Sequence[int]]) -> RewardProgram:
    """Compile a model's answer into a reward of all robots at once.

    Args:
        source: the answer, from which `extract` takes the program.
        fields: shape per robot of each field that the program may read, [] or [k].

    Raises:
        ProgramError: one line: what is not allowed, where, and what to write instead.
    """
    text = extract(source)
    known = {k: tuple(s) for k, s in fields.items() if len(s) < 2 and all(0 < x < 9 for x in s)}
    try:
        tape = Program(known, checked(parse(text)))
        (_, *names), slots = zip(*[(k, x.slot) for k, x in tape.run().items()], strict=True)
        program = RewardProgram(text, tuple(names), tuple(tape.loads), tape, list(slots))
        program.rows({k: torch.full((3, *known[k]), 0.5) for k in program.fields})
    except (RuntimeError, TypeError, IndexError, RecursionError) as error:
        raise ProgramError(f"the program fails on three robots: {error}") from None
    return program
