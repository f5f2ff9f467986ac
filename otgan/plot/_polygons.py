"""Power cells in the plane as exact polygons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.path import Path

from otgan.plot._style import points_per_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from otgan.plot._region import Extent, Region

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_SEAM = 0.4  # points: outlines in the colour of their cell close the hairlines that antialiasing leaves between cells
_TOUCH = 1e-12  # a side shorter than this share of the window is rounding: its cells touch in a point
_SIDES = 4096  # sides in one path: renderers limit the size of a path


@dataclass(frozen=True)
class PolygonCells:
    """The power diagram as convex polygons, one a visible cell.

    Attributes:
        extent: the window, ``(x0, x1, y0, y1)``.
        present: cells that are visible, ascending, shape (c,).
        polygons: corners of each, counter-clockwise, c arrays of shape (k, 2).
        sides: the segments that two visible cells share, each once, shape (s, 2, 2).
        pairs: their cells, the lower number first, shape (s, 2).
        area: median area of the polygons.
    """

    extent: Extent
    present: Integers
    polygons: list[Floats]
    sides: Floats
    pairs: Integers
    area: float

    @property
    def side(self) -> float:
        """Root of the median area of visible cells, as a share of the longer side of the window."""
        x0, x1, y0, y1 = self.extent
        return float(min(self.area**0.5 / max(x1 - x0, y1 - y0), 1.0))

    def neighbours(self) -> Integers:
        """Pairs of cells with a common side, shape (p, 2), each pair once, the lower number first."""
        return np.unique(self.pairs, axis=0) if len(self.pairs) else self.pairs

    def length(self, ax: Axes) -> float:
        """The longer side of the window in points, as the axes are laid out now."""
        x0, x1, y0, y1 = self.extent
        return points_per_unit(ax, self.extent) * max(x1 - x0, y1 - y0)

    def draw(self, ax: Axes, rgb: Floats | None, edge_color: object, edge_width: float) -> PolyCollection:
        """Paint each cell in its colour, and its sides ``edge_width`` points wide.

        Args:
            ax: where.
            rgb: colours of all cells, shape (n, 3); ``None`` for sides alone.
            edge_color: a colour.
            edge_width: in points; 0 for no lines.
        """
        fill: object = "none" if rgb is None else rgb[self.present]
        cells = PolyCollection(
            self.polygons, facecolors=fill, edgecolors="face", linewidths=0.0 if rgb is None else _SEAM,
            joinstyle="round", zorder=1, gid="cells",
        )  # fmt: skip
        ax.add_collection(cells, autolim=False)
        if edge_width > 0.0 and len(self.sides):
            paths = [
                Path(part.reshape(-1, 2), np.tile(np.array([Path.MOVETO, Path.LINETO], Path.code_type), len(part)))
                for part in np.array_split(self.sides, -(-len(self.sides) // _SIDES))
            ]
            lines = PathCollection(
                paths, facecolors="none", edgecolors=edge_color, linewidths=edge_width, capstyle="round", zorder=1.5,
                gid="sides",
            )  # fmt: skip
            ax.add_collection(lines, autolim=False)
        return cells


def polygon_cells(points: Floats, heights: Floats, region: Region) -> PolygonCells:
    """Cells ``{x : <x, y_i> + h_i >= <x, y_j> + h_j for all j}`` cut to the outline of a region.

    Of equal points the highest is drawn, the first one on equality, as in the raster. Cells outside the window, or
    outside a disc, are left out; those that cross its rim are whole.

    Args:
        points: y, shape (n, 2), float64.
        heights: h, shape (n,), float64; -inf switches a target off.
        region: where.

    Raises:
        RuntimeError: if double precision does not suffice for the given targets and heights.
    """
    from otgan.cells.planar import power_polygons

    live = distinct_targets(points, heights)
    soup = power_polygons(points[live], heights[live], region.outline)
    areas = soup.areas
    filled = np.flatnonzero(np.diff(soup.ptr) > 0)
    first = soup.ptr[filled]
    low, high = (bound.reduceat(soup.vertices, first, axis=0) for bound in (np.minimum, np.maximum))
    x0, x1, y0, y1 = region.extent
    inside = (low < [x1, y1]).all(axis=1) & (high > [x0, y0]).all(axis=1) & (areas[filled] > 0.0)
    end = soup.vertices[soup.next_vertex]
    if region.support == "disc":
        radius = (region.bounds[1] - region.bounds[0]) / 2
        near = np.minimum.reduceat(_distance(soup.vertices, end, region.centre), first) < radius
        around = np.minimum.reduceat(_left_of(soup.vertices, end, region.centre), first)
        inside &= near | around
    shown = filled[inside]
    visible = np.zeros(soup.n_cells, dtype=bool)
    visible[shown] = True
    owner, other = soup.owner, soup.neighbour
    once = np.flatnonzero((other > owner) & visible[owner])
    once = once[visible[other[once]]]
    length = np.hypot(*(end[once] - soup.vertices[once]).T)
    once = once[length > _TOUCH * max(x1 - x0, y1 - y0)]
    return PolygonCells(
        extent=region.extent,
        present=live[shown],
        polygons=[soup.vertices[soup.ptr[i] : soup.ptr[i + 1]] for i in shown],
        sides=np.stack([soup.vertices[once], end[once]], axis=1),
        pairs=np.stack([live[owner[once]], live[other[once]]], axis=1),
        area=float(np.median(areas[shown])) if len(shown) else 0.0,
    )


def distinct_targets(points: Floats, heights: Floats) -> Integers:
    """Targets that can win: with a finite height, and of equal points the highest, shape (k,), ascending.

    Args:
        points: y, shape (n, d).
        heights: h, shape (n,).
    """
    live = np.flatnonzero(np.isfinite(heights))
    order = live[np.lexsort((live, -heights[live], *points[live].T))]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (points[order[1:]] != points[order[:-1]]).any(axis=1)
    return np.sort(order[first])


def _distance(start: Floats, end: Floats, centre: Floats) -> Floats:
    """Distance of a point from segments, shape (k,)."""
    way, to = end - start, centre - start
    square = (way**2).sum(axis=1)
    share = np.clip((way * to).sum(axis=1) / np.where(square > 0.0, square, 1.0), 0.0, 1.0)
    return np.hypot(*(to - share[:, None] * way).T)


def _left_of(start: Floats, end: Floats, centre: Floats) -> NDArray[np.bool_]:
    """Whether a point is to the left of directed segments, shape (k,)."""
    way, to = end - start, centre - start
    return way[:, 0] * to[:, 1] - way[:, 1] * to[:, 0] >= 0.0
