"""Which targets cut a cell: a guess, then a proof that none is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from otgan.cells._spatial_clip import FAST, OVERFLOW, TOLERANCE, X, Y, Z, bound, clip, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A plane or a node is passed over only when it stays this far outside the cell (lengths relative to the domain).
MARGIN = 1e-15


# Columns of ``node`` (nodes, 10): centre (3) and half-widths (3) of its targets, majorant g (3) and c.
# Columns of ``link`` (nodes, 4): first target, end of its targets, first child (-1 for a leaf), parent.


class Problem(NamedTuple):
    """Targets in the order of the tree, their heights, and what speeds the search up. All normalised to size 1.

    The compiled functions take its arrays one by one: unpacking a tuple costs an atomic operation per array.
    """

    sites: NDArray[np.float64]  # (n, 4): position and height
    node: NDArray[np.float64]
    link: NDArray[np.int64]
    leaf: NDArray[np.int64]  # (n,): the leaf of each target
    position: NDArray[np.float64]  # the domain as a polyhedron
    topology: NDArray[np.int32]
    guess_start: NDArray[np.int64]  # likely neighbours of each target: CSR
    guess: NDArray[np.int32]


@njit(cache=True)
def _clip_target(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    work: NDArray[np.int32],
    count: int,
    sites: NDArray[np.float64],
    i: int,
    j: int,
) -> tuple[int, bool]:
    """Cuts cell i by the half-space where i beats j. The plane is the same, bit for bit, seen from i and from j."""
    dx, dy, dz = sites[j, 0] - sites[i, 0], sites[j, 1] - sites[i, 1], sites[j, 2] - sites[i, 2]
    drop = sites[i, 3] - sites[j, 3]
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    if length == 0.0:  # one position: the higher one wins, the first one on equality
        return (0, True) if drop < 0.0 or (drop == 0.0 and j < i) else (count, False)
    return clip(real, topology, work, count, dx / length, dy / length, dz / length, drop / length, j)


@njit(cache=True)
def _target_may_cut(box: NDArray[np.float64], sites: NDArray[np.float64], i: int, j: int) -> bool:
    """Whether target j may cut the bounding box of cell i."""
    dx, dy, dz = sites[j, 0] - sites[i, 0], sites[j, 1] - sites[i, 1], sites[j, 2] - sites[i, 2]
    ax, ay, az = abs(dx), abs(dy), abs(dz)
    gain = box[0] * dx + box[1] * dy + box[2] * dz + box[3] * ax + box[4] * ay + box[5] * az
    return gain > sites[i, 3] - sites[j, 3] - MARGIN * (ax + ay + az)


@njit(cache=True, fastmath=FAST)
def _node_may_cut(
    real: NDArray[np.float64],
    count: int,
    box: NDArray[np.float64],
    sites: NDArray[np.float64],
    node: NDArray[np.float64],
    i: int,
    q: int,
) -> bool:
    """Whether a target of node q may cut cell i: first by the cell's bounding box, then by its vertices.

    ``max over v in cell, y in node`` of ``<v + g, y> + c - (<v, y_i> + h_i)``.
    """
    g0, g1, g2 = node[q, 6], node[q, 7], node[q, 8]
    p0, p1, p2 = sites[i, 0], sites[i, 1], sites[i, 2]
    c0, c1, c2 = node[q, 0] - p0, node[q, 1] - p1, node[q, 2] - p2
    e0, e1, e2 = node[q, 3], node[q, 4], node[q, 5]
    level = g0 * p0 + g1 * p1 + g2 * p2 + node[q, 9] - sites[i, 3]
    level += MARGIN * (abs(c0) + abs(c1) + abs(c2) + e0 + e1 + e2)
    x0, x1, x2 = box[0] + g0, box[1] + g1, box[2] + g2
    total = level
    total += max((c0 + e0) * x0 + abs(c0 + e0) * box[3], (c0 - e0) * x0 + abs(c0 - e0) * box[3])
    total += max((c1 + e1) * x1 + abs(c1 + e1) * box[4], (c1 - e1) * x1 + abs(c1 - e1) * box[4])
    total += max((c2 + e2) * x2 + abs(c2 + e2) * box[5], (c2 - e2) * x2 + abs(c2 - e2) * box[5])
    if total <= 0.0:
        return False
    wins = 0  # counts vectorise where a maximum does not
    for v in range(count):
        u0, u1, u2 = real[X, v] + g0, real[Y, v] + g1, real[Z, v] + g2
        wins += c0 * u0 + c1 * u1 + c2 * u2 + e0 * abs(u0) + e1 * abs(u1) + e2 * abs(u2) > -level
    return wins > 0


@njit(cache=True)
def _clip_leaf(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    work: NDArray[np.int32],
    count: int,
    box: NDArray[np.float64],
    sites: NDArray[np.float64],
    i: int,
    begin: int,
    end: int,
) -> int:
    """Cuts by targets ``begin <= j < end``."""
    for j in range(begin, end):
        if j != i and _target_may_cut(box, sites, i, j):
            count, cut = _clip_target(real, topology, work, count, sites, i, j)
            if count <= 0:
                return count
            if cut:
                bound(real, count, box)
    return count


@njit(cache=True)
def build_cell(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    work: NDArray[np.int32],
    box: NDArray[np.float64],
    stack: NDArray[np.int64],
    sites: NDArray[np.float64],
    node: NDArray[np.float64],
    link: NDArray[np.int64],
    leaf: int,
    guess_start: NDArray[np.int64],
    guess: NDArray[np.int32],
    i: int,
    count: int,
) -> int:
    """Cuts the domain down to cell i, in place. Returns its vertices: 0 when empty, OVERFLOW when arrays are small."""
    for t in range(guess_start[i], guess_start[i + 1]):
        count, _ = _clip_target(real, topology, work, count, sites, i, guess[t])
        if count <= 0:
            return count
    bound(real, count, box)
    below = leaf
    count = _clip_leaf(real, topology, work, count, box, sites, i, link[below, 0], link[below, 1])
    while count > 0 and below > 0:  # from its own leaf up, the sibling subtree at each level
        parent = link[below, 3]
        stack[0] = 2 * link[parent, 2] + 1 - below
        size = 1
        while size > 0:
            size -= 1
            q = stack[size]
            if not _node_may_cut(real, count, box, sites, node, i, q):
                continue
            child = link[q, 2]
            if child < 0:
                count = _clip_leaf(real, topology, work, count, box, sites, i, link[q, 0], link[q, 1])
                if count <= 0:
                    return count
                continue
            gap = 0.0
            for k in range(3):
                gap += (node[child, k] - sites[i, k]) ** 2 - (node[child + 1, k] - sites[i, k]) ** 2
            nearer = 1 if gap > 0.0 else 0
            stack[size] = child + 1 - nearer
            stack[size + 1] = child + nearer
            size += 2
        below = parent
    return count


@njit(cache=True)
def gather_group(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    work: NDArray[np.int32],
    box: NDArray[np.float64],
    sites: NDArray[np.float64],
    begin: int,
    end: int,
    position: NDArray[np.float64],
    corners: NDArray[np.int32],
    guess_start: NDArray[np.int64],
    guess: NDArray[np.int32],
    kept: NDArray[np.float64],
    kept_topology: NDArray[np.int32],
    spans: NDArray[np.int64],
) -> bool:
    """Cells ``begin <= i < end``, one leaf of the tree, cut by guesses and one another: supersets of the cells.

    Vertices go to ``kept[:3]`` one cell after the other, cell i in ``spans[i - begin] : spans[i - begin + 1]``, and
    ``kept[3]`` holds ``<v, y_i - y_begin> + h_i - h_begin`` there. False when a cell has no guess or something is full.
    """
    size = 0
    for i in range(begin, end):
        spans[i - begin] = size
        if guess_start[i + 1] == guess_start[i]:
            return False
        count = load(real, topology, position, corners)
        for t in range(guess_start[i], guess_start[i + 1]):
            if count > 0:
                count, _ = _clip_target(real, topology, work, count, sites, i, guess[t])
        if count > 0:
            bound(real, count, box)
            count = _clip_leaf(real, topology, work, count, box, sites, i, begin, end)
        if count == OVERFLOW or size + count > kept.shape[1]:
            return False
        dx, dy, dz = sites[i, 0] - sites[begin, 0], sites[i, 1] - sites[begin, 1], sites[i, 2] - sites[begin, 2]
        dh = sites[i, 3] - sites[begin, 3]
        for v in range(count):
            kept[0, size + v] = real[X, v]
            kept[1, size + v] = real[Y, v]
            kept[2, size + v] = real[Z, v]
            kept[3, size + v] = real[X, v] * dx + real[Y, v] * dy + real[Z, v] * dz + dh
            for k in range(9):
                kept_topology[size + v, k] = topology[v, k]
        size += count
    spans[end - begin] = size
    return True


@njit(cache=True, fastmath=FAST)
def _beats(kept: NDArray[np.float64], size: int, dx: float, dy: float, dz: float, dh: float) -> bool:
    """Whether the target at (dx, dy, dz), height dh, both relative to the group's first, wins at some kept vertex."""
    wins = 0
    for v in range(size):
        wins += dx * kept[0, v] + dy * kept[1, v] + dz * kept[2, v] - kept[3, v] > -dh
    return wins > 0


@njit(cache=True, fastmath=FAST)
def _node_beats(
    kept: NDArray[np.float64], size: int, first: NDArray[np.float64], node: NDArray[np.float64], q: int
) -> bool:
    """Whether a target of node q may win at some kept vertex; ``first`` is the group's first target."""
    g0, g1, g2 = node[q, 6], node[q, 7], node[q, 8]
    c0, c1, c2 = node[q, 0] - first[0], node[q, 1] - first[1], node[q, 2] - first[2]
    e0, e1, e2 = node[q, 3], node[q, 4], node[q, 5]
    level = g0 * first[0] + g1 * first[1] + g2 * first[2] + node[q, 9] - first[3]
    level += MARGIN * (abs(c0) + abs(c1) + abs(c2) + e0 + e1 + e2)
    wins = 0
    for v in range(size):
        u0, u1, u2 = kept[0, v] + g0, kept[1, v] + g1, kept[2, v] + g2
        wins += c0 * u0 + c1 * u1 + c2 * u2 + e0 * abs(u0) + e1 * abs(u1) + e2 * abs(u2) - kept[3, v] > -level
    return wins > 0


@njit(cache=True)
def challengers(
    kept: NDArray[np.float64],
    size: int,
    sites: NDArray[np.float64],
    node: NDArray[np.float64],
    link: NDArray[np.int64],
    own: int,
    stack: NDArray[np.int64],
    found: NDArray[np.int64],
) -> int:
    """Targets outside the leaf ``own`` that win at some kept vertex, into ``found``: their number, -1 if too many.

    A half-space that cuts a polyhedron cuts off one of its vertices: none is missed.
    """
    begin = link[own, 0]
    first = sites[begin]
    total = 0
    stack[0] = 0
    depth = 1
    while depth > 0:
        depth -= 1
        q = stack[depth]
        if q == own or not _node_beats(kept, size, first, node, q):
            continue
        child = link[q, 2]
        if child >= 0:
            stack[depth] = child
            stack[depth + 1] = child + 1
            depth += 2
            continue
        for j in range(link[q, 0], link[q, 1]):
            dx, dy, dz = sites[j, 0] - first[0], sites[j, 1] - first[1], sites[j, 2] - first[2]
            nearest = np.inf
            for i in range(begin, link[own, 1]):
                gap = (sites[j, 0] - sites[i, 0]) ** 2 + (sites[j, 1] - sites[i, 1]) ** 2
                nearest = min(nearest, gap + (sites[j, 2] - sites[i, 2]) ** 2)
            slack = 0.5 * TOLERANCE * np.sqrt(nearest)  # a neighbour already known is level with its vertices
            if _beats(kept, size, dx, dy, dz, sites[j, 3] - first[3] - slack):
                if total == found.shape[0]:
                    return -1
                found[total] = j
                total += 1
    return total


@njit(cache=True)
def finish_cell(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    work: NDArray[np.int32],
    box: NDArray[np.float64],
    sites: NDArray[np.float64],
    i: int,
    begin: int,
    kept: NDArray[np.float64],
    kept_topology: NDArray[np.int32],
    spans: NDArray[np.int64],
    found: NDArray[np.int64],
    total: int,
) -> int:
    """Cell i of the group that starts at ``begin``: what was kept, cut by the challengers. Returns its vertices."""
    start = spans[i - begin]
    count = spans[i - begin + 1] - start
    if count == 0:
        return 0
    for v in range(count):
        for a in range(3):
            real[a, v] = kept[a, start + v]
        for k in range(9):
            topology[v, k] = kept_topology[start + v, k]
    if total == 0:
        return count
    bound(real, count, box)
    for t in range(total):
        if _target_may_cut(box, sites, i, found[t]):
            count, cut = _clip_target(real, topology, work, count, sites, i, found[t])
            if count <= 0:
                return count
            if cut:
                bound(real, count, box)
    return count
