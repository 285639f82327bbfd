"""Images and sentences as points of one space: a dual encoder, P members at a time.

The model of CLIP (Radford et al. 2021, arXiv 2103.00020), small: a tower for images, a tower for
words, vectors of length 1, and a loss that pulls an image towards its own sentence and away from
those of the others in the batch; or, pair by pair, the sigmoid loss of SigLIP (Zhai et al. 2023,
arXiv 2303.15343). Rewards with vision-language models, a coming chapter, scores pictures with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .._validate import one_of, positive_int
from ..tabletop.scenes import Statements, holds
from .pictures import EACH, Pictures, turn
from .population import Network, PopulationLinear, Stack
from .vla import PAD, UNKNOWN, ImageEncoder, TextEncoder, Vocabulary


class AttentionPool(Network):
    """Learnt queries read features and places from patches, like a Perceiver resampler.

    Args:
        size: side of the images in pixels.
        queries: how many places a tower may look at.
        outputs: length of the vector that is made of what they read.
    """

    def __init__(
        self, size: int, generators: Sequence[torch.Generator], queries: int, outputs: int
    ) -> None:
        super().__init__()
        self.patches = ImageEncoder(size, generators)
        features = self.patches.head.weight.shape[-1]
        draws = [torch.randn(1, queries, features, generator=g) for g in generators]
        self.query = nn.Parameter(torch.stack(draws))  # [P, 1, Q, F]
        gain = math.sqrt(2)
        self.read = Stack(
            PopulationLinear(queries * (features + 2), 256, generators, gain),
            nn.ReLU(inplace=True),
            PopulationLinear(256, 256, generators, gain),
            nn.ReLU(inplace=True),
            PopulationLinear(256, outputs, generators, 1.0),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[P, B, outputs] of uint8 images [P, B, S, S, 3]."""
        feature = self.patches(images)  # [P, B, T, F]
        look = (self.query @ feature.mT).softmax(-1)  # [P, B, Q, T]
        seen = ((look @ self.patches.place).flatten(2), (look @ feature).flatten(2))
        return self.read(torch.cat(seen, -1))


class BagOfWords(Network):
    """The mean of the words' vectors, whatever their order: the rival of a text encoder."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, words: Tensor) -> Tensor:
        """[P, B, text] for word numbers [P, B, L]: each word alone, without its neighbours."""
        real = (words != PAD)[..., None]
        each = words.masked_fill(words == PAD, UNKNOWN).flatten(1, 2)[..., None]
        alone = self.encoder(each).unflatten(1, words.shape[1:])  # [P, B, L, text]
        mean: Tensor = (alone * real).sum(2) / real.sum(2)
        return mean


class DualEncoder(nn.Module):
    """Both towers and the learnt temperature of each member.

    Args:
        vocabulary: the words of the sentences.
        seeds: one per member.
        size: side of the images in pixels.
        width: length W of the vectors.
        queries: of the image tower.
        ordered: whether the text tower sees the order of words.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        seeds: Sequence[int],
        size: int = 32,
        width: int = 64,
        queries: int = 24,
        ordered: bool = True,
    ) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.vocabulary, self.seeds, self.size = vocabulary, list(seeds), size
        self.pictures = AttentionPool(size, generators, queries, width)
        words = TextEncoder(len(vocabulary), generators)
        self.words: Network = words if ordered else BagOfWords(words)
        self.sentences = Stack(
            PopulationLinear(words.mix.weight.shape[-1], 128, generators, math.sqrt(2)),
            nn.ReLU(inplace=True),
            PopulationLinear(128, width, generators, 1.0),
        )
        start = torch.full((len(seeds), 1, 1), math.log(10.0))
        self.log_scale = nn.Parameter(start)  # one over the temperature
        self.bias = nn.Parameter(torch.full((len(seeds), 1, 1), -5.0))  # of the sigmoid loss

    def image(self, images: Tensor) -> Tensor:
        """Unit vectors [P, B, W] of images [P, B, S, S, 3]."""
        return F.normalize(self.pictures(images), dim=-1)

    def text(self, words: Tensor) -> Tensor:
        """Unit vectors [P, B, W] of word numbers [P, B, L]."""
        longest = int((words != PAD).sum(-1).max())
        return F.normalize(self.sentences(self.words(words[..., :longest])), dim=-1)

    def score(self, images: Tensor, sentences: Sequence[str]) -> Tensor:
        """The cosine [P, B] of images [B, S, S, 3] and as many sentences."""
        members = len(self.seeds)
        words = self.vocabulary.encode(sentences).to(self.log_scale.device)
        x, y = (t.expand(members, *t.shape) for t in (images, words))
        return (self.image(x) * self.text(y)).sum(-1)


def info_nce(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """The symmetric contrastive loss [P] of matching pairs.

    Args:
        image: unit vectors [P, B, W].
        text: unit vectors [P, C, W] with C >= B: those of the images first, and then further
            sentences (hard negatives) that belong to no image.
        scale: [P, 1, 1], one over the temperature.
    """
    logits = scale * image @ text.mT  # [P, B, C]
    b = image.shape[1]
    to_text = logits.log_softmax(2).diagonal(dim1=1, dim2=2)[:, :b]
    to_image = logits[:, :, :b].log_softmax(1).diagonal(dim1=1, dim2=2)
    return -(to_text + to_image).mean(1) / 2


def sigmoid_loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The loss [P] of each pair alone: is this the sentence of this image? Arguments as above."""
    logits = scale * image @ text.mT + bias
    sign = -torch.ones_like(logits)
    sign.diagonal(dim1=1, dim2=2).fill_(1.0)
    return F.softplus(-sign * logits).sum(2).mean(1)


def _hard(pool: Pictures, rows: Tensor) -> Tensor:
    """Words of sentences that are nearly true of the pictures, [M, L], for statements [M].

    The two colours are exchanged, or every other time the side. Where what comes of it is true, one
    of the next pictures' sentences takes its place, of three the first that is false here.
    """
    said, picture = pool.said.of(rows), rows // EACH
    swapped, opposed = said.swapped(), said.opposed()
    sided = (opposed.relation != said.relation) & (torch.arange(len(rows)) % 2 == 0)
    both = zip(vars(opposed).values(), vars(swapped).values(), strict=True)
    near = Statements(*(torch.where(sided, a, b) for a, b in both))
    tried = [near, *(pool.said.of(rows.roll(-k)) for k in (1, 2, 3))]
    true = torch.stack([holds(pool.world, x, picture) for x in tried])  # [4, M]
    words = torch.stack([pool.known.encode(x.words()) for x in tried])  # [4, M, L]
    return words[true.int().argmin(0), torch.arange(len(rows))]


def fit(
    model: DualEncoder,
    pools: list[Pictures],
    steps: int,
    batch: int = 64,
    learning_rate: float = 5e-3,
    loss: str = "softmax",
    hard: bool = False,
    progress: bool = True,
) -> Tensor:
    """Train on pictures and statements that are true of them, each member on its own draws.

    Args:
        batch: pairs.
        loss: "softmax" (`info_nce`) or "sigmoid" (`sigmoid_loss`).
        hard: whether each picture comes with a sentence that is nearly true of it, too.

    Returns:
        The loss [steps, P].
    """
    one_of(loss, ("softmax", "sigmoid"), "loss")
    generators = [torch.Generator().manual_seed(seed) for seed in model.seeds]
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    losses = torch.zeros(positive_int(steps, "steps"), len(model.seeds))
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        pool = turn(pools, i)
        rows = torch.stack([pool.draw(batch, g, true=True) for g in generators])  # [P, B]
        words = pool.words[rows]
        if hard:
            words = torch.cat((words, _hard(pool, rows.flatten()).view_as(words)), 1)
        image, text = model.image(pool.image[rows // EACH]), model.text(words)
        pair, scale = (image, text), model.log_scale.exp()
        softmax = loss == "softmax"
        each = info_nce(*pair, scale) if softmax else sigmoid_loss(*pair, scale, model.bias)
        optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, (i + 1) / 50) * (1 - i / steps)
        optimizer.zero_grad()
        each.sum().backward()
        optimizer.step()
        losses[i] = each.detach()
    return losses
