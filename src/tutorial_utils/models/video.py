"""Films as tokens: a frame tokenizer with a codebook, and a transformer over whole films.

A frame is cut into square patches, and each patch becomes the number of the nearest of K learnt
vectors (VQ-VAE, van den Oord et al. 2017). A decoder-only Transformer then predicts the tokens of a
film one after the other (VideoGPT, Yan et al. 2021), after a word that may steer it.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .gpt import Block, descend
from .population import Network, Stack

_RESTART = 50  # steps after which codes that nobody used move to vectors that somebody needs


def patches(frames: Tensor, side: int) -> Tensor:
    """uint8 frames [..., S, S, 3] as patches in [-1, 1], [..., (S / side)^2, side * side * 3]."""
    x = frames.unflatten(-2, (-1, side)).unflatten(-4, (-1, side)).transpose(-4, -3)
    flat: Tensor = x.flatten(-3).flatten(-3, -2)
    return flat.float() / 127.5 - 1


def frames_of(x: Tensor, side: int) -> Tensor:
    """The inverse of `patches`: uint8 frames [..., S, S, 3], cut to the range of a pixel."""
    cells = math.isqrt(x.shape[-2])
    x = x.unflatten(-1, (side, side, 3)).unflatten(-4, (cells, cells)).transpose(-4, -3)
    x = x.flatten(-3, -2).flatten(-4, -3)
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class FrameTokenizer(Network):
    """An encoder and a decoder of patches, with a codebook of K vectors between them.

    Both begin as the identity: a code is then a patch, and the codebook that of k-means. Training
    goes on from there. From random weights it drops what is small and moves (see the chapter).

    Args:
        codes: K.
        side: of a patch, in pixels.
        hidden: width of the one hidden layer of encoder and decoder.
        identity: whether encoder and decoder begin as the identity.
    """

    def __init__(
        self, codes: int = 64, side: int = 4, hidden: int = 64, identity: bool = True
    ) -> None:
        super().__init__()
        pixels, self.side, self.identity = side * side * 3, side, identity
        parts = [(nn.Linear(pixels, hidden), nn.SiLU(), nn.Linear(hidden, pixels)) for _ in "ed"]
        if identity:
            for *_, last in parts:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.encoder, self.decoder = (Stack(*part) for part in parts)
        self.codebook = nn.Parameter(torch.randn(codes, pixels))

    def encode(self, x: Tensor) -> Tensor:
        """Vectors [..., pixels] of patches [..., pixels], before they become codes."""
        return x * self.identity + self.encoder(x)

    def rebuild(self, e: Tensor) -> Tensor:
        """Patches of vectors [..., pixels]."""
        return e * self.identity + self.decoder(e)

    def nearest(self, z: Tensor) -> Tensor:
        """Which code is nearest to vectors [..., pixels], int64 [...]."""
        far = self.codebook.square().sum(-1) - 2 * z @ self.codebook.T
        return far.argmin(-1)

    def forward(self, frames: Tensor) -> Tensor:
        """Tokens [..., n] of uint8 frames [..., S, S, 3]."""
        return self.nearest(self.encode(patches(frames, self.side)))

    def decode(self, tokens: Tensor) -> Tensor:
        """uint8 frames [..., S, S, 3] of tokens [..., n]."""
        return frames_of(self.rebuild(self.codebook[tokens]), self.side)


def vq_loss(tokenizer: FrameTokenizer, x: Tensor, commitment: float = 0.25) -> tuple[Tensor, ...]:
    """The loss of van den Oord et al. (2017), eq. 3, of patches [B, pixels]; tokens, vectors."""
    z = tokenizer.encode(x)  # [B, pixels]
    tokens = tokenizer.nearest(z)
    e = tokenizer.codebook[tokens]
    through = z + (e - z).detach()  # its value is e, its gradient goes to z
    rebuilt = (tokenizer.rebuild(through) - x).square().mean()
    to_codes, to_encoder = (z.detach() - e).square().mean(), (z - e.detach()).square().mean()
    return rebuilt + to_codes + commitment * to_encoder, tokens, z


def fit_tokenizer(
    tokenizer: FrameTokenizer,
    x: Tensor,
    steps: int,
    seed: int = 0,
    weight: Tensor | None = None,
    batch: int = 512,
    learning_rate: float = 1e-2,
    progress: bool = True,
) -> list[float]:
    """Train on random patches of x [N, pixels]; returns the loss of each step.

    Args:
        weight: how often each patch is drawn, relative to others, [N]; by default all alike.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(tokenizer.parameters(), fused=True)
    losses, used = torch.zeros(steps), torch.zeros(len(tokenizer.codebook))
    weight = torch.ones(len(x)) if weight is None else weight
    order = torch.multinomial(weight, steps * batch, True, generator=generator)
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - i / steps)
        rows = order[i * batch : (i + 1) * batch]
        loss, tokens, z = vq_loss(tokenizer, x[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[i], used = loss.detach(), used + tokens.bincount(minlength=len(used))
        if i % _RESTART == 0 and i < steps // 2:  # from the first step on: codes begin on data
            dead = (used == 0).nonzero()[:, 0]
            pick = torch.randint(len(z), (len(dead),), generator=generator)
            tokenizer.codebook.data[dead] = z.detach()[pick]
            used = torch.zeros_like(used)
    return losses.tolist()


class FilmTransformer(Network):
    """Logits of each token of a film, from the tokens before it and a word.

    A place reads the token just before it and the one of its own cell a frame ago: most of a film
    stands still, and to copy need not be learnt.

    Args:
        codes: number of tokens K.
        cells: tokens of a frame, n.
        frames: at most so many frames in a film.
        words: number of words; word 0 stands for none.
        width, layers, heads: of the network.
    """

    def __init__(
        self,
        codes: int,
        cells: int,
        frames: int,
        words: int = 1,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.codes, self.cells = codes, cells
        sizes = (codes + 1, codes + 1, words, cells, frames)  # token K: there is none
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        blocks = [Block(width, heads) for _ in range(layers)]
        self.blocks, self.norm = nn.ModuleList(blocks), nn.LayerNorm(width)
        self.head = nn.Linear(width, codes)
        for table in self.tables:
            nn.init.normal_(cast("nn.Embedding", table).weight, std=0.02)
        for block in blocks:
            for last in (block.out, cast("nn.Linear", block.mlp[-1])):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * layers))
                nn.init.zeros_(last.bias)

    def forward(
        self,
        last: Tensor,
        above: Tensor,
        words: Tensor,
        first: int = 0,
        caches: list[list[Tensor]] | None = None,
    ) -> Tensor:
        """Logits [B, T, K] of the tokens at places `first` to `first` + T.

        Args:
            last, above: the token before each place, and that of its cell a frame ago, [B, T].
            words: [B].
            caches: a list per block of what came before.
        """
        place = torch.arange(first, first + last.shape[1], device=last.device)
        of_last, of_above, of_word, of_cell, of_frame = self.tables
        x = of_last(last) + of_above(above) + of_word(words)[:, None]
        x = x + (of_cell(place % self.cells) + of_frame(place // self.cells))
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None)
        logits: Tensor = self.head(self.norm(x))
        return logits


def later(tokens: Tensor, places: int, none: int) -> Tensor:
    """Tokens [B, T] moved so many places to the right; `none` fills the gap."""
    return F.pad(tokens[:, : tokens.shape[1] - places], (places, 0), value=none)


def surprise(network: FilmTransformer, tokens: Tensor, words: Tensor, lag: int = 1) -> Tensor:
    """-log2 p of each token of films [B, T], in bits.

    Args:
        lag: by how many places the input trails what is predicted. 0 is a mistake: the network
            then reads the answer.
    """
    last, above = (later(tokens, by, network.codes) for by in (lag, network.cells))
    logits = network(last, above, words).transpose(1, 2)  # [B, K, T]
    return F.cross_entropy(logits, tokens, reduction="none") / math.log(2)


def fit_films(
    network: FilmTransformer,
    tokens: Tensor,
    words: Tensor,
    steps: int,
    seed: int = 0,
    lag: int = 1,
    batch: int = 8,
    learning_rate: float = 8e-3,
    progress: bool = True,
) -> list[float]:
    """Train on films [N, T] with words [N], of which half are hidden; bits a token of each step.

    Args:
        lag: see `surprise`.
    """
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        rows = torch.randint(len(tokens), (batch,), generator=generator)
        told = words[rows] * (torch.rand(batch, generator=generator) < 0.5)
        return surprise(network, tokens[rows], told, lag)[:, network.cells :].mean()

    return descend(network, network.parameters(), loss, steps, learning_rate, progress)


@torch.inference_mode()
def dream(
    network: FilmTransformer,
    seen: Tensor,
    words: Tensor,
    more: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Tensor:
    """Draw `more` tokens [B, more] after the tokens seen [B, T], one by one.

    Args:
        temperature: logits are divided by it; 0 takes the likeliest token.
    """
    caches: list[list[Tensor]] = [[] for _ in network.blocks]
    film, begun = F.pad(seen, (0, more), value=network.codes), 0
    for place in range(seen.shape[1], film.shape[1]):
        last, above = (later(film, by, network.codes) for by in (1, network.cells))
        here = slice(begun, place + 1)
        logits = network(last[:, here], above[:, here], words, begun, caches)[:, -1]  # [B, K]
        begun = place + 1
        if temperature > 0:
            chances = F.softmax(logits / temperature, -1)
            film[:, place] = torch.multinomial(chances, 1, generator=generator)[:, 0]
        else:
            film[:, place] = logits.argmax(-1)
    return film[:, seen.shape[1] :]
