"""Gaussian measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan._checks import LARGEST, SMALLEST, as_count, as_tensor, require_finite, require_scale
from otgan.measures.base import Source

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class Gaussian(Source):
    """Normal distribution N(mean, cov); ``Gaussian(d)`` is the standard one in d dimensions.

    A draw is ``mean + L z`` with ``cov = L L^T`` and z standard.

    Args:
        mean: shape (d,), or an integer: the dimension of a standard normal.
        cov: covariance, shape (d, d), symmetric and positive semi-definite; or its diagonal, shape (d,); or one
            number for all coordinates. The identity when left out.
        dim: dimension, instead of an integer in the first place.

    Example:
        >>> Gaussian([0.0, 1.0], [[2.0, 1.0], [1.0, 2.0]]).second_moment
        5.0
    """

    def __init__(
        self, mean: int | ArrayLike | None = None, cov: ArrayLike | None = None, *, dim: int | None = None
    ) -> None:
        if isinstance(mean, (int, np.integer)) and not isinstance(mean, bool):
            if dim is not None and dim != mean:
                raise ValueError(f"Gaussian got two dimensions, {mean} and dim={dim}.")
            dim, mean = int(mean), None
        if mean is None:
            if dim is None:
                given = None if cov is None else as_tensor(cov, "cov")
                if given is None or given.ndim == 0:
                    raise ValueError("Gaussian needs a dimension: Gaussian(32), or a mean of shape (d,).")
                dim = int(given.shape[0])
            self._mean = torch.zeros(as_count(dim, "dim", 1), dtype=torch.float64)
        else:
            self._mean = as_tensor(mean, "mean").to(device="cpu", dtype=torch.float64).clone()
            if self._mean.ndim != 1 or self._mean.shape[0] == 0:
                raise ValueError(f"mean must have shape (d,), got {tuple(self._mean.shape)}.")
            if dim is not None and dim != self._mean.shape[0]:
                raise ValueError(f"mean has dimension {self._mean.shape[0]} but dim={dim}.")
            require_finite(self._mean, "mean")
            require_scale(self._mean, "mean")
        # A diagonal covariance is kept as its diagonal: dimensions in the thousands cost nothing.
        self._variances, self._matrix = _covariance(cov, self._mean.shape[0])
        self._factor = None if self._matrix is None else _factor(self._matrix)
        self._standard = self._matrix is None and bool((self._variances == 1).all())

    @property
    def mean(self) -> Tensor:
        """``E x``, shape (d,)."""
        return self._mean

    @property
    def cov(self) -> Tensor:
        """Covariance, shape (d, d)."""
        return torch.diag(self._variances) if self._matrix is None else self._matrix

    @property
    def variance(self) -> float:
        """Trace of the covariance."""
        return float(self._variances.sum())

    @property
    def factor(self) -> Tensor:
        """A matrix ``L`` with ``L L^T = cov``, shape (d, d): x = mean + L z carries the standard normal here."""
        return torch.diag(self._variances.sqrt()) if self._factor is None else self._factor

    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self._place(torch.randn(m, self.dim, generator=generator, device=device, dtype=dtype))

    def _from_uniform(self, u: Tensor) -> Tensor:
        return self._place(torch.special.ndtri(u))

    def _place(self, z: Tensor) -> Tensor:
        if self._factor is None:
            scaled = z if self._standard else z * self._variances.sqrt().to(z)
            return scaled + self._mean.to(z)
        return torch.addmm(self._mean.to(z), z, self._factor.to(z).T)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Mean and covariance (its diagonal where that is all of it)."""
        return {}, {"mean": self._mean, "cov": self._variances if self._matrix is None else self._matrix}

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Gaussian:
        """Inverse of :meth:`state`."""
        return cls(tensors["mean"], tensors["cov"])

    def __repr__(self) -> str:
        if self._standard and not bool(self._mean.any()):
            return f"Gaussian({self.dim})"
        return f"Gaussian(dim={self.dim}, total_variance={self.variance:.4g})"


def _covariance(cov: ArrayLike | None, dim: int) -> tuple[Tensor, Tensor | None]:
    """The variances, shape (d,), and the matrix where it is not diagonal."""
    if cov is None:
        return torch.ones(dim, dtype=torch.float64), None
    given = as_tensor(cov, "cov").to(device="cpu", dtype=torch.float64)
    require_finite(given, "cov")
    if given.ndim == 0:
        given = given.expand(dim)
    if given.ndim == 1 and given.shape != (dim,):
        raise ValueError(f"A diagonal covariance must have shape ({dim},), got {tuple(given.shape)}.")
    if given.ndim > 1 and given.shape != (dim, dim):
        raise ValueError(f"cov must have shape ({dim}, {dim}), got {tuple(given.shape)}.")
    variances = (given if given.ndim == 1 else given.diagonal()).clone()
    scale = float(given.abs().max())
    if scale == 0.0 or float(variances.min()) < 0.0:
        least = float(variances.min())
        raise ValueError(f"cov is not positive semi-definite and non-zero: its least diagonal entry is {least:.3g}.")
    if not SMALLEST**2 <= scale <= LARGEST**2:
        raise ValueError(
            f"cov holds variances near {scale:g}; rescale the data so that they are within 1e-140 and 1e140."
        )
    if given.ndim == 1 or not bool((given - torch.diag(variances)).any()):
        return variances, None
    if not torch.allclose(given, given.T, rtol=0.0, atol=1e-6 * scale):
        raise ValueError("cov is not symmetric; pass (cov + cov.T) / 2 if the difference is noise.")
    return variances, (given + given.T) / 2


def _factor(cov: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(cov)
    if int(info) == 0:
        return factor
    values, vectors = torch.linalg.eigh(cov)
    if float(values[0]) < -1e-8 * float(values[-1]):
        raise ValueError(f"cov is not positive semi-definite: its smallest eigenvalue is {float(values[0]):.3g}.")
    return vectors * values.clamp_min(0).sqrt()
