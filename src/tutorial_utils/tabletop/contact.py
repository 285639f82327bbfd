"""The geometry of pushing: where a disc goes when closed fingers run into it."""

from __future__ import annotations

import torch
from torch import Tensor


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of points [2, ..., N]; square roots round the same on every batch size."""
    x, y = a[0] - b[0], a[1] - b[1]
    return torch.sqrt(x * x + y * y)


def push(objects: Tensor, old: Tensor, new: Tensor, radius: float) -> Tensor:
    """Discs after the gripper moved in a straight line with its fingers closed and empty.

    A disc moves along the contact normal, by what the motion after the first contact has along that
    normal (quasi-static, no friction). Fingers that close over a disc squeeze it out.

    Args:
        objects: [2, K, N], centres of the discs.
        old, new: [2, N], the gripper before and after.
        radius: distance of the centres in contact.

    Returns:
        [2, K, N]; meaningful for discs that the gripper reaches.
    """
    motion, apart = (new - old)[:, None], objects - old[:, None]  # [2, 1, N], [2, K, N]
    along, square = (apart * motion).sum(0), (motion * motion).sum(0).clamp_min(1e-12)
    inside = (apart * apart).sum(0) - radius**2  # [K, N], below 0: already overlapping
    root = (along * along - square * inside).clamp_min(0.0).sqrt()
    contact = ((along - root) / square).clamp(0.0, 1.0)  # [K, N], share of the path before it
    normal = (apart - contact * motion) / radius  # [2, K, N], from gripper to disc
    depth = ((1 - contact) * (motion * normal).sum(0)).clamp_min(0.0)
    away, gap = objects - new[:, None], distance(objects, new[:, None])
    on_top = gap < 1e-6
    away[0] += on_top  # out along +x
    squeezed = new[:, None] + away / torch.where(on_top, 1.0, gap) * radius
    return torch.where(inside < -1e-6, squeezed, objects + depth * normal)
