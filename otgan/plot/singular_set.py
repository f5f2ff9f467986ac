"""The singular set of an optimal map in the plane: which facets of the power diagram separate modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.collections import LineCollection

from otgan.generators import ExtensionGenerator
from otgan.generators._facets import dihedral
from otgan.plot._cells import line_width
from otgan.plot._colours import cell_palette, label_palette, proper_colouring
from otgan.plot._polygons import polygon_cells
from otgan.plot._region import region_of
from otgan.plot._style import SQUARE, TARGET, axes_width, frame, legend_above, open_axes
from otgan.potential import BrenierPotential
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_SIDE = np.array([1.0, 1.0, 1.0])
_PALE = 0.55  # share of white in the colours of components
_FEW = 12  # components with colours of their own


def singular_set(
    generator_or_result: ExtensionGenerator | Result,
    *,
    ax: Axes | None = None,
    threshold: float | None = None,
    extent: tuple[float, float, float, float] | None = None,
) -> Axes:
    """Power cells in the colours of their components, and on them the facets of singular angle.

    A side between cells i and j is singular where the dihedral angle of their supporting planes is above the
    threshold, see :class:`otgan.generators.ExtensionGenerator`: there T_h jumps from one mode to another. All sides
    in the window are tested, exactly, those included that no sample found. Components are the generator's: two
    neighbours of one colour and a singular side are joined around its end.

    Args:
        generator_or_result: a generator in the plane; or what :func:`otgan.solve` returned, for its generator by
            default settings.
        ax: where to draw; a new figure when left out.
        threshold: angle in radians; the generator's when left out.
        extent: window ``(x0, x1, y0, y1)`` instead of the source's own.

    Returns:
        The axes. Cells are ``ax.collections[0]``, gid "cells"; the singular sides a LineCollection of gid "singular",
        one segment a facet, absent if there is none.

    Raises:
        TypeError: for anything else than such a generator or result.
        ValueError: if the dimension or the cost's exponent is not 2, or the threshold is not positive.
        RuntimeError: if double precision does not suffice for the given heights.
    """
    generator = _generator(generator_or_result, threshold)
    if ax is not None:
        open_axes(ax, SQUARE)  # a wrong ax fails before the work
    potential = generator.potential
    region = region_of(generator.source, potential, extent)
    cells = polygon_cells(potential.points.double().cpu().numpy(), potential.heights.double().cpu().numpy(), region)
    pairs = torch.from_numpy(cells.pairs).to(generator.device)
    angles = dihedral(generator.normals[pairs[:, 0]], generator.normals[pairs[:, 1]]).cpu().numpy()
    singular = angles > generator.threshold

    ax = open_axes(ax, SQUARE)
    side, length = cells.side, cells.length(ax)
    colours = _component_colours(generator.component.cpu().numpy(), cells.pairs[singular])
    cells.draw(ax, colours, _SIDE, line_width(side, length))
    if singular.any():
        share = f"{int(singular.sum())} of {len(singular)} facets"
        label = rf"singular: $\theta > {generator.threshold:.2g}$ ({share})"
        ax.add_collection(
            LineCollection(
                list(cells.sides[singular]), colors=TARGET, linewidths=1.6, capstyle="round", zorder=2.5, label=label,
                gid="singular",
            ),
            autolim=False,
        )  # fmt: skip
    ax.set_xlim(region.extent[:2])
    ax.set_ylim(region.extent[2:])
    ax.set_aspect("equal")
    ax.locator_params(nbins=int(np.clip(axes_width(ax) / 45.0, 2, 5)))
    frame(ax, box=True)
    patch = region.patch()
    if patch is not None:
        patch.set(facecolor="none", edgecolor="none")
        ax.add_patch(patch)
        for artist in ax.collections:
            artist.set_clip_path(patch)
    if singular.any():
        legend_above(ax)
    return ax


def _generator(given: ExtensionGenerator | Result, threshold: float | None) -> ExtensionGenerator:
    if not isinstance(given, (ExtensionGenerator, Result)):
        raise TypeError(f"singular_set takes an ExtensionGenerator or a Result, got {type(given).__name__}.")
    potential = given.potential
    if not isinstance(potential, BrenierPotential):
        raise ValueError(f"Singular facets belong to p = 2; this result has p = {potential.p:g}.")
    if potential.dim != 2:
        raise ValueError(
            f"singular_set draws the plane, got dimension {potential.dim}; ask generator.singular_facets()."
        )
    if isinstance(given, Result):
        return ExtensionGenerator(potential, given.source, threshold=threshold)
    if threshold is None or threshold == given.threshold:
        return given
    return ExtensionGenerator(potential, given.source, threshold=threshold, facets=given.facets)


def _component_colours(component: NDArray[np.int64], singular: NDArray[np.int64]) -> NDArray[np.float64]:
    """RGB of each cell, shape (n, 3): components that meet at a singular side differ."""
    k = int(component.max()) + 1
    if k <= _FEW:
        palette = label_palette(k)
        return palette[component] * (1.0 - _PALE) + _PALE
    palette = cell_palette()
    meet = np.sort(component[singular], axis=1)
    meet = np.unique(meet[meet[:, 0] != meet[:, 1]], axis=0)
    return 0.4 + 0.6 * palette[proper_colouring(k, meet, len(palette))[component]]
