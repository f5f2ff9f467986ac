"""Nearest neighbours and unions of balls: a fast float32 pass, and float64 wherever its rounding could matter.

Both are questions about power cells. With ``h_j = -|y_j|^2 / 2`` the k largest scores ``<x, y_j> + h_j`` are the k
nearest points; with ``h_j = (r_j^2 - |y_j|^2) / 2`` the largest score tells whether x is in any ball B(y_j, r_j).
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from otgan import kernels
from otgan.metrics._pairs import tile_side, unsplit
from otgan.metrics._points import unit_of

_SPARE = 8  # candidates beyond k, so that rounding may disturb their order
_CLOSED = 1e-12  # relative: a point on the sphere belongs to the ball whatever the last bits are
_BLOCK = 1 << 22  # numbers in a block of differences
_SAFETY = 8.0


def rounding(dim: int) -> float:
    """Bound of the float32 error of a score of points in the unit ball: eps sqrt(d), with a wide margin.

    Rounding errors of a dot product add like a random walk; the bound is eight times that.
    """
    return _SAFETY * torch.finfo(torch.float32).eps * (dim + 8) ** 0.5


def squared_to(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """``|x_i - y_index[i, j]|^2`` from differences, shape (m, k), in blocks."""
    out = torch.empty(index.shape, dtype=x.dtype, device=x.device)
    rows = max(1, _BLOCK // (index.shape[1] * x.shape[1]))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        out[part] = (x[part, None, :] - y[index[part]]).square_().sum(dim=2)
    return out


def nearest(x: Tensor, y: Tensor, k: int, same: bool = False) -> tuple[Tensor, Tensor]:
    """The k nearest points of y to each x.

    Args:
        x: (m, d), float64.
        y: (n, d), float64.
        k: at most n, or n - 1 with ``same``.
        same: x is y, and a point is not its own neighbour.

    Returns:
        Index (m, k) and Euclidean distance (m, k), ascending, in float64.
    """
    centre, unit = unit_of(x, y)
    x, y = (x - centre) / unit, (y - centre) / unit
    wanted = k + int(same)
    listed = min(len(y), wanted + _SPARE)
    x32, y32 = x.float(), y.float()
    found = kernels.top_k(x32, y32, -y32.double().square().sum(dim=1).float() / 2, listed)
    index, square = _ranked(x, y, found.index, k, torch.arange(len(x), device=x.device) if same else None)
    if listed < len(y):
        # Whatever is not listed scores at most the last listed score, up to rounding: is the k-th surely nearer?
        beyond = x.square().sum(dim=1) - 2.0 * (found.value[:, -1].double() + rounding(x.shape[1]))
        unsure = torch.nonzero(square[:, -1] > beyond).flatten()
        if len(unsure):
            again = kernels.top_k(x[unsure], y, -y.square().sum(dim=1) / 2, listed)
            index[unsure], square[unsure] = _ranked(x[unsure], y, again.index, k, unsure if same else None)
    return index, square.sqrt() * unit


def _ranked(x: Tensor, y: Tensor, index: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k nearest of the listed candidates, by exact distance."""
    square = squared_to(x, y, index)
    if own is not None:
        square[index == own[:, None]] = torch.inf
    square, order = square.sort(dim=1, stable=True)
    return index.gather(1, order[:, :k]), square[:, :k]


class Balls:
    """Closed balls ``B(y_j, r_j)``.

    Args:
        centres: y, (n, d), float64.
        radii: r, (n,), float64.
    """

    def __init__(self, centres: Tensor, radii: Tensor) -> None:
        self.centres, self.radii = centres, radii

    def covers(self, x: Tensor) -> Tensor:
        """Which x are in at least one ball, (m,) bool."""
        x, y, r2 = self._in_unit(x)
        y32 = y.float()
        best = kernels.assign(x.float(), y32, ((r2 - y32.double().square().sum(dim=1)) / 2).float()).value.double()
        margin = 2 * best - x.square().sum(dim=1)
        inside = margin >= 0.0
        unsure = torch.nonzero(margin.abs() <= 2 * rounding(x.shape[1])).flatten()
        if len(unsure):
            near = x[unsure]
            heights = (r2 - y.square().sum(dim=1)) / 2
            index = kernels.top_k(near, y, heights, min(len(y), _SPARE)).index
            inside[unsure] = (squared_to(near, y, index) <= r2[index] * (1 + _CLOSED)).any(dim=1)
        return inside

    def count(self, x: Tensor) -> Tensor:
        """How many balls each x is in, (m,) int64."""
        x, y, r2 = self._in_unit(x)
        x32, y32 = x.float(), y.float()
        heights = ((r2 - y32.double().square().sum(dim=1)) / 2).float()
        half = (x.square().sum(dim=1) / 2).float()
        bound, side = rounding(x.shape[1]), tile_side(x)
        out = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        with unsplit(x):
            for start, other in product(range(0, len(x), side), range(0, len(y), side)):
                rows, columns = slice(start, start + side), slice(other, other + side)
                margin = torch.addmm(heights[columns], x32[rows], y32[columns].T).sub_(half[rows, None])
                out[rows] += (margin > bound).sum(dim=1)
                unsure = margin.abs_() <= bound
                if not bool(unsure.any()):
                    continue
                for i, j in (pairs.T for pairs in torch.nonzero(unsure).split(max(1, _BLOCK // x.shape[1]))):
                    i, j = start + i, other + j
                    inside = (x[i] - y[j]).square_().sum(dim=1) <= r2[j] * (1 + _CLOSED)
                    out.index_add_(0, i, inside.long())
        return out

    def _in_unit(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centre, unit = unit_of(x, self.centres)
        # A ball that is larger than everything covers everything: cut off, its square does not drown the rest.
        radii = (self.radii / unit).clamp(max=2.0 + 1e-9)
        return (x - centre) / unit, (self.centres - centre) / unit, radii.square()
