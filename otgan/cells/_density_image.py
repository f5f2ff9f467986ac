"""Picture densities: piecewise constant on a grid of pixels, integrated exactly over polygons."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange
from scipy.signal import fftconvolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from otgan.cells._planar_soup import PolygonSoup

    Floats = NDArray[np.float64]

_FINEST = 2048  # pixels along the longest side of a smoothed picture
_PER_WIDTH = 2.0  # pixels of a smoothed picture per width of the kernel
_FLOOR = 1e-14  # of the largest value: below that the Fourier transforms leave only rounding
_ON_LINE = 1e-9  # in pixels: an edge this close to a pixel boundary lies on it


class ImageDensity:
    r"""Density proportional to the value of the pixel under ``x``, on an axis-parallel box.

    ``rho(x) = values[r, c] / (sum(values) * pixel area)`` on pixel (r, c), 0 outside the box. As in pictures, row 0 is
    at the TOP: pixel (r, c) covers ``low_x + c p_x <= x <= low_x + (c + 1) p_x`` and
    ``high_y - (r + 1) p_y <= y <= high_y - r p_y`` with ``p = (high - low) / (cols, rows)``; y decreases with r.

    With ``P(x, y)`` the integral of rho along the pixel row from the left of the cell to x, Green's theorem gives
    ``w_i = ∮ P dy`` and likewise the first moments. P is a prefix sum plus a linear term on each pixel, so that only
    the pixels met by the *boundary* of a cell are visited: a cell covering the whole picture costs no more than its
    outline. The prefix sums are pairs of floats (a rounded sum and its rounding error) taken between the cell's own
    left side and x: a cell in a dim part of the picture keeps its relative accuracy beside bright parts, and a cell
    that meets black pixels only has mass exactly 0.

    Args:
        values: grey values, shape (rows, cols): finite, >= 0, not all 0; any real dtype.
        low: lower left corner ``(x, y)`` of the box.
        high: upper right corner ``(x, y)`` of the box.

    Raises:
        TypeError: ``values`` is not an array of real numbers.
        ValueError: ``values`` is not 2-D, is empty, has a negative or non-finite entry or only zeros, or the
            box is empty.

    Example:
        >>> ImageDensity([[0.0, 1.0], [1.0, 0.0]]).second_moment  # doctest: +ELLIPSIS
        0.666666...
    """

    def __init__(
        self, values: ArrayLike, low: Sequence[float] | Floats = (0.0, 0.0), high: Sequence[float] | Floats = (1.0, 1.0)
    ) -> None:
        self.values = _checked_values(values)
        self.low, self.high = _checked_box(low, high)
        rows, cols = self.values.shape
        self.pixel: Floats = (self.high - self.low) / np.array([cols, rows], dtype=np.float64)
        """Width and height of a pixel, shape (2,)."""
        if not np.all(self.pixel > 0.0):
            raise ValueError(f"the box {self.low} to {self.high} is too small to be cut into {cols} x {rows} pixels")
        # a power of two changes no digit and keeps the sums away from overflow
        scale = 2.0 ** -np.frexp(self.values.max())[1]
        self._grey = np.ascontiguousarray(self.values[::-1] * scale)
        self._prefix = _prefix_sums(self._grey)
        self._total = math.fsum(self._prefix[:, -1, 0]) + math.fsum(self._prefix[:, -1, 1])

    @property
    def domain(self) -> Floats:
        """The box as a counter-clockwise polygon, shape (4, 2)."""
        (x0, y0), (x1, y1) = self.low, self.high
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])

    @property
    def second_moment(self) -> float:
        """``E |x|^2``."""
        rows, cols = self._grey.shape
        x = self.low[0] + self.pixel[0] * (np.arange(cols) + 0.5)
        y = self.low[1] + self.pixel[1] * (np.arange(rows) + 0.5)
        square = self._grey.sum(axis=0) @ x**2 + self._grey.sum(axis=1) @ y**2
        return float(square / self._total + np.sum(self.pixel**2) / 12.0)

    @property
    def effective_area(self) -> float:
        """``1 / integral of rho^2``: the area of the white pixels for a picture in black and white."""
        shares = self._grey / self._total
        return float(self.pixel.prod() / (shares**2).sum())

    def smoothed(self, width: float) -> ImageDensity:
        r"""The density convolved with ``K(z) = s^2 / (pi (s^2 + |z|^2)^2)``, ``s = width``, and cut off at the box.

        The tails of K fall so slowly that halving s changes it, and hence the convolution, by at most a factor 4
        at any z: ``K_{s/2}(z) / K_s(z)`` lies between 1/4 and 4. The result is a picture with about two pixels to
        the width, at most 2048 a side.

        Args:
            width: s > 0; raised to two of the finest pixels.
        """
        sides = self.high - self.low
        width = max(float(width), _PER_WIDTH * float(sides.max()) / _FINEST)
        counts = np.clip(np.ceil(sides * _PER_WIDTH / width), 1, _FINEST).astype(int)
        rows, cols = self._grey.shape
        coarse = _overlap(rows, counts[1]) @ self._grey @ _overlap(cols, counts[0]).T
        dx, dy = (np.arange(1 - k, k) * side / k / width for k, side in zip(counts, sides, strict=True))
        kernel = 1.0 / (1.0 + dx**2 + dy[:, None] ** 2) ** 2
        full = fftconvolve(coarse, kernel)
        values = full[counts[1] - 1 : 2 * counts[1] - 1, counts[0] - 1 : 2 * counts[0] - 1]
        return ImageDensity(np.maximum(values, _FLOOR * values.max())[::-1], self.low, self.high)

    def integrate(self, soup: PolygonSoup, domain: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Exact integrals of the density over convex polygons and along their edges.

        An edge that lies along a pixel boundary (to 1e-9 of a pixel) is given the mean of the densities on its two
        sides, the derivative of the mass being any value between them there; on the boundary of the box it is given
        the density inside.

        Args:
            soup: n polygons, counter-clockwise, nv vertices in all. Parts outside the box have mass 0.
            domain: the polygon that the cells were clipped to; nothing here depends on it. Clip to `domain` or to more:
                masses are shares of the whole, never of the part inside.

        Returns:
            masses: shape (n,); over a partition of the box they sum to 1 up to rounding.
            first: ``integral of x rho dx``, shape (n, 2).
            edge: ``integral of rho ds`` along the edge from each vertex to the next of its polygon, shape (nv,).
        """
        vertices = np.ascontiguousarray(soup.vertices, dtype=np.float64)
        n = len(soup.ptr) - 1
        masses, first, edge = np.zeros(n), np.zeros((n, 2)), np.zeros(len(vertices))
        _integrate(
            np.ascontiguousarray(soup.ptr, dtype=np.int64),
            vertices,
            self._grey,
            self._prefix,
            self.low,
            self.pixel,
            self._total,
            masses,
            first,
            edge,
        )
        return masses, first, edge

    def __repr__(self) -> str:
        """The shape of the picture and the box."""
        rows, cols = self.values.shape
        return f"ImageDensity({rows} x {cols} pixels, low={tuple(self.low.tolist())}, high={tuple(self.high.tolist())})"


def _checked_values(values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"values must be real numbers, got dtype {array.dtype}; convert the picture to grey values first"
        )
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"values must have shape (rows, cols), got {array.shape}; turn a colour picture into one grey channel"
        )
    array = array.astype(np.float64)  # a copy: later changes to the caller's array must not reach the density
    if not np.all(np.isfinite(array)):
        raise ValueError(f"values must be finite, got {np.count_nonzero(~np.isfinite(array))} NaN or infinite pixels")
    if array.min() < 0.0:
        raise ValueError(f"values must be >= 0, got a minimum of {array.min()}; shift or clip the picture")
    if array.max() == 0.0:
        raise ValueError("values are all 0: there is no mass to transport; give at least one positive pixel")
    return array


def _checked_box(low: Sequence[float] | Floats, high: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    lower, upper = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    if lower.shape != (2,) or upper.shape != (2,):
        raise ValueError(f"low and high must be points (x, y), got shapes {lower.shape} and {upper.shape}")
    if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper)) and np.all(lower < upper)):
        raise ValueError(f"the box needs finite low < high in x and in y, got low = {lower}, high = {upper}")
    return lower, upper


def _overlap(old: int, new: int) -> Floats:
    """Fraction of old pixel j that lies in new pixel i when a side is divided anew, shape (new, old)."""
    left, start = np.arange(old) / old, np.arange(new)[:, None] / new
    shared = np.minimum(left + 1.0 / old, start + 1.0 / new) - np.maximum(left, start)
    return np.asarray(np.clip(shared * old, 0.0, None))


@njit(cache=True)
def _prefix_sums(grey: Floats) -> Floats:
    """Sums of ``grey[r, k]`` and of ``grey[r, k] (k + 1/2)`` over k < c, each as a rounded sum and its error."""
    rows, cols = grey.shape
    prefix = np.zeros((rows, cols + 1, 4))
    for r in range(rows):
        for c in range(cols):
            for q in range(0, 4, 2):
                term = grey[r, c] if q == 0 else grey[r, c] * (c + 0.5)
                high, low = prefix[r, c, q], prefix[r, c, q + 1]
                total = high + term
                virtual = total - high
                low += (high - (total - virtual)) + (term - virtual)
                prefix[r, c + 1, q] = total + low
                prefix[r, c + 1, q + 1] = low - ((total + low) - total)
    return prefix


@njit(cache=True, error_model="numpy")
def _first_line(start: float, step: float, count: int) -> float:
    """First grid line ``0 .. count`` strictly ahead of ``start`` in the direction of ``step``; NaN if there is none."""
    if step > 0.0:
        line = max(math.floor(start) + 1.0, 0.0)
        return line if line <= count else np.nan
    if step < 0.0:
        line = min(math.ceil(start) - 1.0, float(count))
        return line if line >= 0.0 else np.nan
    return np.nan


@njit(cache=True, error_model="numpy")
def _line_along(a: float, b: float, count: int) -> int:
    """The grid line ``0 .. count`` on which both ends lie, -1 if there is none."""
    line = np.rint(a)
    if abs(a - line) <= _ON_LINE and abs(b - line) <= _ON_LINE and line >= 0.0 and line <= count:
        return int(line)
    return -1


@njit(cache=True, error_model="numpy")
def _walk_edge(
    ua: float, va: float, ub: float, vb: float, u_ref: float, v_ref: float, grey: Floats, prefix: Floats
) -> tuple[float, float, float, float]:
    """Contribution of one edge, in pixels: mass, first moments about (u_ref, v_ref); mean grey value along it."""
    rows, cols = grey.shape
    du, dv = ub - ua, vb - va
    mass = moment_u = moment_v = line = 0.0
    if du == 0.0 and dv == 0.0:
        return mass, moment_u, moment_v, line
    c_ref = min(int(u_ref), cols - 1)
    along_u, along_v = _line_along(ua, ub, cols), _line_along(va, vb, rows)
    inv_u, inv_v = 1.0 / du, 1.0 / dv
    step_u, step_v = (1.0 if du > 0.0 else -1.0), (1.0 if dv > 0.0 else -1.0)
    next_u, next_v = _first_line(ua, du, cols), _first_line(va, dv, rows)
    t, u, v = 0.0, ua, va
    while True:
        # the piece up to the next pixel boundary: from (u, v) at t to (u1, v1) at t1
        t_u = (next_u - ua) * inv_u
        t_v = (next_v - va) * inv_v
        t1 = 1.0
        if t_u < t1:
            t1 = t_u
        if t_v < t1:
            t1 = t_v
        t1 = max(t1, t)
        if t1 < 1.0:
            u1, v1 = ua + t1 * du, va + t1 * dv
            if t_u <= t1:
                u1 = next_u
                next_u += step_u
                if next_u < 0.0 or next_u > cols:
                    next_u = np.nan
            if t_v <= t1:
                v1 = next_v
                next_v += step_v
                if next_v < 0.0 or next_v > rows:
                    next_v = np.nan
        else:
            u1, v1 = ub, vb
        mid_u, mid_v = 0.5 * (u + u1), 0.5 * (v + v1)
        r, c = int(math.floor(mid_v)), int(math.floor(mid_u))
        if along_v >= 0:  # rounding must not put a piece of this edge outside the box
            r = min(max(r, 0), rows - 1)
        if r >= 0 and r < rows:
            # P = at + rho (u - start) and its moment about u_ref, on pixel (r, c)
            rho = at = moment = 0.0
            start = u_ref
            if c >= cols:
                c_start = cols
            else:
                c_start = c
                if c >= 0:
                    rho = grey[r, c]
            if c_start > c_ref:
                start = float(c_start)
                head = c_ref + 1.0 - u_ref
                at = (prefix[r, c_start, 0] - prefix[r, c_ref + 1, 0]) + (
                    prefix[r, c_start, 1] - prefix[r, c_ref + 1, 1]
                )
                moment = (prefix[r, c_start, 2] - prefix[r, c_ref + 1, 2]) + (
                    prefix[r, c_start, 3] - prefix[r, c_ref + 1, 3]
                )
                moment += 0.5 * grey[r, c_ref] * head * head - u_ref * at
                at += grey[r, c_ref] * head
            e, pu, pv = mid_u - start, u1 - u, v1 - v
            p = at + rho * e
            mass += p * pv
            moment_u += (moment + rho * (0.5 * (e * e + pu * pu / 12.0) + (start - u_ref) * e)) * pv
            moment_v += ((mid_v - v_ref) * p + rho * pu * pv / 12.0) * pv
            if along_u >= 0:
                rho = 0.5 * (grey[r, max(along_u - 1, 0)] + grey[r, min(along_u, cols - 1)])
            elif along_v >= 0 and c >= 0 and c < cols:
                rho = 0.5 * (grey[max(along_v - 1, 0), c] + grey[min(along_v, rows - 1), c])
            line += rho * (t1 - t)
        if t1 >= 1.0:
            return mass, moment_u, moment_v, line
        t, u, v = t1, u1, v1


@njit(cache=True, parallel=True, error_model="numpy")
def _integrate(
    ptr: NDArray[np.int64],
    vertices: Floats,
    grey: Floats,
    prefix: Floats,
    low: Floats,
    pixel: Floats,
    total: float,
    masses: Floats,
    first: Floats,
    edge: Floats,
) -> None:
    rows, cols = grey.shape
    for i in prange(ptr.shape[0] - 1):
        begin, end = ptr[i], ptr[i + 1]
        if end - begin < 3:
            continue
        u_ref, v_ref = np.inf, np.inf
        for k in range(begin, end):
            u_ref = min(u_ref, (vertices[k, 0] - low[0]) / pixel[0])
            v_ref = min(v_ref, (vertices[k, 1] - low[1]) / pixel[1])
        u_ref = min(max(u_ref, 0.0), float(cols))
        v_ref = min(max(v_ref, 0.0), float(rows))
        mass = moment_u = moment_v = 0.0
        for k in range(begin, end):
            m = k + 1 if k + 1 < end else begin
            ua, va = (vertices[k, 0] - low[0]) / pixel[0], (vertices[k, 1] - low[1]) / pixel[1]
            ub, vb = (vertices[m, 0] - low[0]) / pixel[0], (vertices[m, 1] - low[1]) / pixel[1]
            part, part_u, part_v, line = _walk_edge(ua, va, ub, vb, u_ref, v_ref, grey, prefix)
            mass += part
            moment_u += part_u
            moment_v += part_v
            length = math.hypot(vertices[m, 0] - vertices[k, 0], vertices[m, 1] - vertices[k, 1])
            edge[k] = line * length / (total * pixel[0] * pixel[1])
        if mass > 0.0:
            masses[i] = mass / total
            first[i, 0] = ((low[0] + pixel[0] * u_ref) * mass + pixel[0] * moment_u) / total
            first[i, 1] = ((low[1] + pixel[1] * v_ref) * mass + pixel[1] * moment_v) / total
