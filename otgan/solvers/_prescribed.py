"""Power cells of prescribed masses for points that move: the oracle of quantisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from otgan.cells import exact_cells
from otgan.measures import Empirical, Source
from otgan.solvers.base import Stopwatch
from otgan.solvers.newton import newton

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.cells import ExactCells
    from otgan.solvers.newton import NewtonOutcome

    Floats = NDArray[np.float64]

LOOSE_MASS_TOL = 1e-3
"""Bound on ``max_i |w_i / b_i - 1|`` while the points are far from their cells' centres."""
_USABLE = 1e-6  # a solve that rounding stopped below this error of the masses still counts
_ZERO = 1e-24  # less than this, of a variance of 1, is no distance
_BLEND = 0.1  # uniform share of the source with which a detour begins
_PATIENCE = 20  # Newton steps before the detour: from nearby heights 1 to 5 are usual


@dataclass(frozen=True)
class Diagram:
    """Cells of given masses, all in coordinates in which the source has mean 0 and variance d.

    ``heights`` belong to these coordinates, ``value`` is W2^2, ``error`` the sure relative gain of a Lloyd step.
    """

    points: Floats
    heights: Floats
    centroids: Floats
    masses: Floats
    value: float
    error: float
    status: str

    @property
    def solved(self) -> bool:
        """Whether the cells have their masses."""
        return self.status == "converged"


def unsolved(z: Floats, status: str) -> Diagram:
    """Points whose cells are not known, with the heights of their Voronoi diagram."""
    unknown = np.full_like(z, np.nan)
    return Diagram(z, -0.5 * (z**2).sum(axis=1), unknown, unknown[:, 0], np.inf, np.inf, status)


def _usable(found: NewtonOutcome, tol: float) -> bool:
    """Whether the masses are right, or as right as rounding allows."""
    return found.converged or (found.status in ("stalled", "singular") and found.error <= max(tol, _USABLE))


class PrescribedCells:
    """Exact cells of any points under one source: ``x = mean + unit x'``."""

    def __init__(self, source: Source, b: Floats) -> None:
        self.source, self.b, self.steps = source, b, 0
        self.mean = source.mean.numpy()
        self.unit = float(source.variance / source.dim) ** 0.5 or 1.0

    def scaled(self, points: Floats) -> Floats:
        """``(y - mean) / unit``."""
        return (points - self.mean) / self.unit

    def solve(self, z: Floats, heights: Floats, tol: float, max_time: float | None = None) -> Diagram:
        """Heights at which each cell has its mass, found from ``heights``."""
        offset = z @ self.mean
        try:
            found = self._newton(exact_cells(self.source, z), self.unit * heights - offset, tol, Stopwatch(max_time))
        except RuntimeError:  # too degenerate for double precision
            return unsolved(z, "stalled")
        masses, eta = found.masses, (found.heights + offset) / self.unit
        first = (found.moments.first - masses[:, None] * self.mean) / self.unit
        spread = self.source.variance / self.unit**2
        value = float(spread + self.b @ (z**2).sum(axis=1) - 2.0 * (np.vdot(first, z) + eta @ (masses - self.b)))
        with np.errstate(invalid="ignore", divide="ignore"):
            centroids = first / masses[:, None]
        status = "converged" if _usable(found, tol) else found.status
        if status not in ("converged", "max_time", "interrupted"):
            status = "stalled"
        return self._diagram(z, eta, centroids, masses, value, status)

    def _newton(self, cells: ExactCells, start: Floats, tol: float, clock: Stopwatch) -> NewtonOutcome:
        """Newton's method; where the source vanishes between cells, by way of sources that do not.

        If no cell joins two pieces of the support, the Hessian is singular. The uniform part that is added is then
        taken away in steps, each solved well enough for a cell to stretch from piece to piece.
        """

        def run(target: ExactCells, start: Floats, tol: float, max_iter: int) -> NewtonOutcome:
            left = None if clock.max_time is None else max(clock.max_time - clock.seconds, 1e-3)
            found = newton(target, self.b, tol=tol, start=start, max_iter=max_iter, max_time=left)
            self.steps += found.n_iter
            return found

        positive = cells.blended(_BLEND)
        direct = run(cells, start, tol, 200 if positive is None else _PATIENCE)
        if positive is None or _usable(direct, tol) or direct.status in ("max_time", "interrupted"):
            return direct
        share = _BLEND
        while positive is not None and share > 1e-2 * self.b.min():
            found = run(positive, start, LOOSE_MASS_TOL, 2 * _PATIENCE)
            if found.status in ("max_time", "interrupted", "empty_cells"):
                return replace(direct, status=found.status)
            start, share = found.heights, 0.1 * share
            positive = cells.blended(share)
        return run(cells, start, tol, 2 * _PATIENCE)

    def _diagram(self, z: Floats, eta: Floats, centroids: Floats, masses: Floats, value: float, status: str) -> Diagram:
        gain = float(self.b @ ((centroids - z) ** 2).sum(axis=1))
        return Diagram(z, eta, centroids, masses, value, gain / max(value, _ZERO), status)


class LinePrescribedCells(PrescribedCells):
    """Cells on the line in closed form: intervals between quantiles; an atom may belong to several."""

    def __init__(self, source: Source, b: Floats) -> None:
        super().__init__(source, b)
        from otgan.cells.factory import line

        self.line = line(source)

    def solve(self, z: Floats, heights: Floats, tol: float, max_time: float | None = None) -> Diagram:
        """As for `PrescribedCells`, without iterations."""
        from otgan.cells.line import line_wasserstein, solve_line

        y = self.mean + self.unit * z
        order = np.argsort(z[:, 0], kind="stable")
        centres = np.empty_like(z)
        centres[order, 0] = self._means(self.b[order])
        # Both functions sort; equal points share a height, so that any order among them is optimal.
        eta = (solve_line(y, self.b, self.line) / self.unit + z @ self.mean) / self.unit
        value = (line_wasserstein(y, self.b, self.line) / self.unit) ** 2
        return self._diagram(z, eta, self.scaled(centres), self.b.copy(), value, "converged")

    def _means(self, b: Floats) -> Floats:
        """Mean of the source between consecutive quantiles, shape (n,)."""
        below, above = np.cumsum(b[:-1]), np.cumsum(b[:0:-1])[::-1]
        if isinstance(self.source, Empirical):
            x = self.source.points[:, 0].double().cpu().numpy()
            order = np.argsort(x, kind="stable")
            a = self.source.weights.numpy()[order]
            centred = x[order] - self.mean[0]  # less cancellation in the sums
            levels, sums = np.append(0.0, np.cumsum(a)), np.append(0.0, np.cumsum(a * centred))
            integral = np.interp(np.concatenate([[0.0], below, [levels[-1]]]), levels, sums)
            return np.asarray(self.mean[0] + np.diff(integral) / b)
        ends = np.concatenate([[-np.inf], self.line.quantile(below, above), [np.inf]])
        masses, first = self.line.moments(ends[:-1], ends[1:])
        return np.asarray(first / masses)
