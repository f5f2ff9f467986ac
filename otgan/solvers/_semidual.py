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

from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from otgan import kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Labels = NDArray[np.int32]

#: Parts that samples are divided into: fixed, so that sums do not depend on the number of threads.
N_PARTS = 8
#: Exponents below this are dropped: probabilities under 6e-6.
CUT = -12.0
#: Damping of a step, in units of ``diag(b) / eps``: above the few weak modes (clusters far from each other) that the
#: stored samples hardly resolve and that the coarse start has settled.
DAMPING = 1e-2
#: Samples whose candidates are found between two looks at the clock.
CHUNK = 1 << 15
#: Targets whose heights rose most are compared with every sample one by one, one in this many.
MOVERS = 32


@njit(cache=True, parallel=True)
def _softmax(index: Labels, base: Singles, h: Floats, inverse: float, prob: Singles, value: Floats) -> None:
    m, k = index.shape
    for part in prange(N_PARTS):
        for i in range(part * m // N_PARTS, (part + 1) * m // N_PARTS):
            top = -np.inf
            for j in range(k):
                top = max(top, base[i, j] + h[index[i, j]])
            total = 0.0
            for j in range(k):
                exponent = (base[i, j] + h[index[i, j]] - top) * inverse
                p = np.exp(exponent) if exponent > CUT else 0.0
                prob[i, j] = p
                total += p
            for j in range(k):
                prob[i, j] /= total
            value[i] = top + np.log(total) / inverse


@njit(cache=True)
def _compress(index: Labels, prob: Singles, ptr: NDArray[np.int64], col: Labels, val: Singles) -> None:
    m, k = index.shape
    t = 0
    ptr[0] = 0
    for i in range(m):
        for j in range(k):
            if prob[i, j] > 0.0:
                col[t] = index[i, j]
                val[t] = prob[i, j]
                t += 1
        ptr[i + 1] = t


@njit(cache=True, parallel=True)
def _gram(ptr: NDArray[np.int64], col: Labels, val: Singles, v: Floats, parts: Floats) -> None:
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


@njit(cache=True, parallel=True)
def _top_two(index: Labels, base: Singles, h: Floats, first: Floats, second: Floats, where: Labels) -> None:
    m, k = index.shape
    for part in prange(N_PARTS):
        for i in range(part * m // N_PARTS, (part + 1) * m // N_PARTS):
            a, b, at = -np.inf, -np.inf, 0
            for j in range(k):
                s = base[i, j] + h[index[i, j]]
                if s > a:
                    a, b, at = s, a, index[i, j]
                elif s > b:
                    b = s
            first[i], second[i], where[i] = a, b, at


class Hessian:
    """``H = (diag(w) - P^T P / m) / eps``, a graph Laplacian applied without being formed.

    Args:
        index: candidates of each sample, shape (m, k).
        prob: their probabilities P, shape (m, k); zeros are skipped.
        n: number of targets.
        eps: temperature.

    Attributes:
        w: soft masses, shape (n,).
        diagonal: of H, shape (n,).
    """

    def __init__(self, index: Labels, prob: Singles, n: int, eps: float) -> None:
        size = int(np.count_nonzero(prob))
        self.m, self.eps = len(index), eps
        self.ptr = np.empty(self.m + 1, np.int64)
        self.col, self.val = np.empty(size, np.int32), np.empty(size, np.float32)
        _compress(index, prob, self.ptr, self.col, self.val)
        wide = self.val.astype(np.float64)
        self.w = np.bincount(self.col, wide, minlength=n) / self.m
        self.diagonal = (self.w - np.bincount(self.col, wide * wide, minlength=n) / self.m) / eps
        self._parts = np.empty((N_PARTS, n))

    def __matmul__(self, v: Floats) -> Floats:
        """``H v``, shape (n,)."""
        _gram(self.ptr, self.col, self.val, v, self._parts)
        return np.asarray((self.w * v - self._parts.sum(axis=0) / self.m) / self.eps)

    def solve(self, rhs: Floats, damping: Floats, rtol: float = 0.03, max_iter: int = 100) -> Floats:
        """``(H + diag(damping))^{-1} rhs`` by conjugate gradients, preconditioned by the diagonal.

        In high dimension a cell has very many neighbours: the diagonal dominates, and a few iterations do.

        Args:
            rhs: shape (n,).
            damping: positive, shape (n,).
            rtol: bound on the residual, in the norm of the preconditioner, relative to that of ``rhs``.
            max_iter: iterations at most.
        """
        inverse = 1.0 / (self.diagonal + damping)
        x, r = np.zeros_like(rhs), rhs.copy()
        z = inverse * r
        p, rz = z.copy(), _dot(r, z)
        bound = rtol**2 * rz
        for _ in range(max_iter):
            if not rz > bound:
                break
            ap = (self @ p) + damping * p
            alpha = rz / _dot(p, ap)
            x += alpha * p
            r -= alpha * ap
            z = inverse * r
            rz, old = _dot(r, z), rz
            p *= rz / old
            p += z
        return x


class Candidates:
    """The k best targets of each sample, and how far heights may drift before they must be looked up again.

    A list found at heights h0, whose last score is ``last``, holds the best target at heights h as long as
    ``max_list s(h) >= last + max_j (h_j - h0_j)``: no target outside can have risen higher. The few targets that rose
    most are left out of that maximum and compared with the sample one by one.

    Args:
        x: samples, shape (m, d), float32.
        y: targets, shape (n, d), float32, on the same device.
        k: targets per sample.
        pause: called between chunks of samples; it may raise to end the work.
    """

    def __init__(self, x: Tensor, y: Tensor, k: int, pause: Callable[[], None]) -> None:
        self.x, self.y, self.n, self.k = x, y, len(y), min(k, len(y))
        self.pause = pause
        self.n_scores = 0
        m = len(x)
        self.index = np.zeros((m, self.k), np.int32)
        self.base = np.zeros((m, self.k), np.float32)
        self.last = np.full(m, np.inf, np.float32)
        self.epoch = np.full(m, -1, np.int32)
        self.references: list[Floats] = []
        self.prob = np.empty((m, self.k), np.float32)
        self.value = np.empty(m)

    @property
    def m(self) -> int:
        """Number of samples."""
        return len(self.index)

    def extended(self, x: Tensor) -> Candidates:
        """The same lists, followed by unknown ones for more samples; ``x`` starts with the samples known so far."""
        more = Candidates(x, self.y, self.k, self.pause)
        for name in ("index", "base", "last", "epoch"):
            getattr(more, name)[: self.m] = getattr(self, name)
        more.references, more.n_scores = self.references, self.n_scores
        return more

    def refresh(self, h: Floats, margin: float) -> float:
        """Look up again every list that is not proven to hold all targets within ``margin`` of the best at ``h``.

        Returns:
            The share of samples that needed it.
        """
        rows = np.flatnonzero(~self.proven(h, margin))
        if len(rows) == 0:
            return 0.0
        heights = torch.from_numpy(h).to(self.y)
        reference = heights.double().cpu().numpy()
        used = np.unique(self.epoch[np.setdiff1d(np.arange(self.m), rows)])
        kept = [int(e) for e in used if e >= 0]
        renumber = np.full(len(self.references) + 1, -1, np.int32)
        renumber[kept] = np.arange(len(kept))
        self.epoch = renumber[self.epoch]
        self.references = [self.references[e] for e in kept] + [reference]
        self.epoch[rows] = -1
        for start in range(0, len(rows), CHUNK):
            at = rows[start : start + CHUNK]
            best = kernels.top_k(self.x[torch.from_numpy(at).to(self.x.device)], self.y, heights, self.k)
            self.n_scores += len(at) * self.n
            index, value = best.index.cpu().numpy(), best.value.double().cpu().numpy()
            self.index[at] = index
            self.base[at] = value - reference[index]
            self.last[at] = value[:, -1]
            self.epoch[at] = len(self.references) - 1
            self.pause()
        return len(rows) / self.m

    def proven(self, h: Floats, margin: float) -> NDArray[np.bool_]:
        """Which lists are proven to hold every target within ``margin`` of the best at heights ``h``, shape (m,)."""
        known = self.epoch >= 0
        if self.k == self.n or not known.any():
            return known
        first, _, _ = self.best(h)
        ok = known.copy()
        for number, reference in enumerate(self.references):
            rows = np.flatnonzero(self.epoch == number)
            if len(rows) == 0:
                continue
            rise = h - reference
            n_movers = max(self.n // MOVERS, 1)
            order = np.argpartition(rise, self.n - 1 - n_movers)
            drift = float(rise[order[self.n - 1 - n_movers]])
            fine = first[rows] - margin >= self.last[rows] + drift
            movers = order[self.n - n_movers :]
            movers = movers[rise[movers] > drift]
            rows = rows[fine] if len(movers) else rows[:0]
            ok[self.epoch == number] = fine
            ok[rows] = self._beyond(rows, movers, h, rise, first, margin)
        return ok

    def _beyond(
        self, rows: NDArray[np.int64], movers: NDArray[np.int64], h: Floats, rise: Floats, first: Floats, margin: float
    ) -> NDArray[np.bool_]:
        """Whether none of the ``movers`` outside a list comes within ``margin`` of the best at each of ``rows``."""
        out = np.empty(len(rows), bool)
        y = self.y[torch.from_numpy(movers).to(self.y.device)]
        high, risen = torch.from_numpy(h[movers]).to(y), torch.from_numpy(rise[movers]).to(y)
        for start in range(0, len(rows), CHUNK):
            at = rows[start : start + CHUNK]
            scores = torch.addmm(high, self.x[torch.from_numpy(at).to(y.device)], y.T)
            near = scores >= torch.from_numpy(first[at] - margin).to(y)[:, None]
            # A mover that was above the last of the list when it was made is in the list.
            outside = scores - risen <= torch.from_numpy(self.last[at]).to(y)[:, None]
            out[start : start + len(at)] = ~(near & outside).any(dim=1).cpu().numpy()
        self.n_scores += len(rows) * len(movers)
        return out

    def best(self, h: Floats) -> tuple[Floats, Floats, Labels]:
        """Best and second best score in each list at ``h``, and the target of the best: three arrays (m,)."""
        first, second, where = np.empty(self.m), np.empty(self.m), np.empty(self.m, np.int32)
        _top_two(self.index, self.base, h, first, second, where)
        return first, second, where

    def gap(self, h: Floats) -> float:
        """Mean difference of the best and the second best score: the scale below which smoothing is harmless."""
        first, second, _ = self.best(h)
        return float((first - second).mean())

    def spread(self, h: Floats) -> float:
        """Mean difference of the best and the worst score of a list."""
        first, _, _ = self.best(h)
        worst = (self.base + h[self.index]).min(axis=1)
        return float((first - worst).mean())

    def orphans(self) -> NDArray[np.int64]:
        """Targets that are in no list."""
        seen = np.zeros(self.n, bool)
        seen[self.index] = True
        return np.flatnonzero(~seen)

    def revived(self, h: Floats, dead: NDArray[np.int64]) -> Floats:
        """Heights with those of the ``dead`` raised until each touches a sample (a c-transform over the samples)."""
        if len(dead) == 0:
            return h
        first, _, _ = self.best(h)
        y = self.y[torch.from_numpy(dead).to(self.y.device)]
        touch = kernels.assign(y, self.x, -torch.from_numpy(first).to(self.x))
        self.n_scores += self.m * len(dead)
        h = h.copy()
        h[dead] = np.maximum(h[dead], -touch.value.double().cpu().numpy())
        return h

    def energy(self, h: Floats, b: Floats, eps: float) -> float:
        """``E(h)`` over the lists; fills :attr:`prob`."""
        _softmax(self.index, self.base, h, 1.0 / eps, self.prob, self.value)
        return float(self.value.mean() - _dot(b, h))

    def hessian(self, h: Floats, eps: float) -> Hessian:
        """The Hessian at ``h``, with the soft masses."""
        _softmax(self.index, self.base, h, 1.0 / eps, self.prob, self.value)
        return Hessian(self.index, self.prob, self.n, eps)


def newton_step(lists: Candidates, h: Floats, b: Floats, eps: float, reach: float) -> tuple[Floats, float, bool]:
    """One damped Newton step of the semi-dual over fixed lists.

    Args:
        lists: candidates, taken as they are.
        h: heights, shape (n,).
        b: weights, shape (n,).
        eps: temperature.
        reach: largest change of a height; the lists say nothing of what is farther.

    Returns:
        The new heights, the soft chi2 ``sum (w - b)^2 / b`` at the old ones, and whether ``reach`` was met.
    """
    energy = lists.energy(h, b, eps)
    hessian = Hessian(lists.index, lists.prob, lists.n, eps)
    gradient = hessian.w - b
    chi2 = float((gradient**2 / b).sum())
    starved = np.maximum(b - hessian.w, 0.0)  # targets without mass move by a few eps at most
    step = hessian.solve(-gradient, (0.1 * starved + DAMPING * b) / eps)
    step -= np.median(step)
    clipped = bool(np.abs(step).max() > reach)
    step = np.clip(step, -reach, reach)
    t = 1.0
    while t > 1e-2:
        new = h + t * step
        if lists.energy(new, b, eps) <= energy:
            return new, chi2, clipped or t < 1.0
        t *= 0.5
    # A step of Sinkhorn's algorithm always descends.
    sinkhorn = np.clip(-eps * np.log((hessian.w + 1e-9 * b) / b), -reach, reach)
    return h + sinkhorn, chi2, True


def _dot(a: Floats, b: Floats) -> float:
    return float(np.einsum("i,i->", a, b))
