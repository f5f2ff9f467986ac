"""What every cell oracle answers: heights in, measures of the power cells out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CellMoments:
    """Integrals over the power cells ``W_i(h) = {x : <x, y_i> + h_i >= <x, y_j> + h_j for all j}``.

    Attributes:
        masses: ``w_i = mu(W_i)``, shape (n,), sum 1. An empty cell has exactly 0.
        first: ``integral over W_i of x dmu``, shape (n, d).
        hessian: ``d w_i / d h_j``, the sparse (n, n) Hessian of the energy; ``None`` when it was not asked for.
    """

    masses: Floats
    first: Floats
    hessian: csr_array | None = None

    @property
    def centroids(self) -> Floats:
        """Centres of mass of the cells, shape (n, d); NaN for an empty cell."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.first / self.masses[:, None]

    def mean_potential(self, points: Floats, heights: Floats) -> float:
        """``integral u_h dmu = sum_i <first_i, y_i> + h_i w_i``."""
        return float(np.einsum("ij,ij->", self.first, points) + heights @ self.masses)


class ExactCells(ABC):
    """Exact power cells of ``points`` under one source measure.

    Built once for a source and its targets, then called with heights as often as wanted; an implementation may
    keep what it learnt (neighbours, say) from one call to the next, but never lets it change an answer.

    Args:
        points: targets ``y_i``, shape (n, d), float64, pairwise distinct.
    """

    def __init__(self, points: Floats) -> None:
        self.points = points

    @abstractmethod
    def moments(self, heights: Floats, hessian: bool = True) -> CellMoments:
        """Masses, first moments and (on request) the Hessian at ``heights``, shape (n,)."""

    @property
    @abstractmethod
    def second_moment(self) -> float:
        """``E |x|^2`` under the source."""

    def start(self, weights: Floats) -> Floats:
        """Heights at which every cell has positive mass, shape (n,): where a Newton method may start.

        For a strictly convex function f, ``h_i = -f(y_i)`` puts the point ``grad f(y_i)`` into cell i. Here f is
        quadratic and its gradient ``y -> m + s (y - c)`` takes the centre c of the targets to the mean m of the source;
        s is halved until no cell is empty.

        Args:
            weights: target weights b, shape (n,).

        Raises:
            RuntimeError: if cells stay empty, because the density vanishes around its mean.
        """
        n, dim = self.points.shape
        mean = self.moments(np.zeros(n), hessian=False).first.sum(axis=0)
        centred = self.points - weights @ self.points / weights.sum()
        spread = float(np.sqrt(max(self.second_moment - mean @ mean, 0.0) / dim))
        size = float(np.sqrt((centred**2).sum(axis=1).max()))
        factor = spread / size if size > 0.0 else 1.0
        for _ in range(40):
            heights = -(centred @ mean) - 0.5 * factor * (centred**2).sum(axis=1)
            if self.moments(heights, hessian=False).masses.min() > 0.0:
                return heights
            factor /= 2.0
        msg = "no start was found at which every cell has positive mass: pass start heights yourself"
        raise RuntimeError(msg)

    def reordered(self) -> tuple[ExactCells, NDArray[np.int64]]:
        """The same problem with neighbouring targets near each other in memory, and the order ``new = old[order]``."""
        return self, np.arange(len(self.points))

    def blended(self, share: float, other: ExactCells | None = None) -> ExactCells | None:
        """The same targets under ``(1 - share) mu + share nu`` with nu positive on the whole domain, share in (0, 1].

        Newton's method passes through such sources when mu vanishes where cells start. ``None`` when there is no need
        or no such nu.

        Args:
            share: of nu.
            other: cells of the same targets under nu; ``None`` for the uniform measure on the domain.
        """
        return None

    def smoothed(self, width: float) -> ExactCells | None:
        """The same targets under mu convolved with a kernel of scale ``width``: positive on the whole domain.

        Halving ``width`` changes that density by a bounded factor everywhere, far from mu's support as well.
        ``None`` for a source that is not smoothed.
        """
        return None

    def with_points(self, points: Floats) -> ExactCells | None:
        """Cells of other targets, shape (m, d), under the same source; ``None`` where that is not supported."""
        return None

    @property
    def extent(self) -> float:
        """Largest side of the source's domain, as far as it is known; else its deviation scale."""
        return float(np.sqrt(self.second_moment))

    @property
    def cell_size(self) -> float:
        """Typical diameter of a cell of mass ``1 / n``."""
        return float(self.extent * len(self.points) ** (-1.0 / self.points.shape[1]))
