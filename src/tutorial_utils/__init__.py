"""Helpers of the book Duality: what two chapters share and no chapter teaches.

Importing the package sets torch to one CPU thread in the whole process, for your own networks as
well: on a shared machine small ones train 5 to 20 times faster that way, and parallelism comes from
the population axis instead. `DUALITY_THREADS=8` in the environment sets another number, and so does
`torch.set_num_threads(8)` after the import. The import also registers the `Tabletop/...-v0`
environments with Gymnasium.
"""

from __future__ import annotations

import torch

from ._settings import setting

__version__ = "0.1.0"


def _set_threads() -> None:
    wanted = setting("DUALITY_THREADS") or "1"
    if not wanted.isdigit() or int(wanted) < 1:
        raise ValueError(f"DUALITY_THREADS must be a whole number of at least 1, not {wanted!r}.")
    torch.set_num_threads(int(wanted))


_set_threads()

from . import tabletop  # noqa: E402, F401 (registers the environments)
