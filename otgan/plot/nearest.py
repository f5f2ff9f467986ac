"""New points and new images beside the training ones that are nearest to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.collections import LineCollection

from otgan._checks import as_count
from otgan.measures import DiscreteMeasure
from otgan.metrics._neighbours import nearest
from otgan.metrics._points import pair
from otgan.metrics.images._pixels import as_pixels
from otgan.plot._style import FRAME, SQUARE, TARGET, frame, legend_above, name_axes, open_axes
from otgan.plot.images import beside
from otgan.plot.transport_map import principal_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from torch import Tensor

    from otgan._checks import ArrayLike

    Floats = NDArray[np.float64]

_ROWS = 4096  # training images whose distances are computed at once


def nearest_images(samples: Any, train: Any, ax: Axes | None = None, *, n_cols: int = 10) -> Axes:
    """Generated images, and under each the training image that is nearest in the Euclidean distance of pixels.

    Args:
        samples: bytes or floats in [0, 1], shape (k, c, h, w), c = 1 or 3; all are drawn.
        train: likewise, (n, c, h, w).
        ax: where to draw; a new figure when left out.
        n_cols: pairs a row.

    Returns:
        The axes, as those of :func:`otgan.plot.beside`.

    Example:
        >>> ax = nearest_images(torch.zeros(5, 1, 8, 8), torch.rand(20, 1, 8, 8))
    """
    new = as_pixels(samples, "samples").cpu()
    real = as_pixels(train, "train", tuple(new.shape[1:])).cpu()
    return beside(channels_last(new), channels_last(real[nearest_image(new, real)]), ax, n_cols=n_cols)


def nearest_image(new: Tensor, real: Tensor) -> Tensor:
    """Number of the nearest image, shape (k,), of bytes (k, c, h, w) and (n, c, h, w); whole numbers, so exactly."""
    x = new.flatten(1).double()
    best = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for start in range(0, len(real), _ROWS):
        y = real[start : start + _ROWS].flatten(1).double()
        square = x.square().sum(dim=1)[:, None] - 2.0 * x @ y.T + y.square().sum(dim=1)
        least, at = square.min(dim=1)
        closer = least < best
        best[closer], index[closer] = least[closer], at[closer] + start
    return index


def channels_last(pixels: Tensor) -> Tensor:
    """Shape (k, h, w) of grey images and (k, h, w, 3) of colour ones, from (k, c, h, w)."""
    return pixels[:, 0] if pixels.shape[1] == 1 else pixels.permute(0, 2, 3, 1)


def nearest_points(
    samples: ArrayLike, train: ArrayLike, ax: Axes | None = None, *, n_lines: int = 100, max_points: int = 5000
) -> Axes:
    """New points over training points, and lines from the first of them to the nearest training point.

    Nearest is meant in all coordinates. Drawn is the plane itself, or the two principal components of the training
    points, whose share of the variance is in the axes' names. Lines that end where they begin are copies.

    Args:
        samples: (m, d).
        train: (n, d).
        ax: where to draw; a new figure when left out.
        n_lines: samples with a line.
        max_points: dots of each kind that are drawn at most.

    Returns:
        The axes; the lines are the LineCollection of gid "nearest".

    Example:
        >>> ax = nearest_points(np.random.rand(50, 3), np.random.rand(200, 3))
    """
    x, y = pair(samples, train, ("samples", "train"))
    lines, most = as_count(n_lines, "n_lines"), as_count(max_points, "max_points", 1)
    some = x[:lines]
    closest = y[nearest(some, y, 1)[0][:, 0]] if len(some) else some
    look, names = _plane(y)
    ax = open_axes(ax, SQUARE)
    frame(ax, grid=True)
    points, new = look(y[:most], 0.0), look(x[:most], 1.0)
    ax.scatter(
        points[:, 0],
        points[:, 1],
        s=9.0,
        color=FRAME,
        alpha=0.7,
        linewidths=0,
        label="training points",
        gid="train",
        zorder=2,
    )
    ax.scatter(
        new[:, 0], new[:, 1], s=13.0, color=TARGET, alpha=0.85, linewidths=0, label="new points", gid="new", zorder=3
    )
    ends = np.stack([look(some, 1.0), look(closest, 0.0)], axis=1)
    ax.add_collection(
        LineCollection(list(ends), colors=TARGET, linewidths=0.8, alpha=0.8, zorder=2.5, gid="nearest"), autolim=False
    )
    if y.shape[1] > 1:
        ax.set_aspect("equal", adjustable="datalim")
    else:
        ax.set_yticks([0, 1], ["training", "new"])
    name_axes(ax, *names)
    legend_above(ax)
    return ax


def _plane(y: Tensor) -> tuple[Callable[[Tensor, float], Floats], tuple[str, str]]:
    """What shows points in the plane (those on the line at a height), and the names of its axes."""
    d = y.shape[1]
    if d == 1:

        def line(points: Tensor, height: float) -> Floats:
            return np.stack([_numbers(points)[:, 0], np.full(len(points), height)], axis=1)

        return line, ("$y$", "")
    if d == 2:
        return lambda points, height: _numbers(points), ("$y_1$", "$y_2$")
    centre, axes, shares = principal_axes(DiscreteMeasure(y))
    named = zip(("first", "second"), shares, strict=True)
    first, second = (f"{which} principal axis ({100 * share:.0f} % of variance)" for which, share in named)
    return lambda points, height: (_numbers(points) - centre) @ axes.T, (first, second)


def _numbers(points: Tensor) -> Floats:
    return np.asarray(points.double().cpu().numpy())
