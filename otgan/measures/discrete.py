"""The target measure: finitely many weighted points."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_points, as_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgan._checks import ArrayLike

CHUNK = 2**19
"""Numbers read at once: 4 MB of float64."""


class DiscreteMeasure:
    """Target ``nu = sum_i b_i delta(y_i)`` with ``b_i > 0`` and ``sum b_i = 1``.

    Equal points are merged, their weights added: two cells of one point cannot be told apart by any transport. The
    merged points keep the order of first appearance, so without duplicates nothing moves; :attr:`index` leads from
    the rows that were given to the merged points, :meth:`expand` carries values back.

    A memory-mapped array that was opened read-only (``np.load(path, mmap_mode="r")``, ``np.memmap(..., mode="r")``) is
    used where it lies: without duplicates nothing of it is copied, and it is read in chunks. Anything else is copied,
    so that the measure does not follow its array; do not write to the file, nor into :attr:`points`, of a mapped one.

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
        mapped = _mapped(points)
        given = as_points(points if mapped is None else mapped, "points")
        given_weights = as_weights(weights, given.shape[0])
        first, index = _merge(given)
        self.index = torch.from_numpy(index)
        if len(first) == given.shape[0]:
            self.points, self.weights = given if mapped is not None else given.clone(), given_weights
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
        total = torch.zeros(self.dim, dtype=torch.float64)
        for rows in _chunks(self.n, self.dim):
            total += self.weights[rows] @ self.points[rows].to(device="cpu", dtype=torch.float64)
        return total

    @property
    def variance(self) -> float:
        """``sum_i b_i |y_i - mean|^2``."""
        mean, total = self.mean, 0.0
        for rows in _chunks(self.n, self.dim):
            centred = self.points[rows].to(device="cpu", dtype=torch.float64) - mean
            total += float(self.weights[rows] @ (centred**2).sum(dim=1))
        return total

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


def _mapped(points: object) -> Tensor | None:
    """A read-only mapped file of native floats as a tensor of the same memory; None for anything else."""
    if not isinstance(points, np.memmap) or points.flags.writeable:
        return None
    if points.dtype not in (np.float32, np.float64) or not points.dtype.isnative or min(points.strides, default=1) < 0:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.asarray(points))


def _chunks(n: int, d: int) -> Iterator[slice]:
    """Slices of the rows 0 .. n - 1 of CHUNK numbers each, about."""
    size = max(1, CHUNK // max(1, d))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _merge(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """First rows of each distinct point, in order of appearance, and for each row the number of its point.

    Rows are sorted by one linear functional of them; equal rows have equal values, so where all values differ there
    is nothing to merge. In a run of equal values each row is compared with the first; the few that differ from it,
    distinct points whose values round to one number, are left to a sort of whole rows. The points are read in chunks.
    """
    rows = points.cpu().numpy()
    n, d = rows.shape
    identity = np.arange(n)
    functional, key = np.random.default_rng(0).uniform(1.0, 2.0, d), np.empty(n)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in _chunks(n, d):
            key[part] = (np.ascontiguousarray(rows[part]) * functional).sum(axis=1)
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    same |= ~np.isfinite(key[order][1:])  # an overflowing functional decides nothing
    if not same.any():
        return identity, identity
    begins = np.flatnonzero(np.concatenate(([True], ~same)))
    leader = np.repeat(order[begins], np.diff(np.append(begins, n)))  # stable: the first row of its run
    later = np.flatnonzero(leader != order)
    representative, apart = identity.copy(), []
    for part in _chunks(len(later), d):
        at = later[part]
        mine, first = order[at], leader[at]
        equal = (rows[mine] == rows[first]).all(axis=1)
        representative[mine[equal]] = first[equal]
        apart.append(mine[~equal])
    where = np.sort(np.concatenate(apart))
    if len(where):
        # Rows equal to one of these are all among them: they share its run, and they differ from its first row.
        _, first, inverse = np.unique(rows[where] + 0.0, axis=0, return_index=True, return_inverse=True)
        representative[where] = where[first][inverse.reshape(-1)]
    kept = np.flatnonzero(representative == identity)
    number = np.empty(n, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    return kept, number[representative]
