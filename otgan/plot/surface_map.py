"""Where the mass on a surface comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.colors import to_rgb

from otgan.plot._colours import ValueColours
from otgan.plot._key import colour_key
from otgan.plot._solid import Faces, Up, checked_up, fit_view, lit, open_axes_3d
from otgan.plot._style import FRAME, oklab
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_RIM = 0.6  # rims of dots, as a share of their light
_SAMPLES = 64  # a target, where centroids are estimated
_MOST_SAMPLES = 400_000


def surface_map(
    result: Result,
    faces: ArrayLike | None = None,
    *,
    color: Literal["origin", "displacement"] = "origin",
    cmap: str | Colormap | None = None,
    up: Up = "z",
    ax: Axes | None = None,
) -> Axes:
    """Targets on a surface in space, coloured by where the map takes its mass from: the centroids of their cells.

    ``c_i = E[x | x in W_i]`` is the best constant inverse of the map at target y_i. "origin" gives c_i itself as a
    colour: its height in the source is the lightness, its two other coordinates run from blue to yellow and from green
    to red (OKLab). Neighbours on the surface that differ in colour come from places far apart: there the inverse of
    the map is torn. "displacement" shows the distance ``|y_i - c_i|`` on a scale.

    Args:
        result: what :func:`otgan.solve` returned in dimension 3. Centroids that it lacks, where the solver samples,
            are estimated from 64 samples a target, 400,000 at most.
        faces: triangles of the surface, as rows of the points that were given to ``solve``, shape (f, 3); without them
            points are drawn.
        color: "origin" or "displacement".
        cmap: of the scale; "viridis" when left out.
        up: the axis that points upwards, "x", "y" or "z".
        ax: 3-D axes; those of a new figure when left out.

    Returns:
        The 3-D axes, without frame. Triangles or points are ``ax.collections[0]``; targets with an empty cell are grey.

    Raises:
        ValueError: if the dimension is not 3 or ``faces`` does not fit the targets.
        TypeError: if ``result`` or ``ax`` is of another kind.

    Example:
        >>> from otgan import UniformBox, solve
        >>> corners = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        >>> ax = surface_map(solve(UniformBox(dim=3), corners), [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    """
    if not isinstance(result, Result):
        raise TypeError(f"surface_map takes what otgan.solve returned, got {type(result).__name__}.")
    if result.potential.dim != 3:
        raise ValueError(f"surface_map needs dimension 3, got {result.potential.dim}.")
    if color not in ("origin", "displacement"):
        raise ValueError(f"color must be 'origin' or 'displacement', got {color!r}.")
    up = checked_up(up)
    corners = None if faces is None else _checked_faces(faces, result.target.n_given)
    if ax is not None:
        open_axes_3d(ax, up)  # wrong axes fail before the work
    points = result.target.points.double().cpu().numpy()
    centroids = _centroids(result)
    empty = np.asarray(~np.isfinite(centroids).all(axis=1))
    coloured = None
    if color == "origin":
        rgb = origin_colours(centroids, up)
    else:
        distance = np.linalg.norm(points - centroids, axis=1)
        distance[empty] = 0.0 if empty.all() else np.nanmin(distance)
        coloured = ValueColours(distance, cmap)
        rgb = coloured.rgb
    rgb = np.where(empty[:, None], to_rgb(FRAME), rgb)

    own = ax is None
    space = open_axes_3d(ax, up, keyed=coloured is not None)
    if corners is None:
        size = float(np.clip(480.0 / len(points) ** 0.5, 1.5, 14.0))
        space.scatter(
            *points.T, s=size**2, c=rgb, edgecolors=_RIM * rgb, linewidths=0.05 * size, depthshade=False, gid="surface"
        )
    else:
        mesh = result.target.index.numpy()[corners]
        shades = lit(rgb[mesh].mean(axis=1), _smooth_normals(points, mesh), up)
        space.add_collection3d(Faces(list(points[mesh]), shades, None, 0.3, None, "surface"), autolim=False)
    fit_view(space, points)
    if own and coloured is not None:
        colour_key(space, coloured, label="displacement")
    return space


def origin_colours(places: Floats, up: Up = "z") -> Floats:
    """Colours of places in space, shape (n, 3): their box is mapped onto a box of OKLab, upwards onto lightness."""
    finite = places[np.isfinite(places).all(axis=1)]
    if not len(finite):
        return np.full(places.shape, 0.5)
    low, high = finite.min(axis=0), finite.max(axis=0)
    share = np.nan_to_num((places - low) / np.where(high > low, high - low, 1.0), nan=0.5)
    right, back, upwards = np.roll(share, 2 - "xyz".index(up), axis=1).T
    return oklab(np.stack([0.5 + 0.4 * upwards, 0.28 * right - 0.14, 0.28 * back - 0.14], axis=1))


def _centroids(result: Result) -> Floats:
    """Centres of mass of the cells, shape (n, 3); NaN for an empty cell."""
    if result.centroids is not None:
        return result.centroids.double().cpu().numpy()
    u, n = result.potential, result.potential.n
    m = min(_SAMPLES * n, _MOST_SAMPLES)
    x = result.source.sample(m, seed=0, device=u.points.device, dtype=u.points.dtype)
    index = u.assign(x).cpu().numpy()
    at = x.double().cpu().numpy()
    sums = np.stack([np.bincount(index, at[:, k], n) for k in range(3)], axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / np.bincount(index, minlength=n)[:, None])


def _checked_faces(faces: ArrayLike, n: int) -> Integers:
    array = np.asarray(faces)
    if array.ndim != 2 or array.shape[1] != 3 or len(array) == 0:
        raise ValueError(f"faces must be triangles of shape (f, 3), got {array.shape}.")
    if array.dtype.kind not in "iu":
        raise TypeError(f"faces must be whole numbers, rows of the points, got dtype {array.dtype}.")
    if array.min() < 0 or array.max() >= n:
        raise ValueError(f"faces must lie in 0..{n - 1}, got {array.min()} to {array.max()}.")
    return array.astype(np.int64)


def _smooth_normals(points: Floats, mesh: Integers) -> Floats:
    """A normal for each triangle, shape (f, 3), the mean over its corners of the area-weighted normals around them.

    They point outwards if the surface is closed and consistently oriented, whichever way round.
    """
    a, b, c = points[mesh.T] - points.mean(axis=0)
    flat = np.cross(b - a, c - a)
    around = np.zeros_like(points)
    for k in range(3):
        np.add.at(around, mesh[:, k], flat)
    volume = float(np.einsum("fk,fk->", a, flat))
    return np.asarray(around[mesh].mean(axis=1) * (-1.0 if volume < 0.0 else 1.0))
