"""Pruned :func:`assign` of backend ``numba``: panels of targets that cannot win in a box of samples are skipped.

Adding a function of x to all scores changes no choice, so bounds are needed for differences of scores only. On a box of
centre c and half-widths a, with r the best target at c,

    s_j(x) - s_r(x) <= s_j(c) - s_r(c) + sum_k a_k |y_jk - y_rk|,

and target j wins nowhere in the box if the right side is negative. Samples are halved recursively into boxes, down to
tiles of 16; each box tests the panels that its parent kept, on the exact scores at its centre (no assumption is made on
the heights). The scores that remain are those of the plain loops, bit by bit, and so are the choices, ties included:
what rounding may do is added to the bound.

The bounds live in coordinates of their own: the principal axes of the targets where these are far from isotropic (a few
axes, if the targets span a subspace: the choice depends on the projection of x on it), scaled so that samples and
targets spread equally along each axis.

Where it pays is found out: first from the surviving share on a few boxes of a subsample, then in each chunk of samples
from its first tiles. Small arrays are left to NumPy: next to busy cores, torch's threads wait for each other longer
than all of this takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

LEAST_WORK = 8192
"""Scores per point (sample or target) below which the plain loops are over before the points are sorted ..."""
DOUBTFUL = range(3, 8)
"""... and below twice which, in these dimensions, to look whether pruning pays costs more than it may bring."""
SUBSAMPLE = 1024
"""Samples and targets that the first estimate looks at."""
BOXES = 8
"""Boxes that it tries."""
PROMISING = 0.12
"""Share of targets left by these boxes at which pruning is not begun."""
MAX_RANK = 16
"""Coordinates of the bounds, at most; in higher dimension a subspace of the targets is looked for ..."""
PROBED = 64
"""... on this many targets."""
ANISOTROPIC = 0.05
"""Ratio of least to greatest variance below which the targets' principal axes are used."""
PIECES = 16
"""Chunks of samples, about; one call of a compiled loop and one item of work for a thread each."""
LEAST_PIECE = 2048
"""Samples per chunk for which more chunks are not worth their start."""
ORDERED = 2**15
"""Targets that one call sorts."""

Plain = Callable[[Tensor], tuple[Tensor, Tensor]]
Over = Callable[[Callable[[int], None], range], None]


@functools.cache
def tree() -> Any:
    """The compiled loops."""
    from . import _cpu_tree

    return _cpu_tree


class Frame(NamedTuple):
    """Coordinates of the bounds: ``x' = (x - x_mean) axes scale`` and ``y' = (y - y_mean) axes / scale``.

    Attributes:
        x_mean: (d,) float64.
        y_mean: (d,) float64.
        axes: orthonormal columns, (d, q) float64, or None for the given coordinates.
        scale: (q,) float64.
        residual: greatest distance of a target from the span of the axes through y_mean.
    """

    x_mean: Tensor
    y_mean: Tensor
    axes: Tensor | None
    scale: Tensor
    residual: float

    def samples(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The x' coordinate by coordinate, (q, m), rounded once."""
        return self._coordinates(x, self.x_mean, self.scale, dtype)

    def targets(self, y: Tensor, h: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """y', (q, n), and the heights that belong to x' and y', ``h + <x_mean, y - y_mean>``, rounded once."""
        g = torch.empty(len(h), dtype=dtype)
        tree().raise_heights(y.numpy(), h.numpy(), self.x_mean.numpy(), self.y_mean.numpy(), g.numpy())
        return self._coordinates(y, self.y_mean, 1 / self.scale, dtype), g

    def _coordinates(self, points: Tensor, mean: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        if self.axes is not None:
            return (((points.double() - mean) @ self.axes) * scale).to(dtype).T.contiguous()
        out = torch.empty(points.shape[::-1], dtype=dtype)
        tree().along_axes(points.numpy(), mean.numpy(), scale.numpy(), out.numpy())
        return out


def _strided(points: Tensor, count: int) -> Tensor:
    return points[:: max(1, len(points) // count)]


def _eigen(gram: Any) -> tuple[Any, Any]:
    """Eigenvalues and vectors; those of the identity if entries overflowed."""
    return np.linalg.eigh(gram if np.isfinite(gram).all() else np.eye(len(gram)))


def find_frame(x: Tensor, y: Tensor) -> Frame:
    """The frame for these samples and targets, from subsamples; only the residual looks at all targets."""
    few_x, few_y = (_strided(points, SUBSAMPLE).numpy().astype(np.float64) for points in (x, y))
    x_mean, y_mean = few_x.mean(0), few_y.mean(0)
    few_x, few_y, d = few_x - x_mean, few_y - y_mean, x.shape[1]
    axes, residual = None, 0.0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if 1 < d <= MAX_RANK:
            variances, vectors = _eigen(few_y.T @ few_y)
            if variances[0] < ANISOTROPIC * variances[-1]:
                axes = vectors[:, variances > 1e-13 * variances[-1]]
        elif d > MAX_RANK:
            probe = few_y[:: max(1, len(few_y) // PROBED)]
            variances, vectors = _eigen(probe @ probe.T)
            kept = variances > 1e-10 * max(variances[-1], 1e-300)
            if 0 < kept.sum() <= MAX_RANK:
                axes = np.linalg.qr(probe.T @ vectors[:, kept])[0]
        if axes is not None and axes.shape[1] < d:
            z = y.double() - torch.from_numpy(y_mean)
            basis = torch.from_numpy(axes.copy())
            residual = float((z - (z @ basis) @ basis.T).norm(dim=1).max())
            if not residual <= 1e-4 * np.linalg.norm(few_y, axis=1).max():
                axes, residual = None, 0.0
        if axes is not None:
            few_x, few_y = few_x @ axes, few_y @ axes
        scale = np.sqrt(np.sqrt((few_y**2).mean(0) / (few_x**2).mean(0)))
    scale[~(np.isfinite(scale) & (scale > 0))] = 1.0
    found = None if axes is None else torch.from_numpy(axes.copy())
    return Frame(torch.from_numpy(x_mean), torch.from_numpy(y_mean), found, torch.from_numpy(scale), residual)


def _largest(z: Tensor) -> Tensor:
    out = torch.empty(len(z), dtype=torch.float64)
    tree().largest(z.numpy(), z.view(-1).numpy(), out.numpy())
    return out


def rounding(x: Tensor, y: Tensor, h: Tensor, z: Tensor, t: Tensor, g: Tensor, frame: Frame) -> float:
    """What rounding may add to a difference of two scores, in the plain loops and in the bounds together.

    A sum of d + 1 products is off by at most ``(d + 2) u`` times the sum of their sizes, u half the machine epsilon;
    there are two sums in a comparison, and the constants below are generous. Infinite if a bound may overflow.

    Args:
        x: samples, (m, d).
        y: targets, (n, d).
        h: heights, (n,).
        z: samples in the frame, (q, m), as rounded.
        t: targets in the frame, (q, n), as rounded.
        g: their heights, (n,), as rounded.
        frame: the frame.
    """
    d, q = x.shape[1], len(z)
    eps, fine = torch.finfo(x.dtype).eps, torch.finfo(torch.float64).eps
    top_z, top_t = _largest(z), _largest(t)
    framed = float(_largest(g[None])) + 4 * float(top_z @ top_t)
    if not max(float(top_z.max()), float(top_t.max()), framed) < torch.finfo(x.dtype).max / 64:
        return math.inf
    if frame.axes is None:  # |x_k| <= |mean_k| + |x_k - mean_k|
        top_x, top_y = frame.x_mean.abs() + top_z / frame.scale, frame.y_mean.abs() + top_t * frame.scale
    else:
        top_x, top_y = x.abs().amax(0).double(), y.abs().amax(0).double()
    plain = float(_largest(h[None])) + float(top_x @ top_y)
    far_x, far_y = (top_x + frame.x_mean.abs()).norm(), (top_y + frame.y_mean.abs()).norm()
    far = float(far_x * far_y)
    total = 2.1 * (d + 3) * eps * plain + (4 * q + 24) * eps * framed + 16 * d * math.sqrt(d) * fine * far
    if frame.axes is not None and q < d:
        total += 2.1 * float(far_x) * frame.residual
    return total + torch.finfo(x.dtype).tiny


def _promises(x: Tensor, y: Tensor, h: Tensor, frame: Frame) -> bool:
    """Whether boxes of a subsample leave few of the targets of a subsample."""
    few_x, few_y, few_h = (_strided(part, SUBSAMPLE) for part in (x, y, h))
    z, (t, g) = frame.samples(few_x, torch.float64), frame.targets(few_y, few_h, torch.float64)
    near = min(max(1, round(tree().tile_width(x.element_size()) * len(few_x) / len(x))), len(few_x) - 1)
    share = tree().surviving_share(z.numpy(), t.numpy(), g.numpy(), BOXES, near)
    return share <= PROMISING


def assign(x: Tensor, y: Tensor, h: Tensor, plain: Plain, over: Over) -> tuple[Tensor, Tensor] | None:
    """Index and value of the best target of each sample, or None where pruning does not promise to pay.

    Args:
        x: samples, (m, d), contiguous.
        y: targets, (n, d), contiguous.
        h: heights, (n,).
        plain: the plain :func:`assign`, for samples in chunks that gave up.
        over: calls a function on each item of a range, on several threads.
    """
    (m, d), n = x.shape, len(y)
    per_point = m * n / (m + n) * (x.element_size() / 4) * (64 / tree().VECTOR_BYTES)
    if per_point < LEAST_WORK * (2 if d in DOUBTFUL else 1):
        return None
    frame = find_frame(x, y)
    if len(frame.scale) > MAX_RANK:
        return None
    if not _promises(x, y, h, frame):
        return None
    z, (t, g) = frame.samples(x, x.dtype), frame.targets(y, h, x.dtype)
    slack = rounding(x, y, h, z, t, g, frame)
    return Pruned(x, y, h, z, t, g, slack, over).run(plain) if slack < math.inf else None


def _halves(z: Tensor, order: Tensor, size: int) -> list[tuple[int, int]]:
    """Reorder points, coordinate by coordinate, into compact parts of at most ``size``; first and last + 1 of each."""
    loops, count = tree(), z.shape[1]
    points, places = z.numpy(), order.numpy()
    flat, ends = points.reshape(-1), torch.empty(2, dtype=z.dtype).numpy()
    keys, spare = torch.empty(count, dtype=torch.int64).numpy(), torch.empty_like(z[0]).numpy()
    waiting, done = [(0, count)], []
    while waiting:
        first, last = waiting.pop()
        if last - first <= size:
            done.append((first, last))
            continue
        axis = loops.widest(points, first, last, ends, flat)
        middle = loops.halve(points, places, first, last, axis, keys, spare)
        waiting += [(middle, last), (first, middle)]
    return done


class Pruned:
    """One pruned reduction.

    Args:
        x: samples, (m, d).
        y: targets, (n, d).
        h: heights, (n,).
        z: samples in the coordinates of the bounds, (q, m); reordered.
        t: targets in these coordinates, (q, n); reordered.
        g: heights in these coordinates, (n,).
        slack: what rounding may do to a comparison.
        over: calls a function on each item of a range, on several threads.
    """

    def __init__(
        self, x: Tensor, y: Tensor, h: Tensor, z: Tensor, t: Tensor, g: Tensor, slack: float, over: Over
    ) -> None:
        loops, n = tree(), len(y)
        self.x, self.over, self.slack = x, over, z.numpy().dtype.type(slack)
        order = torch.from_numpy(np.arange(n))
        parts = _halves(t, order, ORDERED)
        over(lambda i: loops.order_points(t.numpy(), order.numpy(), *parts[i]), range(len(parts)))
        self.number = -(-n // loops.PANEL)
        self.panels = x.new_empty(self.number * loops.PANEL * (y.shape[1] + 1)).numpy()
        self.bounds = x.new_empty(self.number * loops.PANEL * (len(t) + 1)).numpy()
        pad = self.panels.dtype.type(-math.inf)
        loops.pack_gathered(y.numpy(), h.numpy(), order.numpy(), pad, self.panels)
        loops.pack_ordered(t.numpy(), g.numpy(), order.numpy(), pad, self.bounds)
        self.perm = np.full(self.number * loops.PANEL, 2**31 - 1, np.int32)
        self.perm[:n] = order.numpy()
        self.least = self.perm.reshape(-1, loops.PANEL).min(1)
        self.z = z
        self.order = torch.from_numpy(np.arange(len(x)))
        self.visited = 1.0
        """Share of the panels that the pruned tiles visited."""
        self.left = len(x)
        """Samples left to the plain loops."""

    def run(self, plain: Plain) -> tuple[Tensor, Tensor]:
        """Index and value of the best target of each sample."""
        loops, x = tree(), self.x
        index, value = torch.empty(len(x), dtype=torch.int64), x.new_empty(len(x))
        pieces = _halves(self.z, self.order, max(LEAST_PIECE, -(-len(x) // PIECES)))
        rest: list[tuple[int, int]] = [(0, 0)] * len(pieces)
        tally = torch.zeros(3, dtype=torch.float64)
        width = loops.tile_width(x.element_size())

        def work(i: int) -> None:
            first, last = pieces[i]
            end = loops.prune_chunk(
                x.numpy(), self.z.numpy(), self.order.numpy(), first, last, self.panels, self.bounds, self.number,
                self.slack, self.perm, self.least, width, tally.numpy(), index.numpy(), value.numpy(),
            )  # fmt: skip
            rest[i] = end, last

        self.over(work, range(len(pieces)))
        self.visited = float(tally[2] / (tally[0] * self.number))
        left = torch.cat([self.order[first:last] for first, last in rest])
        self.left = len(left)
        if len(left):
            index[left], value[left] = plain(x[left])
        return index, value
