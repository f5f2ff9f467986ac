"""What Newton's method found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from otgan.cells.base import CellMoments

    Floats = NDArray[np.float64]

MESSAGES = {
    "converged": "Every cell has its weight within the tolerance.",
    "max_iter": "The iteration limit was reached: raise max_iter.",
    "max_time": "The time limit was reached: raise max_time.",
    "interrupted": "Stopped from outside; the heights so far are returned.",
    "stalled": (
        "No step reduces the error further: merge targets that nearly coincide, bring source and targets nearer to the "
        "origin and to one scale, or ask for a larger tol."
    ),
    "singular": (
        "The Hessian is singular: no mass flows between some of the cells, as when the source's support is not "
        "connected. Add a small uniform part to the source, or change the weights slightly."
    ),
    "empty_cells": (
        "No start was found at which every cell has positive mass: bring source and targets nearer to the origin and "
        "to one scale, or add a small uniform part to the source."
    ),
}


@dataclass(frozen=True)
class NewtonOutcome:
    """What `newton` found.

    Attributes:
        heights: shape (n,), with ``sum_i b_i h_i = 0``.
        masses: cell masses at ``heights``, shape (n,).
        moments: all integrals at ``heights``, without the Hessian.
        n_iter: Newton steps taken, those of auxiliary problems included.
        status: one of the keys of `MESSAGES`.
        message: what happened and, unless converged, what to do.
        error: ``max_i |w_i / b_i - 1|`` at ``heights``.
        history: one dict a step: "step", "error", "damping", "seconds" since the call, and "stage": "source", or the
            name of the easier problem that the step, and its error, belong to. Step 0 is the start.
    """

    heights: Floats
    masses: Floats
    moments: CellMoments
    n_iter: int
    status: str
    message: str
    error: float
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def converged(self) -> bool:
        """Whether ``error`` reached the tolerance."""
        return self.status == "converged"
