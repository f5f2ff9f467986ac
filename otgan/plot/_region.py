"""Which part of the plane a source occupies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Circle, Polygon, Rectangle

from otgan.measures import Empirical, Gaussian, GridDensity, UniformBall, UniformBox, UniformPolytope

if TYPE_CHECKING:
    from matplotlib.patches import Patch
    from numpy.typing import NDArray

    from otgan.measures import Source
    from otgan.potential import BrenierPotential

    Floats = NDArray[np.float64]

Extent = tuple[float, float, float, float]
_SIGMAS = 3.0


@dataclass(frozen=True)
class Region:
    """A window, and what of it belongs to the source.

    Attributes:
        extent: ``(x0, x1, y0, y1)``, the axis limits.
        support: "box", "disc", "polygon" or "plane".
        bounds: ``(x0, x1, y0, y1)`` around the support; the window itself for the plane.
        outline: corners of the support, counter-clockwise, shape (k, 2); of the square around a disc, and of the window
            for the plane.
    """

    extent: Extent
    support: str
    bounds: Extent
    outline: Floats

    @property
    def centre(self) -> Floats:
        """Middle of the bounds, shape (2,)."""
        x0, x1, y0, y1 = self.bounds
        return np.array([(x0 + x1) / 2, (y0 + y1) / 2])

    @property
    def visible(self) -> Extent:
        """The part of the bounds in the window."""
        (x0, x1, y0, y1), (u0, u1, v0, v1) = self.extent, self.bounds
        return max(x0, u0), min(x1, u1), max(y0, v0), min(y1, v1)

    def patch(self) -> Patch | None:
        """The support as a new patch, or ``None`` where the source is everywhere in the window."""
        x0, x1, y0, y1 = self.bounds
        if self.support == "disc":
            return Circle((float(self.centre[0]), float(self.centre[1])), (x1 - x0) / 2)
        if self.support == "polygon":
            return Polygon(self.outline, closed=True)
        if self.support == "box" and self.bounds != self.extent:
            return Rectangle((x0, y0), x1 - x0, y1 - y0)
        return None


def region_of(source: Source | None, potential: BrenierPotential, extent: Extent | None) -> Region:
    """The window for a source: around a box, a picture, a polygon or a disc, three standard deviations of a Gaussian.

    The window surrounds all points of an empirical source, and the targets where there is no source.

    Raises:
        ValueError: if ``extent`` is no window, or shows nothing of the source.
    """
    support, outline = "plane", None
    if isinstance(source, (UniformBox, GridDensity)):
        support, bounds = "box", _join(source.low.numpy(), source.high.numpy())
    elif isinstance(source, UniformPolytope):
        outline = source.vertices.numpy()
        support, bounds = "polygon", _join(outline.min(axis=0), outline.max(axis=0))
    elif isinstance(source, UniformBall):
        centre = source.center.numpy()
        support, bounds = "disc", _join(centre - source.radius, centre + source.radius)
    elif isinstance(source, Gaussian):
        spread = _SIGMAS * np.sqrt(source.cov.diagonal().numpy())
        spread = np.maximum(spread, 0.05 * spread.max())
        bounds = _join(source.mean.numpy() - spread, source.mean.numpy() + spread)
    elif source is None or isinstance(source, Empirical):
        points = (potential if source is None else source).points.double().cpu().numpy()
        low, high = points.min(axis=0), points.max(axis=0)
        size = float((high - low).max()) or 1.0
        margin = np.maximum(0.08 * (high - low), 0.04 * size)
        bounds = _join(low - margin, high + margin)
    else:
        reach = _SIGMAS * (source.variance / 2) ** 0.5
        bounds = _join(source.mean.numpy() - reach, source.mean.numpy() + reach)
    window = bounds if extent is None else checked_extent(extent)
    if support == "plane":
        bounds = window
    region = Region(window, support, bounds, _corners(bounds) if outline is None else outline)
    x0, x1, y0, y1 = region.visible
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"extent {window} shows nothing of {source!r}, which lies in {bounds}; choose one that does.")
    return region


def checked_extent(extent: Extent) -> Extent:
    """Four finite numbers with ``x0 < x1`` and ``y0 < y1``."""
    values = np.asarray(extent, dtype=float)
    if values.shape != (4,) or not np.isfinite(values).all() or values[0] >= values[1] or values[2] >= values[3]:
        raise ValueError(f"extent must be (x0, x1, y0, y1) with x0 < x1 and y0 < y1, got {extent!r}.")
    return _join(values[[0, 2]], values[[1, 3]])


def _corners(bounds: Extent) -> Floats:
    x0, x1, y0, y1 = bounds
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _join(low: np.ndarray, high: np.ndarray) -> Extent:
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])
