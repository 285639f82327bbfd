"""The files of LeRobot's dataset format v3.0: frames, tasks, episodes, statistics, description."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_FILE_MB, _FILES = 100, 1000  # frames in a file, and files in a folder, at most
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_LEVELS = {"min": 0.0, "max": 1.0, "q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_EVERYWHERE: dict[str, dict[str, Any]] = {  # the columns that every dataset has
    name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index")
}


class Writer:
    """Writes a dataset into the folder `root`, episode by episode; leaving it completes it.

    Args:
        features: dtype ("image", or numpy's name), shape and names of every other column.
    """

    def __init__(self, root: Path, features: dict[str, dict[str, Any]], fps: int) -> None:
        self.root, self.features, self.fps = root, features | _EVERYWHERE, fps
        self.types = {name: _type(feature) for name, feature in self.features.items()}
        self.tasks: dict[str, int] = {}
        self.episodes: list[dict[str, Any]] = []  # the rows of meta/episodes
        self.frames = 0
        # What the statistics are made of: vectors [T, D], or of images the counts of levels.
        self.kept: dict[str, list[np.ndarray]] = {name: [] for name in self.features}
        self.file: Any = None  # the one being written
        self.files, self.bytes = 0, 0  # begun so far; written into the last one

    def add(self, columns: dict[str, np.ndarray], tasks: list[str]) -> None:
        """Append an episode: its rows [T, D] or [T, H, W, 3] by feature, and its tasks [T]."""
        count, start = len(tasks), self.frames
        at = np.arange(count)
        places: dict[str, np.ndarray] = {
            "timestamp": (at / self.fps).astype(np.float32),
            "frame_index": at,
            "episode_index": np.full(count, len(self.episodes)),
            "index": start + at,
            "task_index": np.array([self.tasks.setdefault(x, len(self.tasks)) for x in tasks]),
        }
        columns = columns | {name: place[:, None] for name, place in places.items()}
        chunk, file = self._append(columns)
        self.frames += count
        row = {"episode_index": len(self.episodes), "tasks": sorted(set(tasks)), "length": count}
        row |= {"data/chunk_index": chunk, "data/file_index": file}
        row |= {"dataset_from_index": start, "dataset_to_index": self.frames}
        for name, column in columns.items():
            image = self._is_image(name)
            self.kept[name].append(_levels(column) if image else column)
            stats = _stats(self.kept[name][-1], count, image)
            row |= {f"stats/{name}/{key}": value for key, value in stats.items()}
        self.episodes.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.file is not None:
            self.file.close()
        if error is None:
            self._describe()

    def _describe(self) -> None:
        """Write what stands beside the data."""
        stats = {}
        for name, parts in self.kept.items():
            image = self._is_image(name)
            whole = np.sum(parts, 0) if image else np.concatenate(parts)
            stats[name] = _stats(whole, self.frames, image)
        meta = self.root / "meta"
        episodes = meta / "episodes" / _FILE.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.episodes), episodes)
        pq.write_table(_task_table(self.tasks), meta / "tasks.parquet")
        for name, content in (("stats", stats), ("info", self._info())):
            text = json.dumps(content, indent=4, ensure_ascii=False)
            (meta / f"{name}.json").write_text(text, encoding="utf-8")

    def _is_image(self, name: str) -> bool:
        return bool(self.features[name]["dtype"] == "image")

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(self.episodes),
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": _FILES,
            "data_files_size_in_mb": _FILE_MB,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.episodes)}"},
            "data_path": f"data/{_FILE}",
            "video_path": None,  # images stand among the frames
            "features": self.features,
        }

    def _append(self, columns: dict[str, np.ndarray]) -> tuple[int, int]:
        """Write an episode as one row group; where it stands: number of folder and of file."""
        arrays = [_array(columns[name], kind) for name, kind in self.types.items()]
        kinds = {name: _kind(feature) for name, feature in self.features.items()}
        # Hugging Face's datasets reads the kinds of the columns here, such as an image's.
        metadata = {"huggingface": json.dumps({"info": {"features": kinds}})}
        table = pa.Table.from_arrays(arrays, schema=pa.schema(self.types.items(), metadata))
        if self.file is None or self.bytes + table.nbytes > _FILE_MB * 2**20:
            if self.file is not None:
                self.file.close()
            chunk, file = divmod(self.files, _FILES)
            path = self.root / "data" / _FILE.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = pq.ParquetWriter(path, table.schema)
            self.files, self.bytes = self.files + 1, 0
        self.file.write_table(table)
        self.bytes += table.nbytes
        return divmod(self.files - 1, _FILES)


def _type(feature: dict[str, Any]) -> Any:
    """The type of a column in Parquet."""
    if feature["dtype"] == "image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kind = pa.type_for_alias(feature["dtype"])
    return kind if feature["shape"] == [1] else pa.list_(kind, feature["shape"][0])


def _kind(feature: dict[str, Any]) -> dict[str, Any]:
    """The type of a column as Hugging Face's datasets tells it."""
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": feature["dtype"], "_type": "Value"}
    length = feature["shape"][0]
    return value if length == 1 else {"feature": value, "length": length, "_type": "List"}


def _array(column: np.ndarray, kind: Any) -> Any:
    """A column of that type."""
    if pa.types.is_struct(kind):
        names = (f"frame-{i:06d}.png" for i in range(len(column)))
        return pa.array(
            [{"bytes": _png(x), "path": n} for x, n in zip(column, names, strict=True)], kind
        )
    flat = pa.array(column.ravel())
    if not pa.types.is_fixed_size_list(kind):
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _levels(images: np.ndarray) -> np.ndarray:
    """How many pixels of images [T, H, W, C] have each of the 256 levels: [256, C]."""
    flat = images.reshape(-1, images.shape[-1])
    return np.stack([np.bincount(channel, minlength=256) for channel in flat.T], 1)


def _stats(data: np.ndarray, frames: int, image: bool) -> dict[str, Any]:
    """Statistics of each column of [M, D], or of each channel of images in [0, 1].

    A quantile is the least value that at least this share of the data do not exceed.
    """
    weights = data if image else np.ones_like(data, dtype=int)
    values = np.arange(256)[:, None] / 255 + 0 * data if image else data.astype(float)
    levels = list(_LEVELS.values())
    quantiles = np.quantile(values, levels, axis=0, weights=weights, method="inverted_cdf")
    mean = np.average(values, 0, weights)
    results = dict(zip(_LEVELS, quantiles, strict=True)) | {"mean": mean}
    results["std"] = np.sqrt(np.average((values - mean) ** 2, 0, weights))
    shape = (-1, 1, 1) if image else (-1,)
    lists = {name: np.asarray(x).reshape(shape).tolist() for name, x in results.items()}
    return lists | {"count": [frames]}


def _task_table(tasks: dict[str, int]) -> Any:
    """The tasks as the data frame that pandas would write, with the texts as its index."""
    told = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    columns = [
        {"name": n, "field_name": n, "pandas_type": t, "numpy_type": own, "metadata": None}
        for n, t, own in told
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    types = pa.schema({"task_index": pa.int64(), "task": pa.string()}.items())
    table = pa.table([list(tasks.values()), list(tasks)], schema=types)
    return table.replace_schema_metadata({"pandas": json.dumps(about)})
