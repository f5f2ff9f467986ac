"""The uniform density on a disc, integrated exactly over polygons: straight edges inside, arcs between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otgan.cells._planar_soup import PolygonSoup

    Floats = NDArray[np.float64]


class DiscDensity:
    r"""Uniform density ``rho(x) = 1 / (pi r^2)`` on the disc ``|x - c| <= r``, 0 elsewhere.

    A convex cell meets the disc in chords (the parts of its edges inside the circle) joined by arcs. Green's theorem
    then gives the area as the polygon of the chords plus one circular segment ``(phi - sin phi) r^2 / 2`` for each
    arc of angle phi, and the first moment likewise, with ``2/3 sin^3(phi / 2) r^3`` along the bisector for a segment.
    Areas are summed about a vertex of the cell itself: small cells keep their relative accuracy. A cell that does not
    meet the disc has mass exactly 0, one that contains it exactly 1.

    Args:
        center: centre ``c`` of the disc, shape (2,).
        radius: radius ``r > 0``.

    Raises:
        ValueError: the centre is not a finite point of the plane, or the radius is not positive and finite.

    Example:
        >>> DiscDensity((0.0, 0.0), 2.0).second_moment
        2.0
    """

    def __init__(self, center: Sequence[float] | Floats = (0.0, 0.0), radius: float = 1.0) -> None:
        self.center: Floats = np.array(center, dtype=np.float64)
        self.radius = float(radius)
        if self.center.shape != (2,) or not np.all(np.isfinite(self.center)):
            raise ValueError(f"center must be a finite point (x, y), got {center!r}")
        if not (self.radius > 0.0 and math.isfinite(self.radius)):
            raise ValueError(f"radius must be positive and finite, got {radius!r}")

    @property
    def domain(self) -> Floats:
        """The circumscribed square, counter-clockwise, shape (4, 2)."""
        return self.center + self.radius * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

    @property
    def second_moment(self) -> float:
        """``E |x|^2 = |c|^2 + r^2 / 2``."""
        return float(self.center @ self.center + 0.5 * self.radius**2)

    def integrate(self, soup: PolygonSoup, domain: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Exact integrals of the density over convex polygons and along their edges.

        Args:
            soup: n polygons, counter-clockwise, nv vertices in all.
            domain: the polygon that the cells were clipped to; nothing here depends on it. Clip to `domain` or to more:
                masses are shares of the whole, never of the part inside.

        Returns:
            masses: shape (n,); over a partition of a set that contains the disc they sum to 1 up to rounding.
            first: ``integral of x rho dx``, shape (n, 2).
            edge: length inside the disc over ``pi r^2`` of the edge from each vertex to the next of its polygon,
                shape (nv,).
        """
        vertices = np.ascontiguousarray(soup.vertices, dtype=np.float64)
        n = len(soup.ptr) - 1
        masses, first, edge = np.zeros(n), np.zeros((n, 2)), np.zeros(len(vertices))
        _integrate(
            np.ascontiguousarray(soup.ptr, dtype=np.int64), vertices, self.center, self.radius, masses, first, edge
        )
        return masses, first, edge

    def __repr__(self) -> str:
        """The centre and the radius."""
        return f"DiscDensity(center={tuple(self.center.tolist())}, radius={self.radius})"


@njit(cache=True)
def _angle(ax: float, ay: float, bx: float, by: float) -> float:
    """Angle from a to b seen from the origin, in (-pi, pi]; the difference keeps close points accurate."""
    return math.atan2(ax * (by - ay) - ay * (bx - ax), ax * bx + ay * by)


@njit(cache=True)
def _arc(qx: float, qy: float, px: float, py: float, turned: float) -> tuple[float, float, float]:
    """Circular segment between the chord from q to p and the arc of the unit circle, counter-clockwise from q to p.

    ``turned`` is the angle covered on the way from q to p outside the circle: it tells on which turn p lies.

    Returns:
        The area and the first moment of the segment about the origin.
    """
    angle = _angle(qx, qy, px, py)
    angle += 2.0 * math.pi * np.rint((turned - angle) / (2.0 * math.pi))
    half = 0.5 * angle
    if abs(angle) < 0.25:
        z = angle * angle
        area = angle * z / 12.0 * (1.0 - z / 20.0 * (1.0 - z / 42.0 * (1.0 - z / 72.0 * (1.0 - z / 110.0))))
    else:
        area = 0.5 * (angle - math.sin(angle))
    reach = 2.0 / 3.0 * math.sin(half) ** 3
    cos, sin = math.cos(half), math.sin(half)
    return area, reach * (cos * qx - sin * qy), reach * (sin * qx + cos * qy)


@njit(cache=True, error_model="numpy")
def _cell(
    vertices: Floats, begin: int, end: int, cx: float, cy: float, radius: float, edge: Floats
) -> tuple[float, float, float]:
    """Area and first moment of one cell inside the unit disc, cell and moments in units of the disc."""
    area = moment_x = moment_y = 0.0
    rx, ry = (vertices[begin, 0] - cx) / radius, (vertices[begin, 1] - cy) / radius  # areas are taken about this vertex
    chords = 0
    lead = turned = 0.0  # angles covered outside the circle: before the first chord, and since the last one
    first_px = first_py = qx = qy = 0.0
    bx, by = rx, ry
    for k in range(begin, end):
        m = k + 1 if k + 1 < end else begin
        ax, ay = bx, by
        bx, by = (vertices[m, 0] - cx) / radius, (vertices[m, 1] - cy) / radius
        length = math.hypot(bx - ax, by - ay)
        if length == 0.0:
            continue
        tx, ty = (bx - ax) / length, (by - ay) / length
        distance = ax * ty - ay * tx  # of the centre from the line, positive on the inner side
        half_square = (1.0 - distance) * (1.0 + distance)
        half = math.sqrt(half_square) if half_square > 0.0 else 0.0
        sa = ax * tx + ay * ty
        sb = sa + length
        lo, hi = max(sa, -half), min(sb, half)
        if hi <= lo:  # the edge stays outside
            turned += _angle(ax, ay, bx, by)
            continue
        edge[k] = (hi - lo) / (math.pi * radius)
        px, py = ax, ay
        if lo > sa:
            px, py = distance * ty + lo * tx, -distance * tx + lo * ty
            turned += _angle(ax, ay, px, py)
        if chords == 0:
            first_px, first_py = px, py
            lead = turned
        else:
            segment, mx, my = _arc(qx, qy, px, py, turned)
            triangle = 0.5 * ((qx - rx) * (py - qy) - (qy - ry) * (px - qx))
            area += segment + triangle
            moment_x += mx + triangle * (qx + px + rx) / 3.0
            moment_y += my + triangle * (qy + py + ry) / 3.0
        turned = 0.0
        qx, qy = bx, by
        if hi < sb:
            qx, qy = distance * ty + hi * tx, -distance * tx + hi * ty
            turned = _angle(qx, qy, bx, by)
        triangle = 0.5 * ((px - rx) * (qy - py) - (py - ry) * (qx - px))
        area += triangle
        moment_x += triangle * (px + qx + rx) / 3.0
        moment_y += triangle * (py + qy + ry) / 3.0
        chords += 1
    if chords == 0:
        # the outline goes round the circle once or not at all
        return (math.pi, 0.0, 0.0) if turned > math.pi else (0.0, 0.0, 0.0)
    segment, mx, my = _arc(qx, qy, first_px, first_py, turned + lead)
    triangle = 0.5 * ((qx - rx) * (first_py - qy) - (qy - ry) * (first_px - qx))
    area += segment + triangle
    moment_x += mx + triangle * (qx + first_px + rx) / 3.0
    moment_y += my + triangle * (qy + first_py + ry) / 3.0
    return area, moment_x, moment_y


@njit(cache=True, parallel=True, error_model="numpy")
def _integrate(
    ptr: NDArray[np.int64],
    vertices: Floats,
    center: Floats,
    radius: float,
    masses: Floats,
    first: Floats,
    edge: Floats,
) -> None:
    for i in prange(ptr.shape[0] - 1):
        if ptr[i + 1] - ptr[i] < 3:
            continue
        area, moment_x, moment_y = _cell(vertices, ptr[i], ptr[i + 1], center[0], center[1], radius, edge)
        if area > 0.0:
            masses[i] = area / math.pi
            first[i, 0] = (center[0] * area + radius * moment_x) / math.pi
            first[i, 1] = (center[1] * area + radius * moment_y) / math.pi
