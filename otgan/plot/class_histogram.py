"""How generated images fall on the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otgan.plot._style import INK, SMALL, SOURCE, WIDE, frame, legend_above, name_axes, open_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_FEW = 30  # classes whose names are all written


def class_histogram(
    counts: ArrayLike,
    real: ArrayLike | None = None,
    *,
    names: Sequence[Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Share of the samples in each class, beside the share of real images.

    The line is the real images' share, or that of equal classes; the band is two standard deviations of what chance
    makes of both, ``2 (p_k (1 - p_k) (1/m + 1/n))^(1/2)``. A bar far below it is a class that the generator neglects.

    Args:
        counts: samples in each class, shape (K,), such as ``torch.bincount(classifier.classify(samples))``.
        real: real images in each class, shape (K,).
        names: of the classes; 0, 1, ... when left out.
        ax: where to draw; a new figure when left out.

    Returns:
        The axes; the bars are ``ax.containers[0]``.

    Raises:
        ValueError: for numbers below 0, none at all, or shapes that differ.

    Example:
        >>> ax = class_histogram([48, 52, 0], real=[40, 30, 30], names=["cat", "dog", "bird"])
    """
    ours = _counts(counts, "counts")
    k, m = len(ours), float(ours.sum())
    if real is not None:
        theirs = _counts(real, "real")
        if len(theirs) != k:
            raise ValueError(f"counts and real must have one shape, got ({k},) and ({len(theirs)},).")
        expected, noise = theirs / theirs.sum(), 1.0 / m + 1.0 / float(theirs.sum())
    else:
        expected, noise = np.full(k, 1.0 / k), 1.0 / m
    if names is not None and len(names) != k:
        raise ValueError(f"names must be {k}, one a class, got {len(names)}.")
    ax = open_axes(ax, WIDE)
    frame(ax)
    place, edges = np.arange(k), np.arange(k + 1) - 0.5
    ax.bar(place, ours / m, 0.8, color=SOURCE, alpha=0.75, linewidth=0, label="samples")
    spread = 2.0 * (expected * (1.0 - expected) * noise) ** 0.5
    low = np.maximum(expected - spread, 0.0)
    ax.stairs(expected + spread, edges, baseline=low, fill=True, color=INK, alpha=0.16, linewidth=0, gid="band")
    what = "real images" if real is not None else "equal classes"
    ax.stairs(expected, edges, baseline=None, color=INK, linewidth=1.2, label=f"{what}, and chance", gid="expected")
    if k <= _FEW:
        ax.set_xticks(place, [str(name) for name in (names if names is not None else place)], fontsize=SMALL)
    ax.set_xlim(-0.6, k - 0.4)
    name_axes(ax, "class", "share")
    legend_above(ax)
    return ax


def _counts(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name} must have shape (K,), one number a class, got {array.shape}.")
    if not np.isfinite(array).all() or array.min() < 0.0 or array.sum() <= 0.0:
        raise ValueError(f"{name} must be finite numbers >= 0 that are not all 0.")
    return array
