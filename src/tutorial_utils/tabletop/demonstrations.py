"""Demonstrations as Minari datasets, under `MINARI_DATASETS_PATH` (default ~/.minari/datasets)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium
import minari
import torch
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage import get_dataset_path
from torch import Tensor

from .._validate import positive_int
from .acting import Policy, act
from .episodes import chunks, transitions
from .observations import Obs
from .sentences import instructions
from .streams import robot_keys
from .tasks import TASKS, Shift, Task, get_task
from .vector_env import TabletopVectorEnv

__all__ = ["chunks", "collect", "load_dataset", "transitions", "write_dataset"]

_PATIENCE = 5.0  # seconds to wait for the server of published datasets


@torch.inference_mode()
def collect(
    policy: Policy,
    task: str | Task,
    episodes: int,
    seed: int,
    **env_options: Any,
) -> list[EpisodeBuffer]:
    """Record episodes, all at once, each up to its end or the environment's time limit.

    Args:
        policy: as in `evidence.evaluate`; the members of a population share the episodes.
        seed: of the episodes.
        env_options: those of `TabletopVectorEnv`, such as obs, shift or max_episode_steps.

    Returns:
        Buffers of T steps: observations [T + 1, ...], the rest [T, ...]; infos hold "success" and
        "cost", options the "instruction"; `env.reset(seed=torch.tensor([buffer.seed]))` replays.
    """
    task, episodes = get_task(task), positive_int(episodes, "episodes")
    env, members = TabletopVectorEnv(task, episodes, **env_options), getattr(policy, "members", 1)
    keys = robot_keys(seed, episodes, env.device)
    seen, running = [env.reset(seed=keys)[0]], torch.ones_like(keys, dtype=torch.bool)
    rows: list[tuple[Tensor, ...]] = []
    words = instructions(env.world, torch.arange(episodes, device=env.device))
    while running.any():
        action = act(policy, env, members).clamp(-1.0, 1.0)
        reward, ended, cut, info = env.advance(action)
        rows.append((action, reward, ended, cut, info["success"], info["cost"]))
        seen.append(env.observe())
        running = running & ~(ended | cut)
    return _cut(seen, [torch.stack(x, 1) for x in zip(*rows, strict=True)], words, keys.tolist())


def _cut(
    seen: list[Obs], data: list[Tensor], words: list[str], keys: list[int]
) -> list[EpisodeBuffer]:
    """One buffer per robot, up to the end of its first episode; `data` are [N, T, ...]."""
    length = ((data[2] | data[3]).int().argmax(1) + 1).tolist()
    named: list[dict[str, Any]] = [{"": x} if isinstance(x, Tensor) else {**x} for x in seen]
    parts = [name for name in named[0] if name != "instruction"]
    obs = {name: torch.stack([x[name] for x in named], 1).cpu().numpy() for name in parts}
    arrays, buffers = [x.cpu().numpy() for x in data], []
    for i, t in enumerate(length):
        own: Any = {name: x[i, : t + 1] for name, x in obs.items()}
        if "instruction" in named[0]:
            own["instruction"] = [words[i]] * (t + 1)
        own = own.get("", own)
        *basic, success, cost = (x[i, :t] for x in arrays)
        infos, options = {"success": success, "cost": cost}, {"instruction": words[i]}
        buffers.append(EpisodeBuffer(None, keys[i], options, own, *basic, infos))
    return buffers


def write_dataset(
    dataset_id: str,
    task: str | Task,
    expert: Policy,
    episodes: int,
    seed: int,
    description: str | None = None,
    **env_options: Any,
) -> minari.MinariDataset:
    """Record demonstrations (see `collect`) into the local dataset `dataset_id`, replacing it.

    Its metadata tell the task, the expert and its measured success, the seed and the env_options.
    `recover_environment()` makes the environment again, on the default device. Where that cannot be
    (a task of one's own, a reward function), "no_env_spec" in the metadata says why.
    """
    data, task = _folder(dataset_id), get_task(task)
    buffers = collect(expert, task, episodes, seed, **env_options)
    spec, problem = _spec(task, env_options)
    facts = _facts(task, expert, buffers, seed, env_options) | problem
    env = TabletopVectorEnv(task, 1, **env_options)
    with (
        # Minari looks into every folder beside the one it writes: another writer's must be hidden.
        tempfile.TemporaryDirectory(prefix=".draft", dir=get_dataset_path()) as draft,
        mock.patch.dict(os.environ, MINARI_DATASETS_PATH=draft),
        warnings.catch_warnings(action="ignore"),  # Minari asks for an e-mail and a link
    ):
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=spec,
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            algorithm_name=facts["expert"],
            author="The Duality book authors",
            description=description or f"{task.name}: {task.summary}.",
            jpeg_encoding=False,  # what was seen, to the bit
        )
        dataset.storage.update_metadata(facts)
        _replace(data, dataset.storage.data_path)
    return load_dataset(dataset_id, download=False)


def _facts(
    task: Task, expert: Policy, buffers: list[EpisodeBuffer], seed: int, options: dict[str, Any]
) -> dict[str, Any]:
    """What a dataset's metadata tell beside what Minari writes."""
    return {
        "task": task.name,
        "expert": _name(expert),
        "expert_success": sum(bool(b.infos["success"][-1]) for b in buffers) / len(buffers),
        "seed": int(seed),
        "env_options": {key: str(value) for key, value in options.items()},
    }


def _spec(task: Task, options: dict[str, Any]) -> tuple[EnvSpec | None, dict[str, str]]:
    """What `gymnasium.make` needs to make the environment again, or why no JSON can hold that."""
    if TASKS.get(task.name) != task:
        return None, {"no_env_spec": f"Gymnasium knows no task {task.name!r} like this one"}
    # The machine that loads a dataset need not have the device of the one that wrote it.
    options = {name: value for name, value in options.items() if name != "device"}
    spec = gymnasium.make(task.env_id, **options).spec
    with contextlib.suppress(TypeError, ValueError):  # not JSON
        if isinstance(shift := options.get("shift"), Shift):  # as JSON has it
            plain_shift = json.loads(json.dumps(asdict(shift)))
            spec = gymnasium.make(task.env_id, **options | {"shift": plain_shift}).spec
        if spec is not None and EnvSpec.from_json(spec.to_json()) == spec:
            return spec, {}
    plain = (bool, int, float, str, type(None))
    names = [name for name, value in options.items() if not isinstance(value, plain)]
    return None, {"no_env_spec": f"JSON cannot hold the value of {', '.join(names)}"}


def _name(policy: Policy) -> str:
    """A policy in one line that is the same in every run."""
    text = getattr(policy, "__qualname__", None) or repr(policy)
    return type(policy).__name__ if "\n" in text or " at 0x" in text else text


def _replace(data: Path, draft: Path) -> None:
    """Put the complete dataset in `draft` in the place of `data`, file by file."""
    data.mkdir(parents=True, exist_ok=True)
    for file in draft.iterdir():
        file.replace(data / file.name)


def _folder(dataset_id: str) -> Path:
    """Where the data of a dataset stand."""
    try:
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError):
        message = f"{dataset_id!r} is no dataset id: write it like 'tabletop/pickplace/expert-v0'."
        raise ValueError(message) from None
    data: Path = get_dataset_path(dataset_id) / "data"
    return data


def load_dataset(dataset_id: str, download: bool = True) -> minari.MinariDataset:
    """A local dataset, or else a published one (such as "D4RL/pointmaze/umaze-v2").

    Raises:
        FileNotFoundError: it is not here and cannot be had.
        ValueError: not an id, or the files are damaged.
    """
    data = _folder(dataset_id)
    problem = "" if data.exists() else _download(dataset_id, data) if download else "not tried"
    if problem:
        raise FileNotFoundError(
            f"no local dataset {dataset_id!r}: make it with write_dataset, or download it "
            f"({problem}); minari.list_local_datasets() lists what is here."
        )
    try:
        dataset = minari.MinariDataset(data)
        list(dataset.iterate_episodes(dataset.episode_indices[-1:]))  # does the file open?
    except Exception as error:
        raise ValueError(
            f"dataset {dataset_id!r} is damaged ({_line(error)}): delete {data.parent} and write "
            "or download it again."
        ) from None
    return dataset


def _download(dataset_id: str, data: Path) -> str:
    """Fetch a published dataset; returns what went wrong, in one line, or nothing."""
    try:  # first a short question: Minari itself would try again and again for half a minute
        site = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        with contextlib.suppress(urllib.error.HTTPError):  # an answer, too
            urllib.request.urlopen(site, timeout=_PATIENCE).close()
        with contextlib.redirect_stdout(io.StringIO()):  # progress goes to stderr
            minari.download_dataset(dataset_id)
    except BaseException as error:
        shutil.rmtree(data, ignore_errors=True)  # a part of a dataset must not pass for one
        if isinstance(error, urllib.error.URLError | TimeoutError):
            return f"{site} does not answer: check the network"
        if isinstance(error, Exception):
            return _line(error)
        raise
    return ""


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
