"""Targets on a line: only the coordinate of a sample along it decides its cell, and the cells are cut at quantiles.

With targets ``y_i = y_0 + t_i v``, |v| = 1, ``<x, y_i> + h_i = t_i <x, v> + h_i`` plus a term that does not depend on
i. In ascending order of t the cells are the intervals of ``s = <x, v>`` between cuts ``c_1 <= c_2 <= ..``, and

    mass of the first i cells = b_1 + .. + b_i  at  c_i,      h_{i+1} = h_i - c_i (t_{i+1} - t_i)

so the quantiles of the samples are the exact minimum of the energy over them, in O(N log N) whatever the dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Distance from the line, relative to the extent of the targets, in units of the rounding of their dtype.
_ROUNDING = 16.0


@dataclass(frozen=True)
class Line:
    """Targets on a line.

    Attributes:
        direction: v, shape (d,), float64.
        order: targets by ascending t, shape (n,).
        place: t in this order, shape (n,).
    """

    direction: Tensor
    order: NDArray[np.int64]
    place: Floats

    @classmethod
    def through(cls, y: Tensor, rounding: float) -> Line | None:
        """The line of the targets, shape (n, d) with n >= 2; None if they are not on one.

        Args:
            y: targets, float64.
            rounding: relative rounding error of their coordinates.
        """
        apart = y - y[0]
        far = apart[int(apart.square().sum(dim=1).argmax())]
        extent = float(far.norm())
        direction = far / extent
        t = apart @ direction
        off = float((apart - t[:, None] * direction).abs().max())
        size = float(y.abs().max())
        if off > _ROUNDING * rounding * max(size, extent):
            return None
        place = t.cpu().numpy()
        order = np.argsort(place, kind="stable")
        return cls(direction, order, place[order])

    def cuts(self, s: Floats, b: Floats) -> Floats:
        """Cuts between the cells at quantiles of the samples' coordinates s, sorted, shape (N,); returns (n - 1,)."""
        share = np.cumsum(b[self.order])[:-1]
        rank = np.clip(share * len(s) - 0.5, 0.0, len(s) - 1.0)
        low = rank.astype(np.int64)
        high = np.minimum(low + 1, len(s) - 1)
        return s[low] + (rank - low) * (s[high] - s[low])

    def heights(self, cuts: Floats) -> Floats:
        """Heights of the cells between these cuts, shape (n,)."""
        h = np.empty(len(self.order))
        h[self.order] = np.concatenate([[0.0], -np.cumsum(cuts * np.diff(self.place))])
        return h

    def counts(self, s: Floats, cuts: Floats) -> Floats:
        """How many of the coordinates s each cell holds, shape (n,)."""
        out = np.empty(len(self.order))
        out[self.order] = np.bincount(np.searchsorted(cuts, s), minlength=len(self.order))
        return out
