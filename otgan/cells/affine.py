"""Exact cells of an affine image of a source whose cells are known."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from otgan.cells.base import CellMoments, ExactCells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.cells._planar_soup import PolygonSoup
    from otgan.cells.planar import PlanarCells

    Floats = NDArray[np.float64]


_RADIUS = 4.0  # standard deviations of z


class AffineCells(ExactCells):
    """Cells under the law of ``x = m + L z``, z drawn from a planar source.

    ``<x, y_i> + h_i = <z, L^T y_i> + (h_i + <m, y_i>)``: the cells of ``points`` are images of the cells of
    ``L^T points``, with the same masses and the same derivatives.

    Args:
        inner: cells of ``points @ L`` under the law of z.
        points: targets, shape (n, 2).
        factor: L, shape (2, 2), of full rank.
        shift: m, shape (2,).
    """

    def __init__(self, inner: PlanarCells, points: Floats, factor: Floats, shift: Floats) -> None:
        super().__init__(np.asarray(points, dtype=np.float64))
        self.inner, self.factor, self.shift = inner, factor, shift

    def _heights(self, heights: Floats) -> Floats:
        return np.asarray(heights + self.points @ self.shift)

    def moments(self, heights: Floats, hessian: bool = True) -> CellMoments:
        """Masses, first moments and (on request) the Hessian at ``heights``, shape (n,)."""
        inner = self.inner.moments(self._heights(heights), hessian)
        first = inner.masses[:, None] * self.shift + inner.first @ self.factor.T
        return CellMoments(inner.masses, first, inner.hessian)

    @property
    def second_moment(self) -> float:
        """``E |x|^2`` for z with mean 0 and covariance ``E |z|^2 / 2`` in each direction."""
        return float(self.shift @ self.shift + (self.factor**2).sum() * self.inner.second_moment / 2)

    def start(self, weights: Floats) -> Floats:
        """Heights ``-f`` of the whitened targets, f convex and radial with a gradient that stays where z has its mass.

        ``|grad f(z)| = R t / (1 + t)``, ``t = |z - c| / (R s)``, with s the targets' deviation: near their mean c
        targets are standardised; outliers, whose cells would otherwise lie far in the tail, are drawn inside R.
        """
        share = weights / weights.sum()
        centred = self.inner.points - share @ self.inner.points
        spread = float(np.sqrt(share @ (centred**2).sum(axis=1) / 2.0))
        t = np.sqrt((centred**2).sum(axis=1)) / (_RADIUS * (spread if spread > 0.0 else 1.0))
        heights = -(_RADIUS**2) * (spread if spread > 0.0 else 1.0) * (t - np.log1p(t))
        return np.asarray(heights - self.points @ self.shift)

    def reordered(self) -> tuple[AffineCells, NDArray[np.int64]]:
        """The same problem with neighbouring targets near each other in memory, and the order ``new = old[order]``."""
        inner, order = self.inner.reordered()
        return AffineCells(inner, self.points[order], self.factor, self.shift), order

    def blended(self, share: float, other: ExactCells | None = None) -> AffineCells | None:
        """The inner cells blended."""
        inner = self.inner.blended(share, other.inner if isinstance(other, AffineCells) else None)
        if inner is None:
            return None
        blend = copy(self)
        blend.inner = inner
        return blend

    def with_points(self, points: Floats) -> AffineCells:
        """Cells of other targets, shape (m, 2), under the same source."""
        return AffineCells(self.inner.with_points(points @ self.factor), points, self.factor, self.shift)

    def polygons(self, heights: Floats) -> PolygonSoup:
        """Cells at ``heights``, shape (n,), as polygons in the coordinates of x, counter-clockwise."""
        from otgan.cells._planar_soup import PolygonSoup

        soup = self.inner.polygons(self._heights(heights))
        vertices, neighbour = self.shift + soup.vertices @ self.factor.T, soup.neighbour
        if np.linalg.det(self.factor) < 0:  # a reflection turns every polygon around
            mirror = soup.ptr[soup.owner] + soup.ptr[soup.owner + 1] - 1 - np.arange(len(vertices))
            vertices = vertices[mirror]
            previous = np.where(mirror == soup.ptr[soup.owner], soup.ptr[soup.owner + 1] - 1, mirror - 1)
            neighbour = neighbour[previous]
        return PolygonSoup(soup.ptr, vertices, neighbour)
