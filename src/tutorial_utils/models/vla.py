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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._validate import positive_int
from ..tabletop.acting import Chunks
from ..tabletop.observations import Everything
from .population import Network, PopulationLinear, Stack

PAD, UNKNOWN = 0, 1
BACKBONE = ("image", "text", "query", "fuse")  # the parts before the decoder
_PATCH, _STRIDE = 4, 2  # pixels
_WORDS = 16  # in the longest instruction
_WIDTH, _TEXT, _FEATURES = 32, 64, 16  # of a word, of an instruction, of a patch


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


class ImageEncoder(Network):
    """Overlapping 4x4 patches, 2 pixels apart, to a vector of features each."""

    place: Tensor

    def __init__(self, size: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.side = size // _STRIDE
        self.patch = PopulationLinear(3 * _PATCH**2, 32, generators, math.sqrt(2))
        self.head = PopulationLinear(32, _FEATURES, generators, 1.0)
        center = (torch.arange(self.side) + 0.5) * 2 / self.side - 1
        y, x = torch.meshgrid(-center, center, indexing="ij")
        place = torch.stack((x, y), -1).reshape(-1, 2)
        self.register_buffer("place", place, persistent=False)  # [T, 2], in table units

    def forward(self, images: Tensor) -> Tensor:
        """Features [P, B, T, F] of uint8 images [P, B, S, S, 3]."""
        p, b = images.shape[:2]
        edge = (_PATCH - _STRIDE) // 2
        x = images.flatten(0, 1).float().div_(127.5).sub_(1.0)
        x = F.pad(x, (0, 0, edge, edge, edge, edge), value=1.0)  # [P B, S + 2, S + 2, 3]
        x = x.flatten(2).unfold(2, 3 * _PATCH, 3 * _STRIDE).unfold(1, _PATCH, _STRIDE)
        x = x.mT.reshape(p, b * self.side**2, -1)  # a patch: 4 rows of 4 pixels of 3 channels
        x = F.relu(self.patch(x), inplace=True)  # [P, B T, 32]
        return self.head(x).view(p, b, self.side**2, -1)


class TextEncoder(Network):
    """Words to one vector: embeddings, a convolution over three words, the mean over the words.

    In three words an adjective meets its noun: "red disc" and "blue zone" are told apart from "blue
    disc" and "red zone".
    """

    member: Tensor

    def __init__(self, words: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.word = _table((words, _WIDTH), generators, 1.0)
        self.mix = PopulationLinear(3 * _WIDTH, _TEXT, generators, math.sqrt(2))
        member = torch.arange(len(generators))[:, None, None]
        self.register_buffer("member", member, persistent=False)

    def forward(self, words: Tensor) -> Tensor:
        """[P, B, text] for word numbers [P, B, L]."""
        real = (words != PAD)[..., None]  # [P, B, L, 1]
        x = F.pad(self.word[self.member, words] * real, (0, 0, 1, 1))  # [P, B, L + 2, width]
        x = torch.cat((x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]), -1)  # [P, B, L, 3 width]
        x = F.relu(self.mix(x.flatten(1, 2)).unflatten(1, words.shape[1:]))
        return (x * real).sum(2) / real.sum(2)


def _table(shape: Sequence[int], generators: Sequence[torch.Generator], std: float) -> nn.Parameter:
    """Gaussian weights [P, *shape], each member's from its own generator."""
    return nn.Parameter(torch.stack([torch.randn(*shape, generator=g) for g in generators]) * std)


class Decoder(Network):
    """Tokens one after the other, each given the context and all tokens before it.

    The state is the projected context plus one embedding for each token so far, as in NADE
    (Larochelle and Murray 2011). So all tokens of a known chunk are scored in one pass.
    """

    member: Tensor
    place: Tensor

    def __init__(
        self, tokens: int, bins: int, generators: Sequence[torch.Generator], hidden: int
    ) -> None:
        super().__init__()
        self.tokens, self.bins = tokens, bins
        self.embed = _table((tokens, bins, hidden), generators, 0.3)
        self.out = _table((tokens, hidden, bins), generators, 0.1)
        self.start = nn.Parameter(torch.zeros(len(generators), 1, tokens, hidden))
        member = torch.arange(len(generators))[:, None, None]
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("place", torch.arange(tokens), persistent=False)

    def forward(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Logits [P, B, tokens, bins] of a chunk [P, B, tokens] that is known."""
        seen = self.embed[self.member, self.place, tokens].cumsum(2)  # [P, B, tokens, hidden]
        before = F.pad(seen[:, :, :-1], (0, 0, 1, 0))
        state = F.relu(context[:, :, None] + before + self.start)
        return torch.einsum("pbth,pthk->pbtk", state, self.out)

    def draw(self, context: Tensor, uniform: Tensor | None, temperature: float = 1.0) -> Tensor:
        """A chunk [P, B, tokens] for a context [P, B, hidden].

        Args:
            uniform: numbers in [0, 1) that decide the draw, [P, B, tokens]; without them every
                token is the likeliest one.
        """
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

    center: Tensor

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
        self.length, self.bins = positive_int(length, "length"), positive_int(bins, "bins", 2)
        self.queries, self.hidden = positive_int(queries, "queries"), hidden
        self.image = ImageEncoder(size, generators)
        self.text = TextEncoder(len(vocabulary), generators)
        self.query = PopulationLinear(_TEXT, queries * _FEATURES, generators, 2.0)
        read = queries * (2 + _FEATURES) + _TEXT
        self.fuse = Stack(
            PopulationLinear(read, hidden, generators, math.sqrt(2)),
            nn.ReLU(inplace=True),
            PopulationLinear(hidden, hidden, generators, 1.0),
        )
        self.decoder = Decoder(3 * length, bins, generators, hidden)
        self.register_buffer("center", torch.linspace(-1, 1, bins), persistent=False)

    @property
    def members(self) -> int:
        """P."""
        return len(self.seeds)

    def context(self, images: Tensor, words: Tensor) -> Tensor:
        """Images [P, B, S, S, 3] and words [P, B, L], fused: [P, B, hidden]."""
        p, b = words.shape[:2]
        text = self.text(words)
        query = self.query(text).view(p, b, self.queries, -1)
        feature = self.image(images)  # [P, B, T, features]
        look = (query @ feature.mT).softmax(-1)  # [P, B, queries, T]
        read = ((look @ self.image.place).flatten(2), (look @ feature).flatten(2), text)
        return self.fuse(torch.cat(read, -1))

    def tokens(self, chunk: Tensor) -> Tensor:
        """The nearest tokens [..., 3 H] of actions [..., H, 3]."""
        return ((chunk.clamp(-1, 1) + 1) / 2 * (self.bins - 1)).round().long().flatten(-2)

    def actions(self, tokens: Tensor) -> Tensor:
        """Actions [..., H, 3] of tokens [..., 3 H]."""
        actions: Tensor = self.center[tokens].unflatten(-1, (self.length, 3))
        return actions

    def log_prob(self, context: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
        """log pi of each token given those before it, [P, B, 3 H]."""
        logits = self.decoder(context, tokens) / temperature
        return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]

    def adopt(self, backbone: VLA) -> None:
        """Take over everything but the decoder from the first member of another policy."""
        for name in BACKBONE:
            theirs = dict(getattr(backbone, name).named_parameters())
            for key, ours in getattr(self, name).named_parameters():
                ours.data.copy_(theirs[key].data[:1].expand_as(ours))

    def select(self, member: int) -> VLA:
        """A policy of this member alone, sharing no memory with this one."""
        shape = (self.size, self.length, self.bins, self.queries, self.hidden)
        one = VLA(self.vocabulary, [self.seeds[member]], *shape)
        one.load_state_dict({n: x[member : member + 1] for n, x in self.state_dict().items()})
        return one.to(self.center.device)

    def deployed(self) -> Chunks:
        """The policy for `evaluate` on observations of the kind "all": the likeliest tokens."""

        def plan(obs: Everything) -> Tensor:
            words = self.vocabulary.encode(obs["instruction"]).to(self.center.device)
            images, words = (x.unflatten(0, (self.members, -1)) for x in (obs["image"], words))
            tokens = self.decoder.draw(self.context(images, words), None)
            return self.actions(tokens).flatten(-2)  # [P, E, 3 H]

        return Chunks(plan, self.length, self.members)
