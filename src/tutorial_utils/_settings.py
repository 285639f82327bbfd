"""The settings of a run: variables of the notebook, as papermill sets them, or the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ._validate import one_of

PREFIX = "DUALITY_"
SETTINGS = tuple(
    PREFIX + name for name in ("MODE", "SEED", "THREADS", "CACHE", "RESULTS", "STRICT", "SMOLLM")
)


def setting(name: str) -> str:
    """A setting by its name, or '' where it is not set.

    A variable of the notebook that has its name comes first. All of them are written into the
    environment, because a process that the notebook starts sees nothing else of them.

    Raises:
        ValueError: a variable of the notebook begins like a setting and is none.
    """
    for own, value in _notebook().items():
        if own.startswith(PREFIX):
            os.environ[one_of(own, SETTINGS, "setting")] = str(value)
    return os.environ.get(name, "")


def _notebook() -> Mapping[str, object]:
    """The variables of the notebook; none where no notebook or IPython shell runs."""
    ipython = sys.modules.get("IPython")  # a script should not wait for its import
    shell = ipython.get_ipython() if ipython else None
    return dict(shell.user_ns) if shell else {}
