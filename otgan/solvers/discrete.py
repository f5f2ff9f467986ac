"""Discrete source against discrete target: the exact network simplex of POT, read as a Brenier potential."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otgan.certificate import Certificate
from otgan.certificate.coupling import power_cost
from otgan.measures import Empirical
from otgan.potential import fix_gauge, heights_from_dual
from otgan.solvers.base import Outcome, Problem, Stopwatch
from otgan.solvers.result import Plan
from otgan.standardization import Standardization

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.callbacks import Callback
    from otgan.measures import DiscreteMeasure, Source
    from otgan.solvers.result import Status

    Floats = NDArray[np.float64]
    Sparse = tuple[NDArray[np.intp], NDArray[np.intp], Floats]  # rows, columns and masses of a plan
    Own = tuple[float, float, Floats, Floats]

_ROUNDING = 1e-9  # of the smaller of the two masses that an entry of the plan joins
_INTERIOR = 5000  # targets up to which ties are resolved by an interior dual: n^2 numbers
_ALL_ROOTS = 512  # targets up to which all shortest paths are computed
_SOME_ROOTS = 32
_SWEEPS = 20


@dataclass(frozen=True)
class Discrete:
    """Exact optimal transport of weighted samples, ``min_P sum P_ki |x_k - y_i|^2`` over couplings P.

    For p != 2 the cost is ``|x_k - y_i|^p / p``, of value, plan and duals alike.

    Solved by the network simplex of POT (Bonneel et al., "Displacement interpolation using Lagrangian mass
    transport", 2011). Its dual vertex leaves ties: a source point that goes to one target is often as well served by
    another. Among all optimal duals one in the relative interior is chosen (the mean of the shortest-path potentials
    of the exchange graph), so that the Brenier potential sends each source point to where the plan sends it whenever
    the plan is a map, and extends that to new points with the widest margins.

    ``tol`` is not used: the answer is exact to rounding.

    Args:
        max_size: largest m * n that is accepted; the cost matrix takes 8 bytes an entry.
        max_iter: pivots at most.
    """

    max_size: int = 250_000_000
    max_iter: int = 100_000_000

    name = "discrete"
    any_cost = True

    def default_tol(self, target: DiscreteMeasure) -> float:
        """Not used: the simplex ends at a vertex."""
        return 1e-8

    def accepts(self, source: Source) -> None:
        """Raise a ValueError for a source that is not discrete itself."""
        if not isinstance(source, Empirical):
            raise ValueError(
                f"method='discrete' needs an Empirical source (points and weights), got {type(source).__name__}; "
                "use method='auto', or og.Empirical(source.sample(m))."
            )

    def __call__(self, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None) -> Outcome:
        """Solve to optimality; time limits do not apply inside the network simplex."""
        import ot

        source, target = problem.source, problem.target
        self.accepts(source)
        assert isinstance(source, Empirical)
        m, n = source.m, target.n
        if m * n > self.max_size:
            raise ValueError(
                f"method='discrete' needs the {m} x {n} cost matrix ({8 * m * n / 1e9:.1f} GB), more than "
                f"{self.max_size} entries; use method='adam', which samples the source, or subsample it."
            )
        a, b = source.weights.numpy(), target.weights.cpu().numpy()
        # In standardised coordinates the plan is the same, and no side's digits drown in the other's.
        change = Standardization.of(source, target, problem.p)
        xs = change.source(source.points.double().cpu()).numpy()
        ys = change.target(target.points.cpu()).numpy()
        cost = _costs(xs, ys, problem.p)

        def outcome(g: Floats, status: Status, message: str, **found: Any) -> Outcome:
            dual = torch.from_numpy(g)
            scaled = heights_from_dual(torch.from_numpy(ys), dual) if problem.p == 2.0 else dual
            heights = fix_gauge(change.heights(scaled, target.points.cpu()), target.weights.cpu())
            return Outcome(heights.to(target.points.device), status, message, n_iter=1, n_scores=m * n, **found)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an early end becomes a status below
            plan, log = ot.emd(a, b, cost, numItermax=self.max_iter, log=True)
        start = np.asarray(log["v"], dtype=np.float64)
        if log["result_code"] != 1:
            message = f"The network simplex ended before its optimum ({log['warning']}): raise max_iter."
            return outcome(start, "max_iter", message)
        # What is left over where the two sides' sums differ in the last bit is no mass.
        plan[plan <= _ROUNDING * np.minimum(a[:, None], b)] = 0.0
        rows, cols = np.nonzero(plan)
        g = _interior_dual(cost, rows, cols, start) if n <= _INTERIOR else start
        f = (cost - g).min(axis=1)
        best = (cost - g).argmin(axis=1)
        pieces = np.bincount(rows, minlength=m)
        split = int((pieces > 1).sum())
        tied = int((pieces[rows] == 1)[best[rows] != cols].sum())
        message = "The plan is optimal (network simplex)."
        message += f" It splits {split} of {m} source points, which no map can." if split else " It is a map."
        message += (
            f" {tied} source points are served as well by another target, where the map sends them." if tied else ""
        )
        mass = plan[rows, cols]
        own = _power_units if problem.p != 2.0 else _square_units
        value, dual, source_dual, target_dual = own(change, xs, ys, f, g, (rows, cols, mass), a, b, problem.p)
        from scipy.sparse import coo_array

        matrix = coo_array((mass, (rows, cols)), shape=(m, n))
        return outcome(
            g,
            "converged",
            message,
            plan=Plan(matrix, torch.from_numpy(source_dual), torch.from_numpy(target_dual)),
            value=value,
            certificate=_certificate(plan, b, value, min(dual, value), problem.p),
        )


def _square_units(
    change: Standardization, xs: Floats, ys: Floats, f: Floats, g: Floats, plan: Sparse, a: Floats, b: Floats, _: float
) -> Own:
    """Value, dual value and duals of |x - y|^2 from those in standardised coordinates.

    ``|x - y|^2 = pq |x' - y'|^2 + p (p - q) |x'|^2 + q (q - p) |y'|^2``, and then the shift of the means.
    """
    rows, cols, mass = plan
    p, q = change.source_scale, change.target_scale
    shift = change.source_shift.numpy() - change.target_shift.numpy()
    xc, yc = p * xs, q * ys
    value = float(mass @ ((xc[rows] - yc[cols]) ** 2).sum(axis=1)) + float(shift @ shift)
    g_centred = p * q * g + q * (q - p) * (ys**2).sum(axis=1)
    f_centred = p * q * f + p * (p - q) * (xs**2).sum(axis=1)
    dual = float(a @ f_centred + b @ g_centred) + float(shift @ shift)
    return value, dual, f_centred + 2 * xc @ shift, g_centred - 2 * yc @ shift + shift @ shift


def _power_units(
    change: Standardization, xs: Floats, ys: Floats, f: Floats, g: Floats, plan: Sparse, a: Floats, b: Floats, p: float
) -> Own:
    """Value, dual value and duals of ``|x - y|^p / p``: one scale for all."""
    rows, cols, mass = plan
    one = change.target_scale**p
    value = one * float(mass @ power_cost(xs[rows] - ys[cols], p))
    return value, one * float(a @ f + b @ g), one * f, one * g


def _certificate(plan: Floats, weights: Floats, value: float, dual: float, p: float) -> Certificate:
    """Masses of the plan, and weak duality against its cost: both exact to rounding."""
    masses = plan.sum(axis=0)
    value, dual = max(value, 0.0), max(dual, 0.0)
    square = p == 2.0  # the value is then W2^2, and otherwise W_p^p / p
    return Certificate(
        chi2=float(((masses - weights) ** 2 / weights).sum()),
        chi2_stderr=0.0,
        l1=float(np.abs(masses - weights).sum()),
        max_ratio=float(np.abs(masses / weights - 1).max()),
        empty_cells=int((masses == 0).sum()),
        w2_lower=dual**0.5 if square else math.nan,
        w2_upper=value**0.5 if square else math.nan,
        n_samples=0,
        n_targets=len(weights),
        exact=True,
        dual=dual / 2 if square else dual,
        transport_cost=value if square else p * value,
        target_gap=0.0,
        p=p,
        cost_lower=dual / 2 if square else dual,
        cost_upper=value / 2 if square else value,
    )


def _costs(x: Floats, y: Floats, p: float) -> Floats:
    """``|x_k - y_i|^2`` without cancellation, for p != 2 ``|x_k - y_i|^p / p``, shape (m, n)."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(x, y, "sqeuclidean") if p == 2.0 else cdist(x, y) ** p / p)


def _interior_dual(cost: Floats, rows: NDArray[np.intp], cols: NDArray[np.intp], start: Floats) -> Floats:
    """Target-side dual in the relative interior of the optimal face, shape (n,).

    A dual g is optimal exactly when ``g_i - g_j <= w_ji := min over k with P_kj > 0 of c_ki - c_kj`` for all i, j: when
    it is a potential of the exchange graph. Shortest-path distances from any node are such potentials, and the mean
    over all nodes has a strict inequality wherever some potential has one. Beyond a few hundred targets the mean is
    over some nodes only, followed by sweeps that centre each value between its bounds.
    """
    n = cost.shape[1]
    if n == 1:
        return start
    live = np.unique(cols)
    if len(live) < n:  # the simplex lost a mass below rounding: that target's value is as large as the others allow
        inner = _interior_dual(cost[:, live], rows, np.searchsorted(live, cols), start[live])
        g = (cost - (cost[:, live] - inner).min(axis=1)[:, None]).min(axis=0)
        g[live] = inner
        return np.asarray(g)
    order = np.argsort(cols, kind="stable")
    rows, cols = rows[order], cols[order]
    edge = np.full((n, n), np.inf)
    where, counts = np.unique(cols, return_counts=True)
    stops = np.cumsum(counts)
    for j, stop, count in zip(where, stops, counts, strict=True):
        k = rows[stop - count : stop]
        edge[j] = (cost[k] - cost[k, j][:, None]).min(axis=0)
    reduced = np.maximum(edge - start[None, :] + start[:, None], 0.0)  # >= 0: the start is optimal up to rounding
    roots = np.arange(n) if n <= _ALL_ROOTS else np.linspace(0, n - 1, _SOME_ROOTS).astype(int)
    distances = _shortest_paths(reduced, roots)
    if len(roots) < n:  # distances to the roots are potentials too, with the opposite sign
        distances = np.concatenate([distances, -_shortest_paths(np.ascontiguousarray(reduced.T), roots)])
    g = distances.mean(axis=0)
    for sweep in range(_SWEEPS if len(roots) < n else 0):
        # Each value to the middle of what the others allow: slack spreads from where there is some.
        for i in range(n) if sweep % 2 == 0 else reversed(range(n)):
            lower, upper = g - reduced[i], g + reduced[:, i]
            lower[i], upper[i] = -np.inf, np.inf
            g[i] = (lower.max() + upper.min()) / 2
    return np.asarray(start + g)


def _shortest_paths(edge: Floats, roots: NDArray[np.intp]) -> Floats:
    """Distances from each root over a dense graph of lengths >= 0, shape (roots, n)."""
    n = edge.shape[0]
    if len(roots) == n:
        out = edge.copy()
        np.fill_diagonal(out, 0.0)
        through = np.empty_like(out)
        for k in range(n):  # Floyd, Warshall
            np.add(out[:, k, None], out[k], out=through)
            np.minimum(out, through, out=out)
        return out
    out = np.full((len(roots), n), np.inf)
    for r, root in enumerate(roots):  # Dijkstra on a dense graph
        distance, closed = edge[root].copy(), np.zeros(n, dtype=bool)
        distance[root] = 0.0
        for _ in range(n):
            node = int(np.argmin(np.where(closed, np.inf, distance)))
            closed[node] = True
            np.minimum(distance, distance[node] + edge[node], out=distance)
        out[r] = distance
    return out
