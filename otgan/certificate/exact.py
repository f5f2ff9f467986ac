"""The certificate from exact integrals over the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otgan.certificate.base import Certificate
from otgan.certificate.coupling import repair

if TYPE_CHECKING:
    from torch import Tensor

    from otgan.measures import DiscreteMeasure, Source


def certify_exact(
    source: Source, target: DiscreteMeasure, heights: Tensor, masses: np.ndarray, first: np.ndarray
) -> Certificate:
    """The certificate from exact integrals over the cells: no sampling, errors at the level of rounding.

    With x' and y' centred, f' the first moments of the cells and ``h'_i = h_i + <E x, y'_i>``:
    ``E |x' - T|^2 = E |x'|^2 + sum_i w_i |y'_i|^2 - 2 sum_i <f'_i, y'_i>`` and
    ``D(h) = E |x'|^2 / 2 + sum_i b_i |y'_i|^2 / 2 - sum_i (<f'_i, y'_i> + (w_i - b_i) h'_i)``,
    which is ``W2^2 / 2`` up to second order in the error of the masses.

    Args:
        source: mu.
        target: nu.
        heights: h, shape (n,).
        masses: w, shape (n,).
        first: integral of x over each cell, shape (n, d).
    """
    b, points = target.weights.cpu().numpy(), target.points.double().cpu().numpy()
    mean, middle = source.mean.numpy(), target.mean.numpy()
    y, moment = points - middle, first - masses[:, None] * mean
    shifted = heights.double().cpu().numpy() + y @ mean
    shifted = shifted - b @ shifted
    correlation, square = float((moment * y).sum()), (y**2).sum(axis=1)
    cost = max(source.variance + float(masses @ square) - 2 * correlation, 0.0)
    twice_dual = source.variance + float(b @ square) - 2 * correlation - 2 * float((masses - b) @ shifted)
    twice_dual = max(twice_dual, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        fix = repair(y, masses, b, moment / masses[:, None])
    upper = max(min((cost**0.5 + fix.gap2**0.5) ** 2, cost + fix.excess), twice_dual)
    shift2 = float(((mean - middle) ** 2).sum())
    return Certificate(
        chi2=float(((masses - b) ** 2 / b).sum()),
        chi2_stderr=0.0,
        l1=float(np.abs(masses - b).sum()),
        max_ratio=float(np.abs(masses / b - 1).max()),
        empty_cells=int((masses <= 0).sum()),
        w2_lower=(twice_dual + shift2) ** 0.5,
        w2_upper=(upper + shift2) ** 0.5,
        n_samples=0,
        n_targets=target.n,
        exact=True,
        dual=(twice_dual + shift2) / 2,
        transport_cost=cost + shift2 - 2 * float((masses - b) @ (y @ (mean - middle))),
        target_gap=fix.gap2**0.5,
    )
