"""The target measure: finitely many weighted points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_points, as_weights

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class DiscreteMeasure:
    """Target ``nu = sum_i b_i delta(y_i)`` with ``b_i > 0`` and ``sum b_i = 1``.

    Equal points are merged, their weights added: two cells of one point cannot be told apart by any transport. The
    merged points keep the order of first appearance, so without duplicates nothing moves; :attr:`index` leads from
    the rows that were given to the merged points, :meth:`expand` carries values back.

    Args:
        points: ``y_i``, shape (n, d).
        weights: ``b_i``, shape (n,), all > 0; normalised. Uniform when left out.

    Attributes:
        points: the distinct points, shape (n, d), in the dtype and on the device that were given.
        weights: shape (n,), float64 on the CPU.
        index: for each given row, its merged point, shape (n_given,), int64.

    Example:
        >>> DiscreteMeasure([[0.0], [1.0], [0.0]]).weights
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """

    def __init__(self, points: ArrayLike, weights: ArrayLike | None = None) -> None:
        given = as_points(points, "points")
        given_weights = as_weights(weights, given.shape[0])
        first, index = _merge(given)
        self.index = torch.from_numpy(index)
        if len(first) == given.shape[0]:
            self.points, self.weights = given.clone(), given_weights
        else:
            self.points = given[torch.from_numpy(first).to(given.device)]
            self.weights = torch.zeros(len(first), dtype=torch.float64).index_add_(0, self.index, given_weights)

    @classmethod
    def of(cls, target: DiscreteMeasure | ArrayLike) -> DiscreteMeasure:
        """``target`` itself if it is a measure, else the uniform measure on an array of points."""
        return target if isinstance(target, cls) else cls(target)  # type: ignore[arg-type]

    @property
    def n(self) -> int:
        """Number of distinct points."""
        return int(self.points.shape[0])

    @property
    def n_given(self) -> int:
        """Number of rows that were given, duplicates included."""
        return int(self.index.shape[0])

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.points.shape[1])

    @property
    def mean(self) -> Tensor:
        """``sum_i b_i y_i``, shape (d,), float64."""
        return self.weights @ self.points.to(device="cpu", dtype=torch.float64)

    @property
    def variance(self) -> float:
        """``sum_i b_i |y_i - mean|^2``."""
        centred = self.points.to(device="cpu", dtype=torch.float64) - self.mean
        return float(self.weights @ (centred**2).sum(dim=1))

    @property
    def second_moment(self) -> float:
        """``sum_i b_i |y_i|^2``."""
        mean = self.mean
        return self.variance + float(mean @ mean)

    def expand(self, values: ArrayLike) -> Tensor:
        """Carry one value per distinct point, shape (n, ...), to the rows that were given, shape (n_given, ...)."""
        tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
        if tensor.shape[:1] != (self.n,):
            raise ValueError(f"values must have {self.n} rows, one a distinct point, got shape {tuple(tensor.shape)}.")
        return tensor[self.index.to(tensor.device)]

    def __repr__(self) -> str:
        merged = "" if self.n == self.n_given else f", merged from {self.n_given}"
        return f"DiscreteMeasure(n={self.n}, dim={self.dim}{merged})"


def _merge(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """First rows of each distinct point, in order of appearance, and for each row the number of its point.

    Rows are sorted by one linear functional of them; equal rows have equal values, so where all values differ there
    is nothing to merge, and only runs of equal values are compared exactly.
    """
    rows = np.ascontiguousarray(points.cpu().numpy()) + 0.0  # -0.0 and 0.0 are one number
    n, d = rows.shape
    identity = np.arange(n)
    with np.errstate(over="ignore", invalid="ignore"):
        key = (rows * np.random.default_rng(0).uniform(1.0, 2.0, d)).astype(np.float64).sum(axis=1)
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    same |= ~np.isfinite(key[order][1:])  # an overflowing functional decides nothing
    if not same.any():
        return identity, identity
    suspect = np.zeros(n, dtype=bool)
    suspect[order[1:][same]] = suspect[order[:-1][same]] = True
    where = np.flatnonzero(suspect)
    _, first, inverse = np.unique(rows[where], axis=0, return_index=True, return_inverse=True)
    representative = identity.copy()
    representative[where] = where[first][inverse.reshape(-1)]
    kept = np.flatnonzero(representative == identity)
    number = np.empty(n, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    return kept, number[representative]
