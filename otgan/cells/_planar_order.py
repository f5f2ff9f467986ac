"""Order along Hilbert's curve: targets that are close in the plane become close in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = 24


@njit(cache=True)
def _hilbert_keys(x: NDArray[np.int64], y: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
    """Position of the integer points (x, y) in [0, 2**BITS)^2 along Hilbert's curve."""
    for i in range(len(keys)):
        a, b = x[i], y[i]
        key = np.int64(0)
        side = np.int64(1) << (BITS - 1)
        while side > 0:
            right = np.int64((a & side) > 0)
            upper = np.int64((b & side) > 0)
            key = (key << 2) | ((3 * right) ^ upper)
            if upper == 0:
                if right == 1:
                    a = (np.int64(1) << BITS) - 1 - a
                    b = (np.int64(1) << BITS) - 1 - b
                a, b = b, a
            side >>= 1
        keys[i] = key


def hilbert_order(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Permutation that sorts ``points``, shape (n, 2), along Hilbert's curve through their bounding box."""
    low = points.min(axis=0)
    size = (points.max(axis=0) - low).max()
    cells = ((points - low) * ((2.0**BITS - 1) / (size if size > 0 else 1.0))).astype(np.int64)
    keys = np.empty(len(points), np.int64)
    _hilbert_keys(np.ascontiguousarray(cells[:, 0]), np.ascontiguousarray(cells[:, 1]), keys)
    return np.argsort(keys, kind="stable")
