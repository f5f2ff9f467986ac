"""Compiled loops of the pruned :func:`~otgan.kernels.assign`: points halved into boxes, panels tested against boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from ._cpu_tree_vectors import GROUP, beats, best_of_listed, extent, lowest, reaches
from ._cpu_vectors import PANEL, VECTOR_BYTES, panel_scores, tile_width

__all__ = [
    "PANEL",
    "VECTOR_BYTES",
    "along_axes",
    "halve",
    "largest",
    "order_points",
    "pack_gathered",
    "pack_ordered",
    "prune_chunk",
    "raise_heights",
    "surviving_share",
    "tile_width",
    "widest",
]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

TRIED = 8
"""Leaves after which the work is looked at."""
TEST = 16.0
"""A test of a panel costs as much as its scores at this many samples."""
STREAMED = 256
"""Dimension at which a score costs twice that of the plain loops: a list of panels does not stay in the cache."""
GIVE_UP = 0.7
"""Share of the plain loops' work at which a chunk is left to them."""


@njit(nogil=True, cache=True)
def _select(keys: Array, count: int, goal: int) -> None:
    """Reorder ``keys[:count]``, all different, so that the ``goal`` least stand first."""
    low, high = 0, count  # positions below low are in the lower part, from high on in the upper part
    while high - low > 1:
        a, b, c = keys[low], keys[(low + high) // 2], keys[high - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        split = low
        for i in range(low, high):  # no branch to mispredict
            value = keys[i]
            keys[i] = keys[split]
            keys[split] = value
            split += value <= pivot
        if split == high:  # the pivot is the greatest: only with two keys or three
            at = low
            for i in range(low, high):
                at = i if keys[i] == pivot else at
            keys[at] = keys[high - 1]
            keys[high - 1] = pivot
            high -= 1
            if goal > high:
                return
        elif goal < split:
            high = split
        elif goal > split:
            low = split
        else:
            return


@njit(nogil=True, cache=True)
def _permute(z: Array, order: Array, first: int, last: int, keys: Array, spare: Array) -> None:
    """Point ``first + i`` becomes the one at ``first + keys[i]``; overwrites ``keys``."""
    count = last - first
    for k in range(len(z)):
        for i in range(count):
            spare[i] = z[k, first + keys[i]]
        for i in range(count):
            z[k, first + i] = spare[i]
    for i in range(count):
        keys[i] = order[first + keys[i]]
    for i in range(count):
        order[first + i] = keys[i]


@njit(nogil=True, cache=True)
def halve(z: Array, order: Array, first: int, last: int, axis: int, keys: Array, spare: Array) -> int:
    """Reorder points first to last by coordinate ``axis``: half of them, in whole panels, then the others.

    Args:
        z: points coordinate by coordinate, (d, m).
        order: what stands with each point, (m,) int64.
        first: first point.
        last: one past the last point; there are more than PANEL.
        axis: coordinate.
        keys: scratch, (m,) int64.
        spare: scratch, (m,).

    Returns:
        Where the second part begins.
    """
    count = last - first
    low, high = np.float64(z[axis, first]), np.float64(z[axis, first])
    for i in range(first, last):
        low, high = min(low, np.float64(z[axis, i])), max(high, np.float64(z[axis, i]))
    scale = 2.0**30 / (high - low) if high > low else 0.0
    for i in range(count):
        keys[i] = (np.int64((np.float64(z[axis, first + i]) - low) * scale) << 32) | i
    goal = (count + 2 * PANEL - 1) // (2 * PANEL) * PANEL
    _select(keys, count, goal)
    for i in range(count):
        keys[i] &= 0xFFFFFFFF
    _permute(z, order, first, last, keys, spare)
    return first + goal


@njit(nogil=True, cache=True)
def widest(z: Array, first: int, last: int, ends: Array, flat: Array) -> int:
    """The coordinate with the greatest extent among points first to last."""
    d, m = z.shape
    axis, most = 0, -1.0
    for k in range(d):
        extent(flat, k * m + first, last - first, ends)
        if ends[1] - ends[0] > most:
            axis, most = k, ends[1] - ends[0]
    return axis


@njit(nogil=True, cache=True)
def order_points(z: Array, order: Array, first: int, last: int) -> None:
    """Reorder points first to last so that PANEL consecutive ones are near each other: halving, widest first."""
    keys, spare = np.empty(last - first, np.int64), np.empty(last - first, z.dtype)
    stack = np.empty((70, 2), np.int64)
    stack[0] = first, last
    held, ends, flat = 1, np.empty(2, z.dtype), z.reshape(-1)
    while held:
        held -= 1
        start, stop = stack[held]
        if stop - start <= PANEL:
            continue
        middle = halve(z, order, start, stop, widest(z, start, stop, ends, flat), keys, spare)
        stack[held] = middle, stop
        stack[held + 1] = start, middle
        held += 2


@njit(nogil=True, cache=True)
def pack_ordered(z: Array, head: Array, order: Array, pad: float, out: Array) -> None:
    """Panels of points in their order z, (d, n), with heads ``head[order]``; the last one is padded."""
    d, n = z.shape
    for first in range(0, n, PANEL):
        base, count = first * (d + 1), min(PANEL, n - first)
        for lane in range(count):
            out[base + lane] = head[order[first + lane]]
        for k in range(d):
            for lane in range(count):
                out[base + (k + 1) * PANEL + lane] = z[k, first + lane]
        for lane in range(count, PANEL):
            out[base + lane] = pad
            for k in range(d):
                out[base + (k + 1) * PANEL + lane] = 0


@njit(nogil=True, cache=True)
def pack_gathered(points: Array, head: Array, order: Array, pad: float, out: Array) -> None:
    """Panels of ``points[order]``, (n, d), with heads ``head[order]``; the last one is padded."""
    n, d = points.shape
    for first in range(0, n, PANEL):
        base = first * (d + 1)
        for lane in range(PANEL):
            inside = first + lane < n
            j = order[first + lane] if inside else 0
            out[base + lane] = head[j] if inside else pad
            for k in range(d):
                out[base + (k + 1) * PANEL + lane] = points[j, k] if inside else 0


@njit(nogil=True, cache=True)
def along_axes(points: Array, mean: Array, scale: Array, out: Array) -> None:
    """``out[k, i] = (points[i, k] - mean[k]) scale[k]``, computed in float64."""
    n, d = points.shape
    for first in range(0, n, 256):
        for k in range(d):
            for i in range(first, min(first + 256, n)):
                out[k, i] = (points[i, k] - mean[k]) * scale[k]


@njit(nogil=True, cache=True)
def raise_heights(points: Array, head: Array, centre: Array, mean: Array, out: Array) -> None:
    """``out[j] = head[j] + <centre, points[j] - mean>``, computed in float64."""
    n, d = points.shape
    for j in range(n):
        total = np.float64(head[j])
        for k in range(d):
            total += centre[k] * (points[j, k] - mean[k])
        out[j] = total


@njit(nogil=True, cache=True)
def largest(z: Array, flat: Array, out: Array) -> None:
    """``out[k] = max_i |z[k, i]|`` of (d, m) numbers; ``flat`` is the same array with one index."""
    d, m = z.shape
    ends = np.empty(2, z.dtype)
    for k in range(d):
        extent(flat, k * m, m, ends)
        out[k] = max(-ends[0], ends[1])


@njit(nogil=True, cache=True)
def surviving_share(z: Array, t: Array, g: Array, boxes: int, near: int) -> float:
    """Share of targets that a ball around a sample leaves, on average over some samples.

    Args:
        z: samples, (q, m) float64.
        t: targets, (q, n) float64.
        g: their heights, (n,) float64.
        boxes: number of samples to try.
        near: the ball reaches to the near-th neighbour, half as far again.
    """
    (q, m), n = z.shape, t.shape[1]
    distance, apart, score = np.empty(m), np.empty(n), np.empty(n)
    left = 0
    for box in range(boxes):
        c = (2 * box + 1) * m // (2 * boxes)
        distance[:] = 0
        score[:] = g
        for k in range(q):
            for i in range(m):
                distance[i] += (z[k, i] - z[k, c]) ** 2
            for j in range(n):
                score[j] += z[k, c] * t[k, j]
        best = np.argmax(score)
        radius = 1.5 * np.sqrt(np.partition(distance, near)[near])
        level = score[best]
        apart[:] = 0
        for k in range(q):
            for j in range(n):
                apart[j] += (t[k, j] - t[k, best]) ** 2
        for j in range(n):
            left += score[j] + radius * np.sqrt(apart[j]) > level
    return left / (boxes * n)


@njit(nogil=True, cache=True)
def _score_at(yr: Array, base: int, lane: int, d: int, place: Array) -> float:
    total = yr[base + lane]
    for k in range(d):
        total += place[k] * yr[base + (k + 1) * PANEL + lane]
    return total


@njit(nogil=True, cache=True)
def _tile(
    x: Array, order: Array, start: int, stop: int, yp: Array, lists: Array, begin: int, end: int, perm: Array,
    least: Array, width: int, xt: Array, high: Array, where: Array, at: Array, index: Array, value: Array,
) -> None:  # fmt: skip
    """Best target of the samples ``order[start:stop]``, one tile at most, in the panels ``lists[begin:end]``.

    The lowest index wins a tie. xt, high, where and at are scratch.
    """
    d, count = x.shape[1], stop - start
    if count < width:
        xt[:] = 0
    for lane in range(count):
        own = order[start + lane]
        for k in range(d):
            xt[k * width + lane] = x[own, k]
    tied = best_of_listed(xt, yp, lists, begin, end, d, high, where)
    for i in range(count):
        p = np.int64(where[i])
        at[i] = lowest(xt, i, yp, p * (d + 1) * PANEL, d, perm, p * PANEL, high[i])
    if tied:
        for place in range(begin, end):
            p = np.int64(lists[place])
            for i in range(count):
                if least[p] < at[i]:
                    at[i] = min(at[i], lowest(xt, i, yp, p * (d + 1) * PANEL, d, perm, p * PANEL, high[i]))
    for i in range(count):
        own = order[start + i]
        value[own] = high[i]
        index[own] = at[i]


@njit(nogil=True, cache=True)
def prune_chunk(
    x: Array, z: Array, order: Array, first: int, last: int, yp: Array, yr: Array, panels: int, slack: float,
    perm: Array, least: Array, width: int, tally: Array, index: Array, value: Array,
) -> int:  # fmt: skip
    """Best target of the samples ``order[first:last]`` by recursive halving.

    A node is a set of samples in a box of centre c and half-widths a, with the panels that its parent could not rule
    out. With r the best target at c, target j is nowhere best in the box if
    ``s_j(c) + sum_k a_k |y_jk - y_rk| < s_r(c)``; panels without another target are dropped. A node is tested if the
    share of panels that its parent ruled out promises to save more scores than the test costs.

    Args:
        x: samples, (m, d).
        z: the same samples in the coordinates of the bounds, (q, m), in the order ``order``; reordered.
        order: which sample each column of z is, (m,) int64.
        first: first column.
        last: one past the last.
        yp: panels of the targets.
        yr: panels of the targets in the coordinates of the bounds.
        panels: their number.
        slack: added to ``s_j(c)``: what rounding may do to a comparison of scores.
        perm: index of each target in the panels, padding included.
        least: lowest index in each panel.
        width: points per tile.
        tally: leaves treated by all chunks so far, their work and the panels that they visited; increased. The work of
            a chunk is doubted sooner if that of the others was too much; nothing else depends on it.
        index: receives the indices, (m,) int64.
        value: receives the scores, (m,).

    Returns:
        One past the last column whose sample was treated; fewer than all if the work nears that of the plain loops.
    """
    d, (q, m) = x.shape[1], z.shape
    stride = (q + 1) * PANEL
    depth = 2
    while (last - first) >> depth:
        depth += 1
    lists = np.zeros(panels * (depth + 1) + GROUP, np.int32)
    for p in range(panels):
        lists[p] = p
    stack = np.empty((depth + 4, 6), np.int64)  # first, last, start and length of the list, best panel and lane
    stack[0] = first, last, 0, panels, 0, 0
    # Share of the panels that a test is expected to rule out, and work per sample of the tests so far.
    hopes = np.zeros((depth + 4, 2))
    hopes[0, 0] = 1
    held, flat, ends = 1, z.reshape(-1), np.empty(2, z.dtype)
    keys, spare = np.empty(last - first, np.int64), np.empty(last - first, z.dtype)
    place, row, xt = np.zeros(3 * q, z.dtype), np.empty(PANEL, z.dtype), np.empty(width * d, x.dtype)
    high, where, at = np.empty(width, x.dtype), np.empty(width, np.int32), np.empty(width, np.int32)
    leaves, work, streamed = 0, 0.0, 1 + d / STREAMED
    while held:
        held -= 1
        start, stop, own = stack[held, 0], stack[held, 1], stack[held, 2]
        kept, b, lane = stack[held, 3], stack[held, 4], stack[held, 5]
        gain, spent = hopes[held]
        axis, most = 0, z.dtype.type(-1)
        for k in range(q):
            extent(flat, k * m + start, stop - start, ends)
            place[k] = ends[0] / 2 + ends[1] / 2
            place[q + k] = max(ends[1] - place[k], place[k] - ends[0])
            if place[q + k] > most:
                axis, most = k, place[q + k]
        if (stop - start) * gain >= TEST:
            base, length = own, kept
            best = _score_at(yr, b * stride, lane, q, place)
            for i in range(base, base + length, GROUP):
                mask = beats(lists, i, yr, q, place, best)
                if mask:
                    for g in range(min(GROUP, base + length - i)):
                        if mask >> g & 1:
                            panel = np.int64(lists[i + g])
                            panel_scores(place, 0, 1, yr, panel * stride, q, row)
                            for j in range(PANEL):
                                if row[j] > best:
                                    best, b, lane = row[j], panel, np.int64(j)
            for k in range(q):
                place[2 * q + k] = yr[b * stride + (k + 1) * PANEL + lane]
            level, kept, own = best - slack, 0, base + length
            for i in range(base, base + length, GROUP):
                mask = reaches(lists, i, yr, q, place, level)
                for g in range(min(GROUP, base + length - i)):
                    lists[own + kept] = lists[i + g]
                    kept += mask >> g & 1
            gain = max(1 / 16, 1 - kept / length)
            spent += TEST * length / (stop - start)
        else:
            gain = min(1.0, 2 * gain)
        if stop - start <= max(width, PANEL):
            for tile in range(start, stop, width):
                _tile(
                    x, order, tile, min(tile + width, stop), yp, lists, own, own + kept, perm, least, width, xt, high,
                    where, at, index, value,
                )  # fmt: skip
            leaves += 1
            cost = spent + kept * streamed
            work += cost
            others = tally[0] >= TRIED and tally[1] > GIVE_UP * tally[0] * panels
            tally[0] += 1
            tally[1] += cost
            tally[2] += kept
            if (leaves >= TRIED or others) and work > GIVE_UP * leaves * panels:
                return stop
            continue
        middle = halve(z, order, start, stop, axis, keys, spare)
        stack[held] = middle, stop, own, kept, b, lane
        stack[held + 1] = start, middle, own, kept, b, lane
        hopes[held : held + 2, 0] = gain
        hopes[held : held + 2, 1] = spent
        held += 2
    return last
