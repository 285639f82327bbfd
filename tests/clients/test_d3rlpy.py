"""d3rlpy on a dataset of the lab. Its pin on an old Gymnasium keeps it out of the project's set."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("d3rlpy", reason="d3rlpy is not installed (it pins an old Gymnasium)")
import d3rlpy

from tutorial_utils.tabletop import Expert
from tutorial_utils.tabletop.demonstrations import write_dataset


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # it writes logs
    return write_dataset("tabletop/reach/d3rlpy-v0", "Reach", Expert(), 5, 0)


def test_get_minari_knows_the_environment(dataset):
    loaded, env = d3rlpy.datasets.get_minari(dataset.id)
    assert loaded.transition_count == dataset.total_steps
    assert env.spec.max_episode_steps == 30


def test_training_on_the_episodes(dataset):
    """As the README builds it: `get_minari` of d3rlpy 2.8 shifts all but the first episode."""
    episodes = list(dataset)
    loaded = d3rlpy.dataset.MDPDataset(
        observations=np.concatenate([e.observations[: len(e)] for e in episodes]),
        actions=np.concatenate([e.actions for e in episodes]),
        rewards=np.concatenate([e.rewards for e in episodes]),
        terminals=np.concatenate([e.terminations for e in episodes]),
        timeouts=np.concatenate([e.truncations for e in episodes]),
    )
    for mine, theirs in zip(episodes, loaded.episodes, strict=True):
        np.testing.assert_array_equal(theirs.observations, mine.observations[: len(mine)])
    algorithm = d3rlpy.algos.BCConfig(batch_size=8).create()
    algorithm.fit(loaded, n_steps=2, n_steps_per_epoch=2, show_progress=False, save_interval=9)
    assert algorithm.predict(episodes[0].observations).shape == (len(episodes[0]) + 1, 3)
