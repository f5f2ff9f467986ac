"""A balanced k-d tree over targets, with an affine majorant of the heights in every node."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAF_SIZE = 8


class Tree(NamedTuple):
    """Nodes in breadth-first order; the children of ``v`` are ``child[v]`` and ``child[v] + 1`` (-1 for a leaf).

    Node ``v`` holds the targets ``first[v] <= j < last[v]`` of the tree's order.
    """

    order: NDArray[np.int64]  # (n,): tree position -> original target
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    leaf: NDArray[np.int64]  # (n,): the leaf of each target
    box: NDArray[np.float64]  # (nodes, 6): centre, half-widths


def build_tree(points: NDArray[np.float64]) -> Tree:
    """k-d tree of ``points`` (n, 3), split at the median of the widest side."""
    n = points.shape[0]
    leaves = 1
    while leaves * LEAF_SIZE < n:
        leaves *= 2
    nodes = 2 * leaves - 1
    order = np.arange(n)
    first, last = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    child, parent = np.full(nodes, -1, np.int64), np.full(nodes, -1, np.int64)
    leaf, box = np.zeros(n, np.int64), np.zeros((nodes, 6))
    last[0] = n
    _split(points, order, first, last, child, parent, leaf, box)
    return Tree(order, first, last, child, parent, leaf, box)


@njit(cache=True)
def _split(
    points: NDArray[np.float64],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    child: NDArray[np.int64],
    parent: NDArray[np.int64],
    leaf: NDArray[np.int64],
    box: NDArray[np.float64],
) -> None:
    """Fills the nodes from the root down."""
    nodes = first.shape[0]
    for v in range(nodes):
        a, b = first[v], last[v]
        widest, width = 0, -1.0
        for k in range(3):
            low, high = np.inf, -np.inf
            for j in range(a, b):
                low, high = min(low, points[order[j], k]), max(high, points[order[j], k])
            box[v, k], box[v, 3 + k] = 0.5 * (low + high), 0.5 * (high - low)
            if high - low > width:
                widest, width = k, high - low
        if 2 * v + 2 >= nodes:
            leaf[a:b] = v
            continue
        middle = (a + b) // 2
        keys = points[order[a:b], widest]
        order[a:b] = order[a:b][np.argsort(keys)]
        child[v] = 2 * v + 1
        for side in range(2):
            w = 2 * v + 1 + side
            parent[w] = v
            first[w] = a if side == 0 else middle
            last[w] = middle if side == 0 else b


@njit(cache=True)
def majorants(
    points: NDArray[np.float64], heights: NDArray[np.float64], tree: Tree, domain: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""Affine functions ``<g, y> + c >= h`` on the targets of each node, as rows (g, c).

    Optimal heights are minus a convex function whose gradients lie in the source, so ``-g`` is the least-squares
    slope brought back into the box ``domain`` (centre, half-widths); any slope gives a valid majorant. ``points``
    and ``heights`` are in the tree's order.
    """
    nodes = tree.first.shape[0]
    result = np.empty((nodes, 4))
    for v in range(nodes):
        a, b = tree.first[v], tree.last[v]
        mx = my = mz = mh = 0.0
        for j in range(a, b):
            mx += points[j, 0]
            my += points[j, 1]
            mz += points[j, 2]
            mh += heights[j]
        size = max(b - a, 1)
        mx, my, mz, mh = mx / size, my / size, mz / size, mh / size
        xx = xy = xz = yy = yz = zz = xh = yh = zh = 0.0
        for j in range(a, b):
            dx, dy, dz, dh = points[j, 0] - mx, points[j, 1] - my, points[j, 2] - mz, heights[j] - mh
            xx += dx * dx
            xy += dx * dy
            xz += dx * dz
            yy += dy * dy
            yz += dy * dz
            zz += dz * dz
            xh += dx * dh
            yh += dy * dh
            zh += dz * dh
        ridge = 1e-6 * (xx + yy + zz) + 1e-300
        # LDL^T of the normal equations, slopes relative to the domain's centre.
        xh += xx * domain[0] + xy * domain[1] + xz * domain[2]
        yh += xy * domain[0] + yy * domain[1] + yz * domain[2]
        zh += xz * domain[0] + yz * domain[1] + zz * domain[2]
        xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
        l1, l2 = xy / xx, xz / xx
        d1 = yy - l1 * xy
        e = yz - l1 * xz
        l3 = e / d1
        d2 = zz - l2 * xz - l3 * e
        yh -= l1 * xh
        zh -= l2 * xh + l3 * yh
        gz = zh / d2
        gy = yh / d1 - l3 * gz
        gx = xh / xx - l1 * gy - l2 * gz
        gx = min(max(gx, -domain[3]), domain[3]) - domain[0]
        gy = min(max(gy, -domain[4]), domain[4]) - domain[1]
        gz = min(max(gz, -domain[5]), domain[5]) - domain[2]
        c = -np.inf
        for j in range(a, b):
            c = max(c, heights[j] - (gx * points[j, 0] + gy * points[j, 1] + gz * points[j, 2]))
        result[v, 0], result[v, 1], result[v, 2], result[v, 3] = gx, gy, gz, c
    return result
