"""First guesses of who neighbours whom in a planar power diagram."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.spatial import ConvexHull, Delaunay, QhullError, cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = tuple[NDArray[np.int64], NDArray[np.int32]]

#: Targets whose spread across their main axis is below this fraction of the spread along it count as collinear.
COLLINEAR = 1e-10


def guess_neighbours(points: Floats, heights: Floats) -> Rows:
    """Candidate neighbours of every target, as compressed rows ``(ptr, index)``.

    They are the edges of the lower convex hull of the lifted targets ``(y_i, -h_i)`` (Aurenhammer, "Power diagrams",
    SIAM J. Comput. 1987). Targets that are not on that hull get the nearest target that is, and its neighbours. Hull
    and diagram are affinely invariant, so the targets are whitened first. The guess may be incomplete when the lifted
    targets are degenerate.

    Args:
        points: targets, shape (n, 2).
        heights: shape (n,).
    """
    n = len(points)
    if n == 1:
        return np.zeros(2, np.int64), np.zeros(0, np.int32)
    flat, along, across = _whiten(points)
    if across <= COLLINEAR * along or n < 3:
        edges = _chain(flat[:, 0], heights)
    else:
        edges = _hull_edges(flat, heights)
    ptr, index = _rows(edges, n)
    return _adopt_hidden(flat, ptr, index)


def nearest_neighbours(places: Floats, k: int = 8) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Starts, counts and indices of the k nearest others of each of ``places``, shape (n, 2)."""
    n = len(places)
    tree = cKDTree(places, balanced_tree=False, compact_nodes=False)
    # Threads of our own: those of scipy go on writing into freed memory when an interrupt ends the wait for them.
    parts = np.array_split(places, min(os.cpu_count() or 1, 1 + n // 10_000))
    with ThreadPoolExecutor(len(parts)) as pool:
        near = np.concatenate(
            [np.asarray(found[1]) for found in pool.map(lambda part: tree.query(part, k=k + 1), parts)]
        )
    index = near[:, 1:].astype(np.int32).ravel()
    return np.arange(n, dtype=np.int64) * k, np.full(n, k, np.int32), index


def _whiten(points: Floats) -> tuple[Floats, float, float]:
    """Targets in their principal axes, each scaled to unit deviation, and the two deviations."""
    centred = points - points.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(points))
    along, across = float(np.sqrt(max(values[1], 0.0))), 0.0
    turned = centred @ axes[:, ::-1]
    across = float(np.sqrt(np.mean(turned[:, 1] ** 2)))
    scale = np.array([along if along > 0 else 1.0, across if across > 0 else 1.0])
    return turned / scale, along, across


def _hull_edges(flat: Floats, heights: Floats) -> NDArray[np.int64]:
    """Edges of the lower hull of ``(y, -h)``; of the Delaunay triangulation when the lifted targets are coplanar."""
    design = np.column_stack([flat, np.ones(len(flat))])
    lift = -heights + design @ np.linalg.lstsq(design, heights, rcond=None)[0]
    spread = np.abs(lift).max()
    lifted = np.column_stack([flat, lift / (spread if spread > 0 else 1.0)])
    try:
        if len(flat) < 4 or spread == 0:
            msg = "the lifted targets are coplanar"
            raise QhullError(msg)
        hull = ConvexHull(lifted)
        triangles = hull.simplices[hull.equations[:, 2] < 1e-9]
    except QhullError:
        try:
            triangles = Delaunay(flat).simplices
        except QhullError:
            return _chain(flat[:, 0], -(flat[:, 0] ** 2))
    corners = np.asarray(triangles, dtype=np.int64)
    return np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])


def _chain(t: Floats, heights: Floats) -> NDArray[np.int64]:
    """Consecutive vertices of the lower hull of ``(t, -h)`` on a line (monotone chain)."""
    order = np.lexsort((-heights, t))
    x, z = t[order].tolist(), (-heights[order]).tolist()
    keep: list[int] = []
    for k in range(len(x)):
        if keep and x[k] == x[keep[-1]]:
            continue
        while len(keep) >= 2:
            a, b = keep[-2], keep[-1]
            if (z[b] - z[a]) * (x[k] - x[a]) <= (z[k] - z[a]) * (x[b] - x[a]):
                break
            keep.pop()
        keep.append(k)
    chain = order[np.asarray(keep)]
    return np.column_stack([chain[:-1], chain[1:]]).astype(np.int64)


def _rows(edges: NDArray[np.int64], n: int) -> Rows:
    """Compressed rows of the symmetric graph with the given edges."""
    both = np.concatenate([edges, edges[:, ::-1]])
    graph = coo_array((np.ones(len(both), np.int8), (both[:, 0], both[:, 1])), shape=(n, n)).tocsr()
    return graph.indptr.astype(np.int64), graph.indices.astype(np.int32)


def _adopt_hidden(flat: Floats, ptr: NDArray[np.int64], index: NDArray[np.int32]) -> Rows:
    """Give each target without neighbours the nearest one with neighbours, and that one's neighbours."""
    degree = np.diff(ptr)
    hidden = np.flatnonzero(degree == 0)
    visible = np.flatnonzero(degree > 0)
    if len(hidden) == 0:
        return ptr, index
    if len(visible) == 0:
        visible = hidden[:1]
    host = visible[cKDTree(flat[visible]).query(flat[hidden])[1]]
    counts = degree.copy()
    counts[hidden] = 1 + degree[host]
    new_ptr = np.concatenate([[0], np.cumsum(counts)])
    out = np.empty(new_ptr[-1], np.int32)
    kept = degree > 0
    out[np.repeat(kept, counts)] = index
    out[new_ptr[hidden]] = host
    out[spread_rows(new_ptr[hidden] + 1, degree[host])] = index[spread_rows(ptr[host], degree[host])]
    return new_ptr, out


def spread_rows(start: NDArray[np.int64], count: NDArray[np.integer]) -> NDArray[np.int64]:
    """Concatenation of the ranges ``start[t]:start[t] + count[t]``."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(start - (ends - count), count)
