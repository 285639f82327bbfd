"""A vision-language-action policy in miniature: an image and an instruction in, action tokens out.

The parts of a real one (Brohan et al. 2023, arXiv 2307.15818; Kim et al. 2024, arXiv 2406.09246),
small enough for a processor. Patches of the image become keys, the words of the instruction become
queries, and cross-attention between them is the fusion. Its values hold the place of each patch, so
what a query reads is a position finer than a pixel, a spatial soft-arg-max (Levine et al. 2016);
without it a model of this size does not learn. The decoder emits a chunk of actions as discrete
tokens, one after the other: drawn all at once, the tokens of a chunk could mix two ways of doing
the task. P members at once, one per seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._validate import positive_int
from .policies import Chunks, PopulationLinear

PAD, UNKNOWN = 0, 1
_PATCH, _STRIDE = 4, 2
_WORDS = 16  # an instruction's longest


class Vocabulary:
    """Words and their numbers. Words that it has not seen become UNKNOWN."""

    def __init__(self, sentences: Sequence[str]) -> None:
        words = {word for sentence in sentences for word in _split(sentence)}
        self.number = {word: i for i, word in enumerate(sorted(words), 2)}

    def __len__(self) -> int:
        return len(self.number) + 2

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Numbers [N, L] of the words, PAD after the end.

        Raises:
            ValueError: a sentence without words or with more than 16.
        """
        rows = torch.full((len(sentences), _WORDS), PAD)
        known: dict[str, Tensor] = {}
        for i, sentence in enumerate(sentences):
            if sentence not in known:
                words = _split(sentence)
                if not 0 < len(words) <= _WORDS:
                    raise ValueError(f"an instruction needs 1 to {_WORDS} words: {sentence!r}.")
                known[sentence] = torch.tensor([self.number.get(w, UNKNOWN) for w in words])
            rows[i, : len(known[sentence])] = known[sentence]
        return rows


def _split(sentence: str) -> list[str]:
    return sentence.lower().replace(",", " ").split()


class ImageEncoder(nn.Module):
    """Overlapping 4x4 patches, 2 pixels apart, to a vector of features each."""

    def __init__(
        self, size: int, generators: Sequence[torch.Generator], hidden: int, features: int
    ) -> None:
        super().__init__()
        self.side = size // _STRIDE
        self.patch = PopulationLinear(3 * _PATCH**2, hidden, generators, math.sqrt(2))
        self.head = PopulationLinear(hidden, features, generators, 1.0)
        center = (torch.arange(self.side) + 0.5) * 2 / self.side - 1
        place = torch.stack(torch.meshgrid(-center, center, indexing="ij")[::-1], -1)
        self.register_buffer("place", place.reshape(-1, 2))  # [T, 2], x and y in table units

    def forward(self, images: Tensor) -> Tensor:
        """Features [P, B, T, features] of uint8 images [P, B, S, S, 3]."""
        p, b, size = images.shape[:3]
        edge = (_PATCH - _STRIDE) // 2
        x = images.flatten(0, 1).float().div_(127.5).sub_(1.0)
        x = F.pad(x, (0, 0, edge, edge, edge, edge), value=1.0)  # [P B, S + 2, S + 2, 3]
        x = x.unfold(1, _PATCH, _STRIDE).unfold(2, _PATCH, _STRIDE)  # [P B, side, side, 3, 4, 4]
        x = x.permute(0, 1, 2, 4, 5, 3).reshape(p, b * self.side**2, -1)
        x = F.relu(self.patch(x), inplace=True)  # [P, B T, hidden]
        return self.head(x).view(p, b, self.side**2, -1)


class TextEncoder(nn.Module):
    """Words to one vector: embeddings, one layer of self-attention, the mean over the words."""

    def __init__(self, words: int, generators: Sequence[torch.Generator], width: int) -> None:
        super().__init__()
        p = len(generators)
        self.word = nn.Parameter(torch.empty(p, words, width))
        self.place = nn.Parameter(torch.empty(p, _WORDS, width))
        for table in (self.word, self.place):
            for member, generator in zip(table.data, generators, strict=True):
                member.normal_(std=0.5, generator=generator)
        self.attend = PopulationLinear(width, 3 * width, generators, 1.0)
        self.mix = PopulationLinear(width, width, generators, 1.0)
        self.register_buffer("member", torch.arange(p)[:, None, None])

    def forward(self, words: Tensor) -> Tensor:
        """[P, B, width] for word numbers [P, B, L]."""
        p, b, length = words.shape
        real = (words != PAD)[..., None]  # [P, B, L, 1]
        x = self.word[self.member, words] + self.place[:, None, :length]
        q, k, v = self.attend(x.flatten(1, 2)).view(p, b, length, -1).chunk(3, -1)
        mask = real.mT.expand(-1, -1, length, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = F.relu(self.mix(x.flatten(1, 2)).view_as(x))
        return (x * real).sum(2) / real.sum(2)


class Decoder(nn.Module):
    """Tokens one after the other, each given the context and all tokens before it.

    The state is the projected context plus one embedding for each token so far, as in NADE
    (Larochelle and Murray 2011). So all tokens of a known chunk are scored in one pass.
    """

    def __init__(
        self, tokens: int, bins: int, generators: Sequence[torch.Generator], hidden: int
    ) -> None:
        super().__init__()
        self.tokens, self.bins, p = tokens, bins, len(generators)
        self.embed = nn.Parameter(torch.empty(p, tokens, bins, hidden))
        self.out = nn.Parameter(torch.empty(p, tokens, hidden, bins))
        self.start = nn.Parameter(torch.zeros(p, 1, tokens, hidden))
        for i, generator in enumerate(generators):
            self.embed.data[i].normal_(std=0.3, generator=generator)
            self.out.data[i].normal_(std=0.1, generator=generator)
        self.register_buffer("member", torch.arange(p)[:, None, None])
        self.register_buffer("place", torch.arange(tokens))

    def forward(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Logits [P, B, tokens, bins] of a chunk [P, B, tokens] that is known."""
        seen = self.embed[self.member, self.place, tokens].cumsum(2)  # [P, B, tokens, hidden]
        before = F.pad(seen[:, :, :-1], (0, 0, 1, 0))
        state = F.relu(context[:, :, None] + before + self.start)
        return torch.einsum("pbth,pthk->pbtk", state, self.out)

    def draw(self, context: Tensor, uniform: Tensor | None, temperature: float) -> Tensor:
        """A chunk [P, B, tokens]: the likeliest tokens, or drawn with uniform numbers
        [P, B, tokens]."""
        chunk, seen = [], context
        for i in range(self.tokens):
            logits = F.relu(seen + self.start[:, :, i]) @ self.out[:, i]  # [P, B, bins]
            if uniform is None:
                token = logits.argmax(-1)
            else:
                share = (logits / temperature).softmax(-1).cumsum(-1)
                token = (uniform[..., i : i + 1] > share).sum(-1).clamp_max(self.bins - 1)
            chunk.append(token)
            seen = seen + self.embed[self.member[..., 0], i, token]
        return torch.stack(chunk, -1)


class VLA(nn.Module):
    """The policy.

    Args:
        vocabulary: the words that it may learn.
        seeds: one per member.
        size: side of the images in pixels.
        length: H, actions in a chunk.
        bins: tokens for each number of an action; their centres lie evenly in [-1, 1].
        queries: what the words may look for in the image at once.
        hidden: width of the fused context and of the decoder.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        seeds: Sequence[int],
        size: int = 32,
        length: int = 4,
        bins: int = 9,
        queries: int = 8,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.vocabulary, self.seeds, self.size = vocabulary, list(seeds), size
        self.length, self.queries, width, features = positive_int(length, "length"), queries, 32, 16
        self.image = ImageEncoder(size, generators, 32, features)
        self.text = TextEncoder(len(vocabulary), generators, width)
        self.query = PopulationLinear(width, queries * features, generators, 2.0)
        self.fuse = nn.Sequential(
            PopulationLinear(queries * (2 + features) + width, hidden, generators, math.sqrt(2)),
            nn.ReLU(inplace=True),
            PopulationLinear(hidden, hidden, generators, 1.0),
        )
        self.decoder = Decoder(3 * length, bins, generators, hidden)
        self.register_buffer("center", torch.linspace(-1, 1, bins))

    @property
    def members(self) -> int:
        """P."""
        return len(self.seeds)

    def context(self, images: Tensor, words: Tensor) -> Tensor:
        """What image [P, B, S, S, 3] and words [P, B, L] say together, [P, B, hidden]."""
        p, b = words.shape[:2]
        text = self.text(words)
        query = self.query(text).view(p, b, self.queries, -1)
        feature = self.image(images)  # [P, B, T, features]
        look = (query @ feature.mT).softmax(-1)  # [P, B, queries, T]
        read = ((look @ self.image.place).flatten(2), (look @ feature).flatten(2), text)
        return self.fuse(torch.cat(read, -1))

    def tokens(self, chunk: Tensor) -> Tensor:
        """The nearest tokens [..., 3 H] of actions [..., H, 3]."""
        bins = len(self.center)
        return ((chunk.clamp(-1, 1) + 1) / 2 * (bins - 1)).round().long().flatten(-2)

    def actions(self, tokens: Tensor) -> Tensor:
        """Actions [..., H, 3] of tokens [..., 3 H]."""
        return self.center[tokens].unflatten(-1, (self.length, 3))

    def log_prob(self, context: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
        """log pi of each token given those before it, [P, B, 3 H]."""
        logits = self.decoder(context, tokens) / temperature
        return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]

    def deployed(self) -> Chunks:
        """The policy for `evaluate` on observations of the kind "all": the likeliest tokens."""

        def plan(obs: dict[str, Any]) -> Tensor:
            words = self.vocabulary.encode(obs["instruction"]).unflatten(0, (self.members, -1))
            images = obs["image"].unflatten(0, (self.members, -1))
            context = self.context(images, words)
            return self.actions(self.decoder.draw(context, None, 1.0)).flatten(-2)

        return Chunks(plan, self.length, self.members)
