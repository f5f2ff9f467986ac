"""Easier problems on the way to a hard one: smoother sources and fewer targets, in step with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otgan.cells.base import CellMoments, ExactCells

    Floats = NDArray[np.float64]
    Labels = NDArray[np.int64]

#: This many consecutive targets are merged into one of the next coarser level.
GROUP = 4
#: Levels with no more targets than this are not coarsened.
COARSEST = 100
#: The smoothing width falls by this factor from source to source: densities then change by at most its square.
WIDTH_DECAY = 0.5
#: Widths, in cell sizes, at which a level is refined, and at which the last one passes to the source itself.
REFINE_AT, FINISH_AT = 1.0, 0.5
#: The share of the last smoothed source falls by this factor; that of the uniform density by the second one.
SHARE_DECAY, UNIFORM_DECAY = 0.25, 0.4
#: Fraction of the largest ball around a centroid in its cell over which the cell's targets are spread.
SPREAD = 0.5


@dataclass(frozen=True)
class Level:
    """Targets merged in groups.

    Attributes:
        cells: the m merged targets under the source itself.
        b: their weights, shape (m,).
        group: index here of each target of the next finer level.
        member: index here of each original target, shape (n,).
    """

    cells: ExactCells
    b: Floats
    group: Labels
    member: Labels


def hierarchy(cells: ExactCells, b: Floats) -> list[Level]:
    """Levels from the targets themselves to about a hundred centres of consecutive targets.

    Targets are taken in the order given: it should follow a space-filling curve (`ExactCells.reordered`).
    """
    itself = np.arange(len(b))
    levels = [Level(cells, b, itself, itself)]
    while len(levels[-1].b) > COARSEST:
        b = levels[-1].b
        group = np.arange(len(b)) // GROUP
        weights = np.asarray(np.bincount(group, b), dtype=np.float64)
        points = levels[-1].cells.points
        centres = np.stack([np.bincount(group, b * column) for column in points.T], axis=1) / weights[:, None]
        if len(np.unique(centres, axis=0)) < len(centres):
            break
        coarse = cells.with_points(centres)
        if coarse is None:
            break
        levels.append(Level(coarse, weights, group, group[levels[-1].member]))
    return levels


def ladder(cells: ExactCells, b: Floats) -> Iterator[tuple[Level, ExactCells, str]]:
    """Problems from an easy one to almost ``cells``, each close to the one before, with a name for each.

    The source is smoothed over a width that falls from the size of the domain to that of a cell; the targets are
    merged such that their cells are no larger than the width. From the narrowest width on the smoothed source is
    blended with the source itself. Where a source cannot be smoothed, it is blended with the uniform one.
    """
    if cells.smoothed(cells.extent) is None:
        level, share = hierarchy(cells, b)[0], 1.0
        while share > 0.1 * b.min():
            easier = cells.blended(share)
            if easier is None:
                return
            yield level, easier, f"{share:.1e} uniform"
            share *= UNIFORM_DECAY
        return
    levels = hierarchy(cells, b)
    width, easier = np.inf, None
    for level in reversed(levels):
        name = f"{len(level.b)} targets, width "
        easier = None if easier is None else level.cells.smoothed(width)
        if easier is not None:
            yield level, easier, name + f"{width:.2g}"
        stop = level.cells.cell_size * (FINISH_AT if level is levels[0] else REFINE_AT)
        while width > stop:
            width = cells.extent if width == np.inf else max(WIDTH_DECAY * width, stop)
            easier = level.cells.smoothed(width)
            if easier is None:
                return
            yield level, easier, name + f"{width:.2g}"
    share = SHARE_DECAY
    while share > 1e-3 * b.min():
        last = cells.blended(share, easier)
        if last is None:
            return
        yield levels[0], last, f"{share:.1e} smoothed"
        share *= SHARE_DECAY


def lift(level: Level, points: Floats, heights: Floats, moments: CellMoments) -> Floats:
    """Heights of the original targets ``points`` whose tangents pass through the centroids of ``level``."""
    centroids, to = np.nan_to_num(moments.centroids), level.member
    return np.asarray(heights[to] - np.einsum("ij,ij->i", centroids[to], points - level.cells.points[to]))


def prolong(level: Level, coarse: Level, heights: Floats, moments: CellMoments) -> Floats:
    r"""Heights on ``level`` that give every target a cell inside the cell of its group on ``coarse``.

    With centroids ``c_J`` of the cells, radii ``r_J`` of balls around them inside the cells, and the root mean square
    distance ``q_J`` of a group's targets from their centre ``Y_J``, ``h_i = -f(y_i)`` for the convex function::

        f(y) = max_J  -H_J + <c_J, y - Y_J> + r_J q_J (sqrt(1 + |y - Y_J|^2 / q_J^2) - 1)

    Piece J is below the support function of its ball, hence below the conjugate of the coarse potential, and equals
    it at ``Y_J``; its gradient stays in the ball. f is strictly convex: no cell is empty.

    Args:
        level: the finer level.
        coarse: the coarser one, next to ``level``.
        heights: H on ``coarse``, shape (m,).
        moments: at ``heights``, Hessian included.
    """
    if moments.hessian is None:
        msg = "the coarse moments lack the Hessian, whose entries tell the neighbours: ask for it"
        raise ValueError(msg)
    centres, centroids = coarse.cells.points, moments.centroids
    pairs = moments.hessian.tocoo()
    apart = (pairs.row != pairs.col) & (pairs.data < 0.0)
    j, k = pairs.row[apart], pairs.col[apart]
    across = centres[j] - centres[k]
    gap = (np.einsum("ij,ij->i", centroids[j], across) + heights[j] - heights[k]) / np.linalg.norm(across, axis=1)
    radius = np.full(len(centres), np.inf)
    np.minimum.at(radius, j, gap)
    radius = SPREAD * np.clip(radius, 1e-9 * coarse.cells.extent, coarse.cells.cell_size)
    offset = ((level.cells.points - centres[coarse.group]) ** 2).sum(axis=1)
    size = np.sqrt(np.bincount(coarse.group, level.b * offset) / coarse.b) + 1e-9 * np.ptp(centres, axis=0).max()
    constant = -heights - np.einsum("ij,ij->i", centroids, centres)
    out = -heights[coarse.group]  # f(Y_J) = -H_J: what targets alone in their group keep
    several = np.bincount(coarse.group)[coarse.group] > 1
    values = np.empty(int(several.sum()))
    _upper(level.cells.points[several], centres, centroids, constant, radius * size, 1.0 / size**2, values)
    out[several] = values
    return -out


@njit(cache=True, parallel=True, fastmath=True)
def _upper(
    points: Floats, centres: Floats, slopes: Floats, constant: Floats, depth: Floats, inverse: Floats, out: Floats
) -> None:
    """The largest piece of f at each of ``points``, by all pairs."""
    dim = points.shape[1]
    for i in prange(points.shape[0]):
        best = -np.inf
        for j in range(centres.shape[0]):
            value, square = constant[j], 0.0
            for q in range(dim):
                value += slopes[j, q] * points[i, q]
                square += (points[i, q] - centres[j, q]) ** 2
            best = max(best, value + depth[j] * (np.sqrt(1.0 + square * inverse[j]) - 1.0))
        out[i] = best
