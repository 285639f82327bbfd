"""How the small vision-language model learns, in two stages, as published models do.

First the eyes learn to find what a sentence names (finding things is among the first lessons of
PaliGemma, Beyer et al. 2024, arXiv 2407.07726). Then the image encoder stays as it is, and the rest
learns to answer: is a statement true, in which of two pictures is it true, on which side of a zone
is a disc, and what is there to say about a disc.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._validate import positive_int
from ..tabletop.scenes import NAMES, Statements, holds, left_out, named, present
from ..tabletop.tasks import COLORS
from .pictures import DESCRIBE, EACH, SIDE, Pictures, turn
from .population import PopulationLinear
from .vlm import FIRST, NO, SECOND, WHICH, YES, VisionLanguage, answer_loss

_EYES = ("image.", "text.", "query.")  # the parts that the first stage trains
_SIDES = ("left", "right")
_OTHERS = 8  # pictures that are tried as the second of two


def find(
    model: VisionLanguage,
    pools: list[Pictures],
    steps: int,
    batch: int = 32,
    learning_rate: float = 1e-2,
    progress: bool = True,
) -> Tensor:
    """The first stage: say where `Pictures.things` are that a statement names.

    They are told twice: by the places at which the first four queries look, so that a query has
    one thing to look for, and by a linear layer on all that the queries read, which is finer.

    Args:
        batch: pictures, with four statements each.

    Returns:
        Root of the mean squared distance at each step, by place and by layer, in table units,
        [steps, 2].
    """
    generator = torch.Generator().manual_seed(model.seed)
    eyes = [p for n, p in model.named_parameters() if n.startswith(_EYES)]
    head = PopulationLinear(model.read, 8, [generator], 0.1)
    optimizer = torch.optim.Adam([*eyes, *head.parameters()], fused=True)
    errors = torch.zeros(positive_int(steps, "steps"), 2)
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        pool = turn(pools, i)
        picture = torch.randint(len(pool.image), (batch,), generator=generator)
        rows = (EACH * picture[:, None] + torch.arange(EACH)).flatten()
        place, there = pool.things(rows)
        told = torch.cat((named(pool.said.of(rows)), torch.ones(len(rows), 2).bool()), 1)
        counts = (there & told)[..., None]  # [M, 4, 1]
        look, read = model.attend(model.see(pool.image[picture]), pool.words[rows])
        looked = look[:, :4] @ model.image.place  # [M, 4, 2]
        read_off = head(read[None])[0].view(-1, 4, 2)
        square = torch.stack([((x - place).square() * counts).sum() for x in (looked, read_off)])
        square = square / counts.sum()
        _step(optimizer, square.sum(), learning_rate, i, steps)
        errors[i] = square.detach().sqrt()
    return errors


# What a lesson gives the model: what the question sees of the picture, and the answer.
_Lesson = tuple[Tensor, Tensor]


def _tokens(model: VisionLanguage, right: Tensor, options: tuple[str, str]) -> Tensor:
    """The second of two words where `right`, else the first, as answers [B, 1]."""
    numbers = torch.tensor([model.vocabulary.number[word] for word in options])
    return numbers[right.long()][:, None]


def _is_true(model: VisionLanguage, pool: Pictures, seen: Tensor, rows: Tensor) -> _Lesson:
    """Is the statement true of its picture?"""
    words = pool.words[rows]
    return model.prefix(seen[rows // EACH], words), _tokens(model, pool.truth[rows], (NO, YES))


def _in_which(model: VisionLanguage, pool: Pictures, seen: Tensor, rows: Tensor) -> _Lesson:
    """In which of two pictures is it true? Both hold what it names, and it is true in one alone.

    Were a disc or a zone missing in one of them, the other could be named without a look at where
    things are.
    """
    own, said, truth = rows // EACH, pool.said.of(rows), pool.truth[rows]
    others = torch.stack([own.roll(k) for k in range(1, _OTHERS + 1)])  # [K, B]
    every = Statements(*(x.repeat(_OTHERS) for x in vars(said).values()))
    also, there = (f(pool.world, every, others.flatten()) for f in (holds, present))
    fits = (also != truth.repeat(_OTHERS)) & there & present(pool.world, said, own).repeat(_OTHERS)
    fits = fits.view(_OTHERS, -1)
    differ = fits.any(0).nonzero()[:, 0]
    other = others.gather(0, fits.int().argmax(0)[None])[0, differ]
    own, right = own[differ], truth[differ]
    second = torch.rand(len(differ), generator=pool.generator) < 0.5  # is the picture that fits
    pair = torch.where(right != second, own, other), torch.where(right != second, other, own)
    words = model.encode([f"{WHICH} {text}" for text in said.of(differ).words()])
    prefix = torch.cat([model.prefix(seen[m], words, i) for i, m in enumerate(pair)], 1)
    return prefix, _tokens(model, second, (FIRST, SECOND))


def _say(model: VisionLanguage, pool: Pictures, seen: Tensor, rows: Tensor) -> _Lesson:
    """What is there to say about a disc? One thing that is true of it."""
    of_disc = pool.said.relation[rows] != NAMES.index("reached")
    rows = rows[pool.truth[rows] & of_disc]
    asked = [DESCRIBE.format(disc=COLORS[i]) for i in pool.said.disc[rows].tolist()]
    words = model.encode(asked)
    return model.prefix(seen[rows // EACH], words), pool.words[rows]


def _side(model: VisionLanguage, pool: Pictures, seen: Tensor, rows: Tensor) -> _Lesson:
    """On which side of a zone is a disc?

    A statement with its side given is true by the sign of the distance *and* the word, so neither
    alone says anything of the answer; here the sign alone does.
    """
    place, there = pool.things(rows)
    both = there[:, :2].all(1) & ~left_out(pool.said.of(rows))
    said, rows = pool.said.of(rows[both]), rows[both]
    colors = zip(said.disc.tolist(), said.zone.tolist(), strict=True)
    words = model.encode([SIDE.format(disc=COLORS[d], zone=COLORS[z]) for d, z in colors])
    right = (place[:, 0] - place[:, 1])[both, 0] > 0
    return model.prefix(seen[rows // EACH], words), _tokens(model, right, _SIDES)


# Seven, so that each lesson meets each of six pools in turn.
_LESSONS = (_is_true, _is_true, _side, _is_true, _in_which, _is_true, _say)


def answer(
    model: VisionLanguage,
    pools: list[Pictures],
    steps: int,
    batch: int = 64,
    learning_rate: float = 1e-3,
    shuffled: bool = False,
    progress: bool = True,
) -> Tensor:
    """The second stage: answer questions, with the image encoder as it is.

    Args:
        shuffled: the sabotage: every answer belongs to another question of the batch.

    Returns:
        The loss at each step, [steps].
    """
    with torch.no_grad():  # features of all pictures, [N, T, F]
        seen = [torch.cat([model.see(x) for x in pool.image.split(500)]) for pool in pools]
    trained = [p for n, p in model.named_parameters() if not n.startswith("image.")]
    optimizer = torch.optim.Adam(trained, fused=True)
    losses = torch.zeros(positive_int(steps, "steps"))
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        pool, features = turn(pools, i), seen[i % len(pools)]
        lesson = _LESSONS[i % len(_LESSONS)]
        prefix, answers = lesson(model, pool, features, pool.draw(batch))
        if not len(answers):
            continue  # a small batch may hold nothing that fits the lesson
        if shuffled:
            answers = answers.roll(1, 0)
        loss = answer_loss(model(prefix, answers), answers)
        _step(optimizer, loss, learning_rate, i, steps)
        losses[i] = loss.detach()
    return losses


def _step(
    optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, step: int, steps: int
) -> None:
    """One step of gradient descent: a short warm-up, then a rate that falls to 0."""
    group = optimizer.param_groups[0]
    group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - step / steps)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
