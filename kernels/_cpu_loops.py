"""Compiled loops of backend ``numba``, each over one chunk of points; they hold no lock and share nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from ._cpu_vectors import (
    PANEL,
    best_of_panels,
    least_gap,
    panel_scores,
    sum_columns,
    sum_exponentials,
    sum_moments,
    tile_width,
)

__all__ = [
    "PANEL",
    "assign_chunk",
    "counts_chunk",
    "pack_panels",
    "slack_chunk",
    "soft_chunk",
    "tile_width",
    "top_k_chunk",
]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SUMMED = 64
"""Panels summed in the working precision before the sum is added to a total."""
BISECTIONS = 12
"""Halvings of the range of the panel maxima in :func:`top_k_chunk`: they cost less than the panels they rule out."""


@njit(nogil=True, cache=True)
def pack_panels(points: Array, head: Array, weight: Array, pad: float, out: Array) -> None:
    """Points (n, d) with heads (n,) and weights, (n,) or empty, as panels; the last one is padded with head ``pad``."""
    n, d = points.shape
    rows = d + 2 if len(weight) else d + 1
    for first in range(0, n, PANEL):
        base = first * rows
        for lane in range(PANEL):
            j = first + lane
            inside = j < n
            out[base + lane] = head[j] if inside else pad
            for k in range(d):
                out[base + (k + 1) * PANEL + lane] = points[j, k] if inside else 0
            if len(weight):
                out[base + (d + 1) * PANEL + lane] = weight[j] if inside else 0


@njit(nogil=True, cache=True)
def _pack_tiles(points: Array, width: int, out: Array) -> int:
    """Points (n, d) as tiles, the last one padded with zeros; returns their number."""
    n, d = points.shape
    tiles = (n + width - 1) // width
    for t in range(tiles):
        tile = out[t * width * d : (t + 1) * width * d]
        own = points[t * width : (t + 1) * width]
        if len(own) < width:
            tile[:] = 0
        for lane in range(len(own)):
            for k in range(d):
                tile[k * width + lane] = own[lane, k]
    return tiles


@njit(nogil=True, cache=True)
def _padded(values: Array, size: int, pad: float) -> Array:
    out = np.empty(size, values.dtype)
    out[: len(values)] = values
    out[len(values) :] = pad
    return out


@njit(nogil=True, cache=True)
def assign_chunk(
    x: Array, yp: Array, panels: int, block: int, width: int, xt: Array, index: Array, value: Array
) -> None:
    """Best target of each sample: the best panel by the tile kernel, then the best target of that panel.

    Args:
        x: samples of the chunk, (m, d).
        yp: panels of all targets.
        panels: their number.
        block: panels that all tiles visit before the next ones (they stay in the second-level cache).
        width: points per tile.
        xt: scratch for the tiles.
        index: receives the indices, (m,) int64.
        value: receives the scores, (m,).
    """
    m, d = x.shape
    tiles = _pack_tiles(x, width, xt)
    zero = x.dtype.type(0)
    best = np.full(tiles * width, -np.inf, x.dtype)
    where = np.zeros(tiles * width, np.int32)
    top = np.empty(width, x.dtype)
    for start in range(0, panels, block):
        for t in range(tiles):
            high, panel = best[t * width : (t + 1) * width], where[t * width : (t + 1) * width]
            for p in range(start, min(start + block, panels)):
                best_of_panels(xt, t * width * d, top, 0, yp, p * (d + 1) * PANEL, 1, d, zero, top, 0)
                for i in range(width):
                    better = top[i] > high[i]
                    high[i] = top[i] if better else high[i]
                    panel[i] = np.int32(p) if better else panel[i]
    row = np.empty(PANEL, x.dtype)
    for i in range(m):
        p = where[i]
        panel_scores(xt, i // width * width * d + i % width, width, yp, p * (d + 1) * PANEL, d, row)
        highest = row[0]
        for j in range(1, PANEL):
            highest = row[j] if row[j] > highest else highest
        at = 0
        for j in range(PANEL - 1, -1, -1):  # no branch to mispredict: the samples overlap in the processor
            at = j if row[j] == highest else at
        index[i] = p * PANEL + at
        value[i] = highest


@njit(nogil=True, cache=True)
def _kth_largest(values: Array, count: int, k: int) -> float:
    """The k-th largest of ``values[:count]``, which is reordered (Hoare's selection)."""
    low, high, goal = 0, count - 1, k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if goal <= j:
            high = j
        elif goal >= i:
            low = i
        else:
            break
    return values[goal]


@njit(nogil=True, cache=True)
def _levels(tops: Array, width: int, k: int, low: Array) -> None:
    """``low[i] <=`` the k-th largest of ``tops[i::width]``, and close to it: bisection on all lanes at once."""
    panels = len(tops) // width
    if k > panels:
        low[:] = -np.inf
        return
    low[:] = tops[:width]
    high = low.copy()
    for p in range(1, panels):
        for i in range(width):
            low[i] = min(low[i], tops[p * width + i])
            high[i] = max(high[i], tops[p * width + i])
    middle, count = np.empty_like(low), np.empty(width, np.int32)
    for _ in range(BISECTIONS):
        for i in range(width):
            middle[i] = low[i] / 2 + high[i] / 2
            count[i] = 0
        for p in range(panels):
            for i in range(width):
                count[i] += np.int32(tops[p * width + i] >= middle[i])
        for i in range(width):
            if count[i] >= k:
                low[i] = middle[i]
            else:
                high[i] = middle[i]


@njit(nogil=True, cache=True)
def top_k_chunk(
    x: Array, n: int, yp: Array, panels: int, block: int, width: int, xt: Array, index: Array, value: Array
) -> None:
    """The k best targets of each sample, best first, lower index first in a tie.

    At least k targets score no less than the k-th best of the panel maxima. So the k best lie in the panels whose
    maximum reaches it, or reaches a number just below it: little more than k panels, and only their scores are looked
    at one by one.

    Args:
        x: samples of the chunk, (m, d).
        n: number of targets.
        yp: panels of all targets.
        panels: their number.
        block: panels that all tiles visit before the next ones.
        width: points per tile.
        xt: scratch for the tiles.
        index: receives the indices, (m, k) int64.
        value: receives the scores, (m, k).
    """
    m, d = x.shape
    k = index.shape[1]
    tiles = _pack_tiles(x, width, xt)
    zero = x.dtype.type(0)
    tops = np.empty(tiles * panels * width, x.dtype)
    for start in range(0, panels, block):
        for t in range(tiles):
            for p in range(start, min(start + block, panels)):
                at = (t * panels + p) * width
                best_of_panels(xt, t * width * d, tops, 0, yp, p * (d + 1) * PANEL, 1, d, zero, tops, at)
    level = np.empty(width, x.dtype)
    hits, row = np.empty(panels, np.int64), np.empty(PANEL, x.dtype)
    found, where = np.empty(panels * PANEL, x.dtype), np.empty(panels * PANEL, np.int64)
    work = np.empty(panels * PANEL, x.dtype)
    for i in range(m):
        column = tops[i // width * panels * width : (i // width + 1) * panels * width]
        if i % width == 0:
            _levels(column, width, k, level)
        least = level[i % width]
        n_hits = 0
        for p in range(panels):
            hits[n_hits] = p
            n_hits += column[p * width + i % width] >= least
        count = 0
        for p in hits[:n_hits]:
            panel_scores(xt, i // width * width * d + i % width, width, yp, p * (d + 1) * PANEL, d, row)
            for j in range(min(PANEL, n - p * PANEL)):
                found[count] = row[j]
                where[count] = p * PANEL + j
                count += row[j] >= least
        work[:count] = found[:count]
        least = _kth_largest(work, count, k)
        spare = k  # room for scores equal to the k-th best
        for c in range(count):
            spare -= found[c] > least
        kept = 0
        for c in range(count):
            tied = found[c] == least
            if found[c] > least or (tied and spare > 0):
                spare -= tied
                place = kept
                while place > 0 and value[i, place - 1] < found[c]:
                    value[i, place] = value[i, place - 1]
                    index[i, place] = index[i, place - 1]
                    place -= 1
                value[i, place] = found[c]
                index[i, place] = where[c]
                kept += 1


@njit(nogil=True, cache=True)
def slack_chunk(y: Array, h: Array, xp: Array, panels: int, block: int, width: int, yt: Array, gap: Array) -> None:
    """``min_i u_i - s_ij`` for the targets of the chunk, from panels of samples with heads u."""
    n, d = y.shape
    tiles = _pack_tiles(y, width, yt)
    heights = _padded(h, tiles * width, -np.inf)
    best = np.full(tiles * width, -np.inf, y.dtype)
    top = np.empty(width, y.dtype)
    zero = y.dtype.type(0)
    for start in range(0, panels, block):
        count = min(block, panels - start)
        for t in range(tiles):
            least_gap(yt, t * width * d, heights, t * width, xp, start * (d + 1) * PANEL, count, d, zero, top, 0)
            for i in range(width):
                best[t * width + i] = max(best[t * width + i], top[i])
    for i in range(n):
        gap[i] = -best[i]


@njit(nogil=True, cache=True)
def soft_chunk(
    x: Array,
    best: Array,
    yp: Array,
    panels: int,
    block: int,
    width: int,
    scale: float,
    xt: Array,
    total: Array,
    mean: Array,
) -> None:
    """``sum_j exp((s_ij - best_i)/eps)``, and the mean of the targets with these weights unless ``mean`` is empty."""
    m, d = x.shape
    with_mean = len(mean) > 0
    rows = d + 1 if with_mean else 1
    tiles = _pack_tiles(x, width, xt)
    bests = _padded(best, tiles * width, np.inf)
    sums = np.zeros(tiles * rows * width, x.dtype)
    part = np.empty(rows * width, x.dtype)
    stride = (d + 1) * PANEL
    for start in range(0, panels, block):
        end = min(start + block, panels)
        for t in range(tiles):
            for p in range(start, end, SUMMED):
                count = min(SUMMED, end - p)
                part[:] = 0
                if with_mean:
                    sum_moments(xt, t * width * d, bests, t * width, yp, p * stride, count, d, scale, part, 0)
                else:
                    sum_exponentials(xt, t * width * d, bests, t * width, yp, p * stride, count, d, scale, part, 0)
                for i in range(rows * width):
                    sums[t * rows * width + i] += part[i]
    for i in range(m):
        base = i // width * rows * width + i % width
        total[i] = sums[base]
        if with_mean:
            for k in range(d):
                mean[i, k] = sums[base + (k + 1) * width] / sums[base]


@njit(nogil=True, cache=True)
def counts_chunk(
    y: Array, h: Array, xp: Array, panels: int, block: int, width: int, scale: float, yt: Array, counts: Array
) -> None:
    """``sum_i weight_i exp((s_ij - best_i)/eps)`` in float64, from panels of samples with heads best and weights."""
    n, d = y.shape
    tiles = _pack_tiles(y, width, yt)
    heights = _padded(h, tiles * width, -np.inf)
    part = np.empty(width, y.dtype)
    stride = (d + 2) * PANEL
    for start in range(0, panels, block):
        end = min(start + block, panels)
        for t in range(tiles):
            for p in range(start, end, SUMMED):
                part[:] = 0
                sum_columns(
                    yt, t * width * d, heights, t * width, xp, p * stride, min(SUMMED, end - p), d, scale, part, 0
                )
                for i in range(min(width, n - t * width)):
                    counts[t * width + i] += part[i]
