"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from scipy.sparse import coo_array
    from torch import Tensor

    from otgan.certificate import Certificate
    from otgan.cost_potential import KantorovichPotential
    from otgan.measures import DiscreteMeasure, Source
    from otgan.potential import BrenierPotential

Status = Literal["converged", "max_iter", "max_time", "stalled", "interrupted", "stopped"]


@dataclass(frozen=True)
class Plan:
    """An optimal coupling of two discrete measures, with its duals for the cost |x-y|^2; ``|x-y|^p / p`` for p != 2.

    Attributes:
        matrix: sparse (m, n) coupling with row sums a and column sums b.
        source_dual: f, shape (m,).
        target_dual: g, shape (n,): ``f_k + g_i`` is at most the cost of (x_k, y_i), and equal where the plan has mass.
    """

    matrix: coo_array
    source_dual: Tensor
    target_dual: Tensor


@dataclass(frozen=True)
class Result:
    """Outcome of :func:`otgan.solve`.

    Attributes:
        potential: the Brenier potential (for p != 2 the Kantorovich potential): generator, critic and masses are read
            off it.
        source: mu.
        target: nu, duplicates merged.
        method: the solver that ran.
        reason: why that one, in a sentence.
        status: "converged", or why not: "max_iter", "max_time", "stalled", "interrupted", "stopped" (by a callback).
        message: the status as a sentence that says what to do next.
        tol: the bar that was asked for.
        n_iter: iterations.
        n_scores: (sample, target) scores computed; 0 for exact geometry.
        n_samples: source samples drawn by the solver.
        seconds: wall-clock time of the solve, the certificate not counted.
        history: one dictionary a measurement.
        certificate: masses and W2 on samples that the solver did not see.
        plan: the optimal coupling, where the source is discrete and the method exact.
        value: ``W2^2(mu, nu)``, for p != 2 the least cost ``W_p^p / p``, where it was computed exactly (not sampled).
        masses: exact cell masses ``w_i``, shape (n,), where the solver integrates.
        centroids: exact centres of mass of the cells, shape (n, d), likewise: the best constant inverse of the map.
    """

    potential: BrenierPotential | KantorovichPotential
    source: Source
    target: DiscreteMeasure
    method: str
    reason: str
    status: Status
    message: str
    tol: float
    n_iter: int
    n_scores: int
    n_samples: int
    seconds: float
    history: list[dict[str, Any]] = field(repr=False)
    certificate: Certificate = field(repr=False)
    plan: Plan | None = field(default=None, repr=False)
    value: float | None = None
    masses: Tensor | None = field(default=None, repr=False)
    centroids: Tensor | None = field(default=None, repr=False)

    @property
    def converged(self) -> bool:
        """Whether ``tol`` was reached."""
        return self.status == "converged"

    def summary(self) -> str:
        """A few lines of text: what ran, how it ended, what is certified."""
        work = f"{self.n_iter} iterations, {self.seconds:.1f} s"
        return f"{self.method}: {self.message} ({work})\n{self.reason}\n{self.certificate.table()}"

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; see :func:`otgan.load`."""
        from otgan.solvers.saving import save_result

        return save_result(self, path)


class ConvergenceError(RuntimeError):
    """The solver ended without reaching ``tol``; nothing is lost: :attr:`result` is the best it has."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.message)
        self.result = result
