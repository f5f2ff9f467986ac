"""Power diagrams in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otgan._checks import as_count
from otgan.measures import Gaussian, GridDensity, Source
from otgan.plot._cells import Renderer, cells_of, detailed, line_width
from otgan.plot._colours import ValueColours, colours_by_cell
from otgan.plot._key import checked_values, colour_key
from otgan.plot._polygons import PolygonCells
from otgan.plot._region import Region, region_of
from otgan.plot._style import FRAME, INK, SOURCE, SQUARE, axes_width, frame, open_axes, points_per_unit
from otgan.potential import BrenierPotential
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection, PolyCollection
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_EDGE = np.array([1.0, 1.0, 1.0])
_DENSITY_PIXELS = 300


def power_diagram(
    result_or_potential: Result | BrenierPotential,
    source: Source | None = None,
    *,
    ax: Axes | None = None,
    renderer: Renderer = "auto",
    resolution: int = 600,
    values: ArrayLike | None = None,
    cmap: str | Colormap | None = None,
    targets: bool = True,
    edges: bool = True,
    density: bool = False,
    extent: tuple[float, float, float, float] | None = None,
) -> Axes:
    """Power cells ``W_i = {x : <x, y_i> + h_i >= <x, y_j> + h_j for all j}`` of a potential in the plane.

    A box, a polygon or a picture is drawn to its sides, a ball as a disc, a Gaussian out to three standard deviations;
    without a source the window surrounds the targets. Lines and dots become thinner as cells become smaller, and are
    left out where they would cover them. Targets outside the window are not shown.

    Cells are exact polygons, sharp in PNG and paths in SVG and PDF; more than 30,000 become a raster.

    Args:
        result_or_potential: what :func:`otgan.solve` returned, or a potential of dimension 2.
        source: mu; by default the result's.
        ax: where to draw; a new figure when left out.
        renderer: "polygons", "raster", or "auto" for what suits the number of cells.
        resolution: pixels of a raster along its longer side.
        values: one number a target, shape (n,), that colours its cell: up to 12 distinct integers or booleans are class
            labels, everything else a scale. By default cells only differ from their neighbours.
        cmap: a colormap or its name; "viridis" for a scale when left out.
        targets: whether targets are marked by dots.
        edges: whether the sides of the cells are lines.
        density: show the density of a Gaussian or of a picture, darker where there is more mass, with the sides of the
            cells alone on it.
        extent: window ``(x0, x1, y0, y1)`` instead of the source's own.

    Returns:
        The axes. The diagram is the artist whose ``get_gid()`` is "cells": ``ax.collections[0]``, with one path for
        each visible cell, or ``ax.images[0]`` for a raster. With ``values`` it carries their colormap and norm, so that
        ``ax.figure.colorbar(ax.collections[0])`` works. In a figure of its own a scale gets its colour bar, and labels
        their legend.

    Raises:
        ValueError: if the dimension is not 2, or an argument does not fit.
        RuntimeError: with ``renderer="polygons"``, if double precision does not suffice for the given heights.

    Example:
        >>> ax = power_diagram(BrenierPotential([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.0]))
        >>> len(ax.collections[0].get_paths())
        2
    """
    potential, source = _unpack(result_or_potential, source)
    region = region_of(source, potential, extent)
    resolution = as_count(resolution, "resolution", 2)
    coloured = None if values is None else ValueColours(checked_values(values, potential.n), cmap)
    shades = None
    if density:
        if coloured is not None or renderer == "raster" or not edges:
            raise ValueError(
                "density=True shows the sides of polygons alone: leave out values, raster and edges=False."
            )
        renderer, shades = "polygons", _shades(source, region)
    if ax is not None:
        open_axes(ax, SQUARE)  # a wrong ax fails before the work
    points = potential.points.double().cpu().numpy()
    heights = potential.heights.double().cpu().numpy()
    cells = cells_of(points, heights, region, renderer, resolution)

    own = ax is None
    ax = open_axes(ax, _size(region))
    side, length = cells.side, cells.length(ax)
    if shades is not None and isinstance(cells, PolygonCells):
        image, box = shades
        ax.imshow(image, cmap="Greys", vmin=0.0, vmax=1.5 * image.max(), extent=box, zorder=0, gid="density")
        width = min(1 / 500, 0.1 * side) * length
        drawn: AxesImage | PolyCollection = cells.draw(ax, None, SOURCE, max(width, 0.25))
    else:
        rgb = colours_by_cell(potential.n, cells.neighbours(), cmap) if coloured is None else coloured.rgb
        drawn = cells.draw(ax, rgb, _EDGE, line_width(side, length) if edges else 0.0)
    if coloured is not None:
        drawn.set(cmap=coloured.cmap, norm=coloured.norm)
    ax.set_xlim(region.extent[:2])
    ax.set_ylim(region.extent[2:])
    ax.set_aspect("equal")
    ax.locator_params(nbins=int(np.clip(axes_width(ax) / 45.0, 2, 5)))
    frame(ax, box=True)
    if targets and detailed(side, length):
        x0, x1, y0, y1 = region.extent
        points_wide = side * max(x1 - x0, y1 - y0) * points_per_unit(ax, region.extent)
        _dots(ax, points[_inside(points, region)], points_wide)
    patch = region.patch()
    if patch is not None:
        patch.set(facecolor="none", edgecolor=FRAME, linewidth=0.8, zorder=2)
        ax.add_patch(patch)
        for artist in (*ax.images, *ax.collections):
            if artist.get_gid() in ("cells", "sides", "density") or region.support == "disc":
                artist.set_clip_path(patch)
    if own and coloured is not None:
        colour_key(ax, coloured, drawn)
    return ax


def _unpack(given: Result | BrenierPotential, source: Source | None) -> tuple[BrenierPotential, Source | None]:
    if isinstance(given, Result):
        if not isinstance(given.potential, BrenierPotential):
            raise ValueError(
                f"power_diagram draws power cells, which belong to p = 2; this result has p = {given.potential.p:g}."
            )
        potential, source = given.potential, given.source if source is None else source
    elif isinstance(given, BrenierPotential):
        potential = given
    else:
        raise TypeError(f"power_diagram takes a Result or a BrenierPotential, got {type(given).__name__}.")
    if source is not None and not isinstance(source, Source):
        raise TypeError(f"source must be a measure such as og.UniformBox(dim=2), got {type(source).__name__}.")
    if potential.dim != 2:
        other = "cells_3d shows cells in space" if potential.dim == 3 else "transport_map shows maps in any dimension"
        raise ValueError(f"power_diagram needs dimension 2, got {potential.dim}: otgan.plot.{other}.")
    if source is not None and source.dim != 2:
        raise ValueError(f"source has dimension {source.dim}, the potential 2.")
    return potential, source


def _shades(source: Source | None, region: Region) -> tuple[Floats, tuple[float, float, float, float]]:
    """The density up to a factor, as an image with row 0 at the top, and its box."""
    if isinstance(source, GridDensity):
        return source.values.numpy(), region.bounds
    if isinstance(source, Gaussian) and float(np.linalg.cond(source.cov.numpy())) < 1e12:
        x0, x1, y0, y1 = region.extent
        centres = (np.arange(_DENSITY_PIXELS) + 0.5) / _DENSITY_PIXELS
        x = np.stack(np.meshgrid(x0 + (x1 - x0) * centres, y1 - (y1 - y0) * centres), axis=-1) - source.mean.numpy()
        return np.exp(-0.5 * np.einsum("rci,ij,rcj->rc", x, np.linalg.inv(source.cov.numpy()), x)), region.extent
    raise ValueError(
        f"density=True needs a source with a density to show, a GridDensity or a Gaussian, got {source!r}."
    )


def _size(region: Region) -> tuple[float, float]:
    """Inches of a figure in the proportions of the window, within reason."""
    x0, x1, y0, y1 = region.extent
    ratio = (y1 - y0) / (x1 - x0)
    return (SQUARE[0], SQUARE[1] * max(ratio, 0.25)) if ratio <= 1.0 else (max(SQUARE[0] / ratio, 2.0), SQUARE[1])


def _inside(points: Floats, region: Region) -> NDArray[np.bool_]:
    x0, x1, y0, y1 = region.extent
    return (points[:, 0] >= x0) & (points[:, 0] <= x1) & (points[:, 1] >= y0) & (points[:, 1] <= y1)


def _dots(ax: Axes, points: Floats, side: float) -> PathCollection:
    """Targets, sized to the cells' ``side`` in points."""
    diameter = float(np.clip(0.16 * side, 0.8, 5.0))
    return ax.scatter(points[:, 0], points[:, 1], s=diameter**2, color=INK, linewidths=0, zorder=3, gid="targets")
