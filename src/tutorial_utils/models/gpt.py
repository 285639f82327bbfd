"""A small decoder-only language model: the Transformer of GPT with rotary positions.

The network (Vaswani et al. 2017; Radford et al. 2019; rotary positions of Su et al. 2024), training
on next tokens, sampling with a cache, and the log-probability of given answers. `small_model`
wraps it for text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .population import Network

END = 0  # the token that ends a document


def rotate(x: Tensor, first: int = 0) -> Tensor:
    """Rotary positions: pair i of a head turns by (position) * 10000^(-2i/D); x [B, H, T, D].

    The product of a rotated query and a rotated key depends on the distance of their positions
    alone. `first` is the position of x[:, :, 0].
    """
    t, half = x.shape[2], x.shape[3] // 2
    frequency = torch.exp(torch.arange(half, device=x.device) * (-math.log(1e4) / half))  # [D/2]
    angle = torch.arange(first, first + t, device=x.device)[:, None] * frequency  # [T, D/2]
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Block(Network):
    """Attention, then a two-layer network, each added to the stream it reads (pre-norm).

    Not `causal`, each token sees all others, also those after it.
    """

    def __init__(self, width: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, cache: list[Tensor] | None = None) -> Tensor:  # [B, T, width]
        b, t, _ = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(b, t, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, T, D]
        past = cache[0].shape[2] if cache else 0
        if past and t > 1:
            raise ValueError("after the prompt, a cache takes one token at a time.")
        q, k = rotate(q, past), rotate(k, past)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = [k, v]
        # one new token may look at everything; several at once must not look ahead
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal and t > 1)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, -1))
        added: Tensor = self.mlp(self.norm_mlp(x))
        return x + added


class Transformer(Network):
    """Logits of the next token at every position; the output matrix is the embedding's.

    Args:
        vocabulary: number of tokens V.
        width, layers, heads: of the network.
    """

    def __init__(self, vocabulary: int, width: int = 64, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        blocks = [Block(width, heads) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in blocks:  # residual branches start small, whatever the depth
            for last in (block.out, cast("nn.Linear", block.mlp[-1])):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * layers))
                nn.init.zeros_(last.bias)

    def forward(
        self,
        ids: Tensor,
        caches: list[list[Tensor]] | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, V] for ids [B, T].

        Args:
            caches: a list per block of what came before.
            prefix: vectors [B, M, width] that stand before the tokens, such as what was seen in an
                image; the result then has M + T places.
        """
        x: Tensor = self.embedding(ids)
        if prefix is not None:
            x = torch.cat((prefix, x), 1)
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None)
        return F.linear(self.norm(x), self.embedding.weight)


@torch.inference_mode()
def sample(
    network: Transformer,
    prompt: Sequence[int],
    n: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
    max_tokens: int = 128,
) -> list[list[int]]:
    """Draw n answers to one prompt, token by token, each up to and with its `END`.

    The keys and values of what came before are kept, so a token costs one position.

    Args:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: draw from the k likeliest tokens only; 0 draws from all.
    """
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, not {temperature!r}.")
    caches: list[list[Tensor]] = [[] for _ in network.blocks]
    tokens = torch.tensor([[END, *prompt]]).expand(n, -1)  # [n, T]
    answers, ended = [], torch.zeros(n, 1, dtype=torch.bool)
    for _ in range(max_tokens):
        logits = network(tokens, caches)[:, -1]  # [n, V]
        if top_k:
            worst = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]
            logits = logits.masked_fill(logits < worst, -math.inf)
        if temperature > 0:
            chances = F.softmax(logits / temperature, -1)
            tokens = torch.multinomial(chances, 1, generator=generator)
        else:
            tokens = logits.argmax(-1, keepdim=True)
        answers.append(tokens)
        ended = ended | (tokens == END)
        if ended.all():
            break
    rows = torch.cat(answers, 1).tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


def log_probs(
    network: Transformer, prompt: Sequence[int], answers: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token of each answer after the prompt, and which are real, [B, T].

    Shorter answers are padded on the right, where a causal network cannot see it; padding has
    log-probability 0.
    """
    longest = max(map(len, answers))
    rows = [[END, *prompt, *answer, *[END] * (longest - len(answer))] for answer in answers]
    ids = torch.tensor(rows)
    logits = network(ids[:, :-1])[:, len(prompt) :]  # [B, T, V], of the token that follows
    target = ids[:, len(prompt) + 1 :, None]
    real = torch.arange(longest) < torch.tensor([[len(answer)] for answer in answers])
    return F.log_softmax(logits, -1).gather(-1, target).squeeze(-1) * real, real


def descend(
    network: nn.Module,
    parameters: Iterable[Any],
    loss: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    progress: bool = True,
) -> list[float]:
    """So many steps of AdamW down `loss()`, which draws its batch; returns the loss of each.

    The learning rate rises over 50 steps and falls along a cosine to 0. Gradients: norm at most 1.

    Args:
        parameters: tensors, or groups of them as an optimizer takes them.
    """
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), fused=True)
    # One tensor for all losses: small ones that stay alive between large ones fragment the memory.
    losses = torch.zeros(steps)
    for i in tqdm(range(steps), unit="step", disable=not progress, leave=False):
        for group in optimizer.param_groups:
            rise, fall = min(1.0, (i + 1) / 50), 0.5 + 0.5 * math.cos(math.pi * i / steps)
            group["lr"] = learning_rate * rise * fall
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses[i] = value.detach()
    return losses.tolist()


def fit(
    network: Transformer,
    stream: Tensor,
    steps: int,
    seed: int = 0,
    rows: int = 8,
    length: int = 128,
    learning_rate: float = 1e-2,
    progress: bool = True,
) -> list[float]:
    """Train on the next token of random windows of `stream` [T]; returns the loss of each step.

    Args:
        rows, length: a batch is this many windows of this many tokens.
    """
    if len(stream) <= length:
        raise ValueError(f"the stream has {len(stream)} tokens; a window needs {length + 1}.")
    matrices = [p for p in network.parameters() if p.dim() > 1]
    rest = [p for p in network.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        first = torch.randint(len(stream) - length, (rows, 1), generator=generator)
        window = stream[first + torch.arange(length + 1)]  # [rows, length + 1]
        return F.cross_entropy(network(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())

    return descend(network, groups, loss, steps, learning_rate, progress)
