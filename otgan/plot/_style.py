"""House style: colours, sizes and the few things that every figure does alike.

Colours that carry meaning are from the colour-blind-safe set of Okabe and Ito, "Color universal design" (2008). Nothing
here touches matplotlib's global settings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

if TYPE_CHECKING:
    from matplotlib.legend import Legend
    from numpy.typing import ArrayLike, NDArray

INK = "#26262e"
"""Text and the dots of targets."""
FRAME = "#9a9aa4"
"""Axes, ticks, reference lines."""
GRID = "#e8e8ec"
"""Grid lines."""
SOURCE = "#0072b2"
"""Blue: what belongs to the source, and the first curve of a figure."""
TARGET = "#d55e00"
"""Vermilion: what belongs to the target, and what asks for attention."""
LINES = (SOURCE, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", TARGET)
"""Curves of one figure, in order."""

TEXT = 10.0
SMALL = 9.0
DPI = 125.0  # 6.4 inches are 800 pixels
SQUARE = (6.4, 6.1)
WIDE = (6.4, 3.9)


def open_axes(
    ax: Axes | None, size: tuple[float, float], place: tuple[float, float, float, float] | None = None
) -> Axes:
    """``ax`` itself, or the axes of a new figure of ``size`` inches.

    In a new figure they are laid out by what is drawn, or put at ``place``: left, bottom, width, height, as shares.
    """
    if ax is None:
        made: Axes = plt.subplots(figsize=size, dpi=DPI, layout="constrained" if place is None else "none")[1]
        if place is not None:
            made.set_position(place)
        return made
    if not isinstance(ax, Axes):
        raise TypeError(
            f"ax must be a matplotlib Axes, got {type(ax).__name__}; of an array of Axes pass one, such as axes[0, 0]."
        )
    return ax


def frame(ax: Axes, *, grid: bool = False, box: bool = False) -> None:
    """Thin grey axes: left and bottom only, or all four sides as a ``box``."""
    for side, spine in ax.spines.items():
        spine.set_visible(box or side in ("left", "bottom"))
        spine.set_color(FRAME)
        spine.set_linewidth(0.8)
    ax.tick_params(which="both", color=FRAME, labelcolor=INK, labelsize=SMALL, width=0.8)
    ax.tick_params(which="major", length=3.0)
    ax.tick_params(which="minor", length=1.5)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, which="major", color=GRID, linewidth=0.8)


def name_axes(ax: Axes, x: str, y: str) -> None:
    """Labels of both axes."""
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)


def legend_above(ax: Axes) -> Legend:
    """A legend above the axes, where it covers no data, in as few rows as their width allows."""
    handles, labels = ax.get_legend_handles_labels()
    widths = [34.0 + 5.0 * len(re.sub(r"[$\\{}]|leq", "", label)) for label in labels]
    columns = next((c for c in range(len(labels), 1, -1) if _row_width(widths, c) <= axes_width(ax)), 1)
    return ax.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        borderaxespad=0.2,
        borderpad=0.2,
        handletextpad=0.5,
        columnspacing=1.4,
    )


def _row_width(widths: list[float], columns: int) -> float:
    """Points that a legend takes in so many columns, filled one after the other."""
    rows = -(-len(widths) // columns)
    return sum(max(widths[first : first + rows]) for first in range(0, len(widths), rows))


def axes_width(ax: Axes) -> float:
    """Width of the axes in points, as they are laid out now."""
    return float(ax.get_window_extent().width * 72.0 / ax.figure.dpi)


def points_per_unit(ax: Axes, extent: tuple[float, float, float, float]) -> float:
    """Points that one unit of data takes once the axes show ``extent`` in equal scales, as they are laid out now."""
    x0, x1, y0, y1 = extent
    box = ax.get_window_extent()
    return float(min(box.width / (x1 - x0), box.height / (y1 - y0)) * 72.0 / ax.figure.dpi)


def oklch(lightness: float, chroma: float, hue: ArrayLike) -> NDArray[np.float64]:
    """Convert colours given in OKLCh to sRGB, shape (k, 3): equal steps of hue (in turns) look equal.

    Source: B. Ottosson, "A perceptual color space for image processing" (2020).
    """
    angle = 2.0 * np.pi * np.atleast_1d(np.asarray(hue, dtype=float))
    return oklab(np.stack([np.full_like(angle, lightness), chroma * np.cos(angle), chroma * np.sin(angle)], axis=1))


def oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert colours given in OKLab, shape (k, 3), to sRGB; what the screen cannot show is clipped."""
    to_lms = [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
    to_rgb = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip((lab @ np.array(to_lms).T) ** 3 @ np.array(to_rgb).T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
