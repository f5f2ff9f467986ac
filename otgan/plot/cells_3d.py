"""Power cells in space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otgan.cells import exact_cells, has_exact_cells
from otgan.measures import Source
from otgan.plot._colours import ValueColours, colours_by_cell
from otgan.plot._key import checked_values, colour_key
from otgan.plot._polygons import distinct_targets
from otgan.plot._solid import Faces, Up, checked_up, fit_view, lit, open_axes_3d, polygon_normals
from otgan.potential import BrenierPotential
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike, NDArray

    from otgan.cells.spatial import PolyhedronSoup

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_EDGE = "white"
_DARK = 0.55  # edges of cells seen from several sides, as a share of their faces' light


def cells_3d(
    result_or_potential: Result | BrenierPotential,
    source: Source | None = None,
    *,
    ax: Axes | None = None,
    explode: float = 0.0,
    cut: tuple[ArrayLike, float] | None = None,
    whole_cells: bool = False,
    values: ArrayLike | None = None,
    cmap: str | Colormap | None = None,
    edges: bool = True,
    up: Up = "z",
) -> Axes:
    """Power cells ``W_i = {x : <x, y_i> + h_i >= <x, y_j> + h_j for all j}`` in space, as exact polyhedra.

    The cells fill the source's support; to see inside, move them apart or cut them open. Faces that no viewer can see,
    between two cells that are shown and touch, are left out. Quick up to several thousand cells.

    Args:
        result_or_potential: what :func:`otgan.solve` returned, or a potential of dimension 3.
        source: mu, an ``UniformBox`` or ``UniformPolytope``; by default the result's.
        ax: 3-D axes; those of a new figure when left out.
        explode: each cell is moved away from the middle by this multiple of its distance to it, >= 0.
        cut: ``(normal, offset)``: only the half-space ``<x, normal> <= offset`` is shown.
        whole_cells: cut between cells, keeping those whose centre is in the half-space, instead of through them.
        values: one number a target, shape (n,), that colours its cell: up to 12 distinct integers or booleans are class
            labels, everything else a scale. By default cells only differ from their neighbours.
        cmap: a colormap or its name; "viridis" for a scale when left out.
        edges: whether the edges of the polyhedra are lines.
        up: the axis that points upwards, "x", "y" or "z".

    Returns:
        The 3-D axes, without frame (``ax.set_axis_on()`` brings it back). The polygons are ``ax.collections[0]``. In a
        figure of its own a scale gets its colour bar, and labels their legend.

    Raises:
        ValueError: if the dimension is not 3, the source has no exact cells, or an argument does not fit.
        TypeError: if an argument is of another kind, or ``ax`` are not 3-D axes.

    Example:
        >>> from otgan.measures import UniformBox
        >>> u = BrenierPotential([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [0.0, -1.5])
        >>> ax = cells_3d(u, UniformBox(dim=3), explode=0.3)
    """
    potential, source = _unpack(result_or_potential, source)
    up = checked_up(up)
    if not (np.isfinite(explode) and explode >= 0.0):
        raise ValueError(f"explode must be a finite number >= 0, got {explode!r}.")
    coloured = None if values is None else ValueColours(checked_values(values, potential.n), cmap)
    plane = None if cut is None else _checked_cut(cut)
    if ax is not None:
        open_axes_3d(ax, up)  # wrong axes fail before the work
    soup, live = _polyhedra(potential, source, None if whole_cells else plane)
    faces = _Faces.of(soup)
    kept = np.diff(soup.cell_offsets) > 0
    middle = faces.centres[kept].mean(axis=0)
    if whole_cells and plane is not None:
        kept &= faces.centres @ plane[0] <= plane[1]
        if not kept.any():
            raise ValueError(f"cut keeps no cell: none has its centre in <x, {plane[0]}> <= {plane[1]:g}.")
    shown = kept[faces.owner]
    if explode == 0.0:
        shown &= (soup.neighbours < 0) | ~kept[np.maximum(soup.neighbours, 0)]
    corners = faces.corners + explode * np.nan_to_num(faces.centres - middle)[faces.owner][faces.face]
    chosen = np.flatnonzero(shown)
    polygons = [corners[soup.face_offsets[f] : soup.face_offsets[f + 1]] for f in chosen]

    owner = live[faces.owner[chosen]]
    pairs = np.stack([faces.owner, soup.neighbours], axis=1)
    pairs = live[pairs[pairs[:, 0] < pairs[:, 1]]]
    rgb = colours_by_cell(potential.n, pairs, cmap) if coloured is None else coloured.rgb
    own = ax is None
    space = open_axes_3d(ax, up, keyed=coloured is not None)
    width = float(np.clip(9.0 / max(int(kept.sum()), 1) ** (1 / 3), 0.25, 1.1))
    normals = polygon_normals(faces.corners, soup.face_offsets)[chosen]
    shades = lit(rgb[owner], normals, up)
    rough = explode > 0.0 or (whole_cells and plane is not None)
    edge = None if not edges else _DARK * shades if rough else _EDGE
    width = 0.3 if not edges else 0.6 * width if rough else width
    space.add_collection3d(Faces(polygons, shades, edge, width, normals, "cells"), autolim=False)
    fit_view(space, np.concatenate(polygons))
    if own and coloured is not None:
        colour_key(space, coloured)
    return space


class _Faces:
    """The faces of a soup: their corners, cells, and the centres of those."""

    def __init__(self, corners: Floats, face: Integers, owner: Integers, centres: Floats) -> None:
        self.corners, self.face, self.owner, self.centres = corners, face, owner, centres

    @classmethod
    def of(cls, soup: PolyhedronSoup) -> _Faces:
        n = len(soup.cell_offsets) - 1
        owner = np.repeat(np.arange(n), np.diff(soup.cell_offsets))
        face = np.repeat(np.arange(len(owner)), np.diff(soup.face_offsets))
        corners = soup.vertices[soup.loops]
        cell = owner[face]
        with np.errstate(invalid="ignore", divide="ignore"):
            sums = np.stack([np.bincount(cell, corners[:, k], n) for k in range(3)], axis=1)
            centres = sums / np.bincount(cell, minlength=n)[:, None]  # NaN for an empty cell
        return cls(corners, face, owner, centres)


def _polyhedra(
    potential: BrenierPotential, source: Source, plane: tuple[Floats, float] | None
) -> tuple[PolyhedronSoup, Integers]:
    """Cells cut to the source's support and the half-space, and the targets they belong to."""
    from otgan.cells.spatial import Polytope, SpatialCells

    points = potential.points.double().cpu().numpy()
    heights = potential.heights.double().cpu().numpy()
    live = distinct_targets(points, heights)
    cells = exact_cells(source, points[live])
    if not isinstance(cells, SpatialCells):
        raise ValueError(f"{source!r} has no polyhedral cells; cells_3d draws UniformBox and UniformPolytope sources.")
    if plane is not None:
        domain = cells.domain
        slice_ = Polytope(np.vstack([domain.normals, plane[0]]), np.append(domain.offsets, plane[1]))
        try:
            cells = SpatialCells(points[live], slice_)
        except ValueError as error:
            raise ValueError(f"cut leaves nothing of {source!r}: <x, {plane[0]}> <= {plane[1]:g} misses it.") from error
    return cells.polyhedra(heights[live]), live


def _unpack(given: Result | BrenierPotential, source: Source | None) -> tuple[BrenierPotential, Source]:
    if isinstance(given, Result):
        if not isinstance(given.potential, BrenierPotential):
            raise ValueError(
                f"cells_3d draws power cells, which belong to p = 2; this result has p = {given.potential.p:g}."
            )
        potential, source = given.potential, given.source if source is None else source
    elif isinstance(given, BrenierPotential):
        potential = given
    else:
        raise TypeError(f"cells_3d takes a Result or a BrenierPotential, got {type(given).__name__}.")
    if source is None:
        raise ValueError(
            "cells_3d of a potential needs its source, which bounds the cells: source=og.UniformBox(dim=3)."
        )
    if not isinstance(source, Source):
        raise TypeError(f"source must be a measure such as og.UniformBox(dim=3), got {type(source).__name__}.")
    if potential.dim != 3 or source.dim != 3:
        raise ValueError(
            f"cells_3d needs dimension 3, got a potential of dimension {potential.dim} and a source of dimension "
            f"{source.dim}: otgan.plot.power_diagram is for the plane."
        )
    if not has_exact_cells(source):
        raise ValueError(f"{source!r} has no polyhedral cells; cells_3d draws UniformBox and UniformPolytope sources.")
    return potential, source


def _checked_cut(cut: tuple[ArrayLike, float]) -> tuple[Floats, float]:
    try:
        normal, offset = np.asarray(cut[0], dtype=float), float(cut[1])
    except (TypeError, ValueError, IndexError):
        raise TypeError(f"cut must be (normal, offset), such as ((1, 0, 0), 0.5), got {cut!r}.") from None
    if len(cut) != 2 or normal.shape != (3,) or not np.isfinite([*normal, offset]).all() or not normal.any():
        raise ValueError(f"cut must be a finite non-zero normal of shape (3,) and a finite offset, got {cut!r}.")
    return normal, offset
