"""Exact power cells in three dimensions, for the uniform measure on a convex polytope."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array
from scipy.spatial import ConvexHull

from otgan.cells.base import CellMoments, ExactCells

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_LEAVES = 64  # leaves of the tree that a thread takes at a time


@dataclass(frozen=True)
class Polytope:
    """Bounded convex polyhedron ``{x : A x <= b}`` in three dimensions.

    Redundant half-spaces are harmless.

    Attributes:
        normals: ``A``, outward normals of any length, shape (k, 3).
        offsets: ``b``, shape (k,).
    """

    normals: Floats
    offsets: Floats

    def __post_init__(self) -> None:
        normals = np.ascontiguousarray(self.normals, dtype=np.float64)
        offsets = np.ascontiguousarray(self.offsets, dtype=np.float64)
        if normals.ndim != 2 or normals.shape[1] != 3 or offsets.shape != (len(normals),):
            raise ValueError(
                f"half-spaces A x <= b need A of shape (k, 3) and b of shape (k,), got {normals.shape} and "
                f"{offsets.shape}"
            )
        if not (np.isfinite(normals).all() and np.isfinite(offsets).all()):
            raise ValueError("half-spaces contain NaN or infinity; pass finite A and b")
        lengths = np.linalg.norm(normals, axis=1)
        if not (lengths > 0).all():
            raise ValueError(f"row {int(np.argmin(lengths))} of A is zero; remove that half-space")
        object.__setattr__(self, "normals", normals)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def box(cls, low: ArrayLike, high: ArrayLike) -> Polytope:
        """The box ``low <= x <= high``, both of shape (3,) (or scalars)."""
        low, high = (np.broadcast_to(np.asarray(side, dtype=np.float64), 3) for side in (low, high))
        if not (high > low).all():
            raise ValueError(f"a box needs low < high in every coordinate, got {low} and {high}")
        return cls(np.vstack([-np.eye(3), np.eye(3)]), np.concatenate([-low, high]))

    @classmethod
    def hull(cls, vertices: ArrayLike) -> Polytope:
        """Convex hull of ``vertices``, shape (m, 3), not all in one plane."""
        vertices = np.asarray(vertices, dtype=np.float64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) < 4:
            raise ValueError(f"a polytope needs at least 4 vertices of shape (m, 3), got shape {vertices.shape}")
        centre = vertices.mean(axis=0)
        scale = np.abs(vertices - centre).max()
        try:
            equations = ConvexHull((vertices - centre) / (scale or 1.0)).equations
        except RuntimeError as error:  # QhullError
            raise ValueError("the vertices lie in one plane: their hull has no volume") from error
        _, kept = np.unique(np.round(equations, 12), axis=0, return_index=True)
        normals = equations[kept, :3]
        return cls(normals, normals @ centre - scale * equations[kept, 3])

    def bounds(self) -> tuple[Floats, Floats]:
        """Tight bounding box (low, high), each of shape (3,).

        Raises:
            ValueError: the polytope is empty, flat or unbounded.
        """
        axes = np.abs(self.normals) > 0
        if (axes.sum(axis=1) == 1).all():
            with np.errstate(divide="ignore", invalid="ignore"):
                limits = self.offsets[:, None] / self.normals
            high = np.where(self.normals > 0, limits, np.inf).min(axis=0)
            low = np.where(self.normals < 0, limits, -np.inf).max(axis=0)
        else:
            lengths = np.linalg.norm(self.normals, axis=1)
            normals, offsets = self.normals / lengths[:, None], self.offsets / lengths
            scale = float(np.abs(offsets).max()) or 1.0
            low, high = np.empty(3), np.empty(3)
            for k in range(3):
                for sign, end in ((1.0, low), (-1.0, high)):
                    answer = linprog(sign * np.eye(3)[k], A_ub=normals, b_ub=offsets / scale, bounds=(None, None))
                    if answer.status == 3:
                        raise ValueError("the polytope is unbounded; add half-spaces that close it")
                    if answer.status != 0:
                        raise ValueError("the polytope is empty; check the signs in A x <= b")
                    end[k] = sign * float(answer.fun or 0.0) * scale
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("the polytope is unbounded; add half-spaces that close it")
        if not (high > low).all():
            raise ValueError(f"the polytope is empty or flat: it lies between {low} and {high}")
        return low, high


@dataclass(frozen=True)
class PolyhedronSoup:
    """Power cells as polyhedra, in flat arrays.

    Cell ``i`` owns the faces ``cell_offsets[i] : cell_offsets[i + 1]`` (none when it is empty); face ``f`` is the loop
    of vertices ``loops[face_offsets[f] : face_offsets[f + 1]]``, counter-clockwise seen from outside the cell.

    Attributes:
        vertices: shape (v, 3); each cell has its own.
        loops: indices into ``vertices``.
        face_offsets: shape (f + 1,).
        neighbours: target on the other side of each face, or ``-1 - k`` for half-space k of the domain, shape (f,).
        cell_offsets: shape (n + 1,).
    """

    vertices: Floats
    loops: NDArray[np.int64]
    face_offsets: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    cell_offsets: NDArray[np.int64]

    def faces(self, cell: int) -> list[Floats]:
        """Polygons of one cell, each of shape (m, 3)."""
        span = range(self.cell_offsets[cell], self.cell_offsets[cell + 1])
        return [self.vertices[self.loops[self.face_offsets[f] : self.face_offsets[f + 1]]] for f in span]


class SpatialCells(ExactCells):
    r"""Power cells of targets in R^3 under the uniform measure on a convex polytope.

    ``w_i = |W_i| / |domain|`` and, for i != j, ``d w_i / d h_j = -|W_i and W_j's facet| / (|y_i - y_j| |domain|)``.

    Every cell is the domain cut by the half-spaces of its neighbours. Those come from the previous call, and are then
    proved complete by a k-d tree over the targets: each node carries an affine majorant of its heights, and is opened
    only if some vertex of the cell could prefer a target in it. Work is about linear in n, and degenerate positions
    (grids, coplanar targets) need no special care. Calls run in parallel threads.

    Args:
        points: targets ``y_i``, shape (n, 3), pairwise distinct.
        domain: the polytope carrying the uniform measure.
        threads: threads to use; all processors by default.

    Raises:
        ValueError: targets of another shape, not finite, or not distinct; a domain that is empty, flat or unbounded.
    """

    def __init__(self, points: ArrayLike, domain: Polytope, threads: int | None = None) -> None:
        points = np.array(points, dtype=np.float64, order="C")
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise ValueError(f"spatial cells need targets of shape (n, 3) with n >= 1, got shape {points.shape}")
        if not np.isfinite(points).all():
            raise ValueError("targets contain NaN or infinity; remove those rows")
        _require_distinct(points)
        super().__init__(points)
        self.domain = domain
        self._threads = threads or _processors()
        self._normalise()

    def _normalise(self) -> None:
        """Domain and targets mapped to size 1: ``x = centre + scale * x'`` and ``y = origin + spread * y' / scale``.

        Then ``<x, y> + h = spread (<x', y'> + h')`` up to a term that all targets share, whatever the axes' scales.
        """
        from otgan.cells._spatial_cells import polyhedron_moments
        from otgan.cells._spatial_clip import clip, cube, load, make_workspace
        from otgan.cells._spatial_tree import build_tree

        low, high = self.domain.bounds()
        self._centre = 0.5 * (low + high)
        self._scale = 2.0 ** np.ceil(np.log2(high - low))  # powers of 2: exact
        self._origin = 0.5 * (self.points.min(axis=0) + self.points.max(axis=0))
        points = (self.points - self._origin) * self._scale
        width = float(np.abs(points).max())
        self._spread = 2.0 ** np.ceil(np.log2(width)) if width > 0 else 1.0
        points /= self._spread
        self._tree = build_tree(points)
        self._points = points[self._tree.order]
        self._link = np.column_stack([self._tree.first, self._tree.last, self._tree.child, self._tree.parent])

        normals = self.domain.normals * self._scale
        lengths = np.linalg.norm(normals, axis=1)
        normals /= lengths[:, None]
        offsets = (self.domain.offsets - self.domain.normals @ self._centre) / lengths
        position, topology = cube(1.0)
        real, corners, work = make_workspace(64 + 8 * len(normals))
        count = load(real, corners, position, topology + np.repeat([len(normals), 0], [3, 6]).astype(np.int32))
        for k, (x, y, z) in enumerate(normals):
            count, _ = clip(real, corners, work, count, x, y, z, offsets[k], -1 - k)
            if count == 0:
                raise ValueError("the polytope is empty; check the signs in A x <= b")
        self._position = np.ascontiguousarray(real[:3, :count].T)
        self._topology = corners[:count].copy()
        if (self._topology[:, :3] >= 0).any():
            raise ValueError("the polytope is unbounded; add half-spaces that close it")
        low, high = self._position.min(axis=0), self._position.max(axis=0)
        self._bounds = np.concatenate([0.5 * (low + high), 0.5 * (high - low)])
        self._volume, self._mean, self._variance = polyhedron_moments(self._position, self._topology)
        self._guess = (np.zeros(len(points) + 1, np.int64), np.empty(0, np.int32))

    def _problem(self, heights: ArrayLike) -> Any:
        """The normalised problem at ``heights``."""
        from otgan.cells._spatial_search import Problem
        from otgan.cells._spatial_tree import majorants

        h = np.asarray(heights, dtype=np.float64)
        if h.shape != (len(self.points),):
            raise ValueError(f"expected one height for each of {len(self.points)} targets, got shape {h.shape}")
        if not np.isfinite(h).all():
            raise ValueError("heights contain NaN or infinity")
        h = (h + (self.points - self._origin) @ self._centre) / self._spread
        h = h[self._tree.order]
        h = h - h.max()
        tree = self._tree
        node = np.hstack([tree.box, majorants(self._points, h, tree, self._bounds)])
        sites = np.column_stack([self._points, h])
        return Problem(sites, node, self._link, tree.leaf, self._position, self._topology, *self._guess)

    def _map(self, kernel: Callable[..., Any], problem: Any) -> list[Any]:
        """``kernel(problem, first, last)`` over all leaves of the tree in chunks, in parallel threads."""
        nodes = len(self._link)
        spans = [(q, min(q + _LEAVES, nodes)) for q in range(nodes // 2, nodes, _LEAVES)]
        if len(spans) == 1 or self._threads == 1:
            return [kernel(problem, *span) for span in spans]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(lambda span: kernel(problem, *span), spans))

    def moments(self, heights: ArrayLike, hessian: bool = True) -> CellMoments:
        """Masses, first moments and (on request) the Hessian at ``heights``, shape (n,).

        Raises:
            ValueError: heights of another shape, or not finite.
        """
        from otgan.cells._spatial_cells import chunk_moments

        n = len(self.points)
        order = self._tree.order
        parts = self._map(chunk_moments, self._problem(heights))
        integrals = np.concatenate([part[0] for part in parts])
        counts = np.concatenate([np.diff(part[1]) for part in parts])
        labels = np.concatenate([part[2] for part in parts])
        self._remember(counts, labels)
        masses, first = np.empty(n), np.empty((n, 3))
        masses[order] = integrals[:, 0] / self._volume
        first[order] = integrals[:, 1:] * (self._scale / self._volume)
        first += masses[:, None] * self._centre
        if not hessian:
            return CellMoments(masses, first)
        # Half of each facet from either side: symmetric to the last bit.
        values = np.concatenate([part[3] for part in parts]) * (0.5 / (self._volume * self._spread))
        rows, columns = np.repeat(order, counts), order[labels]
        diagonal = np.bincount(rows, values, n) + np.bincount(columns, values, n)
        every = np.arange(n)
        matrix = coo_array(
            (
                np.concatenate([-values, -values, diagonal]),
                (np.concatenate([rows, columns, every]), np.concatenate([columns, rows, every])),
            ),
            shape=(n, n),
        )
        return CellMoments(masses, first, matrix.tocsr())

    def _remember(self, counts: NDArray[np.int64], labels: NDArray[np.int32]) -> None:
        """Neighbours as guesses for the next call; an empty cell, which has none, keeps its older ones."""
        before, older = self._guess
        empty = counts == 0
        starts = np.where(empty, len(labels) + before[:-1], np.cumsum(counts) - counts)
        lengths = np.where(empty, np.diff(before), counts)
        every = np.concatenate([labels, older])[_ranges(starts, lengths)] if empty.any() else labels
        self._guess = (np.concatenate([[0], np.cumsum(lengths)]), every)

    @property
    def second_moment(self) -> float:
        """``E |x|^2`` under the uniform measure on the polytope, exact."""
        mean = self._centre + self._scale * self._mean
        return float(mean @ mean + self._scale**2 @ self._variance)

    def start(self, weights: Floats) -> Floats:
        """Heights ``-f(y_i)`` with ``f(y) = sum_k f_k(y_k)``, f_k' monotone onto an edge of a box in the domain.

        The map is the optimal one between the marginals, on the line, of the targets and of the box (for a product
        measure: the answer). The point ``grad f(y_i)`` is inside cell i, so no cell is empty.
        """
        middle = self._centre + self._scale * self._mean
        bottom, top = self.domain.bounds()
        half = 0.5 * (top - bottom)
        room = self.domain.offsets - self.domain.normals @ middle
        half *= 0.999 * min(1.0, float((room / (np.abs(self.domain.normals) @ half)).min()))
        heights = np.zeros(len(self.points))
        for k in range(3):
            values, where = np.unique(self.points[:, k], return_inverse=True)
            share = np.bincount(where, weights / weights.sum())
            slope = middle[k] + half[k] * (2.0 * np.cumsum(share) - share - 1.0)
            rise = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(values))])
            heights -= rise[where]
        return heights

    def reordered(self) -> tuple[SpatialCells, NDArray[np.int64]]:
        """The same problem with its targets in the order of the k-d tree, and that order, ``new = old[order]``."""
        return SpatialCells(self.points[self._tree.order], self.domain, self._threads), self._tree.order

    def with_points(self, points: Floats) -> SpatialCells:
        """Cells of other targets, shape (m, 3), under the same measure."""
        return SpatialCells(points, self.domain, self._threads)

    def polyhedra(self, heights: ArrayLike) -> PolyhedronSoup:
        """The cells themselves, for pictures and for integrals over them."""
        from otgan.cells._spatial_cells import chunk_polyhedra

        order = self._tree.order
        parts = self._map(chunk_polyhedra, self._problem(heights))
        vertices = np.concatenate([part[0] for part in parts]) * self._scale + self._centre
        shifts = np.cumsum([0] + [len(part[0]) for part in parts])
        loops = np.concatenate([part[1] + shift for part, shift in zip(parts, shifts[:-1], strict=True)])
        lengths, labels, counts, sizes = (np.concatenate([part[k] for part in parts]) for k in range(2, 6))
        labels = np.where(labels >= 0, order[np.maximum(labels, 0)], labels)
        # From the order of the tree to that of the targets: faces, then loops, then vertices move in blocks.
        rank = np.argsort(order)
        face = _blocks(counts, rank)
        corner = _blocks(lengths, face)
        vertex = _blocks(sizes, rank)
        new_vertex = np.empty(len(vertices), np.int64)
        new_vertex[vertex] = np.arange(len(vertices))
        return PolyhedronSoup(
            vertices=vertices[vertex],
            loops=new_vertex[loops[corner]],
            face_offsets=np.concatenate([[0], np.cumsum(lengths[face])]),
            neighbours=labels[face],
            cell_offsets=np.concatenate([[0], np.cumsum(counts[rank])]),
        )


def _blocks(lengths: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices that put consecutive blocks of the given lengths into a new order."""
    return _ranges((np.cumsum(lengths) - lengths)[order], lengths[order])


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ranges ``start .. start + length - 1``, one after the other."""
    return np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


def _processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_distinct(points: Floats) -> None:
    """Raises when two targets coincide."""
    order = np.lexsort(points.T)
    same = np.flatnonzero((points[order[1:]] == points[order[:-1]]).all(axis=1))
    if len(same):
        i, j = sorted((int(order[same[0]]), int(order[same[0] + 1])))
        raise ValueError(f"targets {i} and {j} coincide; merge equal targets and add up their weights")
