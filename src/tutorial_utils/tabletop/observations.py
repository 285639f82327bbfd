"""What an observation of the batched environment is: one tensor, or everything under its name."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor

OBSERVATIONS = ("state", "image", "all")


class Everything(TypedDict):
    """An observation of the kind "all"."""

    state: Tensor  # [N, D]
    image: Tensor  # uint8 [N, size, size, 3]
    instruction: tuple[str, ...]  # N of them


Obs = Tensor | Everything


def as_tensor(obs: Obs) -> Tensor:
    """The observation of an environment of the kind "state" or "image".

    Raises:
        ValueError: the environment observes "all".
    """
    if not isinstance(obs, Tensor):
        raise ValueError('this policy sees one tensor: use obs="state" or obs="image".')
    return obs


def as_everything(obs: Obs) -> Everything:
    """The observation of an environment of the kind "all".

    Raises:
        ValueError: the environment observes "state" or "image".
    """
    if isinstance(obs, Tensor):
        raise ValueError('this policy sees state, image and instruction: use obs="all".')
    return obs


def replaced(obs: Obs, robots: Tensor, rows: Obs) -> Obs:
    """A copy of `obs` in which the rows `robots` are `rows`, an observation of the same kind."""
    if isinstance(obs, Tensor):
        return obs.index_copy(0, robots, as_tensor(rows))
    rows, words = as_everything(rows), list(obs["instruction"])
    for robot, row in zip(robots.tolist(), rows["instruction"], strict=True):
        words[robot] = row
    return {
        "state": obs["state"].index_copy(0, robots, rows["state"]),
        "image": obs["image"].index_copy(0, robots, rows["image"]),
        "instruction": tuple(words),
    }
