"""Integrals of a uniform density over planar cells, and the sparse Hessian from edge masses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange
from scipy.sparse import csr_array

from otgan.cells._planar_clip import N_CHUNKS, threads_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.cells._planar_soup import PolygonSoup

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@njit(cache=True, parallel=True)
def _uniform(ptr: Ints, vertices: Floats, areas: Floats, first: Floats, length: Floats) -> None:
    """Areas, integrals of x, and edge lengths; triangles fan out from each cell's first vertex against cancellation."""
    n = len(ptr) - 1
    for chunk in prange(N_CHUNKS):
        for i in range(chunk * n // N_CHUNKS, (chunk + 1) * n // N_CHUNKS):
            lo, hi = ptr[i], ptr[i + 1]
            area = 0.0
            mx = 0.0
            my = 0.0
            if hi > lo:
                ox, oy = vertices[lo, 0], vertices[lo, 1]
                for k in range(lo, hi):
                    nxt = k + 1 if k + 1 < hi else lo
                    ax, ay = vertices[k, 0] - ox, vertices[k, 1] - oy
                    bx, by = vertices[nxt, 0] - ox, vertices[nxt, 1] - oy
                    twice = ax * by - ay * bx
                    area += twice
                    mx += twice * (ax + bx)
                    my += twice * (ay + by)
                    length[k] = np.hypot(bx - ax, by - ay)
                area *= 0.5
                mx = mx / 6.0 + area * ox
                my = my / 6.0 + area * oy
            areas[i] = max(area, 0.0)
            first[i, 0] = mx
            first[i, 1] = my


@njit(cache=True, parallel=True)
def _partners(ptr: Ints, neighbour: Ints, partner: Ints, degree: NDArray[np.int32]) -> None:
    """Slot of each edge in the neighbouring cell (-1 when absent there) and the number of matched edges per cell."""
    n = len(ptr) - 1
    for chunk in prange(N_CHUNKS):
        for i in range(chunk * n // N_CHUNKS, (chunk + 1) * n // N_CHUNKS):
            found = 0
            for k in range(ptr[i], ptr[i + 1]):
                j = neighbour[k]
                partner[k] = -1
                if j >= 0:
                    for f in range(ptr[j], ptr[j + 1]):
                        if neighbour[f] == i:
                            partner[k] = f
                            found += 1
                            break
            degree[i] = found


@njit(cache=True, parallel=True)
def _fill(
    ptr: Ints,
    neighbour: Ints,
    partner: Ints,
    edge: Floats,
    points: Floats,
    row: NDArray[np.int32],
    index: NDArray[np.int32],
    value: Floats,
) -> None:
    """Rows of the Hessian, columns sorted."""
    n = len(ptr) - 1
    for chunk in prange(N_CHUNKS):
        for i in range(chunk * n // N_CHUNKS, (chunk + 1) * n // N_CHUNKS):
            end = row[i]
            diagonal = 0.0
            for k in range(ptr[i], ptr[i + 1] + 1):
                if k < ptr[i + 1]:
                    if partner[k] < 0:
                        continue
                    j = neighbour[k]
                    gap = np.hypot(points[i, 0] - points[j, 0], points[i, 1] - points[j, 1])
                    v = -0.5 * (edge[k] + edge[partner[k]]) / gap
                    diagonal -= v
                else:
                    j = i
                    v = diagonal
                at = end
                while at > row[i] and index[at - 1] > j:
                    index[at] = index[at - 1]
                    value[at] = value[at - 1]
                    at -= 1
                index[at] = j
                value[at] = v
                end += 1


def uniform_integrals(soup: PolygonSoup, area: float) -> tuple[Floats, Floats, Floats]:
    """Masses (n,), first moments (n, 2) and edge masses (nv,) of the uniform density ``1 / area``."""
    masses, first = np.empty(soup.n_cells), np.empty((soup.n_cells, 2))
    edge = np.empty(len(soup.vertices))
    with threads_for(soup.n_cells):
        _uniform(soup.ptr, soup.vertices, masses, first, edge)
    masses /= area
    first /= area
    edge /= area
    return masses, first, edge


def assemble_hessian(soup: PolygonSoup, edge: Floats, points: Floats) -> csr_array:
    """Hessian of the energy: ``-edge_ij / |y_i - y_j|`` off the diagonal, rows summing to 0, exactly symmetric.

    Args:
        soup: the cells.
        edge: mass of the density along each edge of ``soup``, shape (nv,).
        points: targets, shape (n, 2).
    """
    n = soup.n_cells
    partner, degree = np.empty(len(edge), np.int64), np.empty(n, np.int32)
    with threads_for(n):
        _partners(soup.ptr, soup.neighbour, partner, degree)
    row = np.zeros(n + 1, np.int32)
    np.cumsum(degree + 1, out=row[1:])
    index, value = np.empty(row[-1], np.int32), np.empty(row[-1])
    with threads_for(n):
        _fill(soup.ptr, soup.neighbour, partner, edge, points, row, index, value)
    hessian = csr_array((value, index, row), shape=(n, n))
    hessian.has_sorted_indices = True
    hessian.has_canonical_format = True
    return hessian
