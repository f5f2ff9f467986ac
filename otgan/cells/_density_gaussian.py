"""The standard normal density of the plane, integrated over polygons through its edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.cells._planar_soup import PolygonSoup

    Floats = NDArray[np.float64]

_HALF_WIDTH = 9.0
_NEGLIGIBLE = 80.0  # exp(-80 / 2) = 4e-18: parts of an edge this much further out (in r^2) than its nearest point
_RULES = tuple(np.polynomial.legendre.leggauss(order) for order in (5, 8, 16))
_X5, _W5 = _RULES[0]
_X8, _W8 = _RULES[1]
_X16, _W16 = _RULES[2]


class GaussianDensity:
    r"""Standard normal density ``rho(x) = exp(-|x|^2 / 2) / (2 pi)`` of the plane.

    Another Gaussian is whitened by its caller: ``x = mean + L z`` turns its power cells into power cells for z.

    Every integral is a sum over the edges of the cell. For an edge with outward normal n, at signed distance D from the
    origin (D > 0 when the origin is on the inner side), s the position along its line and ``r^2 = D^2 + s^2``::

        edge   E = integral of exp(-r^2 / 2) / (2 pi) ds
        first    = - sum of n E                                        (divergence theorem, grad rho = -x rho)
        mass     = sum of D / (2 pi) * integral of (1 - exp(-r^2 / 2)) / r^2 ds                  (polar coordinates)
                 = - sum of D / (2 pi) * integral of exp(-r^2 / 2) / r^2 ds    if the origin is outside the cell

    The two last lines are Owen's T function up to elementary terms. The first is used for cells nearer than 1 to the
    origin and the second for the others, whose mass it gives without a subtraction from 1: cells far in the tail keep
    their relative accuracy. The integrals are taken by Gauss-Legendre rules on panels so short that the rule is exact
    to rounding (a few 1e-16 of the integral, measured against multiple precision).

    **Accuracy.** Masses and first moments are within 1e-15 of the exact value for cells of any size and place, in
    practice 1e-16. The relative error of the mass of a cell of width delta is about ``1e-15 (1 + |x|) / delta``, that
    which the rounding of its vertices causes anyway, down to masses of 1e-30; that of an edge integral about 1e-14.

    The cells are clipped to the square ``[-9, 9]^2``; the mass outside is 4.5e-19, below rounding, and is left out.

    References:
        D. B. Owen, "Tables for computing bivariate normal probabilities", Ann. Math. Statist. 27, 1956.
        A. R. DiDonato, R. K. Hageman, "A method for computing the integral of the bivariate normal distribution over
        an arbitrary polygon", SIAM J. Sci. Stat. Comput. 3(4), 1982.

    Example:
        >>> GaussianDensity().second_moment
        2.0
    """

    @property
    def domain(self) -> Floats:
        """The square ``[-9, 9]^2``, counter-clockwise, shape (4, 2)."""
        return _HALF_WIDTH * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

    @property
    def second_moment(self) -> float:
        """``E |x|^2 = 2``."""
        return 2.0

    def integrate(self, soup: PolygonSoup, domain: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Integrals of the density over convex polygons and along their edges, to rounding (see the class).

        Args:
            soup: n polygons, counter-clockwise, nv vertices in all.
            domain: the polygon that the cells were clipped to; nothing here depends on it. Clip to `domain` or to more:
                masses are shares of the whole, never of the part inside.

        Returns:
            masses: shape (n,); over a partition of the domain they sum to 1 up to rounding.
            first: ``integral of x rho dx``, shape (n, 2).
            edge: ``integral of rho ds`` along the edge from each vertex to the next of its polygon, shape (nv,).
        """
        vertices = np.ascontiguousarray(soup.vertices, dtype=np.float64)
        n = len(soup.ptr) - 1
        masses, first, edge = np.zeros(n), np.zeros((n, 2)), np.zeros(len(vertices))
        _integrate(np.ascontiguousarray(soup.ptr, dtype=np.int64), vertices, masses, first, edge)
        return masses, first, edge

    def __repr__(self) -> str:
        """The name: there is nothing to choose."""
        return "GaussianDensity()"


@njit(cache=True, error_model="numpy")
def _line(ax: float, ay: float, bx: float, by: float) -> tuple[float, float, float, float, float]:
    """Unit direction, signed distance from the origin, position of the start along the line, and length."""
    length = math.hypot(bx - ax, by - ay)
    tx, ty = (bx - ax) / length, (by - ay) / length
    return tx, ty, ax * ty - ay * tx, ax * tx + ay * ty, length


@njit(cache=True, error_model="numpy")
def _panel(
    distance: float, start: float, length: float, near: bool, nodes: Floats, weights: Floats
) -> tuple[float, float]:
    """One Gauss-Legendre panel: integrals of the polar integrand and of ``exp(-r^2 / 2)``."""
    half = 0.5 * length  # the length itself: a difference of positions would have lost its last digits
    middle = start + half
    polar = line = 0.0
    for q in range(nodes.shape[0]):
        s = middle + half * nodes[q]
        square = distance * distance + s * s
        density = math.exp(-0.5 * square)
        line += weights[q] * density
        if not near:
            polar -= weights[q] * density / square
        elif square > 1.0:
            polar += weights[q] * (1.0 - density) / square
        elif square > 1e-8:
            polar -= weights[q] * math.expm1(-0.5 * square) / square
        else:
            polar += weights[q] * (0.5 - 0.125 * square)
    return half * polar, half * line


@njit(cache=True, error_model="numpy")
def _edge(distance: float, start: float, length: float, near: bool) -> tuple[float, float]:
    """Contribution of an edge to the mass of its cell, and the integral of the density along it.

    The rule is chosen by the length over which the integrand changes: 1 and 1 / r for the density, and the distance to
    the pole at ``r = 0`` for the second polar integrand (the first one has none).
    """
    pole = np.inf
    if not near:
        nearest = min(max(0.0, start), start + length)
        pole = math.sqrt(distance * distance + nearest * nearest)
        reach = math.sqrt(nearest * nearest + _NEGLIGIBLE)
        if start < -reach or start + length > reach:
            end = min(start + length, reach)
            start = max(start, -reach)
            length = end - start
    furthest = max(1.0, math.sqrt(distance * distance + max(start * start, (start + length) ** 2)))
    spread = length * furthest
    if spread <= 0.2 and length <= 0.1 * pole:
        polar, line = _panel(distance, start, length, near, _X5, _W5)
    elif spread <= 1.0 and length <= 0.4 * pole:
        polar, line = _panel(distance, start, length, near, _X8, _W8)
    else:
        count = math.ceil(length / min(1.0, 8.0 / furthest))
        width = length / count
        polar = line = 0.0
        for q in range(count):
            part, part_line = _panel(distance, start + q * width, width, near, _X16, _W16)
            polar += part
            line += part_line
    return distance * polar / (2.0 * math.pi), line / (2.0 * math.pi)


@njit(cache=True, parallel=True, error_model="numpy")
def _integrate(ptr: NDArray[np.int64], vertices: Floats, masses: Floats, first: Floats, edge: Floats) -> None:
    for i in prange(ptr.shape[0] - 1):
        begin, stop = ptr[i], ptr[i + 1]
        if stop - begin < 3:
            continue
        # near: the cell contains the origin or comes closer to it than 1
        inside, near = True, False
        for k in range(begin, stop):
            m = k + 1 if k + 1 < stop else begin
            _, _, distance, start, length = _line(vertices[k, 0], vertices[k, 1], vertices[m, 0], vertices[m, 1])
            inside = inside and not distance < 0.0
            nearest = min(max(0.0, start), start + length)
            near = near or distance * distance + nearest * nearest < 1.0
        near = near or inside
        mass = moment_x = moment_y = 0.0
        for k in range(begin, stop):
            m = k + 1 if k + 1 < stop else begin
            tx, ty, distance, start, length = _line(vertices[k, 0], vertices[k, 1], vertices[m, 0], vertices[m, 1])
            if not length > 0.0:
                continue
            part, line = _edge(distance, start, length, near)
            mass += part
            moment_x -= ty * line
            moment_y += tx * line
            edge[k] = line
        if mass > 0.0:
            masses[i] = mass
            first[i, 0] = moment_x
            first[i, 1] = moment_y
