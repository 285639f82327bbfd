"""Minari's own tools on the lab: its collector, environments from datasets, combined datasets."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType

import gymnasium
import minari
import numpy as np
import pytest
import torch

from tutorial_utils.tabletop import Expert, Shift, get_task
from tutorial_utils.tabletop.demonstrations import write_dataset
from tutorial_utils.tabletop.observations import OBSERVATIONS

ID = "tabletop/pickplace/expert-v0"
EXPERT = Expert(noise=0.3, success=0.7)


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


# The environment of a dataset


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"obs": "image", "size": 64},
        {"obs": "all", "distractors": 2, "reward": "oracle", "device": "cpu"},
    ],
    ids=lambda options: options.get("obs", "state"),
)
def test_episodes_replay_in_the_recovered_environment(options):
    dataset = write_dataset(ID, "PickPlace", EXPERT, 3, 0, **options)
    env = dataset.recover_environment()
    assert env.observation_space == dataset.observation_space
    assert env.action_space == dataset.action_space
    made = {name: value for name, value in options.items() if name != "device"}
    assert env.spec == gymnasium.make("Tabletop/PickPlace-v0", **made).spec
    assert dataset.env_spec.kwargs == {"task": "PickPlace", **made}
    assert "no_env_spec" not in dataset.storage.metadata
    facts = dataset.storage.get_episode_metadata(range(3))
    for episode, fact in zip(dataset, facts, strict=True):
        env.reset(seed=0)
        env.unwrapped.batch.reset(seed=torch.tensor([fact["seed"]]))
        steps = [env.step(action) for action in episode.actions]
        assert [step[1] for step in steps] == episode.rewards.tolist()
        seen, kept = steps[-1][0], episode.observations
        if isinstance(seen, np.ndarray):
            seen, kept = {"": seen}, {"": kept}
        assert all(np.array_equal(seen[part], kept[part][-1]) for part in seen)


def test_an_environment_is_recovered_with_its_shift():
    shift = Shift(rotation=0.3, wind=(0.05, 0.0))
    env = write_dataset(ID, "Push", Expert(), 1, 0, shift=shift).recover_environment()
    assert env.unwrapped.batch.world.shift == shift
    told = gymnasium.make("Tabletop/Push-v0", shift=shift).spec.to_json()
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(told))
    assert again.unwrapped.batch.world.shift == shift


def test_an_environment_is_recovered_by_who_imports_minari_alone():
    write_dataset(ID, "Sort", Expert(), 1, 0)
    code = f"import minari; print(minari.load_dataset({ID!r}).recover_environment())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Tabletop/Sort-v0" in done.stdout


@pytest.mark.parametrize(
    ("task", "options", "word"),
    [
        ("Reach", {"reward": lambda fields: fields["success"]}, "reward"),
        (replace(get_task("Reach"), horizon=9), {}, "Reach"),
        (replace(get_task("Reach"), name="Near"), {}, "Near"),
    ],
    ids=["reward", "changed", "new"],
)
def test_a_dataset_names_no_environment_rather_than_another(task, options, word):
    dataset = write_dataset(ID, task, Expert(), 2, 0, **options)
    assert dataset.env_spec is None
    assert word in dataset.storage.metadata["no_env_spec"]


def test_minari_combines_what_fits_and_nothing_else():
    def written(name, task, seed, **options):
        return write_dataset(f"{name}-v0", task, Expert(), 2, seed, **options)

    first, second = (written(f"seed-{seed}", "PickPlace", seed) for seed in (0, 1))
    both = minari.combine_datasets([first, second], "both-v0")
    assert both.recover_environment().spec == first.recover_environment().spec
    assert [len(e) for e in both] == [len(e) for part in (first, second) for e in part]
    others = {
        "wider": written("wider", "Sort", 0),
        "seen": written("seen", "PickPlace", 0, obs="image"),
        "shifted": written("shifted", "PickPlace", 0, shift=Shift(gain=0.5)),
        "paid": written("paid", "PickPlace", 0, reward=lambda fields: fields["success"]),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match="env_spec"):
            minari.combine_datasets([first, other], f"with-{name}-v0")


@pytest.fixture
def jax(monkeypatch):
    """Minari's collector maps trees with jax (349 MB); torch's function does the same."""
    if find_spec("jax") is None:
        monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
        monkeypatch.setitem(sys.modules, "jax.tree_util", torch.utils._pytree)


def collected(kind, record_infos, episodes=3):
    """A dataset of the id, as Minari's tutorial makes it, and the steps it should hold."""
    env = gymnasium.make("Tabletop/PickPlace-v0", obs=kind)
    env = minari.DataCollector(env, record_infos=record_infos, jpeg_encoding=False)
    env.action_space.seed(0)
    steps: list = []
    for seed in range(episodes):
        steps.append([env.reset(seed=seed)])
        for _ in range(4):
            action = env.action_space.sample()
            steps[-1].append((action, *env.step(action)))
    with warnings.catch_warnings(action="ignore"):  # asks for an e-mail and a link
        return env.create_dataset("tabletop/collected-v0"), steps


@pytest.mark.usefixtures("jax")
@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_minaris_collector_makes_datasets(kind):
    dataset, steps = collected(kind, record_infos=False)
    assert dataset.recover_environment().observation_space == dataset.observation_space
    for episode, ((first, _), *rest) in zip(dataset, steps, strict=True):
        for t, seen in enumerate([first, *(step[1] for step in rest)]):
            kept = episode.observations
            for part in seen if isinstance(seen, dict) else ():
                assert np.array_equal(kept[part][t], seen[part]), part
            assert isinstance(seen, dict) or np.array_equal(kept[t], seen)
        assert np.array_equal(episode.actions, [step[0] for step in rest])
        assert episode.rewards.tolist() == [step[2] for step in rest]


@pytest.mark.usefixtures("jax")
def test_minaris_collector_keeps_the_infos():
    dataset, steps = collected("state", record_infos=True)
    for episode, (first, *rest) in zip(dataset, steps, strict=True):
        infos = [first[1], *(step[-1] for step in rest)]
        assert set(episode.infos) == set(infos[1])
        for name, kept in episode.infos.items():
            assert kept.tolist() == [info[name] for info in infos], name
