"""Exact power cells on the line: intervals, cut where the lines of the upper envelope cross."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.sparse import coo_array

from otgan.cells._line_sources import EmpiricalLine, GaussianLine, Line, UniformLine
from otgan.cells.base import CellMoments, ExactCells

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["EmpiricalLine", "GaussianLine", "Line", "LineCells", "UniformLine", "line_wasserstein", "solve_line"]


class LineCells(ExactCells):
    r"""Power cells of targets on the line: ``W_i = [x_{i-1}, x_i]`` between consecutive lines of the upper envelope.

    With ``x`` the cut between neighbours i and j, ``w_i = F(x_i) - F(x_{i-1})`` and
    ``d w_i / d h_j = -rho(x) / |y_i - y_j|``: a chain. An atom of the source on a cut belongs to the lower target.
    The Hessian is None where the source has no density, since the energy is not differentiable there.

    Args:
        points: targets ``y_i``, shape (n, 1) or (n,), pairwise distinct, in any order.
        source: measure on the line.

    Raises:
        ValueError: targets of another shape, not finite, or not distinct.

    Example:
        >>> LineCells([[0.0], [1.0]], UniformLine()).moments(np.array([0.25, 0.0])).masses
        array([0.25, 0.75])
    """

    def __init__(self, points: ArrayLike, source: Line) -> None:
        y = _as_line(points)
        super().__init__(y[:, None])
        self.source = source
        self._order = np.argsort(y, kind="stable")
        self._sorted = y[self._order]
        repeated = np.flatnonzero(np.diff(self._sorted) == 0)
        if len(repeated):
            i, j = sorted((int(self._order[repeated[0]]), int(self._order[repeated[0] + 1])))
            raise ValueError(f"targets {i} and {j} coincide; merge equal targets and add up their weights")

    def cuts(self, heights: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
        """Targets with a cell, in increasing order, shape (k,), and the cuts between them, shape (k - 1,).

        Raises:
            ValueError: heights of another shape, or not finite.
        """
        h = np.asarray(heights, dtype=np.float64)
        if h.shape != (len(self.points),):
            raise ValueError(f"expected one height for each of {len(self.points)} targets, got shape {h.shape}")
        if not np.isfinite(h).all():
            raise ValueError("heights contain NaN or infinity")
        h = h[self._order]
        active = _envelope(self._sorted, h)
        return self._order[active], -np.diff(h[active]) / np.diff(self._sorted[active])

    def moments(self, heights: ArrayLike, hessian: bool = True) -> CellMoments:
        """Masses, first moments and (on request) the Hessian at ``heights``, shape (n,).

        Raises:
            ValueError: heights of another shape, or not finite.
        """
        n = len(self.points)
        active, cuts = self.cuts(heights)
        masses, first = np.zeros(n), np.zeros((n, 1))
        low, high = np.concatenate([[-np.inf], cuts]), np.concatenate([cuts, [np.inf]])
        masses[active], first[active, 0] = self.source.moments(low, high)
        density = self.source.density(cuts) if hessian else None
        if density is None:
            return CellMoments(masses, first)
        left, right = active[:-1], active[1:]
        values = density / np.abs(self.points[right, 0] - self.points[left, 0])
        diagonal = np.bincount(left, values, n) + np.bincount(right, values, n)
        every = np.arange(n)
        matrix = coo_array(
            (
                np.concatenate([-values, -values, diagonal]),
                (np.concatenate([left, right, every]), np.concatenate([right, left, every])),
            ),
            shape=(n, n),
        )
        return CellMoments(masses, first, matrix.tocsr())

    @property
    def second_moment(self) -> float:
        """``E x^2`` under the source."""
        return self.source.second_moment

    def start(self, weights: Floats) -> Floats:
        """The optimal heights: see `solve_line`."""
        return solve_line(self.points, weights, self.source)

    def reordered(self) -> tuple[LineCells, NDArray[np.int64]]:
        """The same problem with increasing targets, and the order ``new = old[order]``."""
        return LineCells(self._sorted, self.source), self._order


def solve_line(points: ArrayLike, weights: ArrayLike | None, source: Line) -> Floats:
    r"""Optimal heights on the line, in closed form.

    The map is monotone: with increasing targets, cell i ends at the quantile ``q_i`` of ``b_1 + ... + b_i``, and two
    neighbouring lines meet there: ``h_{i+1} - h_i = -q_i (y_{i+1} - y_i)``.

    Args:
        points: targets, shape (n, 1) or (n,), in any order; equal ones get equal heights.
        weights: target weights b > 0, shape (n,), normalised to sum 1; None for equal ones.
        source: measure on the line. If it has atoms, the optimal plan may split one between neighbouring cells.

    Returns:
        Heights, shape (n,), with ``sum_i b_i h_i = 0``. Doubles resolve a cut to about ``2e-16 |h| / (y_{i+1} - y_i)``.

    Raises:
        ValueError: targets or weights of a wrong shape, not finite, or weights not positive.
    """
    order, y, b = _as_target(points, weights)
    quantiles = source.quantile(*_levels(b))
    steps = quantiles * np.diff(y)
    middle = len(y) // 2  # summed outwards, so that heights are small, and exact, where most cells are
    heights = np.zeros(len(y))
    heights[middle + 1 :] = -np.cumsum(steps[middle:])
    heights[:middle] = np.cumsum(steps[:middle][::-1])[::-1]
    answer = np.empty_like(heights)
    answer[order] = heights - b @ heights
    return answer


def line_wasserstein(points: ArrayLike, weights: ArrayLike | None, source: Line) -> float:
    r"""Exact ``W_2`` on the line: ``(integral over (0, 1) of (F^-1(t) - G^-1(t))^2 dt)^(1/2)``.

    Args:
        points: targets, shape (n, 1) or (n,), in any order.
        weights: target weights b > 0, shape (n,), normalised to sum 1; None for equal ones.
        source: measure on the line.

    Raises:
        ValueError: as in `solve_line`.
    """
    _, y, b = _as_target(points, weights)
    return float(np.sqrt(source.monotone_cost(y, b, *_levels(b))))


def _levels(b: Floats) -> tuple[Floats, Floats]:
    """``b_1 + ... + b_i`` and ``b_{i+1} + ... + b_n`` for i < n, each summed from its own end."""
    return np.cumsum(b[:-1]), np.cumsum(b[:0:-1])[::-1]


def _as_line(points: ArrayLike) -> Floats:
    """Finite targets as shape (n,)."""
    y = np.asarray(points, dtype=np.float64)
    if y.size == 0 or y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] != 1):
        raise ValueError(f"targets on a line need shape (n, 1) or (n,) with n >= 1, got {y.shape}")
    if not np.isfinite(y).all():
        raise ValueError("targets contain NaN or infinity; remove those rows")
    return y.ravel()


def _as_target(points: ArrayLike, weights: ArrayLike | None) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Order that sorts the targets, the sorted targets, and their normalised weights."""
    y = _as_line(points)
    b = np.full(len(y), 1.0 / len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    if b.shape != y.shape:
        raise ValueError(f"expected one weight for each of {len(y)} targets, got shape {b.shape}")
    if not np.isfinite(b).all() or not (b > 0).all():
        raise ValueError(f"weights must be positive and finite, got a least value of {b.min()}; drop targets without")
    order = np.argsort(y, kind="stable")
    return order, y[order], b[order] / b.sum()


@njit(cache=True)
def _envelope(slopes: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Lines on the upper envelope of ``slope x + height``, slopes strictly increasing (a monotone stack)."""
    stack = np.empty(len(slopes), np.int64)
    cut = np.empty(len(slopes))  # where each line on the stack starts to win
    size = 0
    for j in range(len(slopes)):
        while True:
            if size == 0:
                cut[0] = -np.inf
                break
            top = stack[size - 1]
            cross = (heights[top] - heights[j]) / (slopes[j] - slopes[top])
            if cross > cut[size - 1]:
                cut[size] = cross
                break
            size -= 1
        stack[size] = j
        size += 1
    return stack[:size].copy()
