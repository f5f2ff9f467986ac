"""Power cells in the plane, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_LEAF_SCORES = 1 << 13
_LEAF_PIXELS = 64


@dataclass(frozen=True)
class PixelCells:
    """The power diagram on a grid of pixels, row 0 at the bottom.

    Attributes:
        extent: ``(x0, x1, y0, y1)`` of the outer pixel sides.
        index: cell of each pixel's centre, shape (rows, columns); the lowest number on a boundary.
        across: the cell behind the nearest side; ``index`` itself where no side is near.
        distance: from the pixel's centre to that side, in pixels; infinite where no side is near.
    """

    extent: tuple[float, float, float, float]
    index: Integers
    across: Integers
    distance: Floats

    @property
    def present(self) -> Integers:
        """Cells that hold a pixel's centre, ascending."""
        return np.unique(self.index)

    def neighbours(self) -> Integers:
        """Pairs of cells with a common side, shape (p, 2), each pair once, the lower number first."""
        near = (self.distance <= 1.5) & (self.across != self.index)
        found = [np.stack([self.index[near], self.across[near]], axis=1)]
        for a, b in ((self.index[:, 1:], self.index[:, :-1]), (self.index[1:], self.index[:-1])):
            found.append(np.stack([a[a != b], b[a != b]], axis=1))
        pairs = np.sort(np.concatenate(found), axis=1)
        return np.unique(pairs, axis=0) if len(pairs) else pairs

    @property
    def side(self) -> float:
        """Root of the median area of visible cells, as a share of the longer side of the window."""
        count = np.bincount(self.index.ravel())
        return float(np.median(count[count > 0]) ** 0.5 / max(self.index.shape))

    def length(self, ax: Axes) -> float:
        """The longer side of the window in pixels."""
        return float(max(self.index.shape))

    def draw(self, ax: Axes, rgb: Floats, edge_color: Floats, edge_width: float) -> AxesImage:
        """Paint each cell in its colour, and its sides ``edge_width`` pixels wide; smooth at the sides.

        Args:
            ax: where.
            rgb: colours of all cells, shape (n, 3).
            edge_color: shape (3,).
            edge_width: in pixels; 0 for no lines.
        """
        image = rgb[self.index]
        side = np.clip(0.5 - self.distance, 0.0, 0.5)[..., None]  # how much of the pixel lies in the next cell
        image += side * (rgb[self.across] - image)
        if edge_width > 0.0:
            # Share of the pixel that the line covers, the pixel taken as a disc of diameter 1.
            cover = np.clip((edge_width + 1.0) / 2.0 - self.distance, 0.0, min(edge_width, 1.0))[..., None]
            image += cover * (edge_color - image)
        rows, columns = self.index.shape
        return ax.imshow(
            np.clip(image, 0.0, 1.0).reshape(rows, columns, 3),
            origin="lower",
            extent=self.extent,
            interpolation="antialiased",
            aspect="equal",
            gid="cells",
        )


def pixel_cells(
    points: Floats,
    heights: Floats,
    extent: tuple[float, float, float, float],
    shape: tuple[int, int],
    reach: float = 2.0,
) -> PixelCells:
    """Evaluate ``argmax_i <x, y_i> + h_i`` at every pixel's centre, by branch and bound.

    In a rectangle of centre c and half diagonal r a target i can win only if, for the winner b at c,
    ``s_b(c) - s_i(c) <= r |y_i - y_b|``: scores are affine. Rectangles are quartered until few targets are left in
    each, so that the work grows with the visible cells and not with pixels times targets. Inside a cell i the distance
    to its boundary is ``min_j (s_i - s_j) / |y_i - y_j|``: cells are convex.

    Args:
        points: y, shape (n, 2), float64.
        heights: h, shape (n,), float64; -inf switches a target off.
        extent: ``(x0, x1, y0, y1)``.
        shape: (rows, columns).
        reach: how far from a side, in pixels, distances are wanted.
    """
    rows, columns = shape
    x0, x1, y0, y1 = extent
    pixel = max((x1 - x0) / columns, (y1 - y0) / rows)
    origin = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    xs = x0 - origin[0] + (np.arange(columns) + 0.5) * (x1 - x0) / columns
    ys = y0 - origin[1] + (np.arange(rows) + 0.5) * (y1 - y0) / rows
    live = np.flatnonzero(np.isfinite(heights))
    y = points - points[live].mean(axis=0)
    h = heights + y @ origin
    index = np.empty(shape, dtype=np.int64)
    across = np.empty(shape, dtype=np.int64)
    distance = np.full(shape, np.inf)
    todo = [(0, rows, 0, columns, live)]
    while todo:
        r0, r1, c0, c1, among = todo.pop()
        middle = np.array([(xs[c0] + xs[c1 - 1]) / 2, (ys[r0] + ys[r1 - 1]) / 2])
        radius = float(np.hypot(xs[c1 - 1] - xs[c0], ys[r1 - 1] - ys[r0])) / 2 + reach * pixel
        score = h[among] + y[among] @ middle
        best = int(score.argmax())
        gap = np.hypot(*(y[among] - y[among[best]]).T)
        slack = 1e-12 * (np.abs(score).max() + 1e-300)
        among = among[score >= score[best] - radius * gap - slack]
        pixels = (r1 - r0) * (c1 - c0)
        box = (slice(r0, r1), slice(c0, c1))
        if len(among) == 1:
            index[box] = across[box] = among[0]
        elif pixels <= _LEAF_PIXELS or len(among) * pixels <= _LEAF_SCORES:
            index[box], across[box], distance[box] = _leaf(
                xs[c0:c1], ys[r0:r1], y[among], h[among], among, pixel, reach
            )
        else:
            rm, cm = (r0 + r1 + 1) // 2, (c0 + c1 + 1) // 2
            for a, b in ((r0, rm), (rm, r1)):
                for c, d in ((c0, cm), (cm, c1)):
                    if a < b and c < d:
                        todo.append((a, b, c, d, among))
    return PixelCells(extent, index, across, distance)


def _leaf(
    xs: Floats, ys: Floats, y: Floats, h: Floats, among: Integers, pixel: float, reach: float
) -> tuple[Integers, Integers, Floats]:
    """Best target, target across the nearest side, and distance to it, each (rows, columns)."""
    at = np.stack([np.tile(xs, len(ys)), np.repeat(ys, len(xs))], axis=1)
    rows = np.arange(len(at))
    score = at @ y.T + h
    best = score.argmax(axis=1)
    apart = np.hypot(y[:, None, 0] - y[None, :, 0], y[:, None, 1] - y[None, :, 1])
    with np.errstate(divide="ignore"):
        closeness = 1.0 / apart  # infinite for a target and itself, and for equal points: no side between those
    closeness[np.isinf(closeness)] = np.nan
    away = (score[rows, best][:, None] - score) * closeness[best]
    away[np.isnan(away)] = np.inf
    other = away.argmin(axis=1)
    distance = away[rows, other] / pixel
    far = distance > reach
    distance[far] = np.inf
    other[far] = best[far]
    shape = (len(ys), len(xs))
    return among[best].reshape(shape), among[other].reshape(shape), distance.reshape(shape)
