"""Damped Newton method for exact semi-discrete optimal transport."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from otgan.solvers._clusters import merged
from otgan.solvers._continuation import Level, ladder, lift, prolong
from otgan.solvers._linear import solve_laplacian
from otgan.solvers._newton_input import as_start, as_weights
from otgan.solvers._newton_outcome import MESSAGES, NewtonOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from otgan.cells.base import CellMoments, ExactCells

    Floats = NDArray[np.float64]
    Callback = Callable[[dict[str, Any]], bool | None]

__all__ = ["NewtonOutcome", "newton"]

#: One step asks no mass to grow or shrink by more than this factor.
MAX_GROWTH = 8.0
#: A step leaves each cell at least this fraction of the smaller of its mass and the mass asked for.
KEEP = 0.05
MIN_DAMPING = 2.0**-30
#: The same while easier problems are left to try.
IMPATIENT = 2.0**-10
#: Below this error a step that must be damped this often is spoilt by rounding, not by non-linearity.
ROUNDING_ERROR = 1e-6
ROUNDING_DAMPING = 2.0**-4

#: Easier problems are solved to this error only.
LOOSE_TOL = 0.5
#: The same once the source itself was tried in vain: pieces of its support must then hold the right cells.
STRICT_TOL = 0.01
#: Start on the source itself if each cell has this fraction of its weight; else by way of easier problems.
GOOD_START = 0.02
#: Statuses after which an easier problem may still help.
FAILED = ("stalled", "singular", "empty_cells")
#: The "stage" of steps on the source itself in the history.
SOURCE = "source"


def newton(
    cells: ExactCells,
    weights: ArrayLike,
    *,
    tol: float = 1e-8,
    max_iter: int = 200,
    max_time: float | None = None,
    start: ArrayLike | None = None,
    callback: Callback | None = None,
) -> NewtonOutcome:
    r"""Heights at which every power cell has its weight: ``max_i |w_i(h) / b_i - 1| <= tol``.

    Each step solves ``H dh = g - w`` for the Hessian H of the energy and the masses w, and moves by ``tau dh`` with tau
    halved from 1 until ``|w_new - g| <= (1 - tau / 2) |w - g|`` and no cell is close to empty (Kitagawa, Merigot,
    Thibert, JEMS 2019: linear, then quadratic convergence). The goal g is b when w is within a factor 8 of it and
    otherwise as near to it, cell by cell, as that factor allows; norms are weighted by 1 / b. Tiny cells next to
    heavy targets thus grow geometrically instead of forcing tiny steps.

    Works in any dimension in which there are exact cells. A start is computed unless one is given; if some cell has
    (almost) no mass there, easier problems lead to a better one: the source is smoothed less and less while the
    targets, at first merged in groups, are split into ever smaller ones; a source that cannot be smoothed is blended
    with the uniform one (see `ladder`). The multiscale idea is Merigot's ("A multiscale approach to optimal
    transport", Computer Graphics Forum 2011).

    Args:
        cells: exact power cells of the n targets under the source.
        weights: b > 0, shape (n,); normalised to sum 1.
        tol: bound on the relative error of the cell masses, > 0.
        max_iter: most Newton steps.
        max_time: most seconds; checked between evaluations of the cells.
        start: heights to start from, shape (n,). If cells are empty there, they are blended with the default start.
        callback: called after each step with the step's history entry and "heights" (those of merged targets are
            extended to all); a true answer stops the method.

    Returns:
        The outcome. Degenerate problems end in a status with a message, not in an exception; an interrupt (Ctrl-C)
        returns the last heights.

    Raises:
        ValueError: if weights or start have a wrong shape, are not finite, or weights are not positive.

    Example:
        >>> square = [[0, 0], [1, 0], [1, 1], [0, 1]]
        >>> outcome = newton(PlanarCells([[0.2, 0.5], [0.8, 0.5]], square), [1, 3])
        >>> outcome.masses
        array([0.25, 0.75])
    """
    b = as_weights(weights, len(cells.points))
    given = None if start is None else as_start(start, len(b))
    if not tol > 0:
        msg = f"tol must be positive, got {tol}; 1e-8 is the default"
        raise ValueError(msg)
    inner, order = cells.reordered()
    run = _Run(inner, b[order], order, tol, max_iter, max_time, callback)
    return run(None if given is None else given[order])


class _Run:
    """State of one call of `newton`, in the order of ``inner``."""

    def __init__(
        self,
        inner: ExactCells,
        b: Floats,
        order: NDArray[np.int64],
        tol: float,
        max_iter: int,
        max_time: float | None,
        callback: Callback | None,
    ) -> None:
        self.cells, self.order, self.tol = inner, order, tol
        itself = np.arange(len(b))
        self.finest = Level(inner, b, itself, itself)
        self.level, self.stage = self.finest, SOURCE  # of the current heights and moments
        self.max_iter, self.max_time, self.callback = max_iter, max_time, callback
        self.began = time.perf_counter()
        self.n_iter, self.min_damping = 0, MIN_DAMPING
        self.history: list[dict[str, Any]] = []
        self.heights = np.zeros(len(b))
        self.moments: CellMoments | None = None

    def __call__(self, given: Floats | None) -> NewtonOutcome:
        try:
            status = self._solve(given)
        except KeyboardInterrupt:
            status = "interrupted"
        return self._outcome(status)

    def _outcome(self, status: str) -> NewtonOutcome:
        """Result in the user's order and gauge."""
        self.heights = self._all_heights()
        now = self.moments if self.stage == SOURCE else None
        self.level, self.stage = self.finest, SOURCE
        if now is None:
            now = self.cells.moments(self.heights, hessian=False)
        back = np.empty_like(self.order)
        back[self.order] = np.arange(len(self.order))
        message = MESSAGES[status]
        error, attainable = self._error(now), self._rounding(now)
        if status == "stalled" and error <= 100.0 * attainable:
            message = (
                f"Rounding of the heights to double precision limits the error to about {attainable:.0e} for these "
                f"targets ({error:.0e} was reached): ask for a tol above that, or merge targets that nearly coincide."
            )
        heights = (self.heights - self.b @ self.heights)[back]
        moments = type(now)(now.masses[back], now.first[back], None)
        return NewtonOutcome(
            heights=heights,
            masses=moments.masses,
            moments=moments,
            n_iter=self.n_iter,
            status=status,
            message=message,
            error=error,
            history=self.history,
        )

    @property
    def b(self) -> Floats:
        """Weights of the current level."""
        return self.level.b

    def _all_heights(self) -> Floats:
        """Heights of all targets, also while some are merged."""
        if self.level is self.finest or self.moments is None:
            return self.heights
        return lift(self.level, self.cells.points, self.heights, self.moments)

    def _error(self, moments: CellMoments) -> float:
        return float(np.abs(moments.masses / self.b - 1.0).max())

    def _rounding(self, moments: CellMoments) -> float:
        """What rounding of the heights alone does to the error: ``max_i eps |h| H_ii / b_i``."""
        if moments.hessian is None:
            return 0.0
        size = np.abs(self.heights).max() + np.ptp(self.heights)
        return float(np.finfo(np.float64).eps * size * (moments.hessian.diagonal() / self.b).max())

    def _late(self) -> bool:
        return self.max_time is not None and time.perf_counter() - self.began > self.max_time

    def _solve(self, given: Floats | None) -> str:
        """Find heights with positive masses, then those asked for."""
        if given is not None:
            self.heights = given
            self.moments = self.cells.moments(given)
            if self.moments.masses.min() > 0.0:
                return self._iterate(self.cells, self.tol)
        try:
            self.heights = self.cells.start(self.b)
        except RuntimeError:
            return "empty_cells"
        self.moments = self.cells.moments(self.heights)
        least = float((self.moments.masses / self.b).min())
        cold = self.heights, self.moments
        if least < GOOD_START and self._from_groups():
            if given is not None:
                self._approach(self.cells, given)
            self.min_damping = IMPATIENT
            status = self._iterate(self.cells, self.tol)
            self.min_damping = MIN_DAMPING
            reached = self._current()
            if status not in FAILED or self._error(reached) < max(ROUNDING_ERROR, 100.0 * self._rounding(reached)):
                return status
            self.heights, self.moments = cold
        if least >= GOOD_START or (least > 0.0 and self.cells.smoothed(self.cells.extent) is None):
            if given is not None:
                self._approach(self.cells, given)
            return self._iterate(self.cells, self.tol)
        return self._continue()

    def _from_groups(self) -> bool:
        """Start from a rough solution with tight groups of targets merged, each then spread over its group's cell."""
        level = merged(self.cells, self.b)
        if level is None or self._late():
            return False
        left = None if self.max_time is None else max(self.max_time - (time.perf_counter() - self.began), 1e-3)
        itself, steps = np.arange(len(level.b)), (self.max_iter - self.n_iter) // 2
        inner = _Run(level.cells, level.b, itself, STRICT_TOL, steps, left, None)

        def tell(entry: dict[str, Any]) -> bool:
            self.history.append(
                {name: entry[name] for name in entry if name != "heights"}
                | {"step": self.n_iter + entry["step"], "seconds": time.perf_counter() - self.began}
                | ({"stage": f"{len(itself)} groups"} if entry["stage"] == SOURCE else {})
            )
            if self.callback is None:
                return False
            heights = np.empty(len(self.order))
            heights[self.order] = entry["heights"][level.member]
            return bool(self.callback({**self.history[-1], "heights": heights}))

        inner.callback = tell
        found = inner(None)
        self.n_iter += found.n_iter
        moments = level.cells.moments(found.heights)
        good = bool(moments.masses.min() > 0.0)
        heights = prolong(self.finest, level, found.heights, moments) if good else found.heights[level.member]
        if found.status == "interrupted":
            self.heights, self.moments = heights, None
            raise KeyboardInterrupt
        if not good or (new := self.cells.moments(heights)).masses.min() <= 0.0:
            return False
        self.heights, self.moments = heights, new
        return True

    def _approach(self, cells: ExactCells, given: Floats) -> None:
        """Move from the current heights towards ``given`` as far as all masses stay positive."""
        safe = self.heights
        for k in range(1, 20):
            heights = safe + (1.0 - 0.5**k if k < 4 else 0.5 ** (k - 2)) * (given - safe)
            moments = cells.moments(heights)
            if moments.masses.min() > 0.0:
                self.heights, self.moments = heights, moments
                return

    def _continue(self) -> str:
        """Solve easier problems roughly, one after the other, until the source itself can be solved from there."""
        loose, status = LOOSE_TOL, "empty_cells"
        for level, easier, name in ladder(self.cells, self.b):
            heights = self.heights
            if self.stage == SOURCE:  # the first one
                heights = easier.start(level.b)
            elif len(level.b) > len(self.b):
                heights = prolong(level, self.level, heights, self._current())
            wanted, moments = heights, easier.moments(heights)
            if moments.masses.min() <= 0.0:
                heights = easier.start(level.b)
                moments = easier.moments(heights)
            # All at once: an interrupt must find level, heights and moments that belong together.
            place = self.finest if len(level.b) == len(self.finest.b) else level
            self.level, self.stage, self.heights, self.moments = place, name, heights, moments
            if heights is not wanted:
                self._approach(easier, wanted)
                if self._current().masses.min() <= 0.0:
                    return "empty_cells"
            status = self._iterate(easier, loose)
            if status not in FAILED and status != "converged":
                return status
            if self.level is not self.finest:
                continue
            safe, reached = self.heights, self.moments
            self.moments = self.cells.moments(safe)
            status = "empty_cells"
            if (self.moments.masses / self.b).min() >= GOOD_START:
                self.stage, loose, self.min_damping = SOURCE, STRICT_TOL, IMPATIENT
                status = self._iterate(self.cells, self.tol)
                self.min_damping = MIN_DAMPING
                if status not in FAILED or self._error(self._current()) < ROUNDING_ERROR:
                    return status
            self.heights, self.moments, self.stage = safe, reached, name
        if self.level is self.finest and status in ("stalled", "singular"):
            self.stage, self.moments = SOURCE, self.cells.moments(self.heights)
            return self._iterate(self.cells, self.tol)
        return status

    def _iterate(self, cells: ExactCells, tol: float) -> str:
        """Newton steps on ``cells`` from the current heights, whose masses are positive."""
        damping = 1.0
        error = self._error(self._current())
        if not self.history and self._record(error, damping):
            return "converged" if error <= tol and cells is self.cells else "interrupted"
        while error > tol:
            if self.n_iter >= self.max_iter:
                return "max_iter"
            if self._late():
                return "max_time"
            goal, step = self._direction(cells, error)
            if step is None:
                return "singular"
            damping = self._move(cells, goal, step, error)
            if damping == 0.0:
                return "max_time" if self._late() else "stalled"
            self.n_iter += 1
            error = self._error(self._current())
            if self._record(error, damping):
                return "converged" if error <= tol and cells is self.cells else "interrupted"
        return "converged"

    def _current(self) -> CellMoments:
        if self.moments is None:
            msg = "newton has no moments yet"
            raise RuntimeError(msg)
        return self.moments

    def _direction(self, cells: ExactCells, error: float) -> tuple[Floats, Floats | None]:
        """Masses to aim at, and the Newton step towards them; ``None`` when the Hessian is singular."""
        now = self._current()
        w = now.masses
        goal = w * np.clip(self.b / w, 1.0 / MAX_GROWTH, MAX_GROWTH)
        goal /= goal.sum()
        rtol = float(np.clip(0.1 * error, 1e-10, 1e-2))
        hessian = now.hessian
        for share in (0.0, 1e-8, 1e-5, 1e-2):
            if share > 0.0:
                positive = cells.blended(share)
                if positive is None:
                    break
                hessian = positive.moments(self.heights).hessian
            if hessian is None:
                break
            try:
                return goal, solve_laplacian(hessian, goal - w, rtol)
            except RuntimeError:
                continue
        return goal, None

    def _move(self, cells: ExactCells, goal: Floats, step: Floats, error: float) -> float:
        """Take the longest damped step that makes progress; its damping, 0 when there is none."""
        w = self._current().masses
        floor = KEEP * np.minimum(w, goal)
        residual = float(np.sqrt(np.sum((w - goal) ** 2 / self.b)))
        damping = 1.0
        while damping > self.min_damping and not self._late():
            heights = self.heights + damping * step
            try:
                new = cells.moments(heights)
            except RuntimeError:
                damping /= 2.0
                continue
            left = float(np.sqrt(np.sum((new.masses - goal) ** 2 / self.b)))
            if left <= (1.0 - damping / 2.0) * residual and bool((new.masses >= floor).all()):
                self.heights, self.moments = heights, new
                return damping
            if error < ROUNDING_ERROR:
                if self._error(new) < 0.9 * error:
                    self.heights, self.moments = heights, new
                    return damping
                if damping <= ROUNDING_DAMPING:
                    break
            damping /= 2.0
        return 0.0

    def _record(self, error: float, damping: float) -> bool:
        """Append to the history and ask the callback; whether to stop."""
        entry = {
            "step": self.n_iter,
            "error": error,
            "damping": damping,
            "seconds": time.perf_counter() - self.began,
            "stage": self.stage,
        }
        self.history.append(entry)
        if self.callback is None:
            return False
        heights = np.empty(len(self.order))
        now = self._all_heights()
        heights[self.order] = now - self.finest.b @ now
        return bool(self.callback({**entry, "heights": heights}))
