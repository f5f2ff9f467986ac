"""What a figure asks of power cells in the plane, and which renderer answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from otgan.plot._polygons import polygon_cells
from otgan.plot._raster import pixel_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from otgan.plot._region import Region

    Floats = NDArray[np.float64]

Renderer = Literal["auto", "polygons", "raster"]

LINE = 1 / 300
"""Widest lines, as a share of the figure."""
_SMALLEST = 4.0  # pixels or points: cells of a smaller side get neither lines nor dots
_MANY = 30_000  # cells from which on a picture is smaller and quicker as pixels


class Cells(Protocol):
    """Cells that can be drawn: what a figure asks of a renderer, by pixels or by polygons."""

    @property
    def present(self) -> NDArray[np.int64]:
        """Cells that are visible, ascending."""

    def neighbours(self) -> NDArray[np.int64]:
        """Pairs of cells with a common side, shape (p, 2)."""

    @property
    def side(self) -> float:
        """Root of the median area of visible cells, as a share of the longer side of the window."""

    def length(self, ax: Axes) -> float:
        """The longer side of the window in the renderer's own unit."""

    def draw(self, ax: Axes, rgb: Floats, edge_color: Any, edge_width: float) -> AxesImage | PolyCollection:
        """Paint every cell i in ``rgb[i]``, its sides in ``edge_color``, ``edge_width`` own units wide."""


def cells_of(points: Floats, heights: Floats, region: Region, renderer: Renderer, resolution: int) -> Cells:
    """Cells of targets y, shape (n, 2), with heights h, shape (n,), by the renderer asked for.

    "auto" draws polygons, and pixels of more than 30,000 targets or where polygons fail for want of digits.

    Raises:
        ValueError: for a renderer of another name.
        RuntimeError: if polygons were asked for and double precision does not suffice for them.
    """
    if renderer not in ("auto", "polygons", "raster"):
        raise ValueError(f"renderer must be 'auto', 'polygons' or 'raster', got {renderer!r}.")
    if renderer == "polygons" or (renderer == "auto" and len(points) <= _MANY):
        try:
            return polygon_cells(points, heights, region)
        except RuntimeError:
            if renderer == "polygons":
                raise
    shape = _pixels(region, resolution)
    return pixel_cells(points, heights, region.extent, shape, reach=1.0 + LINE * max(*shape, 600))


def detailed(side: float, length: float) -> bool:
    """Whether cells are large enough for lines and dots."""
    return side * length >= _SMALLEST


def line_width(side: float, length: float) -> float:
    """Width of lines: a constant share of the figure, thinner for small cells, none for tiny ones."""
    return min(LINE, 0.1 * side) * length if detailed(side, length) else 0.0


def _pixels(region: Region, resolution: int) -> tuple[int, int]:
    """Rows and columns of about square pixels."""
    x0, x1, y0, y1 = region.extent
    step = max(x1 - x0, y1 - y0) / resolution
    return max(round((y1 - y0) / step), 1), max(round((x1 - x0) / step), 1)
