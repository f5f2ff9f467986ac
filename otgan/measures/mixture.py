"""Mixture of Gaussians as a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_points, as_tensor, as_weights, require_finite, require_scale
from otgan.measures.base import Source

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class GaussianMixture(Source):
    """Mixture ``sum_k a_k N(m_k, F_k F_k^T)``: a draw is ``m_k + F_k z`` with k of probability a_k and z standard.

    Args:
        means: ``m_k``, shape (K, d).
        factors: ``F_k``, shape (K, d, r) (a component of rank r < d lies in a subspace); or one standard deviation a
            component, shape (K,); or one number for all. Standard normal components when left out.
        weights: ``a_k``, shape (K,), all > 0; normalised. Uniform when left out.

    Example:
        >>> GaussianMixture([[-1.0], [1.0]], 0.5).variance
        1.25
    """

    def __init__(self, means: ArrayLike, factors: ArrayLike = 1.0, weights: ArrayLike | None = None) -> None:
        self.means = as_points(means, "means").to(device="cpu", dtype=torch.float64).clone()
        components, dim = self.means.shape
        given = as_tensor(factors, "factors").to(device="cpu", dtype=torch.float64)
        require_finite(given, "factors")
        if given.ndim == 0:
            given = given.expand(components)
        if given.shape == (components,):
            given = given[:, None, None] * torch.eye(dim, dtype=torch.float64)
        if given.ndim != 3 or given.shape[:2] != (components, dim) or given.shape[2] == 0:
            raise ValueError(
                f"factors must have shape ({components}, {dim}, r), one matrix a component, or ({components},), one "
                f"standard deviation a component; got {tuple(given.shape)}."
            )
        require_scale(given.flatten(), "factors")
        self.factors = given.clone()
        self.weights = as_weights(weights, components)
        self._cumulative = self.weights.cumsum(0)
        self._mean = self.weights @ self.means
        between = self.weights @ ((self.means - self._mean) ** 2).sum(dim=1)
        self._variance = float(between + self.weights @ self.factors.square().sum(dim=(1, 2)))

    @property
    def components(self) -> int:
        """Number K of components."""
        return int(self.means.shape[0])

    @property
    def mean(self) -> Tensor:
        """``sum_k a_k m_k``, shape (d,)."""
        return self._mean

    @property
    def cov(self) -> Tensor:
        """Covariance ``sum_k a_k (F_k F_k^T + (m_k - mean)(m_k - mean)^T)``, shape (d, d)."""
        within = torch.einsum("k,kdr,ker->de", self.weights, self.factors, self.factors)
        apart = self.means - self._mean
        return within + torch.einsum("k,kd,ke->de", self.weights, apart, apart)

    @property
    def variance(self) -> float:
        """Trace of the covariance."""
        return self._variance

    @property
    def _sobol_dim(self) -> int:
        return int(self.factors.shape[2]) + 1  # the first number chooses the component

    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        u = torch.rand(m, generator=generator, device=device, dtype=torch.float64)
        z = torch.randn(m, self.factors.shape[2], generator=generator, device=device, dtype=dtype)
        return self._place(u, z)

    def _from_uniform(self, u: Tensor) -> Tensor:
        return self._place(u[:, 0].contiguous(), torch.special.ndtri(u[:, 1:]))

    def _place(self, u: Tensor, z: Tensor) -> Tensor:
        chosen = torch.searchsorted(self._cumulative.to(u.device), u, right=True).clamp_max(self.components - 1)
        x = self.means.to(z)[chosen]
        for k, factor in enumerate(self.factors.to(z)):  # no (m, d, r) array of one matrix a point
            rows = (chosen == k).nonzero()[:, 0]
            x[rows] = torch.addmm(x[rows], z[rows], factor.T)
        return x

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Means, factors and weights."""
        return {}, {"means": self.means, "factors": self.factors, "weights": self.weights}

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> GaussianMixture:
        """Inverse of :meth:`state`."""
        return cls(tensors["means"], tensors["factors"], tensors["weights"])

    def __repr__(self) -> str:
        return f"GaussianMixture(components={self.components}, dim={self.dim}, total_variance={self.variance:.4g})"
