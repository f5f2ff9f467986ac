"""Weighted samples as a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_points, as_weights
from otgan.measures.base import Source

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class Empirical(Source):
    """Samples with weights, ``mu = sum_k a_k delta(x_k)``; drawing is with replacement.

    Args:
        points: ``x_k``, shape (m, d).
        weights: ``a_k``, shape (m,), all > 0; normalised. Uniform when left out.

    Example:
        >>> Empirical([[0.0], [2.0]], weights=[1, 3]).mean
        tensor([1.5000], dtype=torch.float64)
    """

    def __init__(self, points: ArrayLike, weights: ArrayLike | None = None) -> None:
        self.points = as_points(points, "points").clone()
        self.weights = as_weights(weights, self.points.shape[0])
        self.uniform = weights is None or bool((self.weights == self.weights[0]).all())
        exact = self.points.to(device="cpu", dtype=torch.float64)
        self._mean = self.weights @ exact
        self._variance = float(self.weights @ ((exact - self._mean) ** 2).sum(dim=1))
        self._cumulative = self.weights.cumsum(0)

    @property
    def m(self) -> int:
        """Number of points."""
        return int(self.points.shape[0])

    @property
    def mean(self) -> Tensor:
        """``sum_k a_k x_k``, shape (d,)."""
        return self._mean

    @property
    def variance(self) -> float:
        """``sum_k a_k |x_k - mean|^2``."""
        return self._variance

    @property
    def _sobol_dim(self) -> int:
        return 1

    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        if self.uniform:
            index = torch.randint(self.m, (m,), generator=generator, device=device)
        else:
            u = torch.rand(m, generator=generator, device=device, dtype=torch.float64)
            index = torch.searchsorted(self._cumulative.to(device), u, right=True).clamp_max(self.m - 1)
        return self.points[index.to(self.points.device)].to(device=device, dtype=dtype)

    def _from_uniform(self, u: Tensor) -> Tensor:
        index = torch.searchsorted(self._cumulative, u[:, 0].contiguous(), right=True).clamp_max(self.m - 1)
        return self.points[index.to(self.points.device)].to(device="cpu", dtype=torch.float64)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Points and weights."""
        return {}, {"points": self.points, "weights": self.weights}

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Empirical:
        """Inverse of :meth:`state`."""
        return cls(tensors["points"], tensors["weights"])

    def __repr__(self) -> str:
        return f"Empirical(m={self.m}, dim={self.dim}{'' if self.uniform else ', weighted'})"
