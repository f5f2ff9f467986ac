"""Panels of small images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from otgan._checks import as_count
from otgan.plot._style import INK, SMALL, TEXT, axes_width, open_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]

_BACKGROUND = 1.0
_WIDTH = 6.4


def image_grid(
    images: ArrayLike | Tensor,
    n_cols: int | None = None,
    ax: Axes | None = None,
    *,
    titles: Sequence[Any] | None = None,
    row_labels: Sequence[Any] | None = None,
) -> Axes:
    """Draw images side by side, row by row.

    Whole numbers are read as 0..255. Grey numbers beyond [0, 1] are scaled to it together, so that images stay
    comparable.

    Args:
        images: grey, shape (k, h, w), or colour, shape (k, h, w, 3).
        n_cols: images a row; by default one row of up to 8, else about a square.
        ax: where to draw; a new figure when left out.
        titles: one a image, above it.
        row_labels: one a row, left of it.

    Returns:
        The axes; all images are one ``ax.images[-1]``.

    Raises:
        ValueError: if the shape, the range of colours or the number of titles does not fit.

    Example:
        >>> ax = image_grid(np.zeros((10, 8, 8)), n_cols=5)
    """
    stack = _as_images(images, "images")
    k = len(stack)
    columns = min(as_count(n_cols, "n_cols", 1), k) if n_cols is not None else (k if k <= 8 else math.ceil(k**0.5))
    rows = [list(range(first, min(first + columns, k))) for first in range(0, k, columns)]
    if titles is not None and len(titles) != k:
        raise ValueError(f"titles must be {k}, one an image, got {len(titles)}.")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"row_labels must be {len(rows)}, one a row, got {len(row_labels)}.")
    return _panel(ax, stack, rows, [0.0] * len(rows), titles, row_labels)


def beside(
    new: ArrayLike | Tensor,
    nearest: ArrayLike | Tensor,
    ax: Axes | None = None,
    *,
    n_cols: int = 10,
    labels: tuple[str, str] = ("new", "nearest in\ntraining set"),
) -> Axes:
    """New images, and under each the training image nearest to it: are they copies?

    Args:
        new: shape (k, h, w) or (k, h, w, 3).
        nearest: of the same shape.
        ax: where to draw; a new figure when left out.
        n_cols: pairs a row; more go to further double rows.
        labels: of the upper and the lower rows.

    Returns:
        The axes; all images are one ``ax.images[-1]``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> ax = beside(np.zeros((5, 8, 8)), np.zeros((5, 8, 8)))
    """
    upper, lower = np.asarray(_to_numpy(new)), np.asarray(_to_numpy(nearest))
    if upper.shape != lower.shape:
        raise ValueError(f"new and nearest must have one shape, got {upper.shape} and {lower.shape}.")
    if upper.dtype != lower.dtype and "u" in (upper.dtype.kind, lower.dtype.kind):
        raise ValueError(f"new and nearest must have one scale, got dtypes {upper.dtype} and {lower.dtype}.")
    if len(labels) != 2:
        raise ValueError(f"labels must be 2, for the upper and the lower rows, got {len(labels)}.")
    stack = _as_images(np.concatenate([upper, lower]), "new")
    k = len(upper)
    columns = min(as_count(n_cols, "n_cols", 1), k)
    rows: list[list[int]] = []
    for first in range(0, k, columns):
        pair = list(range(first, min(first + columns, k)))
        rows += [pair, [k + i for i in pair]]
    space = [0.35 if r % 2 == 0 and r else 0.0 for r in range(len(rows))]
    return _panel(ax, stack, rows, space, None, list(labels) * (len(rows) // 2))


def _panel(
    ax: Axes | None,
    stack: Floats,
    rows: list[list[int]],
    space: list[float],
    titles: Sequence[Any] | None,
    row_labels: Sequence[Any] | None,
) -> Axes:
    """Paste the images onto one canvas: ``space`` is left above each row, in image heights."""
    if ax is not None:
        open_axes(ax, (_WIDTH, _WIDTH))  # a wrong ax fails here
    height, width = stack.shape[1:3]
    gap = max(round(0.06 * max(height, width)), 1)
    columns = max(len(row) for row in rows)
    pixel = (_WIDTH * 72.0 if ax is None else axes_width(ax)) / (columns * (width + gap))  # about, in points
    title = math.ceil(1.5 * SMALL / pixel) if titles is not None else 0
    tops, y = [], 0
    for above in space:
        y += title + round(above * height)
        tops.append(y)
        y += height + gap
    canvas = np.full((y - gap, columns * (width + gap) - gap, *stack.shape[3:]), _BACKGROUND)
    ax = open_axes(ax, *_layout(canvas.shape[0] / canvas.shape[1], row_labels))
    for row, top in zip(rows, tops, strict=True):
        for column, i in enumerate(row):
            left = column * (width + gap)
            canvas[top : top + height, left : left + width] = stack[i]
            if titles is not None:
                _write(ax, str(titles[i]), (left + (width - 1) / 2, top - 0.5), (0.0, 2.0), "center", "bottom", SMALL)
    if row_labels is not None:
        for label, top in zip(row_labels, tops, strict=True):
            _write(ax, str(label), (-0.5, top + (height - 1) / 2), (-6.0, 0.0), "right", "center", TEXT)
    if canvas.ndim == 3:
        ax.imshow(canvas, interpolation="antialiased")
    else:
        ax.imshow(canvas, cmap="gray", vmin=0.0, vmax=1.0, interpolation="antialiased")
    ax.set_axis_off()
    return ax


def _write(
    ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], across: str, up: str, size: float
) -> None:
    """Text at a place of the canvas, moved by ``offset`` points."""
    ax.annotate(
        text, at, offset, textcoords="offset points", ha=across, va=up, multialignment=across, linespacing=1.1,
        fontsize=size, color=INK, annotation_clip=False,
    )  # fmt: skip


def _layout(
    ratio: float, row_labels: Sequence[Any] | None
) -> tuple[tuple[float, float], tuple[float, float, float, float]]:
    """Inches of a figure for a canvas of ``height / width = ratio`` with labels on its left, and the canvas's place."""
    longest = max((len(part) for label in row_labels or [] for part in str(label).split("\n")), default=0)
    margin = 0.05 if not longest else 0.15 + 0.085 * longest
    width = _WIDTH - margin - 0.05
    if width * ratio > 9.0:
        width = 9.0 / ratio
    across, high = margin + width + 0.05, width * ratio + 0.1
    return (across, high), (margin / across, 0.05 / high, width / across, width * ratio / high)


def _to_numpy(images: ArrayLike | Tensor) -> ArrayLike:
    import torch

    return images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else images


def _as_images(images: ArrayLike | Tensor, name: str) -> Floats:
    """Shape (k, h, w) or (k, h, w, 3), float64 in [0, 1]."""
    array = np.asarray(_to_numpy(images))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}.")
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3) or 0 in array.shape:
        hint = ""
        if array.ndim == 4 and array.shape[1] in (1, 3):
            hint = (
                "; channels come last: images[:, 0]"
                if array.shape[1] == 1
                else "; channels come last: images.transpose(0, 2, 3, 1)"
            )
        raise ValueError(f"{name} must have shape (k, h, w) or (k, h, w, 3), got {array.shape}{hint}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} NaN or infinite numbers.")
    whole = array.dtype.kind in "iu"
    array = array.astype(np.float64) / (255.0 if whole else 1.0)
    low, high = float(array.min()), float(array.max())
    if low >= 0.0 and high <= 1.0:
        return array
    if array.ndim == 4:
        bounds = "0..255" if whole else "[0, 1]"
        unit = 255.0 if whole else 1.0
        raise ValueError(
            f"Colours must lie in {bounds}, got {unit * low:g} to {unit * high:g}; scale or clip them first."
        )
    return (array - low) / (high - low)
