"""Uniform measure on a convex polygon or polytope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_points
from otgan.measures.base import Source

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class UniformPolytope(Source):
    """Uniform on the convex hull of given points: a convex polygon (d = 2), a convex polytope (d = 3 and a few more).

    The hull is cut into simplices (Delaunay); one is drawn by volume, then a uniform point of it by the spacings of
    sorted uniform numbers. Moments are exact: a simplex with vertices v_0..v_d has mean ``sum v_i / (d + 1)`` and
    ``E x x^T = (sum_i v_i v_i^T + s s^T) / ((d + 1)(d + 2))`` with ``s = sum_i v_i``.

    Args:
        points: shape (k, d), k > d, 2 <= d <= 8; points inside the hull do no harm.

    Attributes:
        vertices: the corners of the hull, shape (c, d), float64; counter-clockwise when d = 2.

    Example:
        >>> round(UniformPolytope([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).volume, 12)
        0.5
    """

    def __init__(self, points: ArrayLike) -> None:
        from scipy.spatial import ConvexHull, Delaunay, QhullError

        given = as_points(points, "points").to(device="cpu", dtype=torch.float64).numpy()
        k, dim = given.shape
        if not 2 <= dim <= 8:
            raise ValueError(
                f"UniformPolytope works in dimensions 2 to 8, got {dim}; on a line use UniformBox(low, high)."
            )
        if k <= dim:
            raise ValueError(f"A polytope in dimension {dim} needs at least {dim + 1} points, got {k}.")
        middle, scale = given.mean(axis=0), float(np.ptp(given, axis=0).max()) or 1.0
        try:
            hull = ConvexHull((given - middle) / scale)
        except QhullError:
            raise ValueError(
                f"The {k} points lie in a subspace of dimension less than {dim}: their hull has no volume."
            ) from None
        corners = given[hull.vertices]
        simplices = corners[Delaunay((corners - middle) / scale).simplices]
        edges = simplices[:, 1:] - simplices[:, :1]
        volumes = np.abs(np.linalg.det(edges)) / float(np.prod(np.arange(1, dim + 1)))
        self.vertices = torch.from_numpy(corners)
        self.volume = float(volumes.sum())
        self._simplices = torch.from_numpy(simplices)
        shares = volumes / self.volume
        self._cumulative = torch.from_numpy(np.cumsum(shares))
        centres = simplices.mean(axis=1)
        self._mean = torch.from_numpy(shares @ centres)
        centred = simplices - self._mean.numpy()
        squares = (centred**2).sum(axis=(1, 2)) + (centred.sum(axis=1) ** 2).sum(axis=1)
        self._variance = float(shares @ squares / ((dim + 1) * (dim + 2)))

    @property
    def mean(self) -> Tensor:
        """Centre of mass, shape (d,)."""
        return self._mean

    @property
    def variance(self) -> float:
        """``E |x - E x|^2``."""
        return self._variance

    @property
    def _sobol_dim(self) -> int:
        return self.dim + 1  # which simplex, and where in it

    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        u = torch.rand(m, self.dim + 1, generator=generator, device=device, dtype=torch.float64)
        return self._from_uniform(u).to(dtype)

    def _from_uniform(self, u: Tensor) -> Tensor:
        cumulative = self._cumulative.to(u.device)
        index = torch.searchsorted(cumulative, u[:, 0].contiguous(), right=True).clamp_max(len(cumulative) - 1)
        ends = torch.zeros(len(u), 1, dtype=u.dtype, device=u.device)
        barycentric = torch.cat([ends, u[:, 1:].sort(dim=1).values, ends + 1], dim=1).diff(dim=1)
        return torch.einsum("mv,mvd->md", barycentric, self._simplices.to(u.device)[index])

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The corners."""
        return {}, {"vertices": self.vertices}

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> UniformPolytope:
        """Inverse of :meth:`state`."""
        return cls(tensors["vertices"])

    def __repr__(self) -> str:
        return f"UniformPolytope(dim={self.dim}, vertices={len(self.vertices)})"
