"""Input-convex network with an explicit gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import celu, softplus

from otgan._checks import as_count
from otgan.generators.networks.convex import ConvexNetwork

_SHARPNESS = 4.0  # of the softplus that keeps weights nonnegative


class ICNN(ConvexNetwork):
    r"""Strongly convex ``N(z) = w . h_L + |B z|^2 / 2 + c . z + kappa |z|^2 / 2`` and its gradient in closed form.

    Layers ``h_l = celu(C_l h_{l-1} + W_l z + (Q_l z)^2 + b_l)`` with nonnegative w and C_l; celu is convex and
    increasing, the squares are convex, so N is convex (Amos, Xu, Kolter, "Input convex neural networks", ICML 2017; the
    quadratic part as in Korotin et al., "Wasserstein-2 generative networks", ICLR 2021). The gradient sweeps back
    through the same weights::

        g_L = w celu'(p_L),   g_{l-1} = (C_l^T g_l) celu'(p_{l-1}),   grad N = B^T B z + c + kappa z
              + sum_l W_l^T g_l + 2 Q_l^T ((Q_l z) g_l).

    Starts near the identity, which is the optimal affine map in :class:`Coordinates`.

    Args:
        dim: d.
        width: units of each layer.
        depth: number of layers L.
        quadratic: whether layers have the squares Q_l.
        strong_convexity: kappa > 0, which makes the gradient map invertible.
        seed: of the initial weights.

    Example:
        >>> ICNN(3, width=16)(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        dim: int,
        width: int = 64,
        depth: int = 2,
        *,
        quadratic: bool = True,
        strong_convexity: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dim, self.width, self.depth = (
            as_count(dim, "dim", 1),
            as_count(width, "width", 1),
            as_count(depth, "depth", 1),
        )
        self.quadratic, self.strong_convexity = bool(quadratic), float(strong_convexity)
        if not self.strong_convexity > 0.0:
            raise ValueError(f"strong_convexity must be > 0, got {strong_convexity!r}.")
        stream = torch.Generator().manual_seed(as_count(seed, "seed"))

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=stream))

        size = self.dim**-0.5
        self.linear = nn.ParameterList(
            normal(dim, width, scale=size if layer == 0 else size / 2) for layer in range(depth)
        )
        self.bias = nn.ParameterList(
            normal(width, scale=0.5) if layer == 0 else nn.Parameter(torch.zeros(width)) for layer in range(depth)
        )
        self.squares = nn.ParameterList(normal(dim, width, scale=0.3 * size) for _ in range(depth if quadratic else 0))
        self.mixing = nn.ParameterList(normal(width, width, scale=0.3) for _ in range(depth - 1))
        self.final = normal(width, scale=0.1)
        self.square = nn.Parameter(torch.eye(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def config(self) -> dict[str, float]:
        """Arguments from which an equal network is made."""
        names = ("dim", "width", "depth", "quadratic", "strong_convexity")
        return {name: getattr(self, name) for name in names}

    def value(self, z: Tensor) -> Tensor:
        """``N(z)``, shape (m,)."""
        pre, _, _, _ = self._forward(z)
        return self._total(z, pre[-1])

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``N(z)``, shape (m,), and ``grad N(z)``, shape (m, d)."""
        pre, projected, mixing, rotated = self._forward(z)
        gradient = torch.addmm(self.shift, rotated, self.square.T) + self.strong_convexity * z
        g = self._output()
        for layer in reversed(range(self.depth)):
            g = g * pre[layer].clamp(max=0.0).exp()
            gradient = gradient + g @ self.linear[layer].T
            if self.quadratic:
                gradient = gradient + (2.0 * projected[layer] * g) @ self.squares[layer].T
            if layer:
                g = g @ mixing[layer - 1].T
        return self._total(z, pre[-1], rotated), gradient

    def _forward(self, z: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """Pre-activations, ``Q_l z``, nonnegative mixing matrices (before, after), and ``B z``."""
        mixing = [_nonnegative(raw) / self.width for raw in self.mixing]
        pre: list[Tensor] = []
        projected: list[Tensor] = []
        for layer in range(self.depth):
            p = torch.addmm(self.bias[layer], z, self.linear[layer])
            if self.quadratic:
                projected.append(z @ self.squares[layer])
                p = p + projected[layer].square()
            if layer:
                p = torch.addmm(p, celu(pre[-1]), mixing[layer - 1])
            pre.append(p)
        return pre, projected, mixing, z @ self.square

    def _total(self, z: Tensor, last: Tensor, rotated: Tensor | None = None) -> Tensor:
        rotated = z @ self.square if rotated is None else rotated
        quadratic = rotated.square().sum(dim=1) + self.strong_convexity * z.square().sum(dim=1)
        return celu(last) @ self._output() + z @ self.shift + 0.5 * quadratic

    def _output(self) -> Tensor:
        return _nonnegative(self.final) * (4.0 / self.width)


def _nonnegative(raw: Tensor) -> Tensor:
    return softplus(_SHARPNESS * raw) / _SHARPNESS
