"""Targets in tight groups far apart: which belong together, so that each group can first be solved as one target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from otgan.solvers._continuation import Level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.cells.base import ExactCells

    Floats = NDArray[np.float64]
    Labels = NDArray[np.int64]

#: A group is tight if what is nearest outside is this many times its extent away.
APART = 1e3
#: Neighbours of a target in the graph whose least spanning forest is searched for groups.
NEIGHBOURS = 8


def merged(cells: ExactCells, b: Floats) -> Level | None:
    """The targets with each tight group merged in its centre of mass; None if there is no such group, or only one.

    Of groups within groups the innermost are merged: the level made of them may have groups of its own.
    """
    n = len(b)
    group = tight_groups(cells.points)
    m = int(group.max()) + 1
    if not 1 < m < n:
        return None
    weights = np.asarray(np.bincount(group, b), dtype=np.float64)
    centres = np.stack([np.bincount(group, b * column) for column in cells.points.T], axis=1) / weights[:, None]
    coarse = cells.with_points(centres)
    return None if coarse is None else Level(coarse, weights, group, group)


def tight_groups(points: Floats) -> Labels:
    """Number of each target's group, shape (n,): an innermost tight group, or the target alone.

    What a group holds besides tight groups of its own is alone, until these are merged.

    Groups are those of single linkage (components of the least spanning tree below a length) in the graph of nearest
    neighbours. Where a component has no edge that leaves it, what is nearest outside is looked up from its centre.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
    from scipy.spatial import KDTree

    n = len(points)
    tree = KDTree(points)
    k = min(NEIGHBOURS + 1, n)
    length, near = (np.ravel(found) for found in tree.query(points, k=k))
    rows = np.repeat(np.arange(n), k)
    there = (near != rows) & (length > 0.0)
    graph = coo_array((length[there], (rows[there], near[there])), shape=(n, n)).tocsr()
    forest = minimum_spanning_tree(graph.maximum(graph.T)).tocoo()
    order = np.argsort(forest.data, kind="stable")
    count, component = connected_components(forest, directed=False)
    leaving = np.zeros(count)  # of all targets there is nothing outside
    if count > 1:
        parts = np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1])
        for c, inside in enumerate(parts):
            leaving[c] = np.max(tree.query(points[inside].mean(axis=0), k=len(inside) + 1)[0])
    edges = np.stack([forest.row[order], forest.col[order]], axis=1).astype(np.int64)
    labels = _tight(points, edges, forest.data[order], leaving[component], APART)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


@njit(cache=True)
def _tight(points: Floats, edges: Labels, lengths: Floats, leaving: Floats, apart: float) -> Labels:
    """Labels of the innermost tight groups, by joining along ``edges`` from the shortest on; n + i where i is alone."""
    n, dim = points.shape
    parent, low, high = np.arange(n), points.copy(), points.copy()
    size, done, label = np.ones(n, np.int64), np.zeros(n, np.bool_), n + np.arange(n)
    nearest = np.arange(n)  # of a group, the next of its members in a ring
    for e in range(len(edges) + n):
        if e < len(edges):
            a, c, length = edges[e, 0], edges[e, 1], lengths[e]
        else:
            a = c = e - len(edges)
            length = leaving[a]
        for end in (a, c):
            root = end
            while parent[root] != root:
                parent[root] = parent[parent[root]]
                root = parent[root]
            if size[root] > 1 and not done[root]:
                extent = 0.0
                for q in range(dim):
                    extent = max(extent, high[root, q] - low[root, q])
                if length >= apart * extent:
                    done[root] = True
                    member = root
                    while True:
                        label[member] = root
                        member = nearest[member]
                        if member == root:
                            break
        if e >= len(edges):
            continue
        r, s = a, c
        while parent[r] != r:
            r = parent[r]
        while parent[s] != s:
            s = parent[s]
        if r == s:
            continue
        if size[r] < size[s]:
            r, s = s, r
        parent[s] = r
        size[r] += size[s]
        done[r] = done[r] or done[s]  # what holds a tight group is not the smallest one
        nearest[r], nearest[s] = nearest[s], nearest[r]
        for q in range(dim):
            low[r, q], high[r, q] = min(low[r, q], low[s, q]), max(high[r, q], high[s, q])
    return label
