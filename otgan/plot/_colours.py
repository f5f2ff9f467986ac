"""One colour a cell: neighbours differ, and a cell keeps its colour from figure to figure as far as that allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_rgb

from otgan.plot._style import LINES, oklch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_MAX_LABELS = 12


def cell_palette() -> Floats:
    """Eighteen muted colours, shape (18, 3): six hues in three lightnesses, so that they differ in grey as well."""
    hues = np.arange(6) / 6 + 0.07
    return np.concatenate([oklch(light, chroma, hues) for light, chroma in ((0.74, 0.075), (0.81, 0.07), (0.88, 0.05))])


def label_palette(k: int) -> Floats:
    """Colours of k class labels, shape (k, 3): the line colours, lightened, and then hues at equal steps."""
    known = np.array([to_rgb(c) for c in LINES]) * 0.72 + 0.28
    return (
        known[:k] if k <= len(known) else oklch(0.76, 0.10, (np.arange(k) * 5 % k) / k if k % 5 else np.arange(k) / k)
    )


def spread(n: int) -> Floats:
    """A fixed pseudo-random number in [0, 1) for each of ``0 .. n-1``: Knuth's multiplicative hash, shape (n,)."""
    return (np.arange(1, n + 1, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(2**32)).astype(np.float64) / 2**32


def proper_colouring(n: int, pairs: Integers, k: int) -> Integers:
    """Colour numbers below k with different numbers on both ends of every pair, shape (n,).

    Greedy in the order of decreasing degree (Welsh, Powell 1967), each cell starting from a hash of its own number. The
    adjacency of planar cells has mean degree below 6, so that k = 18 suffices but for contrived hubs, whose last
    neighbours then keep the colour of their hash.

    Args:
        n: number of cells.
        pairs: cells that touch, shape (p, 2).
        k: number of colours.
    """
    colour = (spread(n) * k).astype(np.int64)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    start = np.searchsorted(both[:, 0], np.arange(n + 1))
    neighbours, wish = both[:, 1].tolist(), colour.tolist()
    done = [-1] * n
    degree = np.diff(start)
    for i in np.argsort(-degree, kind="stable")[: int((degree > 0).sum())].tolist():
        taken = {done[j] for j in neighbours[start[i] : start[i + 1]]}
        done[i] = next((c for c in ((wish[i] + step) % k for step in range(k)) if c not in taken), wish[i])
    return np.where(np.array(done, dtype=np.int64) >= 0, done, colour)


def colours_by_cell(n: int, pairs: Integers, cmap: str | Colormap | None) -> Floats:
    """RGB of n cells without values, shape (n, 3)."""
    if cmap is not None:
        return np.asarray(mpl.colormaps.get_cmap(cmap)(spread(n)))[:, :3]
    palette = cell_palette()
    return palette[proper_colouring(n, pairs, len(palette))]


class ValueColours:
    """Colours for values on cells: few whole numbers are labels, everything else is a scale.

    Attributes:
        rgb: shape (n, 3).
        labels: the distinct labels, or ``None`` for a scale.
        cmap: colours by value.
        norm: values to [0, 1].
    """

    def __init__(self, values: NDArray[np.generic], cmap: str | Colormap | None) -> None:
        distinct = np.unique(values)
        discrete = values.dtype.kind in "biu" and len(distinct) <= _MAX_LABELS
        self.labels = distinct if discrete else None
        number = np.searchsorted(distinct, values) if discrete else values.astype(np.float64)
        if discrete:
            k = len(distinct)
            colours = label_palette(k)
            if cmap is not None:
                colours = np.asarray(mpl.colormaps.get_cmap(cmap)(np.linspace(0.0, 1.0, k)))[:, :3]
            self.cmap: Colormap = ListedColormap(colours)
            self.norm = Normalize(-0.5, k - 0.5)
        else:
            self.cmap = mpl.colormaps.get_cmap("viridis" if cmap is None else cmap)
            low, high = float(number.min()), float(number.max())
            self.norm = Normalize(low, high if high > low else low + max(abs(low), 1.0) * 1e-6)
        self.rgb = np.asarray(self.cmap(self.norm(number)))[:, :3]
