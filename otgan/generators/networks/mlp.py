"""Residual network: a map that need not be a gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from otgan._checks import as_count


class ResidualMLP(nn.Module):
    """Map ``z -> A z + a + U silu(h_L)`` with pre-normalised blocks ``h_l = h_{l-1} + V_l silu(W_l norm(h_{l-1}))``.

    Starts at the identity. It keeps none of the structure of an optimal map; use :class:`ICNN` where that matters.

    Args:
        dim: d.
        width: units of each block.
        depth: number of blocks L.
        seed: of the initial weights.
    """

    def __init__(self, dim: int, width: int = 128, depth: int = 3, *, seed: int = 0) -> None:
        super().__init__()
        self.dim, self.width, self.depth = (
            as_count(dim, "dim", 1),
            as_count(width, "width", 1),
            as_count(depth, "depth", 1),
        )
        self.affine = nn.Linear(dim, dim)
        self.inlet = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.outlet = nn.Linear(width, dim)
        stream = torch.Generator().manual_seed(as_count(seed, "seed"))
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=stream) * layer.in_features**-0.5)
                    layer.bias.zero_()
            self.outlet.weight.zero_()
            self.affine.weight.copy_(torch.eye(dim))

    def config(self) -> dict[str, float]:
        """Arguments from which an equal network is made."""
        return {"dim": self.dim, "width": self.width, "depth": self.depth}

    def forward(self, z: Tensor) -> Tensor:
        """The map, shape (m, d)."""
        h = self.inlet(z)
        for block in self.blocks:
            h = h + block(h)
        return self.affine(z) + self.outlet(silu(h))
