"""The next frame as pixels: one network for its mean, or for its denoising.

Without a noisy copy the network is a regression (Mathieu et al. 2016), with one a diffusion model
that predicts clean data (Ho et al. 2020). `video` predicts tokens in place of pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .gpt import Block
from .population import Network, Stack


class NextFrame(Network):
    """The next frame from the two before it, and from a noisy copy of it if there is one.

    All cells see all others. The network says what changes since the last frame.

    Args:
        cells: patches of a frame.
        levels: of noise; the level of this number stands for no copy.
        pixels: numbers of a patch.
        width, layers, heads: of the network.
    """

    def __init__(
        self,
        cells: int,
        levels: int,
        pixels: int = 48,
        width: int = 48,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.look = nn.Linear(3 * pixels, width)
        self.cell, self.level = nn.Embedding(cells, width), nn.Embedding(levels + 1, width)
        self.blocks = Stack(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, pixels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, two: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        """Patches [B, cells, pixels] after two frames [B, cells, 2 * pixels] and a noisy copy.

        Args:
            noisy: [B, cells, pixels], zeros if there is none.
            level: of its noise, [B].
        """
        x = self.look(torch.cat((two, noisy), -1)) + self.cell.weight + self.level(level)[:, None]
        change: Tensor = self.out(self.norm(self.blocks(x)))
        return two[..., two.shape[-1] // 2 :] + change
