"""What an observation of the batched environment is: one tensor, or several under their names."""

from __future__ import annotations

from typing import Any, TypedDict, TypeGuard

import numpy as np
from gymnasium import spaces
from torch import Tensor

from .sentences import CHARACTERS, MAX_LENGTH

OBSERVATIONS = ("state", "image", "state+image", "all", "goal")


class Everything(TypedDict):
    """An observation of the kind "all"."""

    state: Tensor  # [N, D]
    image: Tensor  # uint8 [N, size, size, 3]
    instruction: tuple[str, ...]  # N of them


Named = dict[str, Tensor]  # of the kinds "state+image" and "goal": tensors [N, ...]
Obs = Tensor | Named | Everything


def space(kind: str, width: int, size: int) -> spaces.Space[Any]:
    """What one robot may observe: a state of `width` numbers, an image of `size` pixels, words."""
    state = spaces.Box(-1.0, 1.0, (width,), np.float32)
    image = spaces.Box(0, 255, (size, size, 3), np.uint8)
    words = spaces.Text(MAX_LENGTH, charset=CHARACTERS)
    if kind == "all":
        return spaces.Dict({"state": state, "image": image, "instruction": words})
    if kind == "state+image":
        return spaces.Dict({"state": state, "image": image})
    return state if kind == "state" else image


def has_words(obs: Obs) -> TypeGuard[Everything]:
    """Whether the observation is of the kind "all"."""
    return isinstance(obs, dict) and "instruction" in obs


def tensors(obs: Named | Everything) -> Named:
    """The tensors of an observation of several parts, under their names."""
    return {name: x for name, x in obs.items() if isinstance(x, Tensor)}


def as_tensor(obs: Obs) -> Tensor:
    """The observation of an environment of the kind "state" or "image".

    Raises:
        ValueError: the environment observes several things.
    """
    if not isinstance(obs, Tensor):
        raise ValueError('this policy sees one tensor: use obs="state" or obs="image".')
    return obs


def as_everything(obs: Obs) -> Everything:
    """The observation of an environment of the kind "all".

    Raises:
        ValueError: the environment observes something else.
    """
    if not has_words(obs):
        raise ValueError('this policy sees state, image and instruction: use obs="all".')
    return obs


def replaced(obs: Obs, robots: Tensor, rows: Obs) -> Obs:
    """A copy of `obs` in which the rows `robots` are `rows`, an observation of the same kind."""
    if isinstance(obs, Tensor):
        return obs.index_copy(0, robots, as_tensor(rows))
    assert not isinstance(rows, Tensor)
    new = tensors(rows)
    parts = {name: x.index_copy(0, robots, new[name]) for name, x in tensors(obs).items()}
    if not has_words(obs):
        return parts
    words = list(obs["instruction"])
    for robot, row in zip(robots.tolist(), as_everything(rows)["instruction"], strict=True):
        words[robot] = row
    return {"state": parts["state"], "image": parts["image"], "instruction": tuple(words)}
