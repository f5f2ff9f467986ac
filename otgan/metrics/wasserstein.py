"""Wasserstein distances of two point clouds: exact for few points, over random lines for many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_count, as_points, make_generator
from otgan.metrics._points import Estimate, pair, unit_of

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_EXACT = 25_000_000  # entries of the cost matrix of the exact distance
_BLOCK = 1 << 22  # projected coordinates at a time


def sliced_w2(
    a: ArrayLike,
    b: ArrayLike,
    n_projections: int = 256,
    *,
    projections: ArrayLike | None = None,
    seed: int = 0,
) -> Estimate:
    """Sliced Wasserstein distance, ``SW2^2 = mean over unit directions t of W2^2(<t, a>, <t, b>)``.

    Each W2 on a line is exact: the integral of the squared difference of the two quantile functions, whose steps are
    merged when the clouds differ in size. There is no division by d: ``SW2 <= W2 / sqrt(d)``, and two clouds that
    differ by a shift v have ``SW2 = |v| / sqrt(d)`` in the mean over directions. Clouds of one law have SW2 > 0, of
    the order ``n^(-1/2)``: read it beside the value of real points against real points of the same sizes.

    Args:
        a: (m, d).
        b: (n, d).
        n_projections: random directions, at least 2.
        projections: directions of one's own instead, shape (d, L), columns of length one.
        seed: of the directions.

    Returns:
        SW2, in the unit of the points, and its standard error over the directions (delta method).

    Raises:
        ValueError: for bad shapes, NaN, or directions that are not of length one.

    Source:
        Rabin, Peyre, Delon, Bernot, "Wasserstein barycenter and its application to texture mixing" (2011); Bonneel,
        Rabin, Peyre, Pfister (2015).

    Example:
        >>> sliced_w2([[0.0], [1.0]], [[2.0], [3.0]]).value
        2.0
    """
    x, y = pair(a, b)
    dim = x.shape[1]
    if projections is None:
        count = as_count(n_projections, "n_projections", 2)
        draws = torch.randn(dim, count, generator=make_generator(seed), dtype=torch.float64)
        lines = (draws / torch.linalg.vector_norm(draws, dim=0)).to(x.device)
    else:
        lines = as_points(projections, "projections").double().to(x.device)
        lengths = torch.linalg.vector_norm(lines, dim=0)
        if lines.shape[0] != dim or lines.shape[1] < 2 or float((lengths - 1).abs().max()) > 1e-5:
            raise ValueError(
                f"projections must have shape ({dim}, L), L >= 2, with columns of length 1, got {tuple(lines.shape)} "
                f"with lengths {float(lengths.min()):.3g} to {float(lengths.max()):.3g}."
            )
    centre, unit = unit_of(x, y)
    x, y = (x - centre) / unit, (y - centre) / unit
    block = max(1, _BLOCK // (len(x) + len(y)))
    squares = torch.cat([_line_w2(x @ part, y @ part) for part in lines.split(block, dim=1)])
    mean, error = float(squares.mean()), float(squares.std()) / len(squares) ** 0.5
    value = max(mean, 0.0) ** 0.5
    return Estimate(unit * value, unit * error / (2 * value) if value > 0 else 0.0)


def _line_w2(a: Tensor, b: Tensor) -> Tensor:
    """W2^2 of each pair of columns, (m, L) and (n, L) to (L,)."""
    a, b = a.T.contiguous().sort(dim=1).values, b.T.contiguous().sort(dim=1).values
    m, n = a.shape[1], b.shape[1]
    if m == n:
        return (a - b).square_().mean(dim=1)
    # Steps of the quantile functions at i/m and j/n, in whole multiples of 1/(m n): merged without rounding.
    cuts = np.union1d(np.arange(1, m + 1, dtype=np.int64) * n, np.arange(1, n + 1, dtype=np.int64) * m)
    start = np.concatenate([[0], cuts[:-1]])
    mass = torch.from_numpy((cuts - start) / (m * n)).to(a.device)
    i, j = torch.from_numpy(start // n).to(a.device), torch.from_numpy(start // m).to(a.device)
    return (a[:, i] - b[:, j]).square_() @ mass


def w2(a: ArrayLike, b: ArrayLike) -> float:
    """Wasserstein distance ``W2(a, b)``, exactly: an assignment, or a network simplex for clouds of different sizes.

    Args:
        a: (m, d).
        b: (n, d); m n at most 25 million.

    Returns:
        W2, in the unit of the points. Its value for clouds of one law falls as slowly as ``n^(-1/d)``: compare with
        real points of the same sizes.

    Raises:
        ValueError: for bad shapes, NaN, or too many points (use :func:`sliced_w2`).

    Example:
        >>> w2([[0.0], [1.0]], [[3.0], [2.0]])
        2.0
    """
    x, y = pair(a, b)
    if len(x) * len(y) > _EXACT:
        raise ValueError(
            f"{len(x):,} x {len(y):,} pairs are too many for the exact W2 (at most {_EXACT:,}); take subsets of equal "
            "size, or use sliced_w2."
        )
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    centre, unit = unit_of(x, y)
    cost = cdist(((x - centre) / unit).cpu().numpy(), ((y - centre) / unit).cpu().numpy(), "sqeuclidean")
    if len(x) == len(y):
        return unit * float(cost[linear_sum_assignment(cost)].mean()) ** 0.5
    import ot

    empty = np.empty(0)
    return unit * max(float(ot.emd2(empty, empty, cost, numItermax=5_000_000)), 0.0) ** 0.5
