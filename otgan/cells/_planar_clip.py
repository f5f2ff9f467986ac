"""Compiled kernels of the planar power diagram: clip cells, and search for neighbours they do not know yet.

A cell clipped by *some* of its half-planes contains the true cell. Hence three facts carry the exactness of the whole:
clipping can never remove too much; an empty polygon is a proof of an empty cell; and polygons that meet edge to edge
and whose areas add up to the domain's are the true cells.

Diagrams are kept in slots: cell ``i`` owns ``start[i]:start[i] + count[i]`` of the arrays ``vx, vy`` (vertices) and
``start[i]:start[i] + known[i]`` of ``label``. ``known`` exceeds ``count`` only for an empty cell, whose labels are then
the targets whose half-planes proved it empty.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numba import get_num_threads, njit, prange, set_num_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Labels = NDArray[np.int32]
    Index = int | np.signedinteger

#: A vertex this far outside a half-plane (in units of the normalised domain) still counts as on its border.
CLIP_TOL = 1e-15
#: Violations up to here are attributed to the rounding of the vertex itself.
SEARCH_TOL = 2e-14

N_CHUNKS = 64
#: Below this many cells one thread is faster than waking the others.
SERIAL = 5_000


@contextmanager
def threads_for(n_cells: int) -> Iterator[None]:
    """Run the kernels on as many threads as pay off for ``n_cells`` cells."""
    before = get_num_threads()
    set_num_threads(1 if n_cells < SERIAL else before)
    try:
        yield
    finally:
        set_num_threads(before)


@njit(cache=True)
def excess(x: float, y: float, i: Index, k: Index, px: Floats, py: Floats, ph: Floats) -> tuple[float, float]:
    """By how much target k beats target i at (x, y), and the scale of its rounding error."""
    a = px[k] - px[i]
    b = py[k] - py[i]
    return x * a + y * b + (ph[k] - ph[i]), abs(a) + abs(b)


@njit(cache=True)
def _cut(
    vx: Floats,
    vy: Floats,
    lab: Labels,
    m: int,
    a: float,
    b: float,
    c: float,
    label: Index,
    side: Floats,
    tx: Floats,
    ty: Floats,
    tl: Labels,
) -> int:
    """Intersect a convex polygon of m vertices with ``a x + b y <= c``; -1 when nothing changes, else the new count.

    The result is in tx, ty, tl, which like ``side`` need room for m + 1 entries.
    """
    tol = CLIP_TOL * (abs(a) + abs(b))
    outside = 0
    for k in range(m):
        s = a * vx[k] + b * vy[k] - c
        side[k] = s
        if s > tol:
            outside += 1
    if outside == 0:
        return -1
    if outside == m:
        return 0
    out = 0
    for k in range(m):
        nxt = k + 1 if k + 1 < m else 0
        s0 = side[k]
        s1 = side[nxt]
        if s0 <= tol:
            tx[out] = vx[k]
            ty[out] = vy[k]
            if s1 <= tol:
                tl[out] = lab[k]
                out += 1
            elif s0 >= -tol:
                tl[out] = label
                out += 1
            else:
                tl[out] = lab[k]
                out += 1
                t = s0 / (s0 - s1)
                tx[out] = vx[k] + t * (vx[nxt] - vx[k])
                ty[out] = vy[k] + t * (vy[nxt] - vy[k])
                tl[out] = label
                out += 1
        elif s1 < -tol:
            t = s1 / (s1 - s0)
            tx[out] = vx[nxt] + t * (vx[k] - vx[nxt])
            ty[out] = vy[nxt] + t * (vy[k] - vy[nxt])
            tl[out] = lab[k]
            out += 1
    return out if out >= 3 else 0


@njit(cache=True)
def _climb(
    i: Index,
    x: float,
    y: float,
    p: Index,
    q: Index,
    start: Ints,
    known: Labels,
    label: Labels,
    px: Floats,
    py: Floats,
    ph: Floats,
) -> Index:
    """A target that beats i at (x, y), searched uphill over neighbours from targets p and q; -1 when none is found."""
    best: Index = np.int64(-1)
    best_s = 0.0
    for which in range(2):
        root = p if which == 0 else q
        if root >= 0:
            s, scale = excess(x, y, i, root, px, py, ph)
            if s > best_s and s > SEARCH_TOL * scale:
                best, best_s = root, s
            for e in range(start[root], start[root] + known[root]):
                k = np.int64(label[e])
                if k >= 0 and k != i:
                    s, scale = excess(x, y, i, k, px, py, ph)
                    if s > best_s and s > SEARCH_TOL * scale:
                        best, best_s = k, s
    cur: Index = np.int64(-1)
    while best != cur:
        cur = best
        for e in range(start[cur], start[cur] + known[cur]):
            k = np.int64(label[e])
            if k >= 0 and k != i:
                s, scale = excess(x, y, i, k, px, py, ph)
                if s > best_s:
                    best, best_s = k, s
    return best


@njit(cache=True)
def _violator(
    i: Index,
    m: int,
    wx: Floats,
    wy: Floats,
    wl: Labels,
    start: Ints,
    known: Labels,
    label: Labels,
    px: Floats,
    py: Floats,
    ph: Floats,
) -> Index:
    """First target found to beat i at a vertex of its polygon; -1 when none is found."""
    for v in range(m):
        p = np.int64(wl[v - 1] if v > 0 else wl[m - 1])
        q = np.int64(wl[v])
        if p >= 0 or q >= 0:
            k = _climb(i, wx[v], wy[v], p, q, start, known, label, px, py, ph)
            if k >= 0:
                return k
        else:
            for other in range(m):
                k = _climb(i, wx[v], wy[v], np.int64(wl[other]), q, start, known, label, px, py, ph)
                if k >= 0:
                    return k
    return np.int64(-1)


@njit(cache=True)
def _clip_range(
    first: int,
    last: int,
    ids: Ints,
    cand_start: Ints,
    cand_count: Labels,
    cand: Labels,
    search: bool,
    start: Ints,
    known: Labels,
    label: Labels,
    px: Floats,
    py: Floats,
    ph: Floats,
    dx: Floats,
    dy: Floats,
    slot: Ints,
    out_x: Floats,
    out_y: Floats,
    out_label: Labels,
    out_count: Labels,
    out_known: Labels,
) -> None:
    """`clip_cells` for ``ids[first:last]``."""
    n_dom = len(dx)
    cap = 2 * n_dom + 64
    ax, ay, al = np.empty(cap), np.empty(cap), np.empty(cap, np.int32)
    bx, by, bl = np.empty(cap), np.empty(cap), np.empty(cap, np.int32)
    side = np.empty(cap)
    for t in range(first, last):
        i = ids[t]
        room = slot[t + 1] - slot[t]
        m = n_dom
        for e in range(n_dom):
            ax[e] = dx[e]
            ay[e] = dy[e]
            al[e] = -1 - e
        c = cand_start[t]
        end = c + cand_count[t]
        killer: Index = np.int64(-1)
        while True:
            if c < end:
                k: Index = np.int64(cand[c])
                c += 1
                if k < 0 or k == i:
                    continue
            elif search:
                k = _violator(i, m, ax, ay, al, start, known, label, px, py, ph)
                if k < 0:
                    break
            else:
                break
            new = _cut(ax, ay, al, m, px[k] - px[i], py[k] - py[i], ph[i] - ph[k], k, side, bx, by, bl)
            if px[k] == px[i] and py[k] == py[i] and ph[k] == ph[i] and k < i:
                new = 0  # two targets that rounding has made one: the first keeps the cell
            if new == 0:
                killer = k
                break
            if new < 0:
                if c >= end and search:
                    break
                continue
            ax, bx = bx, ax
            ay, by = by, ay
            al, bl = bl, al
            m = new
            if m + 2 > cap:
                cap = 2 * cap
                nx, ny, nl = np.empty(cap), np.empty(cap), np.empty(cap, np.int32)
                nx[:m] = ax[:m]
                ny[:m] = ay[:m]
                nl[:m] = al[:m]
                ax, ay, al = nx, ny, nl
                bx, by, bl = np.empty(cap), np.empty(cap), np.empty(cap, np.int32)
                side = np.empty(cap)
        base = slot[t]
        r = m
        if killer >= 0:
            r = 0
            for e in range(m + 1):
                k = np.int64(al[e]) if e < m else killer
                if k >= 0:
                    if r < room:
                        out_label[base + r] = k
                    r += 1
        out_known[t] = r
        if r > room:
            out_count[t] = -1
        elif killer >= 0:
            out_count[t] = 0
        else:
            out_count[t] = m
            for e in range(m):
                out_x[base + e] = ax[e]
                out_y[base + e] = ay[e]
                out_label[base + e] = al[e]


@njit(cache=True, parallel=True)
def clip_cells(
    ids: Ints,
    cand_start: Ints,
    cand_count: Labels,
    cand: Labels,
    search: bool,
    start: Ints,
    known: Labels,
    label: Labels,
    px: Floats,
    py: Floats,
    ph: Floats,
    dx: Floats,
    dy: Floats,
    slot: Ints,
    out_x: Floats,
    out_y: Floats,
    out_label: Labels,
    out_count: Labels,
    out_known: Labels,
) -> None:
    """Clip the cells ``ids`` by their candidates; with ``search``, also by what the graph start, known, label reveals.

    The candidates of ``ids[t]`` are ``cand[cand_start[t]:cand_start[t] + cand_count[t]]``; negative ones are skipped.
    The cell goes to slots ``slot[t]:slot[t + 1]``; ``out_count[t]`` is its number of vertices, or -1 when the slots do
    not suffice for the ``out_known[t]`` entries.
    """
    total = len(ids)
    for chunk in prange(N_CHUNKS):
        _clip_range(
            chunk * total // N_CHUNKS,
            (chunk + 1) * total // N_CHUNKS,
            ids,
            cand_start,
            cand_count,
            cand,
            search,
            start,
            known,
            label,
            px,
            py,
            ph,
            dx,
            dy,
            slot,
            out_x,
            out_y,
            out_label,
            out_count,
            out_known,
        )
