"""Energy distance and maximum mean discrepancy: unbiased, in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_count, as_length
from otgan.metrics._pairs import Function, pair_sums
from otgan.metrics._points import cloud, pair, random_rows

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_MEDIAN_POINTS = 2000
_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the mixture, in bandwidths: each twice the one before

Kernel = Literal["mixture", "gaussian"]


def energy(a: ArrayLike, b: ArrayLike, *, unbiased: bool = True) -> float:
    """Energy distance ``D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'|``, zero only for equal laws.

    Args:
        a: (m, d), at least 2 points when unbiased.
        b: (n, d), likewise.
        unbiased: leave the pairs of a point with itself out (U-statistic): the mean is then D^2, which for clouds of
            one law is 0, and single values can be negative. Otherwise the squared distance of the two empirical
            measures (V-statistic), never negative.

    Returns:
        D^2, in the unit of the points (not its square).

    Raises:
        ValueError: for bad shapes, NaN, or too few points.

    Source:
        Szekely, Rizzo, "Energy statistics: a class of statistics based on distances" (2013).

    Example:
        >>> energy([[0.0], [0.0]], [[1.0], [1.0]])
        2.0
    """
    least = 2 if unbiased else 1
    x, y = pair(a, b, least=(least, least))
    return _difference(x, y, lambda squares: squares.sqrt_(), 0.0, unbiased, sign=-1.0)


def mmd2(
    a: ArrayLike,
    b: ArrayLike,
    *,
    kernel: Kernel = "mixture",
    bandwidth: float | None = None,
    unbiased: bool = True,
    seed: int = 0,
) -> float:
    """Squared maximum mean discrepancy ``E k(X, X') + E k(Y, Y') - 2 E k(X, Y)``.

    The Gaussian kernel is ``k(x, y) = exp(-|x - y|^2 / (2 s^2))`` with bandwidth s. The mixture is the mean of the five
    with s/4, s/2, s, 2s, 4s: it sees differences at all these scales, and no tuning is needed. Either is characteristic
    and bounded by 1, so MMD^2 has no unit.

    Args:
        a: (m, d), at least 2 points when unbiased.
        b: (n, d), likewise.
        kernel: "mixture" or "gaussian".
        bandwidth: s; the median heuristic, the median distance of pooled points, when left out. Values with
            different bandwidths cannot be compared: fix it (see :func:`median_distance`) to compare generators.
        unbiased: leave the pairs of a point with itself out (U-statistic): the mean is then MMD^2, which for clouds of
            one law is 0, and single values can be negative.
        seed: of the points that the median is taken of.

    Raises:
        ValueError: for bad shapes, NaN, too few points, an unknown kernel, or points that all coincide.

    Source:
        Gretton, Borgwardt, Rasch, Scholkopf, Smola, "A kernel two-sample test" (JMLR 2012).

    Example:
        >>> round(mmd2([[0.0], [0.0]], [[9.0], [9.0]], kernel="gaussian", bandwidth=1.0), 6)
        2.0
    """
    least = 2 if unbiased else 1
    x, y = pair(a, b, least=(least, least))
    if bandwidth is None:
        width = median_distance(torch.cat([x, y]), seed=seed)
    else:
        width = as_length(bandwidth, "bandwidth")
    return _difference(x, y, _kernel(kernel, width), 1.0, unbiased, sign=1.0)


def median_distance(points: ArrayLike, *, seed: int = 0) -> float:
    """Median of the distances between different points, of at most 2,000 drawn at random: the usual bandwidth.

    Args:
        points: (n, d), n >= 2.
        seed: of the draw.

    Raises:
        ValueError: where more than half of the distances are 0, so that they give no scale.
    """
    x = cloud(points, "points", 2)
    x = random_rows(x, _MEDIAN_POINTS, np.random.default_rng(as_count(seed, "seed")))
    from scipy.spatial.distance import pdist

    median = float(np.median(pdist(x.cpu().numpy())))
    if median == 0.0:
        raise ValueError("more than half of the points coincide: they give no scale; pass bandwidth.")
    return median


def _kernel(kernel: str, width: float) -> Function:
    if kernel == "gaussian":
        return lambda squares: squares.mul_(-0.5 / width**2).exp_()
    if kernel != "mixture":
        raise ValueError(f"kernel must be 'mixture' or 'gaussian', got {kernel!r}.")

    def mixture(squares: Tensor) -> Tensor:
        # Halving the bandwidth is a fourth power: one exponential serves all five.
        power = squares.mul_(-0.5 / (_WIDTHS[-1] * width) ** 2).exp_()
        total = power.clone()
        for _ in _WIDTHS[1:]:
            power.square_().square_()
            total.add_(power)
        return total.div_(len(_WIDTHS))

    return mixture


def _difference(x: Tensor, y: Tensor, function: Function, at_zero: float, unbiased: bool, sign: float) -> float:
    """``sign (E f(X, X') + E f(Y, Y') - 2 E f(X, Y))`` with f of squared distances, ``at_zero`` = f(0)."""
    m, n = len(x), len(y)
    cross, own_x, own_y = pair_sums(x, y, function)
    if unbiased:
        within = own_x / (m * (m - 1)) + own_y / (n * (n - 1))
    else:
        within = (own_x + m * at_zero) / m**2 + (own_y + n * at_zero) / n**2
    return sign * (within - 2.0 * cross / (m * n))
