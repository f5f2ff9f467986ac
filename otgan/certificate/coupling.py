"""Couplings that carry the masses which a map reaches to the masses which it should reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXACT_SUPPORT = 1000  # targets up to which the distance between masses and weights is solved exactly
_ROUNDING = 1e-14

_Plan = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Repair:
    """What it costs to carry the masses that a map reaches to the masses that it should reach.

    Both numbers belong to couplings P of ``sum w_i delta(y_i)`` and ``sum b_i delta(y_i)``, measures on one support.

    Attributes:
        gap2: ``sum P_ij |y_i - y_j|^2``, an upper bound of their W2^2.
        excess: ``sum P_ij (|c_i - y_j|^2 - |c_i - y_i|^2)`` with c_i the centroid of cell i: by how much the transport
            cost changes when the part P_ij of the cell's mass goes to y_j instead of y_i. Added to ``E |x - T(x)|^2``
            it is the cost of a coupling of source and target, hence an upper bound of W2^2.
        gap2_stderr: standard error of ``gap2`` when the w_i are counts of samples.
        excess_stderr: that of ``excess``.
    """

    gap2: float
    excess: float
    gap2_stderr: float = 0.0
    excess_stderr: float = 0.0


def repair(
    points: np.ndarray,
    masses: np.ndarray,
    weights: np.ndarray,
    centroids: np.ndarray,
    counts: np.ndarray | None = None,
) -> Repair:
    """Couple reached and wanted masses cheaply; see :class:`Repair`.

    For small n both numbers are minima (POT's network simplex), and their errors come from the programmes' duals: a
    sample in cell i moves the minimum by the dual value of i. Beyond, each is the better of two plans along a k-d
    ordering of the points, where neighbours in the order are neighbours in space: all mass monotonically, or only the
    surplus ``(w - b)+`` to the deficit ``(b - w)+``; errors are those of the jackknife over blocks of samples.

    Args:
        points: y, shape (n, d).
        masses: w, shape (n,).
        weights: b, shape (n,).
        centroids: shape (n, d); a row with w_i = 0 is not read.
        counts: samples in each cell by independent blocks, shape (blocks, n); without them errors are 0.
    """
    w, b = masses / masses.sum(), weights / weights.sum()
    if np.abs(w - b).sum() <= _ROUNDING:
        return Repair(0.0, 0.0)
    scale = float(np.ptp(points, axis=0).max())
    middle = points.mean(axis=0)
    y, live = (points - middle) / scale, w > 0
    c = np.where(live[:, None], (centroids - middle) / scale, 0.0)
    if len(points) > EXACT_SUPPORT:
        order = _kd_order(y)
        gap2, excess = _monotone_costs(y, c, w, b, order)
        errors = np.zeros(2)
        if counts is not None and (used := counts.sum(axis=1) > 0).sum() > 1:
            without = [counts.sum(axis=0) - counts[k] for k in np.flatnonzero(used)]
            values = np.array([_monotone_costs(y, c, left / left.sum(), b, order) for left in without])
            errors = np.sqrt((len(values) - 1) * values.var(axis=0))
        return Repair(scale**2 * gap2, scale**2 * excess, *(float(scale**2 * error) for error in errors))
    import ot
    from scipy.spatial.distance import cdist

    samples = float("inf") if counts is None else float(counts.sum())
    change = cdist(c[live], y, "sqeuclidean") - ((c - y)[live] ** 2).sum(axis=1)[:, None]
    minima, spreads = [], []
    for matrix in (cdist(y[live], y, "sqeuclidean"), change):
        value, log = ot.emd2(w[live], b, matrix, numItermax=5_000_000, log=True)
        dual = np.asarray(log["u"]) - w[live] @ log["u"]
        minima.append(float(value))
        spreads.append((w[live] @ dual**2 / samples) ** 0.5)
    gap2, excess = max(minima[0], 0.0), minima[1]
    return Repair(scale**2 * gap2, scale**2 * excess, *(float(scale**2 * spread) for spread in spreads))


def _monotone_costs(
    y: np.ndarray, c: np.ndarray, w: np.ndarray, b: np.ndarray, order: np.ndarray
) -> tuple[float, float]:
    """Squared gap and excess of the better of two monotone plans; entries of c where w = 0 are not read."""
    difference = (w - b)[order]
    gaps, excesses = [], []
    for surplus, deficit in ((w[order], b[order]), (np.maximum(difference, 0.0), np.maximum(-difference, 0.0))):
        i, j, mass = _monotone_plan(surplus, deficit)
        i, j = order[i], order[j]
        gaps.append(float(mass @ ((y[i] - y[j]) ** 2).sum(axis=1)))
        excesses.append(float(mass @ (((c[i] - y[j]) ** 2).sum(axis=1) - ((c[i] - y[i]) ** 2).sum(axis=1))))
    return min(gaps), min(excesses)


def _monotone_plan(surplus: np.ndarray, deficit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From, to and mass of the plan that carries one vector of masses to another in the order of their entries."""
    total = surplus.sum()
    a, b = np.cumsum(surplus / total), np.cumsum(deficit / deficit.sum())
    cuts = np.union1d(a, b)
    cuts = np.concatenate([[0.0], cuts[(cuts > 0) & (cuts < 1)], [1.0]])
    at = (cuts[1:] + cuts[:-1]) / 2
    last_from, last_to = np.flatnonzero(surplus)[-1], np.flatnonzero(deficit)[-1]
    i, j = np.minimum(np.searchsorted(a, at), last_from), np.minimum(np.searchsorted(b, at), last_to)
    return i, j, total * np.diff(cuts)


def _kd_order(points: np.ndarray) -> np.ndarray:
    """Order of the leaves of a k-d tree: consecutive points are close in space."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(points, leafsize=4).indices)


@dataclass(frozen=True)
class CostRepair:
    """A coupling P of ``sum w_i delta(y_i)`` and ``sum b_i delta(y_i)``, for a cost ``c(x - y) = |x - y|^p / p``.

    Sending the share ``P_ij / w_i`` of each point x of cell i to y_j instead of y_i makes a coupling of source and
    target of the map.

    Attributes:
        start: entries of row i are ``start[i] .. start[i + 1]``, shape (n + 1,); only those with i != j are kept.
        target: j of each entry.
        share: ``P_ij / w_i`` of each entry.
        gap: ``sum P_ij |y_i - y_j|^p``, an upper bound of their W_p^p.
        excess_stderr: standard error of the mean of :meth:`excess`, when the w_i are counts of samples.
    """

    start: np.ndarray
    target: np.ndarray
    share: np.ndarray
    gap: float
    excess_stderr: float

    def excess(self, x: np.ndarray, cell: np.ndarray, points: np.ndarray, p: float) -> np.ndarray:
        """``sum_j P_ij / w_i (c(x - y_j) - c(x - y_i))`` for each x in its cell i: what the repair costs there.

        Args:
            x: shape (m, d).
            cell: i, shape (m,).
            points: y, shape (n, d).
            p: exponent of the cost.
        """
        number = np.diff(self.start)[cell]
        row = np.repeat(np.arange(len(x)), number)
        entry = np.arange(len(row)) + np.repeat(self.start[cell] - np.cumsum(number) + number, number)
        moved = power_cost(x[row] - points[self.target[entry]], p) - power_cost(x[row] - points[cell[row]], p)
        return np.bincount(row, self.share[entry] * moved, minlength=len(x))


def power_cost(z: np.ndarray, p: float) -> np.ndarray:
    """``|z|^p / p``, shape (m,)."""
    return np.asarray(np.einsum("md,md->m", z, z) ** (p / 2) / p)


def repair_cost(
    points: np.ndarray,
    masses: np.ndarray,
    weights: np.ndarray,
    centroids: np.ndarray,
    p: float,
    counts: np.ndarray | None = None,
) -> CostRepair:
    """A cheap coupling of reached and wanted masses for the cost ``|x - y|^p / p``; see :class:`CostRepair`.

    It is chosen as in :func:`repair`, with each cell's mass at its centroid; so are the errors.

    Args:
        points: y, shape (n, d), of unit size.
        masses: w, shape (n,).
        weights: b, shape (n,).
        centroids: shape (n, d); a row with w_i = 0 is not read.
        p: exponent of the cost.
        counts: samples in each cell by independent blocks, shape (blocks, n); without them the error is 0.
    """
    n, w, b = len(points), masses / masses.sum(), weights / weights.sum()
    live = w > 0
    c = np.where(live[:, None], centroids, 0.0)
    error = 0.0
    if np.abs(w - b).sum() <= _ROUNDING:
        i = j = np.empty(0, np.int64)
        mass = np.empty(0)
    elif n > EXACT_SUPPORT:
        order = _kd_order(points)
        i, j, mass = _cheaper_plan(points, c, w, b, order, p)
        if counts is not None and (used := counts.sum(axis=1) > 0).sum() > 1:
            without = [counts.sum(axis=0) - counts[k] for k in np.flatnonzero(used)]
            plans = [_cheaper_plan(points, c, left / left.sum(), b, order, p) for left in without]
            values = np.array([_moved(points, c, plan, p) for plan in plans])
            error = float(np.sqrt((len(values) - 1) * values.var()))
    else:
        import ot
        from scipy.spatial.distance import cdist

        change = cdist(c[live], points) ** p / p - power_cost(c[live] - points[live], p)[:, None]
        plan, log = ot.emd(w[live], b, change, numItermax=5_000_000, log=True)
        i, j = np.nonzero(plan)
        i, j, mass = np.flatnonzero(live)[i], j, plan[i, j]
        if counts is not None:
            dual = np.asarray(log["u"]) - w[live] @ log["u"]
            error = float((w[live] @ dual**2 / counts.sum()) ** 0.5)
    off = i != j
    i, j, mass = i[off], j[off], mass[off]
    by_row = np.argsort(i, kind="stable")
    i, j, mass = i[by_row], j[by_row], mass[by_row]
    gap = p * float(mass @ power_cost(points[i] - points[j], p))
    return CostRepair(np.searchsorted(i, np.arange(n + 1)), j, mass / w[i], gap, error)


def _moved(y: np.ndarray, c: np.ndarray, plan: _Plan, p: float) -> float:
    """By how much a plan changes the cost of cells with their mass at the centroids c."""
    i, j, mass = plan
    return float(mass @ (power_cost(c[i] - y[j], p) - power_cost(c[i] - y[i], p)))


def _cheaper_plan(y: np.ndarray, c: np.ndarray, w: np.ndarray, b: np.ndarray, order: np.ndarray, p: float) -> _Plan:
    """From, to and mass of the better of two monotone plans: of all mass, or of the surplus alone."""
    plans: list[_Plan] = []
    difference = (w - b)[order]
    for surplus, deficit in ((w[order], b[order]), (np.maximum(difference, 0.0), np.maximum(-difference, 0.0))):
        i, j, mass = _monotone_plan(surplus, deficit)
        plans.append((order[i], order[j], mass))
    return min(plans, key=lambda plan: _moved(y, c, plan, p))
