"""Minari datasets written in LeRobot's dataset format v3.0, without LeRobot (it needs pyarrow).

LeRobot reads the folder with `LeRobotDataset("local/name", root=folder)`, offline.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium import spaces

from .._validate import positive_int
from .episodes import ends_with_observation


def to_lerobot(
    dataset: minari.MinariDataset,
    folder: str | Path,
    fps: int | None = None,
    task: str | None = None,
) -> Path:
    """Write a dataset into a new folder that LeRobot loads, and return the folder.

    An episode of T steps becomes T frames: what was seen, the action, and what it led to
    ("next.reward", "next.done", and "next.success" where the infos tell it). Its last observation
    is left out. Images are PNG, to the bit; vectors become float32. A text in the observations, or
    the instruction that `write_dataset` keeps, is the task of its frames.

    Args:
        dataset: of vector actions, with observations that are a vector, an RGB image (uint8
            [H, W, 3]) or a flat dict of both; its episodes are read one by one.
        folder: is made; nothing may stand there.
        fps: steps per second; by default those of the dataset's environment (10 in the lab).
        task: of the episodes without an instruction; by default the id of the dataset.

    Raises:
        ValueError: the folder exists, no episodes, spaces of other kinds, or fps is unknown.
        ImportError: pyarrow is not installed.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists: name a new folder or delete it first.")
    if not len(dataset):
        raise ValueError("the dataset has no episodes: there is nothing to write.")
    fps = positive_int(_fps(dataset) if fps is None else fps, "fps")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft", dir=folder.parent) as draft:
        root = Path(draft) / folder.name  # a part of a dataset must not pass for one
        _write(root, dataset, fps, task or dataset.id)
        root.rename(folder)
    return folder


def _write(root: Path, dataset: minari.MinariDataset, fps: int, task: str) -> None:
    """Fill the folder `root`."""
    try:
        from ._lerobot_writer import Writer
    except ImportError:
        advice = "pip install 'duality-book[robotics]'"
        raise ImportError(f"pyarrow is not installed: {advice}") from None
    parts, told = _parts(dataset.observation_space), _success(dataset[0]) is not None
    with Writer(root, _features(dataset, parts, told), fps) as writer:
        for episode, words in _with_words(dataset, task):
            writer.add(_columns(episode, parts, told), words)


def _fps(dataset: minari.MinariDataset) -> object:
    """The steps per second of the environment that a dataset names."""
    advice = "pass fps, its steps per second (10 in the lab)."
    if dataset.env_spec is None:
        raise ValueError(f"dataset {dataset.id!r} names no environment: {advice}")
    try:
        env = dataset.recover_environment()
    except (gymnasium.error.Error, ImportError) as error:
        problem = f"the environment of dataset {dataset.id!r} cannot be made"
        raise ValueError(f"{problem} ({type(error).__name__}): {advice}") from None
    rate = env.metadata.get("render_fps")
    env.close()
    return rate


# Which part of an observation becomes which feature


def _parts(space: spaces.Space[Any]) -> dict[str, tuple[str, spaces.Box]]:
    """Name and space of the parts of the observations, by feature; the name of a whole is ""."""
    found: dict[str, tuple[str, spaces.Box]] = {}
    for part, own in (space.spaces if isinstance(space, spaces.Dict) else {"": space}).items():
        if isinstance(own, spaces.Text):
            continue
        if not isinstance(own, spaces.Box) or not (_is_image(own) or len(own.shape) == 1):
            raise ValueError(f"observation {part!r} is neither a vector nor an RGB image: {own}.")
        if _is_image(own):
            name = f"observation.images.{part or 'image'}"
        else:
            name = f"observation.{'state' if part in ('', 'observation') else part}"
        if name in found or "/" in name:
            raise ValueError(f"observation {part!r} cannot become feature {name!r}: rename it.")
        found[name] = (part, own)
    return found


def _is_image(space: spaces.Box) -> bool:
    return space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3


def _features(
    dataset: minari.MinariDataset, parts: dict[str, tuple[str, spaces.Box]], told: bool
) -> dict[str, dict[str, Any]]:
    """The columns of the data but for those that every dataset has, as meta/info.json tells."""
    action: spaces.Space[Any] = dataset.action_space
    features: dict[str, dict[str, Any]] = {}
    if not isinstance(action, spaces.Box) or len(action.shape) != 1:
        raise ValueError(f"LeRobot's format has vectors for actions, not {action}.")
    for name, space in [(name, space) for name, (_, space) in parts.items()] + [("action", action)]:
        names = ["height", "width", "channels"]
        if len(space.shape) == 1:
            names = [f"{name.split('.')[-1]}_{i}" for i in range(space.shape[0])]
        dtype = "float32" if len(space.shape) == 1 else "image"
        features[name] = {"dtype": dtype, "shape": list(space.shape), "names": names}
    features["next.reward"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("next.done", "next.success")[: 1 + told]:
        features[name] = {"dtype": "bool", "shape": [1], "names": None}
    return features


# What an episode holds


def _columns(
    episode: minari.EpisodeData, parts: dict[str, tuple[str, spaces.Box]], told: bool
) -> dict[str, np.ndarray]:
    """What the steps of an episode saw, did and led to, by feature: [T, D] or [T, H, W, 3]."""
    steps, columns = len(episode), {}
    for name, (part, space) in parts.items():
        seen = episode.observations[part] if part else episode.observations
        ends_with_observation(episode, seen)
        columns[name] = np.asarray(seen[:steps], np.uint8 if _is_image(space) else np.float32)
    done = np.asarray(episode.terminations, bool) | np.asarray(episode.truncations, bool)
    columns["action"] = np.asarray(episode.actions, np.float32)
    columns["next.reward"] = np.asarray(episode.rewards, np.float32)[:, None]
    columns["next.done"] = done[:, None]
    if told:
        success = _success(episode)
        if success is None:
            raise ValueError(f"episode {episode.id} does not tell success, as the first one does.")
        columns["next.success"] = success[:, None]
    return columns


def _success(episode: minari.EpisodeData) -> np.ndarray | None:
    """Whether each step led to success, bool [T], where the infos tell it."""
    infos = episode.infos or {}
    name = next((n for n in ("success", "is_success") if n in infos), None)
    # What Minari's collector recorded begins with the info of the reset.
    return None if name is None else np.asarray(infos[name], bool)[-len(episode) :]


def _with_words(
    dataset: minari.MinariDataset, task: str
) -> Iterator[tuple[minari.EpisodeData, list[str]]]:
    """The episodes, each with the task of each of its steps."""
    facts = dataset.storage.get_episode_metadata(dataset.episode_indices)
    for episode, fact in zip(dataset, facts, strict=True):
        seen, options = episode.observations, fact.get("options")
        texts = [x for x in seen.values() if isinstance(x, list)] if isinstance(seen, dict) else []
        told = options.get("instruction", task) if isinstance(options, dict) else task
        words = texts[0][: len(episode)] if texts else [told] * len(episode)
        yield episode, [str(word) for word in words]
