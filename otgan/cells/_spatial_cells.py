"""Integrals over power cells in 3-D, and the cells as polyhedra, for a range of leaves of the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from otgan.cells._spatial_clip import NEXT, OUT, OVERFLOW, X, Y, Z, load, make_workspace
from otgan.cells._spatial_search import Problem, build_cell, challengers, finish_cell, gather_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Room for the vertices of one leaf's cells, and for the targets that cut them without being among their guesses.
_GROUP_VERTICES = 1024
_GROUP_TARGETS = 256


@njit(cache=True, nogil=True)
def chunk_moments(
    problem: Problem, first_leaf: int, last_leaf: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Cells of the leaves ``first_leaf <= q < last_leaf``: targets ``start <= i < stop``.

    Returns:
        (stop - start, 4) volumes and first moments, (stop - start + 1,) offsets of the neighbours, their labels,
        and for each the facet's area over the distance of the two targets.
    """
    sites, node, link, leaf, position, corners, guess_start, guess = problem
    start, stop = link[first_leaf, 0], link[last_leaf - 1, 1]
    real, topology, work = make_workspace(max(128, 4 * position.shape[0]))
    box, stack = np.empty(6), np.empty(256, np.int64)
    kept, kept_topology = np.empty((4, _GROUP_VERTICES)), np.empty((_GROUP_VERTICES, 9), np.int32)
    spans, found = np.empty(stop - start + 1, np.int64), np.empty(_GROUP_TARGETS, np.int64)
    moments = np.zeros((stop - start, 4))
    offsets = np.zeros(stop - start + 1, np.int64)
    labels = np.empty(24 * (stop - start) + 64, np.int32)
    weights = np.empty(labels.shape[0])
    size = 0
    for i in range(start, stop):
        begin, end = link[leaf[i], 0], link[leaf[i], 1]
        if i == begin:
            total = -1
            if gather_group(
                real,
                topology,
                work,
                box,
                sites,
                begin,
                end,
                position,
                corners,
                guess_start,
                guess,
                kept,
                kept_topology,
                spans,
            ):
                total = challengers(kept, spans[end - begin], sites, node, link, leaf[i], stack, found)
        count = OVERFLOW
        if total >= 0:
            count = finish_cell(real, topology, work, box, sites, i, begin, kept, kept_topology, spans, found, total)
        while count == OVERFLOW:
            count = load(real, topology, position, corners)
            if count != OVERFLOW:
                count = build_cell(
                    real, topology, work, box, stack, sites, node, link, leaf[i], guess_start, guess, i, count
                )
            if count == OVERFLOW:
                real, topology, work = make_workspace(2 * topology.shape[0])
        if size + count > labels.shape[0]:  # a cubic polyhedron has fewer faces than vertices + 2, half of them
            room = 2 * (size + count)
            wider, heavier = np.empty(room, np.int32), np.empty(room)
            wider[:size], heavier[:size] = labels[:size], weights[:size]
            labels, weights = wider, heavier
        if count > 0:
            size = _integrate(real, topology, work, count, sites, i, moments, i - start, labels, weights, size)
        offsets[i - start + 1] = size
    return moments, offsets, labels[:size].copy(), weights[:size].copy()


@njit(cache=True)
def _integrate(
    real: NDArray[np.float64],
    topology: NDArray[np.int32],
    work: NDArray[np.int32],
    count: int,
    sites: NDArray[np.float64],
    i: int,
    moments: NDArray[np.float64],
    row: int,
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    size: int,
) -> int:
    """Volume and first moment (tetrahedra from vertex 0), facets towards targets appended; returns the new size."""
    for v in range(count):
        work[OUT, v] = 0
    ox, oy, oz = real[X, 0], real[Y, 0], real[Z, 0]
    volume = mx = my = mz = 0.0
    for v0 in range(count):
        for k0 in range(3):
            if work[OUT, v0] >> k0 & 1:
                continue
            label = topology[v0, k0]
            ax, ay, az = real[X, v0] - ox, real[Y, v0] - oy, real[Z, v0] - oz
            sx = sy = sz = 0.0  # twice the area vector
            bx = by = bz = 0.0
            v, k = v0, k0
            corner = 0
            while True:
                work[OUT, v] |= 1 << k
                cx, cy, cz = real[X, v] - ox, real[Y, v] - oy, real[Z, v] - oz
                if corner >= 2:
                    px, py, pz = bx - ax, by - ay, bz - az
                    qx, qy, qz = cx - ax, cy - ay, cz - az
                    tx, ty, tz = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
                    sx, sy, sz = sx + tx, sy + ty, sz + tz
                    six = ax * tx + ay * ty + az * tz
                    volume += six
                    mx += six * (ax + bx + cx)
                    my += six * (ay + by + cy)
                    mz += six * (az + bz + cz)
                bx, by, bz = cx, cy, cz
                corner += 1
                edge = NEXT[k]
                w = topology[v, 3 + edge]
                k = NEXT[topology[v, 6 + edge]]
                v = w
                if v == v0:
                    break
            if label >= 0:
                dx, dy, dz = (
                    sites[label, 0] - sites[i, 0],
                    sites[label, 1] - sites[i, 1],
                    sites[label, 2] - sites[i, 2],
                )
                labels[size] = label
                weights[size] = 0.5 * abs(sx * dx + sy * dy + sz * dz) / (dx * dx + dy * dy + dz * dz)
                size += 1
    volume = max(volume, 0.0) / 6.0
    moments[row, 0] = volume
    moments[row, 1] = volume * ox + mx / 24.0
    moments[row, 2] = volume * oy + my / 24.0
    moments[row, 3] = volume * oz + mz / 24.0
    return size


@njit(cache=True, nogil=True)
def chunk_polyhedra(
    problem: Problem, first_leaf: int, last_leaf: int
) -> tuple[
    NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]:
    """Cells of the leaves ``first_leaf <= q < last_leaf``, targets ``start <= i < stop``, as polyhedra.

    Returns:
        Vertices (v, 3), loops, lengths of the loops (f,), labels of the faces (f,), and for each cell its numbers of
        faces and of vertices, (stop - start,) each.
    """
    sites, node, link, leaf, position, corners, guess_start, guess = problem
    start, stop = link[first_leaf, 0], link[last_leaf - 1, 1]
    real, topology, work = make_workspace(max(128, 4 * position.shape[0]))
    box, stack = np.empty(6), np.empty(256, np.int64)
    kept, kept_topology = np.empty((4, _GROUP_VERTICES)), np.empty((_GROUP_VERTICES, 9), np.int32)
    spans, found = np.empty(stop - start + 1, np.int64), np.empty(_GROUP_TARGETS, np.int64)
    faces, sizes = np.zeros(stop - start, np.int64), np.zeros(stop - start, np.int64)
    vertices = np.empty((32 * (stop - start) + 64, 3))
    loops = np.empty(3 * len(vertices), np.int64)
    lengths, labels = np.empty(len(vertices), np.int64), np.empty(len(vertices), np.int64)
    used = filled = face = 0
    for i in range(start, stop):
        begin, end = link[leaf[i], 0], link[leaf[i], 1]
        if i == begin:
            total = -1
            if gather_group(
                real,
                topology,
                work,
                box,
                sites,
                begin,
                end,
                position,
                corners,
                guess_start,
                guess,
                kept,
                kept_topology,
                spans,
            ):
                total = challengers(kept, spans[end - begin], sites, node, link, leaf[i], stack, found)
        count = OVERFLOW
        if total >= 0:
            count = finish_cell(real, topology, work, box, sites, i, begin, kept, kept_topology, spans, found, total)
        while count == OVERFLOW:
            count = load(real, topology, position, corners)
            if count != OVERFLOW:
                count = build_cell(
                    real, topology, work, box, stack, sites, node, link, leaf[i], guess_start, guess, i, count
                )
            if count == OVERFLOW:
                real, topology, work = make_workspace(2 * topology.shape[0])
        if used + count > len(vertices):
            room = 2 * (used + count)
            more = np.empty((room, 3))
            more[:used] = vertices[:used]
            vertices = more
            longer = np.empty(3 * room, np.int64)
            longer[:filled] = loops[:filled]
            loops = longer
            longer, wider = np.empty(room, np.int64), np.empty(room, np.int64)
            longer[:face], wider[:face] = lengths[:face], labels[:face]
            lengths, labels = longer, wider
        for v in range(count):
            for a in range(3):
                vertices[used + v, a] = real[a, v]
            work[OUT, v] = 0
        before = face
        for v0 in range(count):
            for k0 in range(3):
                if work[OUT, v0] >> k0 & 1:
                    continue
                v, k = v0, k0
                begin = filled
                while True:
                    work[OUT, v] |= 1 << k
                    loops[filled] = used + v
                    filled += 1
                    edge = NEXT[k]
                    w = topology[v, 3 + edge]
                    k = NEXT[topology[v, 6 + edge]]
                    v = w
                    if v == v0:
                        break
                lengths[face], labels[face] = filled - begin, topology[v0, k0]
                face += 1
        used += count
        faces[i - start], sizes[i - start] = face - before, count
    return vertices[:used].copy(), loops[:filled].copy(), lengths[:face].copy(), labels[:face].copy(), faces, sizes


def polyhedron_moments(
    position: NDArray[np.float64], topology: NDArray[np.int32]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Volume, mean (3,) and variance of each coordinate (3,) of a uniform polyhedron."""
    start, loops = _loops(topology)
    apex = position.mean(axis=0)
    volume, first, second = 0.0, np.zeros(3), np.zeros(3)
    for begin, end in zip(start[:-1], start[1:], strict=True):
        ring = position[loops[begin:end]] - apex
        a, b, c = np.broadcast_to(ring[0], ring[1:-1].shape), ring[1:-1], ring[2:]
        parts = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0
        total = a + b + c
        volume += parts.sum()
        first += parts @ total / 4.0
        second += parts @ (a * a + b * b + c * c + total * total) / 20.0
    first /= volume
    return float(volume), apex + first, second / volume - first**2


def _loops(topology: NDArray[np.int32]) -> tuple[list[int], NDArray[np.int64]]:
    """Faces as loops of vertices: offsets (f + 1,) and the loops one after the other, counter-clockwise."""
    seen = np.zeros((len(topology), 3), bool)
    start, loops = [0], []
    for v0 in range(len(topology)):
        for k0 in range(3):
            if seen[v0, k0]:
                continue
            v, k = v0, k0
            while not seen[v, k]:
                seen[v, k] = True
                loops.append(v)
                edge = NEXT[k]
                v, k = int(topology[v, 3 + edge]), NEXT[topology[v, 6 + edge]]
            start.append(len(loops))
    return start, np.array(loops)
