"""Uniform measure on a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_count, as_tensor, require_finite, require_scale
from otgan.measures.base import Source

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class UniformBox(Source):
    """Uniform on the box ``{x : low <= x <= high}``; ``UniformBox(dim=d)`` is the unit cube [0, 1]^d.

    ``E x = (low + high) / 2`` and ``E |x - E x|^2 = |high - low|^2 / 12``.

    Args:
        low: lower corner, a number or shape (d,).
        high: upper corner, a number or shape (d,); larger than ``low`` in every coordinate.
        dim: dimension d, needed when both corners are numbers.

    Example:
        >>> UniformBox(dim=2).sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    def __init__(self, low: ArrayLike = 0.0, high: ArrayLike = 1.0, *, dim: int | None = None) -> None:
        a = as_tensor(low, "low").to(device="cpu", dtype=torch.float64)
        b = as_tensor(high, "high").to(device="cpu", dtype=torch.float64)
        if a.ndim > 1 or b.ndim > 1:
            raise ValueError(
                f"low and high must be numbers or have shape (d,), got {tuple(a.shape)} and {tuple(b.shape)}."
            )
        if dim is None:
            if a.ndim == b.ndim == 0:
                raise ValueError("UniformBox needs its dimension: UniformBox(dim=2), or corners of shape (d,).")
            dim = int(a.shape[0] if a.ndim else b.shape[0])
        dim = as_count(dim, "dim", 1)
        for name, corner in (("low", a), ("high", b)):
            require_finite(corner, name)
            if corner.ndim and corner.shape != (dim,):
                raise ValueError(f"{name} has shape {tuple(corner.shape)}, expected a number or ({dim},).")
        self.low = a.expand(dim).clone()
        self.high = b.expand(dim).clone()
        require_scale(torch.stack([self.low, self.high]), "low and high")
        if not bool((self.low < self.high).all()):
            raise ValueError(f"low must be smaller than high in every coordinate, got {self.low} and {self.high}.")

    @property
    def mean(self) -> Tensor:
        """``(low + high) / 2``."""
        return (self.low + self.high) / 2

    @property
    def variance(self) -> float:
        """``|high - low|^2 / 12``."""
        return float(((self.high - self.low) ** 2).sum() / 12)

    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        u = torch.rand(m, self.dim, generator=generator, device=device, dtype=dtype)
        return torch.addcmul(self.low.to(u), u, (self.high - self.low).to(u))

    def _from_uniform(self, u: Tensor) -> Tensor:
        return self.low + u * (self.high - self.low)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Both corners."""
        return {}, {"low": self.low, "high": self.high}

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> UniformBox:
        """Inverse of :meth:`state`."""
        return cls(tensors["low"], tensors["high"])

    def __repr__(self) -> str:
        if bool((self.low == 0).all() and (self.high == 1).all()):
            return f"UniformBox(dim={self.dim})"
        if self.dim <= 4:
            return f"UniformBox(low={self.low.tolist()}, high={self.high.tolist()})"
        return f"UniformBox(dim={self.dim}, total_variance={self.variance:.4g})"
