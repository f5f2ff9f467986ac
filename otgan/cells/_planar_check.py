"""Compiled kernels of the planar power diagram: do the cells fit together, and moving cells between slots.

The slots are described in `otgan.cells._planar_clip`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from otgan.cells._planar_clip import N_CHUNKS, SEARCH_TOL, excess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Labels = NDArray[np.int32]
    Index = int | np.signedinteger
    Marks = NDArray[np.uint8]

#: Edges up to this length may be missing on the other side.
EDGE_TOL = 1e-13


@njit(cache=True)
def _cuts(
    i: Index, j: Index, start: Ints, count: Labels, vx: Floats, vy: Floats, px: Floats, py: Floats, ph: Floats
) -> bool:
    """Whether target i beats target j somewhere on the polygon of j."""
    for e in range(start[j], start[j] + count[j]):
        s, scale = excess(vx[e], vy[e], j, i, px, py, ph)
        if s > SEARCH_TOL * scale:
            return True
    return False


@njit(cache=True)
def _check_cell(
    i: Index,
    start: Ints,
    count: Labels,
    label: Labels,
    vx: Floats,
    vy: Floats,
    px: Floats,
    py: Floats,
    ph: Floats,
    flag: Marks,
    push: Labels,
) -> None:
    """`mismatches` for cell i."""
    first, last = start[i], start[i] + count[i]
    for e in range(first, last):
        j = np.int64(label[e])
        if j < 0:
            continue
        lo, hi = start[j], start[j] + count[j]
        hit: Index = np.int64(-1)
        for f in range(lo, hi):
            if label[f] == i:
                hit = f
                break
        if hit < 0:
            nxt = e + 1 if e + 1 < last else first
            if abs(vx[nxt] - vx[e]) + abs(vy[nxt] - vy[e]) > EDGE_TOL:
                flag[i] = 1
                if hi > lo:
                    flag[j] = 1
                    if _cuts(i, j, start, count, vx, vy, px, py, ph):
                        push[e] = i
            continue
        # the vertex where edge e begins here is the one where the edge with label i ends there
        after = hit + 1 if hit + 1 < hi else lo
        third = np.int64(label[after])
        before = np.int64(label[e - 1] if e > first else label[last - 1])
        if third == before:
            continue
        if third >= 0 and third != i:
            s, scale = excess(vx[e], vy[e], i, third, px, py, ph)
            if s > SEARCH_TOL * scale:
                flag[i] = 1
        if before >= 0 and before != j:
            s, scale = excess(vx[after], vy[after], j, before, px, py, ph)
            if s > SEARCH_TOL * scale:
                flag[j] = 1


@njit(cache=True, parallel=True)
def mismatches(
    start: Ints,
    count: Labels,
    label: Labels,
    vx: Floats,
    vy: Floats,
    px: Floats,
    py: Floats,
    ph: Floats,
    check: Marks,
    flag: Marks,
    push: Labels,
) -> None:
    """Mark the cells that do not fit their neighbours edge to edge, among those with ``check[i]``.

    ``flag[i]`` is set when a vertex of cell i may be beaten by a target it does not know. ``push[slot]`` becomes the
    owner of the slot when that owner beats the target ``label[slot]`` on the latter's cell and is not known there.
    """
    n = len(start)
    for chunk in prange(N_CHUNKS):
        for i in range(chunk * n // N_CHUNKS, (chunk + 1) * n // N_CHUNKS):
            if check[i]:
                _check_cell(i, start, count, label, vx, vy, px, py, ph, flag, push)


@njit(cache=True, parallel=True)
def compact(
    start: Ints,
    count: Labels,
    vx: Floats,
    vy: Floats,
    label: Labels,
    ptr: Ints,
    scale: float,
    shift_x: float,
    shift_y: float,
    vertices: Floats,
    neighbour: Ints,
) -> None:
    """Gather the slots into compressed rows and map the vertices back to the user's coordinates."""
    n = len(start)
    for chunk in prange(N_CHUNKS):
        for i in range(chunk * n // N_CHUNKS, (chunk + 1) * n // N_CHUNKS):
            src = start[i]
            for k in range(ptr[i], ptr[i + 1]):
                vertices[k, 0] = shift_x + scale * vx[src]
                vertices[k, 1] = shift_y + scale * vy[src]
                neighbour[k] = label[src]
                src += 1


@njit(cache=True)
def total_area(start: Ints, count: Labels, vx: Floats, vy: Floats) -> float:
    """Sum of the areas of all polygons, with compensated summation."""
    total = 0.0
    lost = 0.0
    for i in range(len(start)):
        s = start[i]
        area = 0.0
        for k in range(s + 1, s + count[i] - 1):
            ax, ay = vx[k] - vx[s], vy[k] - vy[s]
            bx, by = vx[k + 1] - vx[s], vy[k + 1] - vy[s]
            area += ax * by - ay * bx
        y = area - lost
        t = total + y
        lost = (t - total) - y
        total = t
    return 0.5 * total


@njit(cache=True)
def merge(
    ids: Ints,
    slot: Ints,
    new_x: Floats,
    new_y: Floats,
    new_label: Labels,
    new_count: Labels,
    new_known: Labels,
    start: Ints,
    count: Labels,
    known: Labels,
    room: Labels,
    vx: Floats,
    vy: Floats,
    label: Labels,
    used: int,
    check: Marks,
) -> tuple[int, int]:
    """Write reclipped cells over their old slots, or behind slot ``used`` when they outgrew them.

    ``check`` becomes true for the changed cells and their old and new neighbours, which must be checked again.
    Returns how many cells changed and the first free slot.
    """
    check[:] = 0
    changed = 0
    for t in range(len(ids)):
        i = ids[t]
        r = new_known[t]
        same = r == known[i] and new_count[t] == count[i]
        if same:
            for k in range(r):
                if new_label[slot[t] + k] != label[start[i] + k]:
                    same = False
                    break
        if same:
            continue
        changed += 1
        check[i] = 1
        for k in range(known[i]):
            if label[start[i] + k] >= 0:
                check[label[start[i] + k]] = 1
        for k in range(r):
            if new_label[slot[t] + k] >= 0:
                check[new_label[slot[t] + k]] = 1
        if r > room[i]:
            start[i] = used
            room[i] = r + 4
            used += r + 4
        count[i] = new_count[t]
        known[i] = r
        for k in range(r):
            vx[start[i] + k] = new_x[slot[t] + k]
            vy[start[i] + k] = new_y[slot[t] + k]
            label[start[i] + k] = new_label[slot[t] + k]
    return changed, used
