"""Values of targets: checked, and explained beside the figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Patch

from otgan.plot._style import FRAME, INK, SMALL

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from otgan.plot._colours import ValueColours


def checked_values(values: ArrayLike, n: int) -> NDArray[np.generic]:
    """``values`` as an array of n finite numbers."""
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"values must have shape ({n},), one a distinct target, got {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"values must be numbers, got an array of dtype {array.dtype}; number the classes.")
    if not np.isfinite(array).all():
        raise ValueError(f"values has {int((~np.isfinite(array)).sum())} NaN or infinite entries; replace them.")
    return array


def colour_key(
    ax: Axes, coloured: ValueColours, mappable: ScalarMappable | None = None, *, label: str | None = None
) -> Artist:
    """Colour bar of a scale, or legend of labels, beside the axes."""
    figure = ax.figure
    if coloured.labels is None:
        mappable = ScalarMappable(coloured.norm, coloured.cmap) if mappable is None else mappable
        bar = figure.colorbar(mappable, ax=ax, fraction=0.045, pad=0.02, shrink=0.7 if ax.name == "3d" else 1.0)
        bar.outline.set(edgecolor=FRAME, linewidth=0.8)
        bar.ax.tick_params(color=FRAME, labelcolor=INK, labelsize=SMALL, width=0.8, length=3.0)
        if label is not None:
            bar.set_label(label, fontsize=SMALL, color=INK)
        return bar.ax
    handles = [Patch(facecolor=coloured.cmap(k), label=str(text.item())) for k, text in enumerate(coloured.labels)]
    return ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=1.0,
        handleheight=1.0,
    )
