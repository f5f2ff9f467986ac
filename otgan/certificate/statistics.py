"""Estimates from samples, and their standard errors."""

from __future__ import annotations

import torch
from torch import Tensor


def chi2_estimate(counts: Tensor, weights: Tensor) -> tuple[float, float]:
    """Unbiased estimate of ``sum_i (w_i - b_i)^2 / b_i`` from cell counts, and its standard error.

    ``sum_i c_i (c_i - 1) / (M (M - 1) b_i) - 1``: a U-statistic of order two with the kernel ``1{i = j} / b_i``. Its
    variance is ``4 z_1 / M + 2 z_2 / M^2`` to leading order (Hoeffding 1948), where
    ``z_1 = sum w^3/b^2 - (sum w^2/b)^2`` is estimated without bias from triples and
    ``z_2 = sum w^2/b^2 - (sum w^2/b)^2`` from pairs.

    Args:
        counts: c_i, shape (n,), samples in each cell.
        weights: b_i, shape (n,), sum 1.
    """
    c, b = counts.double(), weights.double().to(counts.device)
    m = float(c.sum())
    if m < 2:
        raise ValueError(f"chi2 needs at least 2 samples, got {m:.0f}.")
    seen = c > 0
    c, b = c[seen], b[seen]
    ratio = (c - 1) / (m - 1) / b
    theta = float((c / m * ratio).sum())
    triples = float((c / m * ratio * ((c - 2) / max(m - 2, 1.0) / b)).sum())
    first = max(triples - theta**2, 0.0)
    second = max(float((c / m / b * ratio).sum()) - theta**2, 0.0)
    return theta - 1.0, (4.0 * first / m + 2.0 * second / m**2) ** 0.5


class Moments:
    """Running mean of values, with a control variate of known mean, and its standard error; in float64, by blocks.

    The values' regression on the control is removed: ``mean v - beta (mean c - E c)``, ``beta = cov(v, c) / var c``.

    Args:
        expected: E c.
    """

    def __init__(self, expected: float) -> None:
        self._expected = expected
        self._count, self._mass = 0, 0.0
        self._means, self._moments = torch.zeros(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)

    def add(self, values: Tensor, controls: Tensor, mass: Tensor) -> None:
        """Take a block of values, controls and masses in (Chan, Golub, LeVeque 1979)."""
        pair = torch.stack([values, controls])
        block = float(mass.sum())
        means = pair @ mass / block
        delta, total = means - self._means, self._mass + block
        centred = pair - means[:, None]
        self._moments += (centred * mass) @ centred.T + torch.outer(delta, delta) * (self._mass * block / total)
        self._means += delta * (block / total)
        self._mass, self._count = total, self._count + values.numel()

    @property
    def _beta(self) -> float:
        variance = float(self._moments[1, 1])
        return float(self._moments[0, 1]) / variance if variance > 0.0 else 0.0

    @property
    def mean(self) -> float:
        """The adjusted mean."""
        return float(self._means[0]) - self._beta * (float(self._means[1]) - self._expected)

    @property
    def stderr(self) -> float:
        """Standard error of the adjusted mean of independent values of equal mass."""
        left = max(float(self._moments[0, 0]) - self._beta * float(self._moments[0, 1]), 0.0)
        return (left / self._mass / max(self._count - 2, 1)) ** 0.5
