"""A convex polyhedron as a cubic planar graph, and its intersection with a half-space.

Every vertex lies on exactly three planes and has exactly three edges; where more planes meet, several vertices share
one position. Whatever the rounding errors, the vertices cut off are made a connected set with a connected complement,
so that the cut is one closed loop and the graph always stays the graph of a polyhedron. A new vertex is a convex
combination of the ends of its edge: each vertex stays within a few ulps of its three planes, however ill-conditioned
their intersection is (backward stability).

Corners are numbered counter-clockwise: corner ``k`` of vertex ``v`` belongs to the face on plane ``topology[v, k]``;
edge ``k`` is the one opposite to it, leads to vertex ``topology[v, 3 + k]``, and is edge ``topology[v, 6 + k]`` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Everything is measured in a domain of size about 1: a few times the error of a vertex's distance to a plane.
TOLERANCE = 4e-15
OVERFLOW = -1
FAST = {"nnan", "nsz", "contract"}
NEXT = (1, 2, 0)
LAST = (2, 0, 1)

# Rows of ``real`` (7, capacity): position, signed distance to the cutting plane (positive inside), new positions.
X, Y, Z, SIDE, FRESH = 0, 1, 2, 3, 4
# Rows of ``work`` (5, capacity): 1 where a vertex is cut off; the cut edges as kept vertex, edge, lost vertex; a queue.
OUT, KEPT, EDGE, LOST, QUEUE = 0, 1, 2, 3, 4


@njit(cache=True)
def make_workspace(capacity: int) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
    """Arrays ``real, topology, work`` for a polyhedron of at most ``capacity`` vertices."""
    return np.empty((7, capacity)), np.empty((capacity, 9), np.int32), np.empty((5, capacity), np.int32)


@njit(cache=True)
def load(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    source_position: NDArray[np.float64],
    source_topology: NDArray[np.int32],
) -> int:
    """Copies a polyhedron in: positions (v, 3), topology (v, 9). Returns v, or OVERFLOW."""
    count = source_position.shape[0]
    if count > topology.shape[0]:
        return OVERFLOW
    for v in range(count):
        for k in range(3):
            real[k, v] = source_position[v, k]
        for k in range(9):
            topology[v, k] = source_topology[v, k]
    return count


@njit(cache=True, fastmath=FAST)
def bound(real: NDArray[np.float64], count: int, box: NDArray[np.float64]) -> None:
    """Writes centre and half-widths of the vertices' bounding box into ``box`` (6,)."""
    x0 = x1 = real[X, 0]
    y0 = y1 = real[Y, 0]
    z0 = z1 = real[Z, 0]
    for v in range(1, count):
        x0, x1 = min(x0, real[X, v]), max(x1, real[X, v])
        y0, y1 = min(y0, real[Y, v]), max(y1, real[Y, v])
        z0, z1 = min(z0, real[Z, v]), max(z1, real[Z, v])
    box[0], box[3] = 0.5 * (x0 + x1), 0.5 * (x1 - x0)
    box[1], box[4] = 0.5 * (y0 + y1), 0.5 * (y1 - y0)
    box[2], box[5] = 0.5 * (z0 + z1), 0.5 * (z1 - z0)


@njit(cache=True, fastmath=FAST)
def _measure(real: NDArray[np.float64], count: int, nx: float, ny: float, nz: float, offset: float) -> int:
    """Signed distances ``offset - <n, v>`` into ``real[SIDE]``; returns how many vertices are well outside.

    Counts vectorise where a minimum does not.
    """
    outside = 0
    for v in range(count):
        s = offset - (nx * real[X, v] + ny * real[Y, v] + nz * real[Z, v])
        real[SIDE, v] = s
        outside += s < -TOLERANCE
    return outside


@njit(cache=True)
def _flood(topology: NDArray[np.int32], work: NDArray[np.int32], seed: int, old: int, new: int) -> None:
    """Turns the label ``old`` into ``new`` on the connected component of ``seed``."""
    work[OUT, seed] = new
    work[QUEUE, 0] = seed
    size = 1
    while size > 0:
        size -= 1
        v = work[QUEUE, size]
        for k in range(3, 6):
            w = topology[v, k]
            if work[OUT, w] == old:
                work[OUT, w] = new
                work[QUEUE, size] = w
                size += 1


@njit(cache=True)
def _connect(real: NDArray[np.float64], topology: NDArray[np.int32], work: NDArray[np.int32], count: int) -> None:
    """Makes the vertices cut off connected, and those kept: only vertices within rounding of the plane change side."""
    low = high = 0
    for v in range(count):
        if real[SIDE, v] < real[SIDE, low]:
            low = v
        if real[SIDE, v] > real[SIDE, high]:
            high = v
    _flood(topology, work, low, 1, 2)
    for v in range(count):
        work[OUT, v] = 1 if work[OUT, v] == 2 else 0
    _flood(topology, work, high, 0, 2)
    for v in range(count):
        work[OUT, v] = 0 if work[OUT, v] == 2 else 1


@njit(cache=True)
def _trace(topology: NDArray[np.int32], work: NDArray[np.int32], count: int) -> int:
    """Edges that the plane cuts, in order around it, into ``ws.loop``: their number, or -1 if there are two loops."""
    cuts = 0
    kept = edge = 0
    for v in range(count):
        if work[OUT, v] != 0:
            for k in range(3):
                w = topology[v, 3 + k]
                if work[OUT, w] == 0:
                    cuts += 1
                    kept = w
                    edge = topology[v, 6 + k]
    first, first_edge = kept, edge
    size = 0
    while True:
        gone = topology[kept, 3 + edge]
        work[KEPT, size], work[EDGE, size], work[LOST, size] = kept, edge, gone
        size += 1
        back = topology[kept, 6 + edge]
        while True:  # around the face on the far side of the plane until it comes back
            step = LAST[back]
            back = topology[gone, 6 + step]
            gone = topology[gone, 3 + step]
            if work[OUT, gone] == 0:
                break
        kept, edge = gone, back
        if kept == first and edge == first_edge:
            break
    return size if size == cuts else -1


@njit(cache=True)
def clip(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    work: NDArray[np.int32],
    count: int,
    nx: float,
    ny: float,
    nz: float,
    offset: float,
    label: int,
) -> tuple[int, bool]:
    """Keeps ``{x : <n, x> <= offset}``, |n| = 1. Returns (vertices left, was it cut); 0 left when it is empty."""
    if _measure(real, count, nx, ny, nz, offset) == 0:
        return count, False
    removed = 0
    for v in range(count):
        work[OUT, v] = 1 if real[SIDE, v] < TOLERANCE else 0
        removed += work[OUT, v]
    if removed == count:
        return 0, True
    if 2 * count + 4 > topology.shape[0]:  # at most one new vertex for each of the 3/2 count edges
        return OVERFLOW, True
    size = _trace(topology, work, count)
    if size < 0:
        _connect(real, topology, work, count)
        size = _trace(topology, work, count)
        removed = 0
        for v in range(count):
            removed += work[OUT, v]
    for t in range(size):
        u, r = work[KEPT, t], work[LOST, t]
        near, far = max(real[SIDE, u], 0.0), max(-real[SIDE, r], 0.0)
        weight = near / (near + far) if near + far > 0.0 else 0.0
        for a in range(3):
            real[FRESH + a, t] = real[a, u] + weight * (real[a, r] - real[a, u])
    filled = 0  # where each new vertex goes: the holes first, then the end
    for v in range(count):
        if work[OUT, v] != 0 and filled < size:
            work[QUEUE, filled] = v
            filled += 1
            work[OUT, v] = 0
    for t in range(filled, size):
        work[QUEUE, t] = count + t - filled
    # Planes on both sides of each cut edge, before any vertex is overwritten (those kept do not move).
    for t in range(size):
        u, k = work[KEPT, t], work[EDGE, t]
        v = work[QUEUE, t]
        ahead = work[QUEUE, t + 1] if t + 1 < size else work[QUEUE, 0]
        behind = work[QUEUE, t - 1] if t > 0 else work[QUEUE, size - 1]
        for a in range(3):
            real[a, v] = real[FRESH + a, t]
        topology[v, 0] = label
        topology[v, 1] = topology[u, LAST[k]]
        topology[v, 2] = topology[u, NEXT[k]]
        topology[v, 3] = u
        topology[v, 4] = behind
        topology[v, 5] = ahead
        topology[v, 6] = k
        topology[v, 7] = 2
        topology[v, 8] = 1
        topology[u, 3 + k] = v
        topology[u, 6 + k] = 0
    if size >= removed:
        return count + size - removed, True
    # Holes are left: the last vertices move into them.
    end = count
    hole = 0
    while True:
        while end > 0 and work[OUT, end - 1] != 0:
            end -= 1
        while hole < end and work[OUT, hole] == 0:
            hole += 1
        if hole >= end:
            return end, True
        end -= 1
        for a in range(3):
            real[a, hole] = real[a, end]
        for k in range(9):
            topology[hole, k] = topology[end, k]
        for k in range(3):
            topology[topology[hole, 3 + k], 3 + topology[hole, 6 + k]] = hole
        work[OUT, hole] = 0
        work[OUT, end] = 1


def cube(half: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """The cube ``[-half, half]^3`` as positions (8, 3) and topology (8, 9); its planes are labelled 0 to 5."""
    position = np.array([[(v >> a & 1) * 2 - 1 for a in range(3)] for v in range(8)], np.float64) * half
    topology = np.empty((8, 9), np.int32)
    axes = np.empty((8, 3), int)  # the axis of the face at each corner, counter-clockwise seen from outside
    for v in range(8):
        axes[v] = (0, 1, 2) if bin(v).count("1") % 2 else (0, 2, 1)
    for v in range(8):
        for k in range(3):
            axis = int(axes[v, k])
            w = v ^ (1 << axis)  # the edge opposite to the face x_axis = const runs along that axis
            topology[v, k] = 2 * axis + (v >> axis & 1)
            topology[v, 3 + k] = w
            topology[v, 6 + k] = int(np.flatnonzero(axes[w] == axis)[0])
    return position, topology
