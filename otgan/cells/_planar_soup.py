"""All clipped cells of a planar power diagram in one flat structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PolygonSoup:
    """Convex polygons ``W_i(h)`` clipped to a convex domain, in compressed rows.

    Cell ``i`` owns the slots ``ptr[i]:ptr[i + 1]`` of ``vertices`` and ``neighbour``. Edge ``k`` runs from vertex ``k``
    to the next vertex of the same cell, the last one back to the first.

    Attributes:
        ptr: shape (n + 1,), int64. An empty cell has ``ptr[i] == ptr[i + 1]``.
        vertices: shape (nv, 2), float64, counter-clockwise within each cell.
        neighbour: shape (nv,), int64. Edge ``k`` is shared with target ``neighbour[k]`` when that is >= 0, and lies on
            edge ``-1 - neighbour[k]`` of the domain otherwise.
    """

    ptr: Ints
    vertices: Floats
    neighbour: Ints

    @property
    def n_cells(self) -> int:
        """Number of cells, empty ones included."""
        return len(self.ptr) - 1

    @property
    def owner(self) -> Ints:
        """Cell that each vertex belongs to, shape (nv,)."""
        return np.repeat(np.arange(self.n_cells, dtype=np.int64), np.diff(self.ptr))

    @property
    def next_vertex(self) -> Ints:
        """Index of the vertex that follows each vertex within its cell, shape (nv,)."""
        following = np.arange(1, len(self.vertices) + 1, dtype=np.int64)
        filled = np.diff(self.ptr) > 0
        following[self.ptr[1:][filled] - 1] = self.ptr[:-1][filled]
        return following

    @property
    def areas(self) -> Floats:
        """Areas of the cells, shape (n,); 0 for an empty cell."""
        return np.bincount(self.owner, weights=self._twice_triangles(), minlength=self.n_cells) / 2.0

    def cell(self, i: int) -> tuple[Floats, Ints]:
        """Vertices (k, 2) and edge labels (k,) of cell ``i``."""
        part = slice(int(self.ptr[i]), int(self.ptr[i + 1]))
        return self.vertices[part], self.neighbour[part]

    def _twice_triangles(self) -> Floats:
        """Twice the signed area of (first vertex of the cell, vertex, next vertex), shape (nv,)."""
        origin = self.vertices[self.ptr[:-1][self.owner]]
        a = self.vertices - origin
        b = self.vertices[self.next_vertex] - origin
        return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
