"""How the small vision-language-action policy is trained before any reinforcement learning.

As a real one, in two stages: a vision-language backbone learns to find what words name in many
pictures, and the whole policy then imitates a few demonstrations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import minari
import torch
from torch import Tensor
from tqdm import tqdm

from .._validate import positive_int
from ..tabletop.demonstrations import chunks
from ..tabletop.observations import as_tensor
from ..tabletop.tasks import COLORS
from ..tabletop.vector_env import TabletopVectorEnv
from .population import PopulationLinear
from .vla import BACKBONE, PAD, UNKNOWN, VLA

# Other streams than the initial weights; below 2**32, the part of a seed that torch looks at.
_ROWS, _SCENES = 2**27, 2**26
_SCENE_COUNT, _REFRESH = 4096, 40  # scenes at a time, and after how many steps new ones come
CAPTIONS = (
    "put the {object} disc in the {zone} zone",
    "the {object} disc and the {zone} zone",
    "the {zone} zone and the {object} disc",
    "the {object} puck and the {zone} area",
    "carry the {object} puck to the {zone} area",
)


@dataclass
class Examples:
    """N chunks of demonstrations of several tasks."""

    image: Tensor  # uint8 [N, S, S, 3]
    words: Tensor  # [N, L]
    tokens: Tensor  # [N, 3 H]
    task: Tensor  # [N], number of the dataset that it comes from


def examples(policy: VLA, datasets: Iterable[Iterable[minari.EpisodeData]]) -> Examples:
    """All chunks of datasets that were recorded with `obs="all"`, as the policy's tokens."""
    parts = []
    for i, dataset in enumerate(datasets):
        episodes = list(dataset)  # reading takes longer than the rest
        data = chunks(episodes, policy.length, part="image")
        told = [e.observations["instruction"][0] for e in episodes for _ in range(len(e))]
        tokens, words = policy.tokens(data["chunk"]), policy.vocabulary.encode(told)
        parts.append((data["obs"], words, tokens, torch.full((len(words),), i)))
    if not parts:
        raise ValueError("there are no demonstrations: give at least one dataset.")
    return Examples(*(torch.cat(x) for x in zip(*parts, strict=True)))


def captions() -> list[str]:
    """All captions of the pre-training scenes."""
    return [c.format(object=a, zone=b) for c in CAPTIONS for a in COLORS for b in COLORS]


def ground(
    policy: VLA,
    steps: int = 2_000,
    batch: int = 64,
    learning_rate: float = 3e-3,
    progress: bool = True,
) -> Tensor:
    """Pre-train the backbone (all but the decoder) of a policy to say where things are.

    A caption names a disc and a zone of a scene without a task, and the backbone has to give the
    places of both and of the gripper, by least squares.

    Returns:
        Root of the mean squared distance at each step, in table units, [steps].
    """
    if policy.members != 1:
        raise ValueError(f"ground trains one member, not {policy.members}; others can adopt it.")
    generator = torch.Generator().manual_seed(policy.seeds[0] + _SCENES)
    head = PopulationLinear(policy.hidden, 6, [generator], 0.1).to(policy.center.device)
    weights = [x for part in BACKBONE for x in getattr(policy, part).parameters()]
    optimizer = torch.optim.Adam([*weights, *head.parameters()], fused=True)
    errors, scenes = [], _scenes(policy, generator, batch)
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        image, words, place = next(scenes)
        _pace(optimizer, learning_rate, i, steps)
        square = (head(policy.context(image[None], words[None]))[0] - place).square()  # [B, 6]
        optimizer.zero_grad()
        square.mean().backward()
        optimizer.step()
        errors.append((2 * square.detach().mean()).sqrt())
    return torch.stack(errors).cpu()


def _scenes(
    policy: VLA, generator: torch.Generator, batch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless images [B, S, S, 3], captions [B, L] and places of disc, zone and gripper [B, 6]."""
    device, c = policy.center.device, len(COLORS)
    env = TabletopVectorEnv(
        "PickPlace", _SCENE_COUNT, "image", size=policy.size, distractors=2, device=device
    )
    env.reset(seed=policy.seeds[0] + _SCENES)
    text = policy.vocabulary.encode(captions()).view(len(CAPTIONS), c, c, -1).to(device)
    while True:
        image, w = as_tensor(env.reset()[0]), env.world
        for _ in range(_REFRESH):
            row, disc, zone, caption = (
                torch.randint(n, (batch,), generator=generator).to(device)
                for n in (_SCENE_COUNT, len(w.object_color), len(w.zone_color), len(CAPTIONS))
            )
            words = text[caption, w.object_color[disc, row], w.zone_color[zone, row]]
            things = (w.objects[:, disc, row], w.zones[:, zone, row], w.gripper[:, row])
            yield image[row], words, torch.cat(things).T


def fit(
    policy: VLA,
    data: Examples,
    steps: int,
    batch: int = 128,
    learning_rate: float = 3e-3,
    forget: float = 0.1,
    progress: bool = True,
) -> Tensor:
    """Supervised fine-tuning: the cross-entropy of the tokens, as many rows of each task.

    Args:
        forget: share of the words that are replaced by UNKNOWN, so that unknown ones do no harm.

    Returns:
        The loss [steps, P].
    """
    device = policy.center.device
    generators = [torch.Generator().manual_seed(seed + _ROWS) for seed in policy.seeds]
    counts = data.task.bincount()
    first = counts.cumsum(0) - counts
    optimizer = torch.optim.Adam(policy.parameters(), fused=True)
    losses = torch.zeros(positive_int(steps, "steps"), policy.members, device=device)
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        _pace(optimizer, learning_rate, i, steps)
        task = torch.stack([torch.randint(len(counts), (batch,), generator=g) for g in generators])
        draw = torch.stack([torch.rand(batch, generator=g) for g in generators])
        row = first[task] + (draw * counts[task]).long()  # [P, B]
        words = data.words[row]
        gone = torch.stack([torch.rand(words.shape[1:], generator=g) for g in generators]) < forget
        words = torch.where(gone & (words != PAD), UNKNOWN, words)
        image, words, tokens = (x.to(device) for x in (data.image[row], words, data.tokens[row]))
        loss = -policy.log_prob(policy.context(image, words), tokens).mean((1, 2))  # [P]
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        losses[i] = loss.detach()
    return losses.cpu()


def _pace(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """A short warm-up, then linearly down to 0."""
    optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - step / steps)
