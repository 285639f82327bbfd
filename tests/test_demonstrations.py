"""Demonstrations: what is written comes back to the bit, and every error says what to do."""

from __future__ import annotations

import shutil
import socket
import warnings
from dataclasses import replace
from pathlib import Path

import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari import EpisodeData
from minari.namespace import list_local_namespaces
from minari.storage import get_dataset_path

from tutorial_utils.evidence import run_mode
from tutorial_utils.models import ActorCritic
from tutorial_utils.tabletop import (
    Expert,
    Shift,
    TabletopEnv,
    TabletopVectorEnv,
    Task,
    World,
    demonstrations,
    get_task,
)
from tutorial_utils.tabletop.demonstrations import (
    chunks,
    collect,
    load_dataset,
    transitions,
    write_dataset,
)
from tutorial_utils.tabletop.observations import OBSERVATIONS

ID = "tabletop/pickplace/expert-v0"
EXPERT = Expert(noise=0.3, success=0.7)
EPISODES = 24


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.delenv("DUALITY_SEED", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "MINARI_REMOTE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # A closed port of this machine: no test may depend on a network.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def one_line(error: pytest.ExceptionInfo, *words: str) -> str:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def equal(a: np.ndarray | list, b: np.ndarray | list) -> bool:
    if isinstance(a, list):
        return a == b
    return a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_what_is_written_comes_back_to_the_bit(kind):
    buffers = collect(EXPERT, "PickPlace", EPISODES, seed=3, obs=kind)
    write_dataset(ID, "PickPlace", EXPERT, EPISODES, seed=3, obs=kind)
    dataset = load_dataset(ID, download=False)
    assert len(dataset) == len(buffers) == EPISODES
    assert dataset.observation_space == TabletopEnv("PickPlace", obs=kind).observation_space
    for buffer, episode in zip(buffers, dataset, strict=True):
        for mine, theirs in (
            (buffer.actions, episode.actions),
            (buffer.rewards, episode.rewards),
            (buffer.terminations, episode.terminations),
            (buffer.truncations, episode.truncations),
            (buffer.infos["success"], episode.infos["success"]),
            (buffer.infos["cost"], episode.infos["cost"]),
        ):
            assert equal(mine, theirs)
        if isinstance(buffer.observations, dict):
            assert set(buffer.observations) == set(dataset.observation_space.spaces)
            for part, mine in buffer.observations.items():
                assert equal(mine, episode.observations[part])
        else:
            assert equal(buffer.observations, episode.observations)


@pytest.mark.parametrize("task", ["PickPlace", "PastHazard", "AroundObstacle"])
def test_episodes_replay_from_their_key(task):
    """Boundaries, rewards, costs and instructions are those of the same episode run alone."""
    lengths = set()
    shift = Shift(wind=(0.05, 0.0))
    for buffer in collect(EXPERT, task, 8, seed=5, obs="all", reward="oracle", shift=shift):
        env = TabletopVectorEnv(task, 1, obs="all", reward="oracle", shift=shift)
        obs, _ = env.reset(seed=torch.tensor([buffer.seed]))
        steps = len(buffer.rewards)
        lengths.add(steps)
        seen = buffer.observations
        assert len(seen["state"]) == len(seen["image"]) == len(seen["instruction"]) == steps + 1
        assert buffer.options == {"instruction": obs["instruction"][0]}
        for t in range(steps):
            assert np.array_equal(obs["state"][0], seen["state"][t])
            assert np.array_equal(obs["image"][0], seen["image"][t])
            assert seen["instruction"][t] == obs["instruction"][0]
            reward, ended, cut, info = env.advance(torch.from_numpy(buffer.actions[t])[None])
            obs = env.observe()
            assert buffer.rewards[t] == reward
            assert buffer.terminations[t] == ended
            assert buffer.truncations[t] == cut
            assert buffer.infos["success"][t] == info["success"]
            assert buffer.infos["cost"][t] == info["cost"]
            assert bool(ended | cut) == (t == steps - 1)
        assert np.array_equal(obs["state"][0], seen["state"][steps])
    assert len(lengths) > 1


def test_the_time_limit_truncates():
    cut = collect(Expert(), "PickPlace", 8, seed=0, max_episode_steps=3)
    assert all(len(b.rewards) == 3 and len(b.observations) == 4 for b in cut)
    assert all(b.truncations.tolist() == [False, False, True] for b in cut)
    whole = collect(Expert(), "PickPlace", 8, seed=0, max_episode_steps=1000)
    assert max(len(b.rewards) for b in whole) <= get_task("PickPlace").horizon
    assert all(b.terminations[-1] and not b.truncations.any() for b in whole)


def test_metadata_tell_what_was_measured():
    dataset = write_dataset(ID, "PickPlace", EXPERT, 60, 0, obs="state", size=64)
    facts = dataset.storage.metadata
    success = [bool(episode.infos["success"].any()) for episode in dataset]
    assert 0 < np.mean(success) < 1
    assert facts["expert_success"] == np.mean(success)
    assert success == [bool(episode.terminations[-1]) for episode in dataset]
    assert facts["dataset_id"] == dataset.spec.dataset_id == ID
    assert facts["expert"] == facts["algorithm_name"] == repr(EXPERT)
    assert facts["seed"] == run_mode.seeds(1)[0]
    assert facts["task"] == "PickPlace"
    assert facts["author"] == {"The Duality book authors"}
    assert facts["env_options"] == {"obs": "state", "size": "64"}
    assert "PickPlace" in facts["description"]
    assert facts["total_episodes"] == 60
    assert facts["total_steps"] == sum(len(episode) for episode in dataset)
    described = write_dataset(ID, "PickPlace", EXPERT, 2, 0, description="Two episodes.")
    assert described.storage.metadata["description"] == "Two episodes."


def test_instructions_are_kept_with_the_episodes():
    dataset = write_dataset(ID, "PickPlace", EXPERT, 8, seed=4)
    kept = [m["options"]["instruction"] for m in dataset.storage.get_episode_metadata(range(8))]
    env = TabletopVectorEnv("PickPlace", 8, obs="all")
    assert kept == list(env.reset(seed=4)[0]["instruction"])
    assert len(set(kept)) > 1


def test_another_seed_moves_the_episodes():
    first, moved = (collect(Expert(), "Reach", 4, seed) for seed in (0, 1))
    assert {b.seed for b in first}.isdisjoint({b.seed for b in moved})


def test_writing_says_nothing(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_dataset(ID, "PickPlace", EXPERT, 2, 0)
        write_dataset(ID, "PickPlace", EXPERT, 2, 0)
    assert capfd.readouterr() == ("", "")


# Policies other than experts


def test_a_function_demonstrates():
    def drift(obs):
        assert obs.shape == (1, 6, 5)
        return torch.full((1, 6, 3), 2.0)

    dataset = write_dataset("tabletop/reach/drift-v0", "Reach", drift, 6, 0)
    assert all((episode.actions == 1.0).all() for episode in dataset)  # what the robot really did
    assert dataset.storage.metadata["expert"].endswith("drift")


@pytest.mark.parametrize(("kind", "shape"), [("state", (8,)), ("image", (32, 32, 3))])
def test_members_of_a_population_share_the_episodes(kind, shape):
    policy = ActorCritic(shape, seeds=[0, 1])
    together = collect(policy, "PickPlace", 6, seed=2, max_episode_steps=4, obs=kind)
    env = TabletopVectorEnv("PickPlace", 6, obs=kind)
    start = env.reset(seed=2)[0]
    first, second = (policy.select(slice(m, m + 1))(start[None])[0] for m in (0, 1))
    for i, buffer in enumerate(together):
        wanted = (first if i < 3 else second)[i].clamp(-1, 1).detach()
        torch.testing.assert_close(torch.from_numpy(buffer.actions[0]), wanted)
    assert write_dataset(ID, "PickPlace", policy, 2, 0, obs=kind).storage.metadata["expert"] == (
        "ActorCritic"
    )


# Replacing


def files() -> set[str]:
    root = get_dataset_path()
    return {str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file()}


def test_writing_again_replaces():
    write_dataset(ID, "PickPlace", EXPERT, 4, seed=0)
    before = files()
    dataset = write_dataset(ID, "PickPlace", EXPERT, 6, seed=1)
    assert len(dataset) == len(load_dataset(ID)) == 6
    assert dataset.storage.metadata["seed"] == 1
    assert equal(dataset[0].actions, collect(EXPERT, "PickPlace", 6, seed=1)[0].actions)
    assert files() == before
    assert list(minari.list_local_datasets()) == [ID]


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_lost_when_writing_fails(monkeypatch, there):
    if there:
        write_dataset(ID, "PickPlace", EXPERT, 4, seed=0)
    before = files()
    create = minari.create_dataset_from_buffers

    def full_disk(*args, **kwargs):
        create(*args, **kwargs)
        raise OSError("no space left on device")

    monkeypatch.setattr(minari, "create_dataset_from_buffers", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_dataset(ID, "PickPlace", EXPERT, 6, seed=1)
    assert files() == before
    if not there:
        return
    kept = load_dataset(ID)
    assert len(kept) == 4
    assert equal(kept[0].actions, collect(EXPERT, "PickPlace", 4, seed=0)[0].actions)


def test_neighbours_are_left_alone():
    write_dataset(ID, "PickPlace", EXPERT, 2, 0)
    write_dataset(f"{ID}/inner-v1", "Reach", EXPERT, 3, 0)
    write_dataset(ID, "PickPlace", EXPERT, 4, 0)
    assert len(load_dataset(f"{ID}/inner-v1")) == 3
    assert len(load_dataset(ID)) == 4


def test_a_second_writer_sees_no_draft(monkeypatch):
    root, create = get_dataset_path(), minari.create_dataset_from_buffers

    def meanwhile(*args, **kwargs):
        made = create(*args, **kwargs)
        with monkeypatch.context() as other:  # what another process sees at this moment
            other.setenv("MINARI_DATASETS_PATH", str(root))
            seen.append((minari.list_local_datasets(), list_local_namespaces()))
        return made

    seen: list = []
    monkeypatch.setattr(minari, "create_dataset_from_buffers", meanwhile)
    write_dataset(ID, "PickPlace", EXPERT, 2, 0)
    assert seen == [({}, [])]
    assert list(minari.list_local_datasets()) == [ID]


# Errors


@pytest.mark.parametrize("bad", ["expert", "a b-v0", "../outside-v0", "/absolute-v0", "", 3, None])
def test_an_id_that_is_none(bad):
    with pytest.raises(ValueError, match="no dataset id") as error:
        load_dataset(bad)
    one_line(error, repr(bad), "tabletop/pickplace/expert-v0")
    with pytest.raises(ValueError, match="no dataset id"):
        write_dataset(bad, "Reach", EXPERT, 2, 0)
    assert not files()


@pytest.mark.parametrize("name", [ID, "D4RL/pointmaze/umaze-v2"])
def test_without_a_network(name):
    with pytest.raises(FileNotFoundError) as error:
        load_dataset(name)
    one_line(error, name, "write_dataset", "check the network", "list_local_datasets")
    with pytest.raises(FileNotFoundError) as error:
        load_dataset(name, download=False)
    one_line(error, name, "write_dataset", "list_local_datasets")


def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(demonstrations, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(FileNotFoundError) as error:
            load_dataset("D4RL/pointmaze/umaze-v2")
    one_line(error, "check the network")


@pytest.fixture
def online(monkeypatch):
    """A network, as far as the first question goes."""

    class Answer:
        def close(self) -> None: ...

    monkeypatch.setattr(demonstrations.urllib.request, "urlopen", lambda *_, **__: Answer())


def test_a_published_set_is_downloaded_once(monkeypatch, online, tmp_path, capsys):
    write_dataset("source-v0", "Reach", EXPERT, 3, 0)
    calls = []

    def download(name):
        calls.append(name)
        print(f"Dataset {name} downloaded to {tmp_path}")  # paths must not reach a notebook
        shutil.copytree(get_dataset_path("source-v0"), get_dataset_path(name))

    monkeypatch.setattr(minari, "download_dataset", download)
    for _ in range(2):
        assert len(load_dataset("D4RL/some/set-v2")) == 3
    assert calls == ["D4RL/some/set-v2"]
    assert capsys.readouterr().out == ""


def test_an_unknown_published_set(monkeypatch, online):
    def download(name):
        raise ValueError(f"Couldn't find any version\nfor dataset {name}")

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(FileNotFoundError) as error:
        load_dataset("D4RL/nothing-v0")
    one_line(error, "write_dataset", "Couldn't find any version")


def test_half_a_download_does_not_pass_for_a_dataset(monkeypatch, online):
    def download(name):
        folder = get_dataset_path(name) / "data"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(KeyboardInterrupt):
        load_dataset("D4RL/half-v0")
    assert not files()


@pytest.mark.parametrize("kept", [0.0, 0.6])
@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_a_truncated_file(name, kept):
    write_dataset(ID, "PickPlace", EXPERT, 3, 0)
    file = get_dataset_path(ID) / "data" / name
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="damaged") as error:
        load_dataset(ID)
    one_line(error, ID, "delete", "write")
    assert len(write_dataset(ID, "PickPlace", EXPERT, 3, 0)) == 3  # writing heals it


def test_a_missing_file():
    write_dataset(ID, "PickPlace", EXPERT, 3, 0)
    (get_dataset_path(ID) / "data" / "main_data.hdf5").unlink()
    with pytest.raises(ValueError, match="damaged") as error:
        load_dataset(ID)
    one_line(error, ID)


def test_bad_arguments():
    for call, word in (
        (lambda: collect(EXPERT, "PickPlce", 3, 0), "PickPlace"),
        (lambda: collect(EXPERT, "PickPlace", 0, 0), "episodes"),
        (lambda: collect(EXPERT, "PickPlace", 3, 0, max_episode_steps=0), "max_episode_steps"),
        (lambda: collect(EXPERT, "PickPlace", 3, seed=-1), "seed"),
        (lambda: collect(EXPERT, "PickPlace", 3, 0, obs="pixels"), "image"),
        (lambda: collect(lambda obs: torch.zeros(1, 2, 3), "PickPlace", 3, 0), "shape"),
    ):
        with pytest.raises(ValueError, match=word) as error:
            call()
        one_line(error)


# As tensors


def test_transitions_of_states():
    dataset = write_dataset(ID, "PickPlace", EXPERT, 10, 0, obs="state")
    data = transitions(dataset)
    steps = dataset.total_steps
    assert {name: x.shape for name, x in data.items()} == {
        "obs": (steps, 8),
        "next_obs": (steps, 8),
        "action": (steps, 3),
        "reward": (steps,),
        "terminated": (steps,),
        "truncated": (steps,),
        "episode": (steps,),
    }
    wanted = {"terminated": torch.bool, "truncated": torch.bool, "episode": torch.int64}
    assert all(x.dtype == wanted.get(name, torch.float32) for name, x in data.items())
    for i, episode in enumerate(dataset):
        own = data["episode"] == i
        assert np.array_equal(data["obs"][own], episode.observations[:-1])
        assert np.array_equal(data["next_obs"][own], episode.observations[1:])
        assert np.array_equal(data["action"][own], episode.actions)
        assert np.array_equal(data["reward"][own], episode.rewards)
        assert np.array_equal(data["terminated"][own], episode.terminations)
        assert np.array_equal(data["truncated"][own], episode.truncations)
    ends = (data["terminated"] | data["truncated"]).nonzero()[:, 0]
    assert torch.equal(ends, data["episode"].bincount().cumsum(0) - 1)


def test_transitions_of_a_filtered_dataset():
    dataset = write_dataset(ID, "PickPlace", EXPERT, 20, 0)
    good = dataset.filter_episodes(lambda episode: bool(episode.infos["success"][-1]))
    assert 0 < len(good) < 20
    data = transitions(good)
    assert data["episode"].unique().tolist() == list(range(len(good)))
    assert data["terminated"].sum() == len(good)


def test_transitions_of_dicts():
    data = write_dataset(ID, "PickPlace", EXPERT, 3, seed=1, obs="all")
    states = write_dataset("states-v0", "PickPlace", EXPERT, 3, seed=1, obs="state")
    images = write_dataset("images-v0", "PickPlace", EXPERT, 3, seed=1, obs="image")
    assert torch.equal(transitions(data)["obs"], transitions(states)["obs"])
    seen = transitions(data, "image")["next_obs"]
    assert seen.dtype == torch.uint8
    assert torch.equal(seen, transitions(images)["next_obs"])
    with pytest.raises(ValueError, match="Choose one of") as error:
        transitions(data, "observation")
    one_line(error, "state", "image")


def test_published_float64_sets_become_float32():
    obs = np.linspace(0, 1, 8).reshape(4, 2)
    space = spaces.Box(-1, 1, (2,), np.float64)
    buffer = minari.data_collector.EpisodeBuffer(
        None, 0, None, obs, obs[:3], [0.1, 0.2, 0.3], [0, 0, 1], [0, 0, 0], {}
    )
    with warnings.catch_warnings(action="ignore"):
        dataset = minari.create_dataset_from_buffers(
            "old-v0", [buffer], observation_space=space, action_space=space
        )
    data = transitions(dataset)
    assert data["obs"].dtype == data["action"].dtype == data["reward"].dtype == torch.float32
    assert data["terminated"].tolist() == [False, False, True]


def episode(number, steps, observations):
    """An episode whose observations, actions and rewards tell their own place in it."""
    seen = 100.0 * number + np.arange(observations)[:, None]
    act = 100.0 * number + np.arange(steps)[:, None]
    ends = np.arange(steps) == steps - 1
    return EpisodeData(number, seen, act, act[:, 0], ends, np.zeros(steps, bool), {})


def test_episodes_without_a_last_observation_lose_a_step_and_nothing_shifts():
    episodes = [episode(0, 4, 4), episode(1, 3, 4), episode(2, 5, 5)]
    with pytest.warns(UserWarning, match="2 of 3 episodes") as warned:
        data = transitions(episodes)
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert data["obs"][:, 0].tolist() == [0, 1, 2, 100, 101, 102, 200, 201, 202, 203]
    assert torch.equal(data["next_obs"], data["obs"] + 1)
    assert torch.equal(data["action"], data["obs"])
    assert torch.equal(data["reward"], data["obs"][:, 0])
    assert data["episode"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert data["terminated"].nonzero().tolist() == [[5]]
    with pytest.warns(UserWarning, match="2 of 3 episodes"):
        cut = chunks(episodes, 2)
    assert torch.equal(cut["next_obs"][:, 0], cut["obs"][:, 0] + cut["steps"])
    assert torch.equal(cut["chunk"][:, 0], cut["obs"])


def test_whole_episodes_warn_of_nothing():
    with warnings.catch_warnings(action="error"):
        assert len(transitions([episode(0, 3, 4), episode(1, 1, 2)])["obs"]) == 4


@pytest.mark.parametrize("observations", [1, 2, 5, 6])
@pytest.mark.parametrize("read", [transitions, lambda e: chunks(e, 2)], ids=["steps", "chunks"])
def test_episodes_of_other_lengths_are_refused(read, observations):
    with pytest.raises(ValueError, match="observations") as error:
        read([episode(0, 3, 4), episode(7, 3, observations)])
    one_line(error, "episode 7", f"{observations} observations", "3 rewards")
    short = replace(episode(7, 3, 4), actions=np.zeros((2, 1)))
    with pytest.raises(ValueError, match="observations") as error:
        read([short])
    one_line(error, "episode 7", "2 actions")


@pytest.mark.parametrize("read", [transitions, lambda e: chunks(e, 2)], ids=["steps", "chunks"])
def test_no_episodes(read):
    dataset = write_dataset(ID, "Reach", Expert(), 2, 0)
    with pytest.raises(ValueError, match="no episodes") as error:
        read(dataset.filter_episodes(lambda episode: False))
    one_line(error)


def test_a_task_of_ones_own():
    near = Task("Near", "a short way", ("go {zone}",), ("come {zone}",), 20, max_step=0.2)
    dataset = write_dataset("own/near-v0", near, Expert(), 8, 0)
    assert dataset.storage.metadata["expert_success"] == 1.0
    assert World(near, 1).task.name == dataset.storage.metadata["task"]


@pytest.mark.parametrize("length", [1, 3, 50])
def test_no_chunk_crosses_the_end_of_an_episode(length):
    """Every episode of the Minari file, cut by hand."""
    expert = Expert(noise=0.3, success=0.5)
    dataset = write_dataset("tabletop/chunks/cut-v0", "AroundObstacle", expert, 6, seed=2)
    data, row = chunks(dataset, length, gamma=0.9), 0
    for e in dataset:
        action = torch.tensor(e.actions).float()
        for t in range(len(e)):
            real = action[t : t + length]
            repeated = action[-1:].expand(length - len(real), -1)
            assert data["chunk"][row].equal(torch.cat((real, repeated)))
            assert data["steps"][row] == len(real)
            assert data["obs"][row].tolist() == e.observations[t].tolist()
            end = t + len(real)
            assert data["next_obs"][row].tolist() == e.observations[end].tolist()
            assert data["terminated"][row] == e.terminations[end - 1]
            gained = sum(0.9**i * r for i, r in enumerate(e.rewards[t:end]))
            assert data["reward"][row] == pytest.approx(gained)
            row += 1
    assert row == len(data["obs"]) == len(data["chunk"])
    assert data["terminated"].any()


def test_a_chunk_has_at_least_one_action():
    dataset = write_dataset("tabletop/chunks/short-v0", "Reach", Expert(), 2, 0)
    with pytest.raises(ValueError, match="length") as error:
        chunks(dataset, 0)
    one_line(error, "whole number")
