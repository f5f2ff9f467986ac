"""Optimal quantisation: n points with given masses that are nearest to a source in the Wasserstein distance."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from otgan._checks import as_count, as_points, as_positive, as_weights
from otgan.callbacks import Progress, State
from otgan.cells import has_exact_cells
from otgan.measures import DiscreteMeasure, Source
from otgan.potential import BrenierPotential, fix_gauge
from otgan.solvers._prescribed import LOOSE_MASS_TOL, Diagram, LinePrescribedCells, PrescribedCells, unsolved
from otgan.solvers.base import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from otgan._checks import ArrayLike
    from otgan.callbacks import Callback
    from otgan.solvers.result import Status

    Floats = NDArray[np.float64]

MASS_TOL = 1e-8
"""Bound on ``max_i |w_i / b_i - 1|`` for the cells that are returned."""
_MEMORY = 7  # pairs that L-BFGS keeps: 20 were not better (square, n = 2,000)
_ARMIJO = 1e-4
_SHORTEST = 2.0**-20

_MESSAGES = {
    "converged": "A further Lloyd step is sure to gain no more than tol of W2^2.",
    "max_iter": "The iteration limit was reached: raise max_iter, or continue with start=result.points.",
    "max_time": "The time limit was reached: raise max_time, or continue with start=result.points.",
    "interrupted": "Interrupted; these are the best points so far: continue with start=result.points.",
    "stopped": "The callback asked to stop: continue with start=result.points.",
    "stalled": (
        "No step reduces W2 further: rounding is the limit, ask for a larger tol; or the cells could not be computed, "
        "as for a source whose support falls into pieces: add a small uniform part to it, or change n slightly."
    ),
}


@dataclass(frozen=True)
class Quantization:
    """Outcome of :func:`quantize`.

    Attributes:
        points: ``y_i``, shape (n, d), float64.
        weights: ``b_i``, shape (n,), sum 1.
        potential: Brenier potential of the optimal map from the source to the points; its cells are the quantiser.
        source: mu.
        value: ``W2^2(mu, sum_i b_i delta(y_i))``, exact; NaN if not even the first cells were found.
        masses: exact cell masses ``w_i``, shape (n,), within 1e-8 of ``b_i``, relatively (1e-6 where rounding limits).
        centroids: centres of mass ``c_i`` of the cells, shape (n, d); the points themselves, up to ``error``.
        error: ``sum_i b_i |c_i - y_i|^2 / W2^2``, the quantity that ``tol`` bounds.
        tol: the bar that was asked for.
        status: "converged", or why not: "max_iter", "max_time", "stalled", "interrupted", "stopped" (by a callback).
        message: the status as a sentence that says what to do next.
        n_iter: times that the points were moved.
        seconds: wall-clock time.
        history: one dictionary an iteration, the start included: "n_iter", "value" (``W2^2``, falling), "movement"
            (``(sum_i b_i |y_i - y_i'|^2)^(1/2)`` in this iteration), "error", "newton_steps" (in all), "seconds".
    """

    points: Tensor
    weights: Tensor
    potential: BrenierPotential
    source: Source
    value: float
    masses: Tensor = field(repr=False)
    centroids: Tensor = field(repr=False)
    error: float
    tol: float
    status: Status
    message: str
    n_iter: int
    seconds: float
    history: list[dict[str, Any]] = field(repr=False)

    @property
    def converged(self) -> bool:
        """Whether ``tol`` was reached."""
        return self.status == "converged"

    @property
    def heights(self) -> Tensor:
        """Heights ``h_i`` of the potential, shape (n,), with ``sum_i b_i h_i = 0``."""
        return self.potential.heights

    @property
    def measure(self) -> DiscreteMeasure:
        """``sum_i b_i delta(y_i)``, a target for :func:`otgan.solve`."""
        return DiscreteMeasure(self.points, self.weights)


def quantize(
    source: Source,
    n: int,
    weights: ArrayLike | None = None,
    *,
    seed: int | None = 0,
    start: ArrayLike | None = None,
    tol: float = 1e-5,
    max_iter: int = 200,
    max_time: float | None = None,
    accelerate: bool = True,
    progress: bool = False,
    callback: Callback | None = None,
) -> Quantization:
    r"""Points ``y_1 .. y_n`` that minimise ``F(y) = W2^2(mu, sum_i b_i delta(y_i))`` for given masses b.

    With ``c_i`` the centre of mass of point i's power cell of mass ``b_i``, ``grad_i F = 2 b_i (y_i - c_i)``, and
    Lloyd's step ``y <- c`` lowers F by ``sum_i b_i |c_i - y_i|^2`` at least (Merigot, Santambrogio, Sarrazin,
    "Non-asymptotic convergence bounds for Wasserstein approximation using point clouds", NeurIPS 2021; de Goes,
    Breeden, Ostromoukhov, Desbrun, "Blue noise through optimal transport", ACM TOG 2012). Each iteration solves one
    exact semi-discrete problem, started from the heights of the last; L-BFGS with Lloyd's step as its first guess
    (Liu et al., "On centroidal Voronoi tessellation: energy smoothness and fast computation", ACM TOG 2009) needs
    about a third of Lloyd's iterations. F falls in every iteration. It is not convex for d > 1: the points found
    are critical, not the best of all. On the line, where cells are intervals between quantiles, one step is exact.

    Args:
        source: mu, with exact cells: `UniformBox`, `UniformPolytope` (d <= 3), `UniformBall`, `Gaussian` (d <= 2),
            `GridDensity`, `Empirical` on the line.
        n: number of points.
        weights: masses b > 0, shape (n,), normalised; equal when left out.
        seed: of the Sobol points of the source that are the start; ``None``: a fresh one.
        start: points to start from, shape (n, d), instead.
        tol: bound on ``sum_i b_i |c_i - y_i|^2 / F``: the share of F that one more Lloyd step is sure to gain, and the
            square of what it moves the points, measured in W2.
        max_iter: iterations at most; 0 only solves for the start's cells.
        max_time: seconds after which the best so far is returned; one solve may be under way.
        accelerate: L-BFGS; if false, Lloyd's algorithm.
        progress: show a progress bar on standard error.
        callback: called with a :class:`otgan.callbacks.State` after every iteration, ``state.detail`` holding "value",
            "movement" and "points", shape (n, d); a true return value stops.

    Returns:
        A `Quantization`. Ctrl-C also ends in one, with status "interrupted" and the best points so far.

    Raises:
        ValueError: if the source has no exact cells, or a shape or number does not fit.
        TypeError: if an argument is of the wrong kind.

    Example:
        >>> import otgan as og
        >>> q = quantize(og.UniformBox(dim=1), 2)
        >>> q.points.flatten().sort().values, round(q.value * 48, 9)  # midpoints of halves, 1 / (12 n^2)
        (tensor([0.2500, 0.7500], dtype=torch.float64), 1.0)
    """
    if not isinstance(source, Source):
        raise TypeError(f"source must be a measure such as og.UniformBox(dim=2), got {type(source).__name__}.")
    if not has_exact_cells(source):
        raise ValueError(
            f"quantize needs exact cells, and {source!r} in dimension {source.dim} has none. Exact are UniformBox and "
            "UniformPolytope up to dimension 3, UniformBall and Gaussian (of full rank) up to 2, GridDensity, and "
            "Empirical on the line; for samples use k-means, which leaves the masses free."
        )
    n = as_count(n, "n", 1)
    b = as_weights(weights, n)
    bar, max_iter = as_positive(tol, "tol"), as_count(max_iter, "max_iter")
    clock = Stopwatch(None if max_time is None else as_positive(max_time, "max_time"))
    points = _start(source, n, seed) if start is None else as_points(start, "start", source.dim)
    if len(points) != n:
        raise ValueError(f"start must have shape ({n}, {source.dim}), one row a point, got {tuple(points.shape)}.")
    shown = Progress(max_iter) if progress else None
    listeners = [f for f in (shown, callback) if f is not None]
    cells = LinePrescribedCells(source, b.numpy()) if source.dim == 1 else PrescribedCells(source, b.numpy())
    run = _Descent(cells, bar, max_iter, clock, accelerate, listeners)
    try:
        status = run(cells.scaled(points.double().cpu().numpy()))
    finally:
        if shown is not None:
            shown.close()
    return _outcome(run, b, status)


def _start(source: Source, n: int, seed: int | None) -> Tensor:
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
    return source.sobol(n, seed=as_count(seed, "seed"), dtype=torch.float64)


def _outcome(run: _Descent, b: Tensor, status: str) -> Quantization:
    """What was found, in the source's units."""
    cells, best = run.cells, run.best
    source, unit = cells.source, cells.unit
    points = torch.from_numpy(cells.mean + unit * best.points)
    # With x = m + u x', y = m + u z: <x', z_i> + eta_i times u^2 is <x, y_i> + h_i + terms without i.
    heights = torch.from_numpy(unit * (unit * best.heights - best.points @ cells.mean))
    message = _MESSAGES[status]
    if not best.solved:
        message = f"The cells of the start were not found. {message}"
    return Quantization(
        points=points,
        weights=b,
        potential=BrenierPotential(points, fix_gauge(heights, b), b, center=source.mean),
        source=source,
        value=unit**2 * best.value if best.solved else float("nan"),
        masses=torch.from_numpy(best.masses),
        centroids=torch.from_numpy(cells.mean + unit * best.centroids),
        error=best.error if best.solved else float("nan"),
        tol=run.tol,
        status=cast("Status", status),
        message=message,
        n_iter=run.n_iter,
        seconds=run.clock.seconds,
        history=run.history,
    )


class _Descent:
    """State of one call of `quantize`."""

    def __init__(
        self,
        cells: PrescribedCells,
        tol: float,
        max_iter: int,
        clock: Stopwatch,
        accelerate: bool,
        listeners: list[Callable[[State], object]],
    ) -> None:
        self.cells, self.tol, self.max_iter, self.clock, self.listeners = cells, tol, max_iter, clock, listeners
        self.root = np.sqrt(cells.b)[:, None]
        self.pairs: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY if accelerate else 0)
        self.n_iter = 0
        self.history: list[dict[str, Any]] = []
        self.best: Diagram

    def __call__(self, z: Floats) -> str:
        self.best = unsolved(z, "interrupted")
        try:
            status = self._descend(z)
        except KeyboardInterrupt:
            status = "interrupted"
        if self.best.solved:
            exact = self.cells.solve(self.best.points, self.best.heights, MASS_TOL)
            if exact.solved:
                self.best = exact
                self.history[-1] |= {"value": self.cells.unit**2 * exact.value, "error": exact.error}
        return status

    def _descend(self, z: Floats) -> str:
        self.best = self._solve(z, -0.5 * (z**2).sum(axis=1), LOOSE_MASS_TOL)  # the Voronoi diagram
        if not self.best.solved:
            return self.best.status
        stop = self._record(0.0)
        while not self.best.error <= self.tol:
            if stop:
                return "stopped"
            if self.n_iter >= self.max_iter:
                return "max_iter"
            if self.clock.expired():
                return "max_time"
            new = self._search()
            if not new.solved:
                return new.status
            old, self.best = self.best, new
            self._remember(old, new)
            self.n_iter += 1
            stop = self._record(float(np.linalg.norm(self.root * (new.points - old.points))))
        return "converged"

    def _solve(self, z: Floats, heights: Floats, tol: float) -> Diagram:
        left = None if self.clock.max_time is None else max(self.clock.max_time - self.clock.seconds, 1e-3)
        return self.cells.solve(z, heights, tol, left)

    def _search(self) -> Diagram:
        """First step along L-BFGS's direction, or else Lloyd's, that lowers W2 enough; of failures, the last."""
        old = self.best
        # The error of the value is of second order in the error of the masses: it stays far below the gain.
        tol = float(np.clip(1e-2 * old.error**0.5, MASS_TOL, LOOSE_MASS_TOL))
        lloyd = old.centroids - old.points
        for step in (self._direction(lloyd), lloyd) if self.pairs else (lloyd,):
            slope = -2.0 * float(np.vdot(self.cells.b[:, None] * lloyd, step))
            damping = 1.0 if slope < 0.0 else 0.0
            while damping >= (0.2 if step is not lloyd else _SHORTEST):
                move = damping * step
                # The plane of each target keeps its height above the centre of its cell.
                heights = old.heights - np.einsum("ij,ij->i", old.centroids, move)
                new = self._solve(old.points + move, heights, tol)
                if new.status in ("interrupted", "max_time"):
                    return new
                if new.solved and new.value <= old.value + _ARMIJO * damping * slope:
                    return new
                damping /= 2.0
            self.pairs.clear()
        return replace(old, status="stalled")

    def _direction(self, lloyd: Floats) -> Floats:
        """Two-loop recursion of L-BFGS in the variables ``sqrt(b_i) y_i``, in which Lloyd's step is ``-grad F / 2``."""
        q = -2.0 * self.root * lloyd
        coefficients = []
        for s, y in reversed(self.pairs):
            coefficients.append(np.vdot(s, q) / np.vdot(s, y))
            q = q - coefficients[-1] * y
        s, y = self.pairs[-1]
        q = q * (np.vdot(s, y) / np.vdot(y, y))
        for (s, y), coefficient in zip(self.pairs, reversed(coefficients), strict=True):
            q = q + s * (coefficient - np.vdot(y, q) / np.vdot(s, y))
        return np.asarray(-q / self.root)

    def _remember(self, old: Diagram, new: Diagram) -> None:
        s = self.root * (new.points - old.points)
        y = 2.0 * (s - self.root * (new.centroids - old.centroids))
        if np.vdot(s, y) > 1e-10 * np.vdot(s, s):
            self.pairs.append((s, y))

    def _record(self, movement: float) -> bool:
        """Append to the history and tell the listeners; whether one of them asks to stop."""
        unit, best = self.cells.unit, self.best
        entry = {"value": unit**2 * best.value, "movement": unit * movement}
        self.history.append(
            {
                "n_iter": self.n_iter,
                **entry,
                "error": best.error,
                "newton_steps": self.cells.steps,
                "seconds": self.clock.seconds,
            }
        )
        stop = False
        for listener in self.listeners:
            detail: dict[str, Any] = dict(entry)
            if not isinstance(listener, Progress):
                detail["points"] = torch.from_numpy(self.cells.mean + unit * best.points)
            heights = torch.from_numpy(unit * (unit * best.heights - best.points @ self.cells.mean))
            heights = fix_gauge(heights, torch.from_numpy(self.cells.b))
            state = State("quantize", self.n_iter, best.error, self.tol, self.clock.seconds, 0, heights, detail)
            stop = bool(listener(state)) or stop
        return stop
