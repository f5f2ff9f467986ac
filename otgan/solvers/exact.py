"""Exact semi-discrete solver: Newton's method on exact cells, with an exact certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from otgan.cells import exact_cells, require_exact_cells
from otgan.cells.factory import line
from otgan.certificate import certify_exact
from otgan.measures import Empirical
from otgan.potential import fix_gauge
from otgan.solvers.base import Outcome, Problem, Stopwatch
from otgan.solvers.newton import newton
from otgan.standardization import Standardization

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.callbacks import Callback
    from otgan.cells import CellMoments, ExactCells
    from otgan.measures import DiscreteMeasure, Source
    from otgan.solvers.result import Status

_STATUS = {"singular": "stalled", "empty_cells": "stalled"}


@dataclass(frozen=True)
class Newton:
    """Damped Newton method on exact cell masses, in one to three dimensions.

    The variational problem of Gu, Luo, Sun, Yau solved to rounding: masses, energy and Hessian are integrals over
    exactly clipped power cells, and each step solves the sparse system ``H dh = b - w(h)``, damped so that no cell is
    lost (Kitagawa, Merigot, Thibert, "Convergence of a Newton algorithm for semi-discrete optimal transport", 2019).
    On the line the answer is read off the quantiles.

    ``tol`` bounds ``max_i |w_i / b_i - 1|``.

    Args:
        max_iter: Newton steps at most.
    """

    max_iter: int = 200

    name = "newton"

    def default_tol(self, target: DiscreteMeasure) -> float:
        """``1e-8``, and ``1e-12 n`` beyond ten thousand targets: small cells feel the rounding of the heights."""
        return max(1e-8, 1e-12 * target.n)

    def accepts(self, source: Source) -> None:
        """Raise a ValueError for a source without exact cells."""
        require_exact_cells(source)

    def __call__(self, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None) -> Outcome:
        """Solve from a cold start."""
        source, target = problem.source, problem.target
        points = target.points.double().cpu().numpy()
        b = target.weights.cpu().numpy()
        change = Standardization.of(source, target)
        middle, scale = change.target_shift.numpy(), change.target_scale
        # Targets centred and of unit size: h_i = scale h'_i + (terms without i), see Standardization.
        try:
            cells = exact_cells(source, (points - middle) / scale)
        except ValueError as error:
            if "coincide" not in str(error):
                raise
            raise ValueError(
                f"Two targets are closer than about 1e-16 of the targets' spread ({scale:.3g}): once centred, double "
                f"precision cannot tell them apart ({error}). Merge them, or treat distant groups apart."
            ) from None

        if source.dim == 1:
            return self._line(problem, cells, scale, tol)
        asked_to_stop = False

        def tell(entry: dict[str, Any]) -> bool:
            nonlocal asked_to_stop
            if callback is not None:
                heights = torch.from_numpy(scale * entry["heights"])
                detail = {"damping": entry["damping"], "stage": entry["stage"]}
                state = problem.state(self.name, entry["step"], entry["error"], tol, clock, 0, heights, detail)
                asked_to_stop = bool(callback(state))
            return asked_to_stop

        remaining = None if clock.max_time is None else max(clock.max_time - clock.seconds, 1e-3)
        found = newton(cells, b, tol=tol, max_iter=self.max_iter, max_time=remaining, callback=tell)
        status = _STATUS.get(found.status, found.status)
        if asked_to_stop and status == "interrupted":
            status = "stopped"
        message = f"{found.message} Worst cell: |w/b - 1| = {found.error:.2g} (tol {tol:g})."
        history = [{"n_iter" if name == "step" else name: entry[name] for name in entry} for entry in found.history]
        return self._outcome(problem, scale * found.heights, found.moments, status, message, found.n_iter, history)

    def _line(self, problem: Problem, cells: ExactCells, scale: float, tol: float) -> Outcome:
        """Closed form: cells end at the quantiles of the source, and W2 is an integral over quantiles."""
        from otgan.cells.line import line_wasserstein

        source, target = problem.source, problem.target
        b = target.weights.cpu().numpy()
        heights = cells.start(b)
        moments = cells.moments(heights, hessian=False)
        error = float(np.abs(moments.masses / b - 1.0).max())
        status, message = "converged", "Cells end at the quantiles of the source: closed form."
        if isinstance(source, Empirical):
            message += " Atoms on a boundary belong to both neighbours; the map sends each to one"
            message += (
                f" (worst cell |w/b - 1| = {error:.2g}); a plan, which splits them, is that of method='discrete'."
            )
        elif error > tol:
            status = "stalled"
            message = (
                "Cells end at the quantiles of the source, but heights in double precision do not resolve all of them: "
                f"worst cell |w/b - 1| = {error:.2g} (tol {tol:g}). Merge targets that nearly coincide, or bring "
                "source and targets nearer to the origin and to one scale. The value is exact all the same."
            )
        outcome = self._outcome(problem, scale * heights, moments, status, message, 0, [])
        points = target.points.double().cpu().numpy()
        exact, cert = line_wasserstein(points, b, line(source)), outcome.certificate
        if cert is not None:
            cert = replace(cert, w2_lower=min(cert.w2_lower, exact), w2_upper=max(cert.w2_upper, exact))
        return replace(outcome, value=exact**2, certificate=cert)

    def _outcome(
        self,
        problem: Problem,
        heights: NDArray[np.float64],
        moments: CellMoments,
        status: str,
        message: str,
        n_iter: int,
        history: list[dict[str, Any]],
    ) -> Outcome:
        target = problem.target
        h = fix_gauge(torch.from_numpy(heights), target.weights.cpu())
        certificate = certify_exact(problem.source, target, h, moments.masses, moments.first)
        return Outcome(
            heights=h.to(target.points.device),
            status=cast("Status", status),
            message=message,
            n_iter=n_iter,
            history=history,
            value=2 * certificate.dual if status == "converged" else None,
            certificate=certificate,
            masses=torch.from_numpy(moments.masses),
            centroids=torch.from_numpy(moments.centroids),
        )
