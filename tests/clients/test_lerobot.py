"""The export to LeRobot's dataset format v3.0, field by field against the published format."""

from __future__ import annotations

import io
import json
import sys
import warnings
from dataclasses import replace

import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from PIL import Image

from tutorial_utils.tabletop import Expert, get_task
from tutorial_utils.tabletop.demonstrations import write_dataset
from tutorial_utils.tabletop.lerobot import to_lerobot

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402 (only where pyarrow is installed)

EPISODES, STATE, ACTION, SIZE = 9, 8, 3, 32
IMAGE = "observation.images.image"
FILE = "chunk-000/file-000.parquet"

# The format, as github.com/huggingface/lerobot publishes it (CODEBASE_VERSION "v3.0").

FRAMES = {  # the columns of the data in their order, and their types in Parquet
    "observation.state": pa.list_(pa.float32(), STATE),
    IMAGE: pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "action": pa.list_(pa.float32(), ACTION),
    "next.reward": pa.float32(),
    "next.done": pa.bool_(),
    "next.success": pa.bool_(),
    "timestamp": pa.float32(),
    "frame_index": pa.int64(),
    "episode_index": pa.int64(),
    "index": pa.int64(),
    "task_index": pa.int64(),
}
FEATURES = {  # dtype, shape and names in meta/info.json
    "observation.state": ("float32", [STATE], [f"state_{i}" for i in range(STATE)]),
    IMAGE: ("image", [SIZE, SIZE, 3], ["height", "width", "channels"]),
    "action": ("float32", [ACTION], [f"action_{i}" for i in range(ACTION)]),
    "next.reward": ("float32", [1], None),
    "next.done": ("bool", [1], None),
    "next.success": ("bool", [1], None),
    "timestamp": ("float32", [1], None),
    "frame_index": ("int64", [1], None),
    "episode_index": ("int64", [1], None),
    "index": ("int64", [1], None),
    "task_index": ("int64", [1], None),
}
KINDS = {  # of the columns for Hugging Face's `datasets`, in the metadata of the data
    "float32": {"dtype": "float32", "_type": "Value"},
    "bool": {"dtype": "bool", "_type": "Value"},
    "int64": {"dtype": "int64", "_type": "Value"},
    "image": {"_type": "Image"},
}
INFO = {
    "codebase_version": "v3.0",
    "robot_type": None,
    "chunks_size": 1000,
    "data_files_size_in_mb": 100,
    "video_files_size_in_mb": 200,
    "fps": 10,
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": None,
}
PLACES = {
    "episode_index": pa.int64(),
    "tasks": pa.list_(pa.string()),
    "length": pa.int64(),
    "data/chunk_index": pa.int64(),
    "data/file_index": pa.int64(),
    "dataset_from_index": pa.int64(),
    "dataset_to_index": pa.int64(),
    "meta/episodes/chunk_index": pa.int64(),
    "meta/episodes/file_index": pa.int64(),
}
STATISTICS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def lab(kind="all", **options):
    expert = Expert(noise=0.3, success=0.6)
    return write_dataset("tabletop/test-v0", "PickPlace", expert, EPISODES, 0, obs=kind, **options)


def frames(folder):
    return pq.read_table(folder / "data" / FILE)


def episodes(folder):
    return pq.read_table(folder / "meta" / "episodes" / FILE)


def described(folder, name="info"):
    return json.loads((folder / "meta" / f"{name}.json").read_text("utf-8"))


def decoded(column):
    """Images [T, H, W, 3] of a column of the data."""
    files = (io.BytesIO(row["bytes"]) for row in column.to_pylist())
    return np.stack([np.asarray(Image.open(file)) for file in files])


# The format


def test_the_files_are_those_of_the_format(tmp_path):
    folder = to_lerobot(lab(), tmp_path / "deep" / "set")
    assert folder == tmp_path / "deep" / "set"
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    meta = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet", f"meta/episodes/{FILE}"}
    assert found == {f"data/{FILE}", *meta}
    assert list(folder.parent.iterdir()) == [folder]  # no draft is left


def test_the_description_is_that_of_the_format(tmp_path):
    dataset = lab()
    info = described(to_lerobot(dataset, tmp_path / "set"))
    features = {
        name: {"dtype": dtype, "shape": shape, "names": names}
        for name, (dtype, shape, names) in FEATURES.items()
    }
    instructions = {episode.observations["instruction"][0] for episode in dataset}
    assert info == {
        **INFO,
        "features": features,
        "total_episodes": EPISODES,
        "total_frames": dataset.total_steps,
        "total_tasks": len(instructions),
        "splits": {"train": f"0:{EPISODES}"},
    }
    assert list(info["features"])[-5:] == list(FEATURES)[-5:]


def test_the_columns_of_the_data_have_the_types_of_the_format(tmp_path):
    folder = to_lerobot(lab(), tmp_path / "set")
    schema = pq.read_schema(folder / "data" / FILE)
    assert dict(zip(schema.names, schema.types, strict=True)) == FRAMES
    assert set(described(folder)["features"]) == set(schema.names)
    wanted = {
        name: KINDS[dtype]
        if dtype == "image" or shape == [1]
        else {"feature": KINDS[dtype], "length": shape[0], "_type": "List"}
        for name, (dtype, shape, _) in FEATURES.items()
    }
    assert json.loads(schema.metadata[b"huggingface"]) == {"info": {"features": wanted}}
    assert pq.read_metadata(folder / "data" / FILE).num_row_groups == EPISODES


def test_every_frame_holds_what_the_episode_held(tmp_path):
    dataset = lab(reward="oracle")
    table, start = frames(to_lerobot(dataset, tmp_path / "set")), 0
    for number, episode in enumerate(dataset):
        steps = len(episode)
        own = table.slice(start, steps)
        numbers = {name: np.array(own[name].to_pylist()) for name in FRAMES if name != IMAGE}
        assert np.array_equal(numbers["observation.state"], episode.observations["state"][:-1])
        assert np.array_equal(decoded(own[IMAGE]), episode.observations["image"][:-1])
        assert np.array_equal(numbers["action"], episode.actions)
        assert np.array_equal(numbers["next.reward"], episode.rewards.astype(np.float32))
        ends = episode.terminations | episode.truncations
        assert np.array_equal(numbers["next.done"], ends)
        assert numbers["next.done"].nonzero()[0].tolist() == [steps - 1]
        assert np.array_equal(numbers["next.success"], episode.infos["success"])
        assert np.array_equal(numbers["frame_index"], np.arange(steps))
        assert np.array_equal(numbers["timestamp"], np.arange(steps, dtype=np.float32) / 10)
        assert np.array_equal(numbers["index"], np.arange(start, start + steps))
        assert (numbers["episode_index"] == number).all()
        names = [row["path"] for row in own[IMAGE].to_pylist()]
        assert names == [f"frame-{i:06d}.png" for i in range(steps)]
        start += steps
    assert start == len(table)


@pytest.mark.parametrize("kind", ["state", "image", "all"])
def test_the_instruction_is_the_task(kind, tmp_path):
    dataset = lab(kind)
    folder = to_lerobot(dataset, tmp_path / "set", task="not needed")
    facts = dataset.storage.get_episode_metadata(range(EPISODES))
    told = [fact["options"]["instruction"] for fact in facts]
    table = pq.read_table(folder / "meta" / "tasks.parquet")
    assert table.schema.types == [pa.int64(), pa.string()]
    about = json.loads(table.schema.metadata[b"pandas"])
    assert about["index_columns"] == ["task"]  # LeRobot reads it with pandas and looks there
    tasks = dict(zip(table["task_index"].to_pylist(), table["task"].to_pylist(), strict=True))
    assert list(tasks) == list(range(len(set(told))))
    for frame in frames(folder).select(["episode_index", "task_index"]).to_pylist():
        assert tasks[frame["task_index"]] == told[frame["episode_index"]]
    assert episodes(folder)["tasks"].to_pylist() == [[words] for words in told]


def test_episodes_say_where_their_frames_are(tmp_path):
    dataset = lab()
    table = episodes(to_lerobot(dataset, tmp_path / "set"))
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    assert {name: types.pop(name) for name in PLACES} == PLACES
    assert set(types) == {f"stats/{name}/{key}" for name in FRAMES for key in STATISTICS}
    ends = np.cumsum([len(episode) for episode in dataset])
    assert table["episode_index"].to_pylist() == list(range(EPISODES))
    assert table["length"].to_pylist() == [len(episode) for episode in dataset]
    assert table["dataset_to_index"].to_pylist() == ends.tolist()
    assert table["dataset_from_index"].to_pylist() == [0, *ends[:-1].tolist()]
    for name in PLACES:
        if "chunk" in name or "file" in name:
            assert set(table[name].to_pylist()) == {0}


def test_statistics_are_those_of_numpy(tmp_path):
    folder = to_lerobot(lab(), tmp_path / "set")
    data, rows = frames(folder), episodes(folder).to_pylist()
    starts = [(row["dataset_from_index"], row["length"]) for row in rows]
    told = [
        {name: {key: row[f"stats/{name}/{key}"] for key in STATISTICS} for name in FRAMES}
        for row in rows
    ]
    whole = described(folder, "stats")
    assert set(whole) == set(FRAMES)
    for stats, (start, steps) in [(whole, (0, len(data))), *zip(told, starts, strict=True)]:
        for name in FRAMES:
            own = data[name].slice(start, steps)
            if name == IMAGE:
                values = decoded(own).reshape(-1, 3) / 255
            else:
                values = np.array(own.to_pylist(), float).reshape(steps, -1)
            levels = [0.01, 0.1, 0.5, 0.9, 0.99]
            quantiles = np.quantile(values, levels, axis=0, method="inverted_cdf")
            wanted = dict(zip(("q01", "q10", "q50", "q90", "q99"), quantiles, strict=True))
            wanted |= {"min": values.min(0), "max": values.max(0)}
            wanted |= {"mean": values.mean(0), "std": values.std(0)}
            assert stats[name]["count"] == [steps]
            for key, value in wanted.items():
                kept = np.array(stats[name][key])
                assert kept.shape == ((3, 1, 1) if name == IMAGE else value.shape)
                np.testing.assert_allclose(kept.ravel(), value, rtol=1e-9, atol=1e-12)


def test_a_full_file_is_followed_by_the_next(monkeypatch, tmp_path):
    from tutorial_utils.tabletop import _lerobot_writer as writer

    dataset = lab("state")
    whole = frames(to_lerobot(dataset, tmp_path / "one"))
    monkeypatch.setattr(writer, "_FILE_MB", 0)  # an episode fills a file
    monkeypatch.setattr(writer, "_FILES", 4)  # four files fill a folder
    folder = to_lerobot(dataset, tmp_path / "many")
    rows, parts = episodes(folder), []
    for number in range(EPISODES):
        chunk, file = (rows[f"data/{name}_index"][number].as_py() for name in ("chunk", "file"))
        assert (chunk, file) == divmod(number, 4)
        path = described(folder)["data_path"].format(chunk_index=chunk, file_index=file)
        parts.append(pq.read_table(folder / path))
        assert set(parts[-1]["episode_index"].to_pylist()) == {number}
    assert pa.concat_tables(parts) == whole
    assert len(list((folder / "data").rglob("*.parquet"))) == EPISODES


# Other datasets


def made(observation_space, observations, action_space=None, infos=None):
    """A dataset of Minari that nothing of the lab wrote: two episodes of 3 steps."""
    action_space = action_space or spaces.Box(-1, 1, (2,), np.float64)
    done, never = np.array([False, False, True]), np.zeros(3, bool)
    action = np.full((3, *action_space.shape), 0.5)
    rest = (observations, action, np.arange(3.0), done, never, infos)
    buffers = [EpisodeBuffer(None, seed, None, *rest) for seed in range(2)]
    with warnings.catch_warnings(action="ignore"):
        return minari.create_dataset_from_buffers(
            "other/made-v0",
            buffers,
            observation_space=observation_space,
            action_space=action_space,
            jpeg_encoding=False,
        )


def box(*shape, dtype=np.float64):
    high = 255 if dtype == np.uint8 else 1
    return spaces.Box(0, high, shape, dtype)


def test_goals_of_published_sets(tmp_path):
    rows = np.linspace(0, 1, 8).reshape(4, 2)
    parts = {"observation": rows, "achieved_goal": rows / 2, "desired_goal": rows / 4}
    dataset = made(spaces.Dict({name: box(2) for name in parts}), parts)
    folder = to_lerobot(dataset, tmp_path / "set", fps=50)
    data = frames(folder)
    names = ("observation.state", "observation.achieved_goal", "observation.desired_goal")
    for name, part in zip(names, parts.values(), strict=True):
        kept = np.array(data[name].slice(0, 3).to_pylist(), np.float32)
        assert np.array_equal(kept, part[:3].astype(np.float32))
    assert "next.success" not in data.column_names
    assert described(folder)["fps"] == 50
    assert data["timestamp"].to_pylist()[:3] == pytest.approx([0, 0.02, 0.04])
    assert episodes(folder)["tasks"].to_pylist() == [["other/made-v0"]] * 2
    named = to_lerobot(dataset, tmp_path / "named", fps=50, task="reach the goal")
    assert episodes(named)["tasks"].to_pylist() == [["reach the goal"]] * 2


def test_episodes_without_a_last_observation_keep_all_their_steps(tmp_path):
    rows = np.arange(3.0)[:, None]
    data = frames(to_lerobot(made(box(1), rows), tmp_path / "set", fps=1))
    assert data["observation.state"].to_pylist() == [0, 1, 2] * 2


def test_texts_may_change_within_an_episode(tmp_path):
    words = ["go", "go", "stay", "stay"]
    space = spaces.Dict({"state": box(1), "mission": spaces.Text(9)})
    dataset = made(space, {"state": np.zeros((4, 1)), "mission": words})
    folder = to_lerobot(dataset, tmp_path / "set", fps=1)
    assert frames(folder)["task_index"].to_pylist() == [0, 0, 1] * 2
    assert episodes(folder)["tasks"].to_pylist() == [["go", "stay"]] * 2


@pytest.mark.parametrize("rows", [3, 4])
@pytest.mark.parametrize("name", ["success", "is_success"])
def test_success_of_collected_sets_begins_with_the_reset(name, rows, tmp_path):
    success = np.array([False, False, False, True][-rows:])
    dataset = made(box(1), np.zeros((4, 1)), infos={name: success})
    data = frames(to_lerobot(dataset, tmp_path / "set", fps=1))
    assert data["next.success"].to_pylist() == [False, False, True] * 2


def test_a_part_of_a_dataset(tmp_path):
    dataset = lab("state").filter_episodes(lambda episode: bool(episode.infos["success"][-1]))
    assert 0 < len(dataset) < EPISODES
    folder = to_lerobot(dataset, tmp_path / "set")
    assert described(folder)["total_episodes"] == len(dataset)
    assert episodes(folder)["length"].to_pylist() == [len(episode) for episode in dataset]
    facts = dataset.storage.get_episode_metadata(dataset.episode_indices)
    told = [[fact["options"]["instruction"]] for fact in facts]
    assert episodes(folder)["tasks"].to_pylist() == told


# Errors


def refused(dataset, folder, word, **options):
    with pytest.raises(ValueError, match=word) as error:
        to_lerobot(dataset, folder, **options)
    assert "\n" not in str(error.value)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("space", "observations"),
    [
        (box(4, 4), np.zeros((4, 4, 4))),
        (box(4, 4, 1, dtype=np.uint8), np.zeros((4, 4, 4, 1), np.uint8)),
        (spaces.Discrete(3), np.zeros(4, int)),
        (spaces.Dict({"a": spaces.Dict({"b": box(1)})}), {"a": {"b": np.zeros((4, 1))}}),
    ],
    ids=["matrix", "grey", "discrete", "nested"],
)
def test_observations_that_the_format_does_not_hold(space, observations, tmp_path):
    refused(made(space, observations), tmp_path / "set", "neither a vector nor an RGB", fps=1)


def test_names_that_would_collide(tmp_path):
    twice = {"observation": np.zeros((4, 1)), "state": np.zeros((4, 1))}
    dataset = made(spaces.Dict({name: box(1) for name in twice}), twice)
    refused(dataset, tmp_path / "set", "observation.state", fps=1)


def test_actions_that_are_no_vectors(tmp_path):
    dataset = made(box(1), np.zeros((4, 1)), action_space=box(2, 2))
    refused(dataset, tmp_path / "set", "actions", fps=1)


def test_episodes_that_do_not_fit(tmp_path):
    refused(made(box(1), np.zeros((6, 1))), tmp_path / "set", "6 observations", fps=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "minari"]  # no draft is left


def test_the_steps_per_second_must_be_known(tmp_path):
    refused(made(box(1), np.zeros((4, 1))), tmp_path / "set", "pass fps")
    near = replace(get_task("Reach"), name="Near")
    dataset = write_dataset("own/near-v0", near, Expert(), 2, 0)
    refused(dataset, tmp_path / "set", "pass fps")
    refused(dataset, tmp_path / "set", "fps", fps=0)
    assert described(to_lerobot(dataset, tmp_path / "set", fps=10))["fps"] == 10


def test_an_environment_that_cannot_be_made(monkeypatch, tmp_path):
    dataset = lab("state")
    dataset.env_spec.entry_point = "nowhere:Env"
    refused(dataset, tmp_path / "set", "pass fps")


def test_no_episodes_and_a_folder_that_exists(tmp_path):
    dataset = lab("state")
    refused(dataset.filter_episodes(lambda episode: False), tmp_path / "set", "no episodes")
    kept = tmp_path / "kept"
    kept.mkdir()
    with pytest.raises(ValueError, match="exists"):
        to_lerobot(dataset, kept)
    assert not list(kept.iterdir())


def test_without_pyarrow(monkeypatch, tmp_path):
    dataset = lab("state")
    monkeypatch.setitem(sys.modules, "tutorial_utils.tabletop._lerobot_writer", None)
    with pytest.raises(ImportError, match=r"duality-book\[robotics\]") as error:
        to_lerobot(dataset, tmp_path / "set")
    assert "\n" not in str(error.value)
