"""What Newton's method is given, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def as_weights(weights: ArrayLike, n: int) -> Floats:
    """Weights b > 0, shape (n,), normalised to sum 1."""
    b = np.asarray(weights, dtype=np.float64)
    if b.shape != (n,):
        msg = f"weights must have shape ({n},), one per target, got {b.shape}"
        raise ValueError(msg)
    if not np.isfinite(b).all() or b.min() <= 0.0:
        msg = f"weights must be positive and finite, got a least value of {b.min()}; drop targets without weight"
        raise ValueError(msg)
    return b / b.sum()


def as_start(start: ArrayLike, n: int) -> Floats:
    """Finite heights, shape (n,)."""
    heights = np.array(start, dtype=np.float64)
    if heights.shape != (n,) or not np.isfinite(heights).all():
        msg = f"start must be finite heights of shape ({n},), got shape {heights.shape}"
        raise ValueError(msg)
    return heights
