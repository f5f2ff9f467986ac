"""The data-copying test C_T: are samples nearer to the training points than held-out points are, cell by cell?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otgan import kernels
from otgan._checks import as_count
from otgan.metrics._neighbours import nearest
from otgan.metrics._points import Estimate, TooFewError, pair, random_rows, unit_of

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_CELLS, _POINTS_A_CELL = 10, 50
_FEW = 20  # samples, and held-out points, without which a cell says nothing
_ROUNDS = 50
_FITTED = 10_000  # training points that k-means sees


def data_copying(
    samples: ArrayLike, test: ArrayLike, train: ArrayLike, *, n_cells: int | None = None, seed: int = 0
) -> Estimate:
    """Data-copying statistic ``C_T = sum_c p_c Z_c / sum_c p_c`` over the cells of a k-means partition of train.

    In cell c, Z_c is the z-score of the Mann-Whitney statistic (normal approximation, ties corrected) that compares
    the distances of samples and of held-out points to the nearest training point of the cell; p_c is the share of the
    held-out points. Cells with fewer than 20 samples or held-out points are left out.

    **Negative: samples are systematically nearer to the training points than fresh data is (copying). Positive:
    systematically farther (underfitting).** For fresh samples each Z_c is standard normal, so that C_T has mean 0 and
    standard deviation ``(sum p_c^2)^(1/2) / sum p_c``, at most 1: below -3 is significant whatever the cells.

    Args:
        samples: (m, d).
        test: (n, d), held out.
        train: (l, d).
        n_cells: cells, at most l; one for every 50 held-out points, 1 to 10, when left out.
        seed: of k-means.

    Returns:
        C_T, and its standard deviation for fresh samples.

    Raises:
        ValueError: for bad shapes, NaN, too many cells, or no cell with enough points.

    Source:
        Meehan, Chaudhuri, Dasgupta, "A non-parametric test to detect data-copying in generative models" (AISTATS
        2020); the correction for ties is Hollander's and Wolfe's.
    """
    x, y = pair(samples, train, ("samples", "train"))
    _, z = pair(samples, test, ("samples", "test"))
    partition = Partition.of(y, n_cells if n_cells is not None else default_cells(len(z)), seed)
    return copying(partition.reach(x), partition.reach(z))


def default_cells(n_test: int) -> int:
    """One cell for every 50 held-out points, 1 to 10."""
    return max(1, min(_CELLS, n_test // _POINTS_A_CELL))


@dataclass(frozen=True)
class Reach:
    """Cell of each point, and its distance to the nearest training point of that cell."""

    cell: NDArray[np.int64]
    distance: NDArray[np.float64]

    def take(self, index: NDArray[np.int64]) -> Reach:
        """Some of the points."""
        return Reach(self.cell[index], self.distance[index])


@dataclass(frozen=True)
class Partition:
    """Training points in the Voronoi cells of their k-means centres.

    Attributes:
        train: (l, d).
        centres: (k, d).
        cell: of each training point, (l,).
    """

    train: Tensor
    centres: Tensor
    cell: Tensor

    @classmethod
    def of(cls, train: Tensor, n_cells: int, seed: int) -> Partition:
        """Fit to training points, shape (l, d); cells without one are dropped."""
        n_cells, seed = as_count(n_cells, "n_cells", 1), as_count(seed, "seed")
        if n_cells > len(train):
            raise TooFewError(f"n_cells = {n_cells} needs as many training points, got {len(train)}.")
        centres = _lloyd(random_rows(train, _FITTED, rng := np.random.default_rng(seed)), n_cells, rng)
        cell = nearest(train, centres, 1)[0][:, 0]
        kept = torch.unique(cell)
        centres = centres[kept]
        return cls(train, centres, nearest(train, centres, 1)[0][:, 0])

    def reach(self, points: Tensor) -> Reach:
        """Where points, shape (m, d), are, and how far from the training points there."""
        cell = nearest(points, self.centres, 1)[0][:, 0]
        distance = torch.empty(len(points), dtype=torch.float64, device=points.device)
        for number in torch.unique(cell).tolist():
            here = cell == number
            distance[here] = nearest(points[here], self.train[self.cell == number], 1)[1][:, 0]
        return Reach(cell.cpu().numpy(), distance.cpu().numpy())


def _lloyd(points: Tensor, k: int, rng: np.random.Generator) -> Tensor:
    """At most k centres by Lloyd's iterations from k-means++ (Arthur, Vassilvitskii 2007)."""
    centre, unit = unit_of(points)
    x = ((points - centre) / unit).float()
    chosen = [int(rng.integers(len(x)))]
    for _ in range(k - 1):
        gap = torch.stack([(x - x[i]).square().sum(dim=1) for i in chosen]).amin(dim=0).double().cpu().numpy()
        if gap.sum() == 0.0:  # fewer different points than cells
            break
        chosen.append(int(rng.choice(len(x), p=gap / gap.sum())))
    centres, before = x[chosen], None
    for _ in range(_ROUNDS):
        cell = kernels.assign(x, centres, -centres.square().sum(dim=1) / 2).index
        if before is not None and torch.equal(cell, before):
            break
        counts = torch.bincount(cell, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, cell, x)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        before = cell
    return centres.double() * unit + centre


def copying(samples: Reach, test: Reach) -> Estimate:
    """C_T and its standard deviation under the null; see :func:`data_copying`."""
    shares, scores = [], []
    for number in np.unique(test.cell):
        ours, theirs = samples.distance[samples.cell == number], test.distance[test.cell == number]
        if min(len(ours), len(theirs)) >= _FEW:
            shares.append(len(theirs) / len(test.cell))
            scores.append(mann_whitney(ours, theirs))
    if not shares:
        raise TooFewError(
            f"no cell holds {_FEW} samples and {_FEW} held-out points ({len(samples.cell)} and {len(test.cell)} in "
            "all); pass more points, or fewer cells."
        )
    weights = np.array(shares) / sum(shares)
    return Estimate(float(weights @ np.array(scores)), float(np.sqrt(weights @ weights)))


def mann_whitney(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """z-score of ``#{a_i > b_j} + #{a_i = b_j} / 2``: negative when a is the smaller; 0 when all are equal."""
    from scipy.stats import rankdata

    m, n = len(a), len(b)
    ranks = rankdata(np.concatenate([a, b]))
    ties = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    total = m + n
    variance = m * n / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    above = float(ranks[:m].sum()) - m * (m + 1) / 2 - m * n / 2
    return above / variance**0.5 if variance > 0 else 0.0
