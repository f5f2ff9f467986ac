"""Pictures made of dots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import EllipseCollection

from otgan._checks import as_points, as_weights
from otgan.measures import GridDensity
from otgan.plot._style import INK, open_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from otgan._checks import ArrayLike
    from otgan.plot._region import Extent

    Floats = NDArray[np.float64]

_LONGER = 6.4  # inches
_DARKEST = 0.75  # share of the paper that dots cover where the picture is darkest; circles touch at .91
_ROOM = 0.62  # diameter of a dot as a share of the distance to its neighbours, without an image


def stippling(
    points: ArrayLike,
    image: GridDensity | ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw points as dots on white paper, in true proportions and without axes.

    Dots are sized in data units, so that they keep their tone at every size of the figure. With an image the ink is
    ``sum of dot areas = .75 * sum of pixel values / largest value * pixel area``: where the picture is darkest, dots of
    its optimal quantisation just do not touch. Without one, a dot takes .62 of the median distance to the nearest
    other point.

    Args:
        points: places of the dots, shape (n, 2), such as the optimal quantisation of a picture.
        image: the picture they stand for, a :class:`otgan.GridDensity` or its values, shape (rows, columns), larger
            where darker, row 0 at the top. It sets the window, and how much ink there is.
        weights: masses of the points, shape (n,), > 0: areas of the dots are proportional to them.
        ax: where to draw; a new figure when left out.

    Returns:
        The axes; the dots are ``ax.collections[-1]``.

    Raises:
        ValueError: if points are not in the plane, or image or weights do not fit.

    Example:
        >>> ax = stippling(np.random.default_rng(0).random((100, 2)), weights=np.arange(1, 101))
    """
    y = as_points(points, "points", 2).double().cpu().numpy()
    b = as_weights(weights, len(y)).numpy()
    picture = image if image is None or isinstance(image, GridDensity) else GridDensity(image)
    if picture is None:
        extent = _around(y)
        ink = len(y) * 0.25 * np.pi * (_ROOM * _spacing(y, extent)) ** 2
    else:
        (x0, y0), (x1, y1) = picture.low.tolist(), picture.high.tolist()
        extent = (x0, x1, y0, y1)
        ink = _DARKEST * float(picture.values.mean() / picture.values.max()) * (x1 - x0) * (y1 - y0)
    width, height = extent[1] - extent[0], extent[3] - extent[2]
    scale = _LONGER / max(width, height)
    ax = open_axes(ax, (max(width * scale, 0.5), max(height * scale, 0.5)), (0.0, 0.0, 1.0, 1.0))
    diameters = 2.0 * np.sqrt(ink * b / np.pi)
    dots = EllipseCollection(
        diameters, diameters, np.zeros(len(y)), units="xy", offsets=y, offset_transform=ax.transData,
        facecolors=INK, linewidths=0, gid="dots",
    )  # fmt: skip
    ax.add_collection(dots, autolim=False)
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _around(points: Floats) -> Extent:
    """A window with a small margin around points."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.03 * (float((high - low).max()) or 1.0)
    (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
    return x0, x1, y0, y1


def _spacing(points: Floats, extent: Extent) -> float:
    """Median distance to the nearest other point; a tenth of the window where there is none."""
    from scipy.spatial import cKDTree

    distance = np.asarray(cKDTree(points).query(points, k=2)[0])[:, 1]
    distance = distance[np.isfinite(distance) & (distance > 0.0)]
    return float(np.median(distance)) if len(distance) else 0.1 * (extent[1] - extent[0])
