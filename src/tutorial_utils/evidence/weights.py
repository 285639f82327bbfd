"""Trained weights on disk, found again by what made them: the code, the data and the settings."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from .._disk import cache_folder, keep

_PACKAGE = Path(__file__).parents[1]


def trained(network: nn.Module, train: Callable[[], object], *parts: object) -> bool:
    """Load the weights that `train` once gave `network`, or call it and keep them.

    They are found by a hash of the whole package's code, torch's version, the weights that
    `network` starts with and `parts`; if any of these differs, `train` runs. Files lie in
    `DUALITY_CACHE`, or `~/.cache/duality-book/weights`; `DUALITY_CACHE=off` turns this off.

    Args:
        parts: what else decides the result: settings (by their repr) and data (tensors).

    Returns:
        Whether the weights were found.
    """
    if (folder := cache_folder()) is None:
        train()
        return False
    file = folder / "weights" / f"{_key(network, parts)}.pt"
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if saved["digest"] != _digest(saved["state"].values()):
            raise ValueError("other numbers than were saved")
        network.load_state_dict(saved["state"])
        return True
    except OSError:
        pass  # there is none, or none that may be read
    except Exception:  # whatever is wrong with it, the file is of no use
        warnings.warn(f"{file} is damaged: training anew.", stacklevel=2)
    train()
    state = {name: x.detach().cpu() for name, x in network.state_dict().items()}
    data = io.BytesIO()  # torch reports a full disk as no OSError
    torch.save({"state": state, "digest": _digest(state.values())}, data)
    keep(file, data.getvalue(), "weights")
    return False


def _key(network: nn.Module, parts: tuple[object, ...]) -> str:
    key = hashlib.sha256(torch.__version__.encode())
    for source in sorted(_PACKAGE.rglob("*.py")):
        key.update(source.read_bytes())
    key.update(_digest(network.state_dict().values()).encode())
    for part in parts:
        key.update(b"\0" + (_digest([part]) if isinstance(part, Tensor) else repr(part)).encode())
    return key.hexdigest()


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for x in tensors:
        digest.update(repr((x.shape, x.dtype)).encode())
        digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
