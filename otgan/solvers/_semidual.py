"""Sparse entropic semi-dual: each sample sees only its best targets.

On samples x_1 .. x_m with scores ``s_ij = <x_i, y_j> + h_j`` the entropic semi-dual (Genevay, Cuturi, Peyre, Bach,
NeurIPS 2016) is, for a temperature eps > 0 and up to a constant, the convex function::

    E(h) = (1/m) sum_i eps log sum_j exp(s_ij / eps) - <b, h>
    gradient  w - b,  w = (1/m) sum_i p_i,  p_i = softmax(s_i / eps)
    Hessian   (diag(w) - P^T P / m) / eps

p_i decays by ``exp(-gap / eps)`` below the best target: the k best targets of each sample carry all of it when eps is
small against the spread of their scores. Then all three cost O(m k).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit, prange

from otgan._threads import loop_threads
from otgan.solvers._candidates import N_PARTS, Candidates
from otgan.solvers._multigrid import Multigrid

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Reals = NDArray[Any]
    Labels = NDArray[np.int32]

#: Damping of a Newton step, in units of ``diag(b) / eps``: at first, least, and of the Hessian that stays.
DAMPING, LEAST_DAMPING = 1e-2, 1e-7
#: Iterations of conjugate gradients that the diagonal may take; beyond them a multigrid cycle takes its place.
PATIENCE, MAX_CG = 25, 100
#: The multigrid cycle is set up on the probabilities above this, of at most so many samples a target.
VISIBLE, SEEN = 0.02, 32
#: Couplings a sample from which on a grid costs more than the diagonal's iterations.
CROWDED = 6.0
#: Share of the typical diagonal below which a target was not met by the samples, and does not count as rough.
UNSEEN = 0.005
#: Probabilities that the Hessian of a descent leaves out.
NEGLIGIBLE = 1e-4
#: Most that the temperature is raised above its goal, while full steps do not descend.
HOT = 64.0
#: Times that a step is cut to a quarter where the lists hid that the energy rises; then it is given up.
BACK = 4
#: Standard errors above nought at which a probe shows that the energy rises.
CLEAR = 3.0
#: Share of the targets that may leave the bulk of a step behind and are then held back one by one.
OUTLIERS = 0.01


@njit(cache=True)
def _compress(index: Labels, prob: Reals, least: float, ptr: NDArray[np.int64], col: Labels, val: Reals) -> None:
    m, k = index.shape
    t = 0
    ptr[0] = 0
    for i in range(m):
        total = 0.0
        for j in range(k):
            if prob[i, j] > least:
                col[t] = index[i, j]
                val[t] = prob[i, j]
                total += prob[i, j]
                t += 1
        for s in range(ptr[i], t):
            val[s] /= total
        ptr[i + 1] = t


@njit(cache=True, parallel=True)
def _gram(ptr: NDArray[np.int64], col: Labels, val: Reals, v: Floats, parts: Floats) -> None:
    """Rows of ``parts`` sum to ``P^T P v``."""
    m, n_parts = len(ptr) - 1, parts.shape[0]
    for part in prange(n_parts):
        parts[part, :] = 0.0
        for i in range(part * m // n_parts, (part + 1) * m // n_parts):
            s = 0.0
            for t in range(ptr[i], ptr[i + 1]):
                s += val[t] * v[col[t]]
            for t in range(ptr[i], ptr[i + 1]):
                parts[part, col[t]] += val[t] * s


class Hessian:
    """``H = (diag(w) - P^T P / m) / eps``, a graph Laplacian applied without being formed.

    Args:
        ptr: where the entries of each sample start, shape (m + 1,).
        col: targets of the entries.
        val: their probabilities P.
        n: number of targets.
        eps: temperature.

    Attributes:
        w: soft masses, shape (n,).
        diagonal: of H, shape (n,).
    """

    def __init__(self, ptr: NDArray[np.int64], col: Labels, val: Reals, n: int, eps: float) -> None:
        self.ptr, self.col, self.val, self.n, self.eps = ptr, col, val, n, eps
        self.m = len(ptr) - 1
        wide = val.astype(np.float64)
        self.w = np.bincount(col, wide, minlength=n) / self.m
        self.diagonal = (self.w - np.bincount(col, wide * wide, minlength=n) / self.m) / eps
        self._parts = np.empty((N_PARTS, n))
        self._grid: tuple[Floats, Multigrid] | None = None

    @classmethod
    def of(cls, lists: Candidates, h: Floats, eps: float, least: float = 0.0) -> Hessian:
        """At heights ``h``, over ``lists`` as they are, without probabilities up to ``least`` (< 1 / k)."""
        lists.soften(h, eps)
        return cls.softened(lists, eps, least)

    @classmethod
    def softened(cls, lists: Candidates, eps: float, least: float = 0.0) -> Hessian:
        """The same where ``lists`` were just softened at this temperature."""
        size = int(np.count_nonzero(lists.prob > least))
        ptr, col, val = np.empty(lists.m + 1, np.int64), np.empty(size, np.int32), np.empty(size, np.float32)
        _compress(lists.index, lists.prob, least, ptr, col, val)
        return cls(ptr, col, val, lists.n, eps)

    def __matmul__(self, v: Floats) -> Floats:
        """``H v``, shape (n,)."""
        with loop_threads(len(self.val)):
            _gram(self.ptr, self.col, self.val, v, self._parts)
        return np.asarray((self.w * v - self._parts.sum(axis=0) / self.m) / self.eps)

    def solve(self, rhs: Floats, damping: Floats, rtol: float = 0.03) -> Floats:
        """``(H + diag(damping))^{-1} rhs`` by preconditioned conjugate gradients.

        In high dimension a cell has very many neighbours: the diagonal dominates, and a few iterations do. In low
        dimension mass travels far; then one cycle of multigrid on the strongest couplings is the preconditioner.

        Args:
            rhs: shape (n,).
            damping: positive, shape (n,).
            rtol: bound on the residual, in the norm of the preconditioner, relative to that of ``rhs``.
        """
        inverse = 1.0 / (self.diagonal + damping)
        if self._grid is None:
            crowded = (self.val > VISIBLE).sum() > CROWDED * self.m
            x, left = self._conjugate(rhs, damping, lambda r: inverse * r, rtol, MAX_CG if crowded else PATIENCE)
            if left <= rtol or crowded:
                return x
            self._grid = damping, Multigrid(self._visible(damping))
        return self._conjugate(rhs, damping, self._grid[1], 0.03 * rtol, MAX_CG)[0]

    def _conjugate(
        self, rhs: Floats, damping: Floats, precondition: Callable[[Floats], Floats], rtol: float, max_iter: int
    ) -> tuple[Floats, float]:
        """The solution so far and its relative residual."""
        x, r = np.zeros_like(rhs), rhs.copy()
        z = precondition(r)
        p, rz = z.copy(), _dot(r, z)
        first = rz
        for _ in range(max_iter):
            if not rz > rtol**2 * first:
                break
            ap = (self @ p) + damping * p
            alpha = rz / _dot(p, ap)
            x += alpha * p
            r -= alpha * ap
            z = precondition(r)
            rz, old = _dot(r, z), rz
            p *= rz / old
            p += z
        return x, math.sqrt(max(rz, 0.0) / first) if first > 0.0 else 0.0

    def _visible(self, damping: Floats) -> Any:
        """``H + diag(damping)`` with the weakest couplings left out, their part of the diagonal too; sparse (n, n)."""
        from scipy.sparse import csr_array, diags_array

        p = csr_array((self.val.astype(np.float64), self.col, self.ptr), shape=(self.m, self.n))
        p = p[:: max(self.m // (SEEN * self.n), 1)]
        p.data[p.data < VISIBLE] = 0.0
        p.eliminate_zeros()
        gram = (p.T @ p).tocsr() / (p.shape[0] * self.eps)
        gram.setdiag(0.0)
        matrix = csr_array(diags_array(gram.sum(axis=1) + damping) - gram)
        matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        return matrix

    def unseen(self, b: Floats, share: float) -> Floats:
        """What the diagonal of targets that samples hardly met lacks to a share of the typical one of their weight."""
        return np.maximum(share * float(self.diagonal.sum()) * b - self.diagonal, 0.0)

    def roughness(self, b: Floats, generator: np.random.Generator) -> float:
        """Error of the masses that a step through the noise of the samples makes, over that noise itself.

        Masses off by the noise of m samples, ``g ~ N(0, diag(b) / m)``, are mended by fluxes across the facets,
        ``F_e = H_e (v_i - v_j)`` with ``v = H^{-1} g``. H knows a facet from the few samples near it, with relative
        variance about ``1 / (6 m eps H_e)``, and is wrong by that share of the flux. Summed over the facets of all
        cells, in units of the chi2 of g itself, this is ``<g, v> / (3 eps)`` over ``1``. It is about 0.15 in high
        dimension, where a cell's surplus goes to many neighbours next door; it grows without bound on a line, where
        it travels across all cells in between. There steps that trust H spoil more than they mend.
        """
        g = generator.normal(size=self.n) * np.sqrt(b / self.m)
        g -= b * g.sum()
        v = self.solve(g, LEAST_DAMPING * b / self.eps + self.unseen(b, UNSEEN))
        return float(g @ v) / (3.0 * self.eps)


def bounded(step: Floats, reach: float) -> Floats:
    """``step`` with the few heights that would move farther than ``reach`` held back; a step of all passes whole.

    Clipping everything would tear smooth, large steps apart, which move all cells of a region alike.
    """
    step = step - np.median(step)
    far = np.abs(step) > reach
    if far.mean() <= OUTLIERS:
        return np.clip(step, -reach, reach)
    return step


class Step(NamedTuple):
    """What one step of :class:`Descent` did: soft chi2 before it, share of the lists looked up again, temperature."""

    chi2: float
    renewed: float
    eps: float


class Descent:
    """Damped Newton on the semi-dual over the lists of stored samples, one step a call.

    Levenberg's damping follows the success of the steps, lists are looked up where a step leaves them unproven, and
    targets in no list are revived by a c-transform.

    Args:
        lists: candidates.
        h: heights to start from, shape (n,).
        b: weights, shape (n,).
        smoothing: temperature in units of the mean gap between the two best scores of a sample.
        damping: of the first step.
        trust: largest change of most heights, in units of the spread of the lists.
        heat: temperature of the first step relative to that of ``smoothing``.
        checked: whether the lists were looked at for these very heights.

    Attributes:
        tolerated: share of the lists without a proof that may have lost their best target.
    """

    def __init__(
        self,
        lists: Candidates,
        h: Floats,
        b: Floats,
        smoothing: float,
        damping: float = DAMPING,
        trust: float = 0.5,
        heat: float = 1.0,
        checked: bool = False,
    ) -> None:
        self.lists, self.h, self.b, self.smoothing = lists, h, b, smoothing
        self.damping, self.trust, self.heat, self.checked = damping, trust, heat, checked
        self.tolerated = 0.05

    def place(self, h: Floats, lists: Candidates | None = None) -> None:
        """Go on from other heights, or over other lists."""
        self.h, self.lists, self.checked = h, lists or self.lists, False

    def energy(self, h: Floats, eps: float) -> float:
        """``E(h)`` over the lists as they are."""
        return self.lists.soften(h, eps) - _dot(self.b, h)

    def temperature(self) -> float:
        """Eps of the next step."""
        return max(self.heat * self.smoothing * self.lists.gap(self.h), 1e-12)

    def step(self) -> Step:
        """One step."""
        lists, b = self.lists, self.b
        if not self.checked:
            lists.refresh(self.h, 0.0, self.tolerated)
        dead = lists.orphans()
        if len(dead):
            self.h = lists.revived(self.h, dead)
            lists.refresh(self.h, 0.0, self.tolerated)
        eps = self.temperature()
        before = self.energy(self.h, eps)
        hessian = Hessian.softened(lists, eps, min(NEGLIGIBLE, 0.5 / lists.k))
        chi2 = float(((hessian.w - b) ** 2 / b).sum())
        values = lists.value.copy()
        new, hidden = self._newton(hessian, before), 0
        while hidden < BACK:
            grown, stderr = lists.rise(new, eps, values)
            if grown - _dot(b, new - self.h) <= CLEAR * stderr:
                break
            new, hidden = self._cut(new, hidden), hidden + 1
        renewed = lists.refresh(new, 3.0 * eps, self.tolerated)
        while renewed > 0.0 and hidden < BACK and self.energy(new, eps) > before:
            new, hidden = self._cut(new, hidden), hidden + 1
            renewed = max(lists.refresh(new, 3.0 * eps, self.tolerated), renewed)
        if not hidden:
            self.trust = min(1.5 * self.trust, 0.5)
        self.h, self.checked = new - b @ new, True
        return Step(chi2, renewed, eps)

    def _cut(self, new: Floats, times: int) -> Floats:
        """A part of the way, where the lists hid that the energy, which is convex, rises; none at last."""
        self.trust = max(0.25 * self.trust, 0.01)
        self.damping = min(10.0 * self.damping, 1.0)
        return 0.75 * self.h + 0.25 * new if times + 1 < BACK else self.h

    def _newton(self, hessian: Hessian, before: float) -> Floats:
        """Heights after a step that does not raise the energy over the lists."""
        b, eps = self.b, hessian.eps
        reach = self.trust * self.lists.spread(self.h) if self.lists.k < self.lists.n else math.inf
        starved = np.maximum(b - hessian.w, 0.0)  # targets without mass move by a few eps at most
        step = bounded(hessian.solve(b - hessian.w, (0.1 * starved + self.damping * b) / eps), reach)
        t = 1.0
        while t > 1e-2:
            new = self.h + t * step
            if self.energy(new, eps) <= before:
                if t == 1.0:
                    self.damping, self.heat = max(0.2 * self.damping, LEAST_DAMPING), max(0.5 * self.heat, 1.0)
                else:
                    self.damping, self.heat = min(2.0 * self.damping, 1.0), min(2.0 * self.heat, HOT)
                return new
            t *= 0.5
        # A step of Sinkhorn's algorithm always descends.
        self.damping = min(10.0 * self.damping, 1.0)
        return self.h + np.clip(-eps * np.log((hessian.w + 1e-9 * b) / b), -reach, reach)


def _dot(a: Floats, b: Floats) -> float:
    return float(np.einsum("i,i->", a, b))
