"""Exact clipped power diagrams of one set of targets, recomputed quickly when the heights change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otgan.cells._planar_check import compact, merge, mismatches, total_area
from otgan.cells._planar_clip import clip_cells, threads_for
from otgan.cells._planar_graph import guess_neighbours, nearest_neighbours, spread_rows
from otgan.cells._planar_soup import PolygonSoup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Relative excess of the summed areas over the domain's up to which a diagram is taken for exact.
AREA_TOL = 1e-12
#: The same when the fast paths are exhausted: what rounding may do to very degenerate input.
AREA_LIMIT = 1e-9
#: Up to this many targets every pair may be compared when all else fails.
BRUTE_FORCE = 20_000
MAX_ROUNDS = 100
#: From here on the nearest targets are worth a try before the lifted hull.
MANY = 20_000


@dataclass
class Slots:
    """Clipped cells in slots; see `otgan.cells._planar_clip`."""

    start: NDArray[np.int64]
    count: NDArray[np.int32]
    known: NDArray[np.int32]
    room: NDArray[np.int32]
    vx: Floats
    vy: Floats
    label: NDArray[np.int32]
    used: int


class PlanarDiagram:
    """Power cells of fixed targets in a convex polygon, for changing heights.

    Neighbours of the previous call are the candidates of the next one. Cells that do not fit together are searched for
    missing neighbours until all fit; the summed areas must then equal the domain's. If they do not, the neighbours
    are taken from the lifted convex hull instead, and for few targets from all pairs.

    Args:
        points: targets, shape (n, 2), pairwise distinct.
        domain: convex polygon, shape (k, 2), counter-clockwise.
    """

    def __init__(self, points: Floats, domain: Floats) -> None:
        self.n = len(points)
        low, high = domain.min(axis=0), domain.max(axis=0)
        self.shift = (low + high) / 2.0
        self.scale = float((high - low).max() / 2.0)
        corners = (domain - self.shift) / self.scale
        self.corners_x, self.corners_y = np.ascontiguousarray(corners[:, 0]), np.ascontiguousarray(corners[:, 1])
        self.area = _shoelace(corners)
        low, high = points.min(axis=0), points.max(axis=0)
        spread = float((high - low).max() / 2.0)
        self.point_scale = spread if spread > 0 else 1.0
        self.scaled = (points - (low + high) / 2.0) / self.point_scale
        self.px, self.py = np.ascontiguousarray(self.scaled[:, 0]), np.ascontiguousarray(self.scaled[:, 1])
        self._graph: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]] | None = None

    def soup(self, heights: Floats, normalised: bool = False) -> PolygonSoup:
        """Cells at ``heights``; with ``normalised`` in the coordinates ``(x - shift) / scale``."""
        slots = self.solve(self.scaled_heights(heights))
        ptr = np.concatenate([[0], np.cumsum(slots.count, dtype=np.int64)])
        vertices = np.empty((ptr[-1], 2))
        neighbour = np.empty(ptr[-1], np.int64)
        scale, shift = (1.0, np.zeros(2)) if normalised else (self.scale, self.shift)
        cells = (slots.start, slots.count, slots.vx, slots.vy, slots.label)
        with threads_for(self.n):
            compact(*cells, ptr, scale, shift[0], shift[1], vertices, neighbour)
        return PolygonSoup(ptr, vertices, neighbour)

    def suggest(self, places: Floats) -> None:
        """Take the nearest others of each of ``places``, shape (n, 2), as candidates: cheaper than the hull.

        Only worth it before the first call, for many targets, when the cells will be Voronoi cells of ``places``.
        """
        if self._graph is None and self.n >= MANY:
            self._graph = nearest_neighbours(places)

    def scaled_heights(self, heights: Floats) -> Floats:
        """Heights for normalised coordinates.

        With ``x = s + a x'`` and ``y = c + b y'``, ``<x, y> + h = <x, c> + b <s, y'> + a b <x', y'> + h``; the first
        term is common to all targets, hence ``h' = (h + b <s, y'>) / (a b)`` up to a constant.
        """
        shifted = (heights - heights.mean()) + self.point_scale * (self.scaled @ self.shift)
        shifted /= self.scale * self.point_scale
        return shifted - shifted.mean()

    def solve(self, ph: Floats) -> Slots:
        """Exact cells at scaled heights ``ph``."""
        if self._graph is not None:
            slots = self._refine(*self._graph, ph)
            if self._excess(slots) <= AREA_TOL:
                return self._keep(slots)
        ptr, index = guess_neighbours(self.scaled, ph)
        slots = self._refine(ptr[:-1], np.diff(ptr).astype(np.int32), index, ph)
        excess = self._excess(slots)
        if excess > AREA_TOL and self.n <= BRUTE_FORCE:
            everyone = np.arange(self.n, dtype=np.int32)
            slots = self._clip_all(np.zeros(self.n, np.int64), np.full(self.n, self.n, np.int32), everyone, ph, 24)
            excess = self._excess(slots)
        if not excess <= AREA_LIMIT:
            msg = (
                f"the power cells overlap by {excess:.1e} of the domain's area: targets or heights are too degenerate "
                "for double precision; merge targets that nearly coincide, or check the heights"
            )
            raise RuntimeError(msg)
        return self._keep(slots)

    def _keep(self, slots: Slots) -> Slots:
        self._graph = (slots.start, slots.known, slots.label)
        return slots

    def _excess(self, slots: Slots) -> float:
        return abs(total_area(slots.start, slots.count, slots.vx, slots.vy) / self.area - 1.0)

    def _clip_all(
        self, start: NDArray[np.int64], known: NDArray[np.int32], label: NDArray[np.int32], ph: Floats, room: int = 0
    ) -> Slots:
        """Clip every cell by the candidates given in slots."""
        width = np.full(self.n, room, np.int32) if room else known + np.int32(3)
        ids = np.arange(self.n, dtype=np.int64)
        new = self._clip(ids, start, known, label, ph, width, None)
        slot, vx, vy, labels, count, known_now = new
        return Slots(slot[:-1].copy(), count, known_now, np.diff(slot).astype(np.int32), vx, vy, labels, int(slot[-1]))

    def _clip(
        self,
        ids: NDArray[np.int64],
        cand_start: NDArray[np.int64],
        cand_count: NDArray[np.int32],
        cand: NDArray[np.int32],
        ph: Floats,
        room: NDArray[np.int32],
        graph: Slots | None,
    ) -> tuple[NDArray[np.int64], Floats, Floats, NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Clip cells ``ids`` into fresh slots of the given room, wider ones where that does not suffice."""
        room = room.astype(np.int64)
        while True:
            slot = np.concatenate([[0], np.cumsum(room)])
            vx, vy = np.empty(slot[-1]), np.empty(slot[-1])
            label = np.empty(slot[-1], np.int32)
            count, known = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)
            start, degree, index = (cand_start, cand_count, cand)
            if graph is not None:
                start, degree, index = graph.start, graph.known, graph.label
            with threads_for(len(ids)):
                clip_cells(
                    ids,
                    cand_start,
                    cand_count,
                    cand,
                    graph is not None,
                    start,
                    degree,
                    index,
                    self.px,
                    self.py,
                    ph,
                    self.corners_x,
                    self.corners_y,
                    slot,
                    vx,
                    vy,
                    label,
                    count,
                    known,
                )
            tight = count < 0
            if not tight.any():
                return slot, vx, vy, label, count, known
            room[tight] = known[tight] + 2

    def _refine(
        self, start: NDArray[np.int64], known: NDArray[np.int32], label: NDArray[np.int32], ph: Floats
    ) -> Slots:
        """Clip by the candidates, then add missing neighbours until all cells fit edge to edge."""
        slots = self._clip_all(start, known, label, ph)
        check = np.ones(self.n, np.uint8)
        for _ in range(MAX_ROUNDS):
            flag = np.zeros(self.n, np.uint8)
            push = np.full(len(slots.label), -1, np.int32)
            cells = (slots.start, slots.count, slots.label, slots.vx, slots.vy)
            with threads_for(int(check.sum())):
                mismatches(*cells, self.px, self.py, ph, check, flag, push)
            ids = np.flatnonzero(flag)
            if len(ids) == 0 or not self._repair(slots, ids, push, ph, check):
                break
        return slots

    def _repair(
        self, slots: Slots, ids: NDArray[np.int64], push: NDArray[np.int32], ph: Floats, check: NDArray[np.uint8]
    ) -> bool:
        """Reclip the cells ``ids`` with all neighbours that can be found; whether any cell changed."""
        pushed = np.flatnonzero(push >= 0)
        target, source = slots.label[pushed], push[pushed]
        order = np.argsort(target, kind="stable")
        target, source = target[order], source[order]
        extra_start = np.searchsorted(target, ids)
        extra = np.searchsorted(target, ids, side="right") - extra_start
        own = slots.known[ids].astype(np.int64)
        counts = own + extra
        cand_start = np.cumsum(counts) - counts
        cand = np.empty(int(counts.sum()), np.int32)
        cand[spread_rows(cand_start, own)] = slots.label[spread_rows(slots.start[ids], own)]
        cand[spread_rows(cand_start + own, extra)] = source[spread_rows(extra_start, extra)]
        new = self._clip(ids, cand_start, counts.astype(np.int32), cand, ph, (counts + 6).astype(np.int32), slots)
        short = slots.used + int(new[5].sum()) + 4 * len(ids) - len(slots.label)
        if short > 0:
            slots.vx = np.concatenate([slots.vx, np.empty(short)])
            slots.vy = np.concatenate([slots.vy, np.empty(short)])
            slots.label = np.concatenate([slots.label, np.empty(short, np.int32)])
        changed, slots.used = merge(
            ids,
            *new,
            slots.start,
            slots.count,
            slots.known,
            slots.room,
            slots.vx,
            slots.vy,
            slots.label,
            slots.used,
            check,
        )
        return bool(changed)


def _shoelace(polygon: Floats) -> float:
    """Signed area of a polygon, shape (k, 2)."""
    a = polygon - polygon[0]
    b = np.roll(a, -1, axis=0)
    return float(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2.0)
