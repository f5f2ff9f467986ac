"""Sums of functions of all pairwise distances, in tiles: the matrix is never stored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from otgan._threads import one_thread
from otgan.metrics._points import unit_of

_SMALL = 4_000_000  # pairs up to which everything is float64
_EXACT_DIM = 64  # dimension up to which float64 products cost no more than the passes over the distances
_CLOSE = 1e-2  # pairs closer than this share of the squared unit are recomputed from differences after float32 products
_SIDE, _WIDE_SIDE, _DEVICE_SIDE = 256, 1024, 8192  # of a tile: in the cache; for wide products; for accelerators

Function = Callable[[Tensor], Tensor]


def unsplit(points: Tensor) -> AbstractContextManager[None]:
    """One thread for small tiles: to wake others for each takes longer than its work, much longer on a busy machine."""
    return one_thread(not points.is_cuda and points.shape[1] <= _EXACT_DIM)


def tile_side(points: Tensor) -> int:
    """Rows and columns of a tile of distances of points (m, d)."""
    if points.is_cuda:
        return _DEVICE_SIDE
    return _SIDE if points.shape[1] <= _EXACT_DIM else _WIDE_SIDE


def pair_sums(a: Tensor, b: Tensor, function: Function) -> tuple[float, float, float]:
    """``sum_ij f(|a_i - b_j|^2)``, ``sum_{i != j} f(|a_i - a_j|^2)`` and the same of b.

    Args:
        a: (m, d), float64.
        b: (n, d), float64.
        function: f, from squared distances in the unit of a and b (float64 or float32) to values, in place if it likes.
    """
    centre, unit = unit_of(a, b)
    small = max(len(a), len(b)) ** 2 <= _SMALL
    double = small or a.shape[1] <= _EXACT_DIM
    left, right = (_tiles((points - centre) / unit, double) for points in (a, b))

    def total(squares: Tensor) -> Tensor:
        values = squares.mul_(unit**2)
        return function(values if small else values.float()).sum(dtype=torch.float64)

    def within(tiles: list[_Tile]) -> Tensor:
        # The tile on the diagonal holds each of its pairs twice already.
        found = torch.zeros((), dtype=torch.float64, device=a.device)
        for number, tile in enumerate(tiles):
            apart = ~torch.eye(len(tile.exact), dtype=torch.bool, device=a.device)
            found += total(_squares(tile, tile)[apart])
            for other in tiles[number + 1 :]:
                found += 2.0 * total(_squares(tile, other))
        return found

    cross = torch.zeros((), dtype=torch.float64, device=a.device)
    with unsplit(a):
        for tile in left:
            for other in right:
                cross += total(_squares(tile, other))
        return float(cross), float(within(left)), float(within(right))


@dataclass(frozen=True)
class _Tile:
    """Some points of the unit ball: float64, and what products are made of."""

    exact: Tensor
    points: Tensor
    norms: Tensor


def _tiles(points: Tensor, double: bool) -> list[_Tile]:
    side, norms = tile_side(points), points.square().sum(dim=1)
    used = points if double else points.float()
    return [
        _Tile(*parts)
        for parts in zip(points.split(side), used.split(side), norms.to(used.dtype).split(side), strict=True)
    ]


def _squares(x: _Tile, y: _Tile) -> Tensor:
    """Squared distances, (m, n)."""
    squares = torch.addmm(y.norms, x.points, y.points.T, alpha=-2.0).add_(x.norms[:, None]).clamp_(min=0.0)
    if squares.dtype == torch.float64:
        return squares
    close = squares < _CLOSE
    if bool(close.any()):
        i, j = torch.nonzero(close).T
        if len(i) > squares.numel() // 16:
            exact = torch.addmm(y.exact.square().sum(dim=1), x.exact, y.exact.T, alpha=-2.0)
            return exact.add_(x.exact.square().sum(dim=1)[:, None]).clamp_(min=0.0)
        for part in torch.arange(len(i), device=i.device).split(4096):
            squares[i[part], j[part]] = (x.exact[i[part]] - y.exact[j[part]]).square_().sum(dim=1).float()
    return squares
