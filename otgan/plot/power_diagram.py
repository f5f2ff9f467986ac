"""Power diagrams in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.colors import Colormap
from matplotlib.patches import Patch

from otgan._checks import as_count
from otgan.measures import Source
from otgan.plot._colours import ValueColours, colours_by_cell
from otgan.plot._raster import pixel_cells
from otgan.plot._region import Region, region_of
from otgan.plot._style import FRAME, INK, SMALL, SQUARE, axes_width, frame, open_axes
from otgan.potential import BrenierPotential
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_EDGE = np.array([1.0, 1.0, 1.0])
_LINE = 1 / 300  # widest lines, as a share of the figure


class Cells(Protocol):
    """Cells that can be drawn: what :func:`power_diagram` asks of a renderer, by pixels or by polygons."""

    @property
    def present(self) -> NDArray[np.int64]:
        """Cells that are visible, ascending."""

    def neighbours(self) -> NDArray[np.int64]:
        """Pairs of cells with a common side, shape (p, 2)."""

    def draw(self, ax: Axes, rgb: Floats, edge_color: Floats, edge_width: float) -> AxesImage:
        """Paint every cell i in ``rgb[i]``, its sides in ``edge_color``, ``edge_width`` pixels of the raster wide."""


def power_diagram(
    result_or_potential: Result | BrenierPotential,
    source: Source | None = None,
    *,
    ax: Axes | None = None,
    resolution: int = 600,
    values: ArrayLike | None = None,
    cmap: str | Colormap | None = None,
    targets: bool = True,
    edges: bool = True,
    extent: tuple[float, float, float, float] | None = None,
) -> Axes:
    """Power cells ``W_i = {x : <x, y_i> + h_i >= <x, y_j> + h_j for all j}`` of a potential in the plane.

    A box is drawn to its sides, a ball as a disc, a Gaussian out to three standard deviations; without a source the
    window surrounds the targets. Lines and dots become thinner as cells become smaller, and are left out where they
    would cover them. Targets outside the window are not shown.

    Args:
        result_or_potential: what :func:`otgan.solve` returned, or a potential of dimension 2.
        source: mu; by default the result's.
        ax: where to draw; a new figure when left out.
        resolution: pixels along the longer side.
        values: one number a target, shape (n,), that colours its cell: up to 12 distinct integers or booleans are class
            labels, everything else a scale. By default cells only differ from their neighbours.
        cmap: a colormap or its name; "viridis" for a scale when left out.
        targets: whether targets are marked by dots.
        edges: whether the sides of the cells are lines.
        extent: window ``(x0, x1, y0, y1)`` instead of the source's own.

    Returns:
        The axes. ``ax.images[-1]`` is the diagram; with ``values`` it carries their colormap and norm, so that
        ``ax.figure.colorbar(ax.images[-1])`` works. In a figure of its own a scale gets its colour bar, and labels
        their legend.

    Raises:
        ValueError: if the dimension is not 2, or ``values`` or ``extent`` do not fit.

    Example:
        >>> ax = power_diagram(BrenierPotential([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.0]))
        >>> len(ax.images)
        1
    """
    potential, source = _unpack(result_or_potential, source)
    region = region_of(source, potential, extent)
    shape = _pixels(region, as_count(resolution, "resolution", 2))
    coloured = None if values is None else ValueColours(_checked_values(values, potential.n), cmap)
    own = ax is None
    ax = open_axes(ax, _size(region))

    points = potential.points.double().cpu().numpy()
    heights = potential.heights.double().cpu().numpy()
    cells = pixel_cells(points, heights, region.extent, shape, reach=1.0 + _LINE * max(shape[0], shape[1], 600))
    rgb = colours_by_cell(potential.n, cells.neighbours(), cmap) if coloured is None else coloured.rgb
    side = _cell_side(cells, shape)
    image = cells.draw(ax, rgb, _EDGE, _edge_width(side, max(shape)) if edges else 0.0)
    if coloured is not None:
        image.set(cmap=coloured.cmap, norm=coloured.norm)
    patch = region.patch()
    if patch is not None:
        patch.set(facecolor="none", edgecolor=FRAME, linewidth=0.8)
        ax.add_patch(patch)
        image.set_clip_path(patch)
    ax.set_xlim(region.extent[:2])
    ax.set_ylim(region.extent[2:])
    ax.set_aspect("equal")
    ax.locator_params(nbins=int(np.clip(axes_width(ax) / 45.0, 2, 5)))
    frame(ax, box=True)
    if targets and side >= 5.0:
        dots = _dots(ax, points[_inside(points, region)], side * axes_width(ax) / shape[1])
        if patch is not None and region.support == "disc":
            dots.set_clip_path(patch)
    if own and coloured is not None:
        _key(ax, image, coloured)
    return ax


def _unpack(given: Result | BrenierPotential, source: Source | None) -> tuple[BrenierPotential, Source | None]:
    if isinstance(given, Result):
        potential, source = given.potential, given.source if source is None else source
    elif isinstance(given, BrenierPotential):
        potential = given
    else:
        raise TypeError(f"power_diagram takes a Result or a BrenierPotential, got {type(given).__name__}.")
    if source is not None and not isinstance(source, Source):
        raise TypeError(f"source must be a measure such as og.UniformBox(dim=2), got {type(source).__name__}.")
    if potential.dim != 2:
        raise ValueError(
            f"power_diagram needs dimension 2, got {potential.dim}: "
            "otgan.plot.transport_map shows maps in any dimension, on two principal axes."
        )
    if source is not None and source.dim != 2:
        raise ValueError(f"source has dimension {source.dim}, the potential 2.")
    return potential, source


def _checked_values(values: ArrayLike, n: int) -> NDArray[np.generic]:
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"values must have shape ({n},), one a distinct target, got {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"values must be numbers, got an array of dtype {array.dtype}; number the classes.")
    if not np.isfinite(array).all():
        raise ValueError(f"values has {int((~np.isfinite(array)).sum())} NaN or infinite entries; replace them.")
    return array


def _pixels(region: Region, resolution: int) -> tuple[int, int]:
    """Rows and columns of about square pixels."""
    x0, x1, y0, y1 = region.extent
    step = max(x1 - x0, y1 - y0) / resolution
    return max(round((y1 - y0) / step), 1), max(round((x1 - x0) / step), 1)


def _size(region: Region) -> tuple[float, float]:
    """Inches of a figure in the proportions of the window, within reason."""
    x0, x1, y0, y1 = region.extent
    ratio = (y1 - y0) / (x1 - x0)
    return (SQUARE[0], SQUARE[1] * max(ratio, 0.25)) if ratio <= 1.0 else (max(SQUARE[0] / ratio, 2.0), SQUARE[1])


def _cell_side(cells: Cells, shape: tuple[int, int]) -> float:
    """Typical side of a visible cell, in pixels."""
    return float((shape[0] * shape[1] / len(cells.present)) ** 0.5)


def _edge_width(side: float, resolution: int) -> float:
    """Width of lines in pixels: a constant share of the figure, thinner for small cells, none for tiny ones."""
    return 0.0 if side < 5.0 else min(_LINE * resolution, 0.1 * side)


def _inside(points: Floats, region: Region) -> NDArray[np.bool_]:
    x0, x1, y0, y1 = region.extent
    return (points[:, 0] >= x0) & (points[:, 0] <= x1) & (points[:, 1] >= y0) & (points[:, 1] <= y1)


def _dots(ax: Axes, points: Floats, side: float) -> PathCollection:
    """Targets, sized to the cells' ``side`` in points."""
    diameter = float(np.clip(0.16 * side, 0.8, 5.0))
    return ax.scatter(points[:, 0], points[:, 1], s=diameter**2, color=INK, linewidths=0, zorder=3, gid="targets")


def _key(ax: Axes, image: AxesImage, coloured: ValueColours) -> Artist:
    """Colour bar of a scale, or legend of labels, beside the axes."""
    if coloured.labels is None:
        bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
        bar.outline.set(edgecolor=FRAME, linewidth=0.8)
        bar.ax.tick_params(color=FRAME, labelcolor=INK, labelsize=SMALL, width=0.8, length=3.0)
        return bar.ax
    handles = [Patch(facecolor=coloured.cmap(k), label=str(label.item())) for k, label in enumerate(coloured.labels)]
    return ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=1.0,
        handleheight=1.0,
    )
