"""Coarse-to-fine start of a sampled semi-discrete problem: groups of targets get their mass before targets do.

Targets are halved again and again at the median of their leading principal direction. At a level with groups
``J_1 .. J_G`` the heights ``h_i + c_J`` have one unknown c_J a group, and the energy in c is that of a problem with G
targets and scores ``S_xJ = max_{i in J} <x, y_i> + h_i``: small and dense, so Newton's method solves it from anywhere,
however badly the clusters are placed.

Where a cell of a group, with centroid m_J and variance v_J, is known from enough samples, the targets inside are spread
over it: the Brenier potential between two measures of one shape is quadratic, and its conjugate gives
``h_i = -<m_J, y_i - Y_J> - a_J |y_i - Y_J|^2 / 2`` with Y_J the centre of the group, V_J its variance and
``a_J = sqrt(v_J / V_J)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from otgan.solvers._scores import Scores

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

#: Most groups of a level, for many targets and for few, and how many halvings lie between two levels.
MAX_GROUPS, FEW_GROUPS, STRIDE = 512, 64, 3
#: Targets a group, at least, beyond FEW_GROUPS groups.
MEMBERS = 64
#: Samples a group at each level, at least; and for all groups together.
PER_GROUP, LEAST = 8, 1024
#: Samples a group from which on its centroid is trusted.
TRUSTED = 24
#: Ratio of one temperature to the next, and of the last one to the gap between the two best groups.
COOLING, FINISH = 3.0, 0.5
TOL, MAX_NEWTON = 0.01, 30
#: Targets are halved along directions of a random plane of this dimension: any long direction will do.
SKETCH = 16
_BLOCK = 1 << 22
_ROWS = 1 << 16


@dataclass
class Start:
    """The heights that :func:`coarse_start` improves, shape (n,): what was found so far stays when it is stopped."""

    heights: Floats


@dataclass(frozen=True)
class _Groups:
    """A partition of the targets: ``order`` sorts them by group, group g is ``order[start[g]:start[g + 1]]``."""

    order: Indices
    start: Indices

    @property
    def count(self) -> int:
        return len(self.start) - 1

    @property
    def label(self) -> Indices:
        """Group of each target, shape (n,)."""
        out = np.empty(len(self.order), np.int64)
        out[self.order] = np.repeat(np.arange(self.count), np.diff(self.start))
        return out

    def sums(self, values: Floats) -> Floats:
        """Sum of the values, shape (n,), of each group."""
        return np.add.reduceat(values[self.order], self.start[:-1])

    def padded(self) -> Indices:
        """Members of each group, shape (G, s), short groups filled up by their last member."""
        sizes = np.diff(self.start)
        return self.order[self.start[:-1, None] + np.minimum(np.arange(sizes.max()), sizes[:, None] - 1)]


def coarse_start(x: Tensor, scores: Scores, b: Floats, start: Start, pause: Callable[[], None]) -> None:
    """Heights that give groups of targets their mass, from eight groups down to hundreds.

    Args:
        x: samples, shape (m, d), in the precision of the targets.
        scores: of the problem.
        b: weights, shape (n,), sum 1.
        start: heights to begin with and where to put the result, level by level.
        pause: called between pieces of work; it may raise to end the work.
    """
    n = scores.n
    most = min(max(n // MEMBERS, FEW_GROUPS), MAX_GROUPS)
    for depth, groups in enumerate(hierarchy(sketch(scores.y), most)):
        if depth % STRIDE and groups.count < n:
            continue
        h = start.heights
        if groups.count > 1:
            h = _balanced(x, scores, b, h, groups, pause)
        if groups.count < n and scores.p == 2.0:
            lifted = _lifted(x, scores, b, h, groups, pause)
            if lifted is not None:
                h = _balanced(x, scores, b, lifted, groups, pause) if groups.count > 1 else lifted
        start.heights = h
        pause()


def sketch(y: Tensor) -> Floats:
    """The targets in at most SKETCH dimensions, by a fixed random projection; shape (n, min(d, SKETCH))."""
    d = y.shape[1]
    if d <= SKETCH:
        return y.double().cpu().numpy()
    plane = torch.from_numpy(np.random.default_rng(0).normal(size=(d, SKETCH))).to(y)
    return (y @ plane).double().cpu().numpy()


def hierarchy(points: Floats, max_groups: int) -> list[_Groups]:
    """Partitions into 1, 2, 4, .. groups of equal size (up to one), each halving the groups of the one before."""
    n, dim = points.shape
    order, start = np.arange(n), np.array([0, n])
    out = [_Groups(order, start)]
    stream = np.random.default_rng(0)
    while 2 * (len(start) - 1) <= max_groups and np.diff(start).max() > 1:
        sizes = np.diff(start)
        label = np.repeat(np.arange(len(sizes)), sizes)
        z = points[order]
        z = z - (np.add.reduceat(z, start[:-1]) / sizes[:, None])[label]
        axis = stream.normal(size=(len(sizes), dim))
        for _ in range(4):  # power iteration
            axis = np.add.reduceat(z * np.einsum("nd,nd->n", z, axis[label])[:, None], start[:-1])
            norm = np.linalg.norm(axis, axis=1, keepdims=True)
            axis /= np.where(norm > 0.0, norm, 1.0)
        order = order[np.lexsort((np.einsum("nd,nd->n", z, axis[label]), label))]
        start = np.unique(np.concatenate([start, start[:-1] + sizes // 2]))
        out.append(_Groups(order, start))
    return out


def _enough(groups: _Groups, m: int, per_group: int) -> int:
    return min(m, max(per_group * groups.count, LEAST))


def _balanced(x: Tensor, scores: Scores, b: Floats, h: Floats, groups: _Groups, pause: Callable[[], None]) -> Floats:
    """``h`` plus a constant a group, such that the groups have their mass."""
    best = _group_scores(x[: _enough(groups, len(x), PER_GROUP)], scores, h, groups, pause)
    mass = torch.from_numpy(groups.sums(b)).to(best.device)
    offset = _offsets(best, mass, pause).cpu().numpy()
    out = h + offset[groups.label]
    return np.asarray(out - b @ out)


def _group_scores(x: Tensor, scores: Scores, h: Floats, groups: _Groups, pause: Callable[[], None]) -> Tensor:
    """``max_{i in J} s_xi``, shape (m, G)."""
    members = groups.padded()
    flat = members.reshape(-1)
    points, heights = scores.rows(flat, x.device), torch.from_numpy(h[flat]).to(x)
    out = x.new_empty(len(x), groups.count)
    step = max(_BLOCK // len(flat), 32)
    for at in range(0, len(x), step):
        block = scores.dense(x[at : at + step], heights, points)
        torch.amax(block.view(len(block), *members.shape), 2, out=out[at : at + step])
        if at // step % 64 == 63:
            pause()
    return out


def _offsets(scores: Tensor, mass: Tensor, pause: Callable[[], None]) -> Tensor:
    """Minimiser c of ``mean eps logsumexp((S + c) / eps) - <mass, c>`` for eps well below the gaps; float64, (G,)."""
    c = torch.zeros_like(mass)
    eps = float(scores.std(dim=1).mean())
    if not eps > 0.0:
        return c
    while True:
        c = _dense_newton(scores, mass, c, eps, pause)
        two = torch.topk(scores + c.to(scores), 2, dim=1).values
        gap = float((two[:, 0] - two[:, 1]).mean())
        if eps <= FINISH * gap or not gap > 1e-6 * eps:
            return c
        eps = max(eps / COOLING, 0.8 * FINISH * gap)


def _dense_newton(scores: Tensor, mass: Tensor, c: Tensor, eps: float, pause: Callable[[], None]) -> Tensor:
    def energy(c: Tensor) -> tuple[float, Tensor]:
        z = (scores + c.to(scores)) / eps
        total = torch.logsumexp(z, 1)
        return float(eps * total.double().mean() - mass @ c), z.sub_(total[:, None])

    value, z = energy(c)
    for _ in range(MAX_NEWTON):
        p = z.exp_()
        w = p.mean(dim=0, dtype=torch.float64)
        gradient = w - mass
        if float((gradient**2 / mass).sum()) < TOL:
            break
        damping = 0.1 * (0.1 * mass - w).clamp_min(0.0) + 1e-5 * mass  # starved groups move by a few eps at most
        hessian = (torch.diag(w + damping) - (p.T @ p).double() / len(p)) / eps
        step = torch.linalg.solve(hessian, -gradient)
        step -= mass @ step
        t = 1.0
        while t > 1e-3:
            new, z = energy(c + t * step)
            if new <= value + 1e-6 * abs(value):
                break
            t *= 0.5
        c, value = c + t * step, new
        pause()
    return c


def _lifted(
    x: Tensor, scores: Scores, b: Floats, h: Floats, groups: _Groups, pause: Callable[[], None]
) -> Floats | None:
    """Heights of the quadratic potentials that spread each group over its cell; None if the samples are too few."""
    m = _enough(groups, len(x), 2 * TRUSTED)
    if m < TRUSTED * groups.count:
        return None
    count, label = groups.count, groups.label
    at = x[:m]
    cell = label[scores.assign(at, h).index.cpu().numpy()] if count > 1 else np.zeros(m, np.int64)
    hits, centroid, width = _moments(at, np.ones(m), cell, count)
    pause()
    mass, centre, size = _moments(scores.y, b, label, count)
    trusted = (hits >= TRUSTED / 4) & (size > 0.0)
    slope = np.sqrt(width / np.where(size > 0.0, size, 1.0))
    new = np.empty(scores.n)
    for rows, y in _pieces(scores.y):
        offset = y - centre[label[rows]]
        along = np.einsum("nd,nd->n", centroid[label[rows]], offset)
        new[rows] = -along - 0.5 * slope[label[rows]] * np.einsum("nd,nd->n", offset, offset)
    return np.where(trusted[label], new, h)


def _pieces(points: Tensor) -> Iterator[tuple[slice, Floats]]:
    """Slices of rows with these rows in float64."""
    for first in range(0, len(points), _ROWS):
        rows = slice(first, min(first + _ROWS, len(points)))
        yield rows, points[rows].double().cpu().numpy()


def _moments(points: Tensor, weight: Floats, label: Indices, count: int) -> tuple[Floats, Floats, Floats]:
    """Mass, centroid and variance ``E|z - centroid|^2`` of each label: (G,), (G, d), (G,)."""
    from scipy.sparse import csr_array

    mass = np.bincount(label, weight, minlength=count).astype(np.float64)
    total = np.zeros((count, points.shape[1]))
    for rows, z in _pieces(points):
        total += np.asarray(csr_array((weight[rows], (label[rows], np.arange(len(z)))), shape=(count, len(z))) @ z)
    centroid = total / np.where(mass > 0.0, mass, 1.0)[:, None]
    square = np.zeros(count)
    for rows, z in _pieces(points):
        z -= centroid[label[rows]]
        square += np.bincount(label[rows], weight[rows] * np.einsum("nd,nd->n", z, z), minlength=count)
    return mass, centroid, square / np.where(mass > 0.0, mass, 1.0)
