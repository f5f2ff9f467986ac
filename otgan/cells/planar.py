"""Exact power cells in the plane."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from otgan.cells._planar_diagram import PlanarDiagram
from otgan.cells._planar_moments import assemble_hessian, uniform_integrals
from otgan.cells._planar_order import hilbert_order
from otgan.cells._planar_soup import PolygonSoup
from otgan.cells.base import CellMoments, ExactCells

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["PlanarCells", "PlanarDensity", "PolygonSoup", "power_polygons"]


class PlanarDensity(Protocol):
    """A probability density on a convex polygon, known by its integrals over clipped cells."""

    @property
    def second_moment(self) -> float:
        """``E |x|^2``."""

    def integrate(self, soup: PolygonSoup, domain: Floats) -> tuple[Floats, Floats, Floats]:
        """Masses (n,), first moments (n, 2) of the cells, and the density's integral along each edge (nv,)."""


@runtime_checkable
class SmoothableDensity(Protocol):
    """A density that has smoother versions of itself."""

    @property
    def effective_area(self) -> float:
        """``1 / integral of rho^2``: the area of the support, if rho is constant there."""

    def smoothed(self, width: float) -> PlanarDensity:
        """The density convolved with a kernel of scale ``width``; see `ExactCells.smoothed`."""


def power_polygons(points: ArrayLike, heights: ArrayLike, domain: ArrayLike) -> PolygonSoup:
    """Power cells ``W_i = {x in domain : <x, y_i> + h_i >= <x, y_j> + h_j for all j}`` as convex polygons.

    They are the Laguerre cells ``argmin_i |x - y_i|^2 - k_i`` with ``k_i = |y_i|^2 + 2 h_i`` (Aurenhammer, "Power
    diagrams", SIAM J. Comput. 1987). The result is exact up to rounding: that the cells tile the domain is checked.

    Args:
        points: targets ``y_i``, shape (n, 2), pairwise distinct.
        heights: ``h_i``, shape (n,).
        domain: convex polygon, shape (k, 2), counter-clockwise.

    Returns:
        The cells, a `PolygonSoup` of n polygons, empty ones included.

    Raises:
        ValueError: if a shape is wrong, a number is not finite, the polygon is not convex and counter-clockwise, or two
            targets coincide.
        RuntimeError: if double precision does not suffice for the given targets and heights.
    """
    sites, polygon = _as_points(points), _as_domain(domain)
    return PlanarDiagram(sites, polygon).soup(_as_heights(heights, len(sites)))


class PlanarCells(ExactCells):
    """Exact cells of planar targets under a density on a convex polygon.

    With ``W_i`` as in `power_polygons` and a probability density ``rho`` on the polygon, ``w_i = integral over W_i of
    rho`` and ``d w_i / d h_j = -(integral over W_i and W_j's common edge of rho) / |y_i - y_j|``.

    Successive calls reuse the neighbours found by the last one and verify the outcome; answers do not depend on it.

    Args:
        points: targets, shape (n, 2), pairwise distinct.
        domain: convex polygon, shape (k, 2), counter-clockwise.
        density: integrals of ``rho``; ``None`` for the uniform density on the polygon.

    Example:
        >>> cells = PlanarCells([[0.25, 0.5], [0.75, 0.5]], [[0, 0], [1, 0], [1, 1], [0, 1]])
        >>> cells.moments(np.array([0.25, 0.0])).masses
        array([0.5, 0.5])
    """

    def __init__(self, points: ArrayLike, domain: ArrayLike, density: PlanarDensity | None = None) -> None:
        super().__init__(_as_points(points))
        self.domain = _as_domain(domain)
        self.density = density
        self._diagram = PlanarDiagram(self.points, self.domain)

    def polygons(self, heights: ArrayLike) -> PolygonSoup:
        """Cells at ``heights``, shape (n,)."""
        return self._diagram.soup(_as_heights(heights, len(self.points)))

    def moments(self, heights: ArrayLike, hessian: bool = True) -> CellMoments:
        """Masses, first moments and (on request) the sparse Hessian at ``heights``, shape (n,)."""
        h = _as_heights(heights, len(self.points))
        if self.density is None:
            diagram = self._diagram
            soup = diagram.soup(h, normalised=True)
            masses, first, edge = uniform_integrals(soup, diagram.area)
            first = masses[:, None] * diagram.shift + diagram.scale * first
            edge = edge / diagram.scale
        else:
            soup = self._diagram.soup(h)
            masses, first, edge = self.density.integrate(soup, self.domain)
        return CellMoments(masses, first, assemble_hessian(soup, edge, self.points) if hessian else None)

    def start(self, weights: Floats) -> Floats:
        """Heights ``-f(y_i)`` at which no cell is empty, with f quadratic and its gradient inside the domain.

        The point ``grad f(y_i)`` is inside cell i. Where the density vanishes a mass may still be 0; the targets are
        then mapped closer to the density's mean, if that clearly raises the least of ``w_i / b_i``.
        """
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        centred = self.points - (low + high) / 2.0
        extent = np.where(high > low, high - low, 1.0)
        sides = np.ptp(self.domain, axis=0)
        middle = _centroid(self.domain)
        if self.density is None:
            self._diagram.suggest(self.points * np.sqrt(sides / extent))
            return self._quadratic(centred, middle, sides / extent)
        mean = self.moments(self._quadratic(centred, middle, sides / extent), hessian=False).first.sum(axis=0)
        deviation = float(np.sqrt(max(self.second_moment - mean @ mean, 0.0) / 2.0))
        best, quality = np.zeros(len(centred)), -1.0
        for centre, size in [(middle, sides)] + [(mean, np.full(2, k * deviation)) for k in (5.0, 3.5, 2.5, 1.5, 0.7)]:
            heights = self._quadratic(centred, centre, size / extent)
            least = float((self.moments(heights, hessian=False).masses / weights).min())
            if least > 4.0 * quality:
                best, quality = heights, least
        return best

    def _quadratic(self, centred: Floats, centre: Floats, stretch: Floats) -> Floats:
        """``-f(y)`` with ``grad f(y) = centre + s stretch y`` and s the largest value <= 1 that stays in the domain."""
        edge = np.roll(self.domain, -1, axis=0) - self.domain
        normal = np.column_stack([edge[:, 1], -edge[:, 0]])
        inside = np.einsum("ij,ij->i", normal, self.domain - centre)
        reach = np.abs(normal) @ (stretch * np.abs(centred).max(axis=0))
        shrink = 0.999 * min(1.0, float((inside / np.maximum(reach, 1e-300)).min()))
        return -(centred @ centre) - 0.5 * (centred**2) @ (max(shrink, 1e-6) * stretch)

    def reordered(self) -> tuple[PlanarCells, NDArray[np.int64]]:
        """The same problem with its targets along Hilbert's curve, and the order ``new = old[order]``."""
        order = hilbert_order(self.points)
        return PlanarCells(self.points[order], self.domain, self.density), order

    def blended(self, share: float, other: ExactCells | None = None) -> PlanarCells | None:
        """The same cells under ``(1 - share) rho + share nu``; ``None`` when rho is uniform already."""
        if self.density is None:
            return None
        uniform = PlanarCells(self.points[:1], self.domain)
        nu = other if isinstance(other, PlanarCells) else uniform
        return self._under(_Blend(self.density, share, nu.density, nu.second_moment))

    def smoothed(self, width: float) -> PlanarCells | None:
        """The same cells under rho convolved with a kernel of scale ``width``, where the density offers that."""
        return self._under(self.density.smoothed(width)) if isinstance(self.density, SmoothableDensity) else None

    def with_points(self, points: Floats) -> PlanarCells:
        """Cells of other targets, shape (m, 2), under the same density."""
        return PlanarCells(points, self.domain, self.density)

    @property
    def extent(self) -> float:
        """Longest side of the domain's bounding box."""
        return float(np.ptp(self.domain, axis=0).max())

    @property
    def cell_size(self) -> float:
        """Side of a square of mass ``1 / n`` at the density's typical value."""
        smooth = isinstance(self.density, SmoothableDensity)
        area = self.density.effective_area if smooth else float(_fan(self.domain)[3].sum() / 2.0)  # type: ignore[union-attr]
        return float(np.sqrt(area / len(self.points)))

    def _under(self, density: PlanarDensity) -> PlanarCells:
        """The same cells, and what is known of their neighbours, under another density."""
        other = copy(self)
        other.density = density
        return other

    @property
    def second_moment(self) -> float:
        """``E |x|^2``; for the uniform density from the triangles (v_0, v_k, v_{k+1}) of the polygon."""
        if self.density is not None:
            return self.density.second_moment
        o, a, b, twice = _fan(self.domain)
        corners = (o**2).sum() + (a**2).sum(axis=1) + (b**2).sum(axis=1)
        pairs = (a * b).sum(axis=1) + a @ o + b @ o
        return float(np.sum(twice * (corners + pairs)) / 6.0 / np.sum(twice))


@dataclass(frozen=True)
class _Blend:
    """``(1 - share) rho + share nu`` on the domain; ``None`` for a uniform nu."""

    density: PlanarDensity
    share: float
    other: PlanarDensity | None
    other_moment: float

    @property
    def second_moment(self) -> float:
        """``E |x|^2``."""
        return (1.0 - self.share) * self.density.second_moment + self.share * self.other_moment

    def integrate(self, soup: PolygonSoup, domain: Floats) -> tuple[Floats, Floats, Floats]:
        """Blend of the integrals of both densities."""
        if self.other is None:
            other = uniform_integrals(soup, float(_fan(domain)[3].sum() / 2.0))
        else:
            other = self.other.integrate(soup, domain)
        given = self.density.integrate(soup, domain)
        masses, first, edge = ((1.0 - self.share) * g + self.share * p for g, p in zip(given, other, strict=True))
        return masses, first, edge


def _fan(polygon: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Triangles (o, a_k, b_k) of a convex polygon and twice their areas."""
    o, a, b = polygon[0], polygon[1:-1], polygon[2:]
    return o, a, b, (a - o)[:, 0] * (b - o)[:, 1] - (a - o)[:, 1] * (b - o)[:, 0]


def _centroid(polygon: Floats) -> Floats:
    """Centre of mass of a convex polygon, shape (2,)."""
    o, a, b, twice = _fan(polygon)
    return o + twice @ (a + b - 2.0 * o) / (3.0 * twice.sum())


def _as_points(points: ArrayLike) -> Floats:
    """Distinct finite targets, shape (n, 2), n >= 1."""
    y = np.ascontiguousarray(points, dtype=np.float64)
    if y.ndim != 2 or y.shape[1] != 2 or len(y) == 0:
        msg = f"targets must have shape (n, 2) with n >= 1, got {y.shape}"
        raise ValueError(msg)
    if not np.isfinite(y).all():
        msg = "targets must be finite, got NaN or infinity; drop those rows"
        raise ValueError(msg)
    order = np.lexsort((y[:, 1], y[:, 0]))
    same = (y[order[1:]] == y[order[:-1]]).all(axis=1)
    if same.any():
        at = int(np.argmax(same))
        i, j = sorted((int(order[at]), int(order[at + 1])))
        msg = (
            f"targets must be pairwise distinct, got {int(same.sum())} repeats (targets {i} and {j} coincide); "
            "merge repeated targets and add their weights"
        )
        raise ValueError(msg)
    return y


def _as_heights(heights: ArrayLike, n: int) -> Floats:
    """Finite heights, shape (n,)."""
    h = np.ascontiguousarray(heights, dtype=np.float64)
    if h.shape != (n,):
        msg = f"heights must have shape ({n},), one per target, got {h.shape}"
        raise ValueError(msg)
    if not np.isfinite(h).all():
        msg = "heights must be finite, got NaN or infinity"
        raise ValueError(msg)
    return h


def _as_domain(domain: ArrayLike) -> Floats:
    """Convex counter-clockwise polygon, shape (k, 2), k >= 3."""
    polygon = np.ascontiguousarray(domain, dtype=np.float64)
    if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3:
        msg = f"the domain must be a polygon of shape (k, 2) with k >= 3, got {polygon.shape}"
        raise ValueError(msg)
    if not np.isfinite(polygon).all():
        msg = "the domain's vertices must be finite, got NaN or infinity"
        raise ValueError(msg)
    edge = np.roll(polygon, -1, axis=0) - polygon
    turn = edge[:, 0] * np.roll(edge[:, 1], -1) - edge[:, 1] * np.roll(edge[:, 0], -1)
    size = float((edge**2).sum(axis=1).max())
    angles = np.arctan2(edge[:, 1], edge[:, 0])
    winding = np.sum((np.roll(angles, -1) - angles + np.pi) % (2 * np.pi) - np.pi)
    if turn.min() < -1e-12 * size or turn.sum() <= 1e-14 * size or winding < 5.0 or winding > 8.0:
        msg = (
            "the domain must be a convex polygon with its vertices in counter-clockwise order; "
            "take scipy.spatial.ConvexHull(vertices) and its .vertices, which are in that order"
        )
        raise ValueError(msg)
    return polygon
