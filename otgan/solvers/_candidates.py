"""The best targets of stored samples: found once, kept as long as drift of the heights leaves them proven complete."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from otgan._threads import loop_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otgan.solvers._scores import Scores

    Floats = NDArray[np.float64]
    Reals = NDArray[Any]
    Labels = NDArray[np.int32]

#: Parts that samples are divided into: fixed, so that sums do not depend on the number of threads.
N_PARTS = 8
#: Exponents below this are dropped: probabilities under 6e-6.
CUT = -12.0
#: Samples whose candidates are found between two looks at the clock.
CHUNK = 1 << 15
#: Targets whose heights rose most are compared with every sample one by one, one in this many.
MOVERS = 32
#: Scores of such targets that are in memory at a time.
BLOCK = 1 << 23
#: Samples that a cell should get for its emptiness to mean something: chance e^-12.
EXPECTED = 12.0
#: Starved targets that are filled at a time, at most.
FILLED = 128
#: Samples a target below which the gap is judged by the spread as well, and by which share of it.
SPARSE, TIED = 2.0, 0.5
#: Samples from which the stiffness of a cell is estimated.
NEAREST = 4
#: Lists without a proof that are looked up to see whether the others need it.
PROBE = 1024


@njit(cache=True, parallel=True)
def _softmax(index: Labels, base: Reals, h: Floats, inverse: float, prob: Reals, value: Floats) -> None:
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


@njit(cache=True, parallel=True)
def _top_two(index: Labels, base: Reals, h: Floats, first: Floats, second: Floats, where: Labels) -> None:
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


class Candidates:
    """The k best targets of each sample, and how far heights may drift before they must be looked up again.

    A list found at heights h0, whose last score is ``last``, holds the best target at heights h as long as
    ``max_list s(h) >= last + max_j (h_j - h0_j)``: no target outside can have risen higher. The few targets that rose
    most are left out of that maximum and compared with the sample one by one.

    Args:
        x: samples, shape (m, d), in the precision of the targets and on their device.
        scores: of the problem.
        k: targets per sample.
        pause: called between chunks of samples; it may raise to end the work.
    """

    def __init__(self, x: Tensor, scores: Scores, k: int, pause: Callable[[], None]) -> None:
        self.x, self.scores, self.n, self.k = x, scores, scores.n, min(k, scores.n)
        self.pause = pause
        m = len(x)
        kind = np.float32 if x.dtype == torch.float32 else np.float64
        self.index = np.zeros((m, self.k), np.int32)
        self.base: Reals = np.zeros((m, self.k), kind)
        self.last: Reals = np.full(m, np.inf, kind)
        self.epoch = np.full(m, -1, np.int32)
        self.references: list[Floats] = []
        self.probed = 0
        self.prob = np.empty((m, self.k), np.float32)
        self.value = np.empty(m)

    @property
    def m(self) -> int:
        """Number of samples."""
        return len(self.index)

    def extended(self, x: Tensor) -> Candidates:
        """The same lists, followed by unknown ones for more samples; ``x`` starts with the samples known so far."""
        more = Candidates(x, self.scores, self.k, self.pause)
        for name in ("index", "base", "last", "epoch"):
            getattr(more, name)[: self.m] = getattr(self, name)
        more.references, more.probed = self.references, self.probed
        return more

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which :meth:`restore` makes equal lists on equal samples."""
        references = np.array(self.references).reshape(len(self.references), self.n)
        arrays = {name: getattr(self, name) for name in ("index", "base", "last", "epoch")}
        return {**arrays, "references": references, "probed": np.array([self.probed])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`state` returned."""
        for name in ("index", "base", "last", "epoch"):
            getattr(self, name)[:] = state[name]
        self.references = list(state["references"])
        self.probed = int(state["probed"][0])

    # ------------------------------------------------------- completeness

    def refresh(self, h: Floats, margin: float, tolerated: float = 0.0) -> float:
        """Look up again every list that is not proven to hold all targets within ``margin`` of the best at ``h``.

        The proof is cautious: most lists without one are right. With ``tolerated`` > 0 a few lists are looked up as a
        probe, and others only if more than this share of the probe had lost its best target.

        Returns:
            The share of all lists that had lost it, or that were looked up.
        """
        known = np.flatnonzero(self.epoch >= 0)
        if tolerated > 0.0 and len(known) > 4 * PROBE and self.k < self.n:
            probe = self._probe(known)
            before = self._top(probe, h)
            self._look_up(np.concatenate([np.flatnonzero(self.epoch < 0), probe]), h)
            wrong = float((self._top(probe, h) > before + 1e-6 * np.abs(before)).mean())
            if wrong <= tolerated:
                return wrong
        rows = np.flatnonzero(~self.proven(h, margin))
        if len(rows):
            self._look_up(rows, h)
        return len(rows) / self.m

    def _probe(self, known: NDArray[np.int64]) -> NDArray[np.int64]:
        """A few of these rows, others each time."""
        self.probed += 1
        return known[self.probed % (len(known) // PROBE) :: len(known) // PROBE]

    def rise(self, h: Floats, eps: float, before: Floats) -> tuple[float, float]:
        """How much the mean of ``eps log sum_j exp(s_ij / eps)`` has grown since it was ``before``, (m,), by a probe.

        Returns:
            The mean over some rows, which are looked up at ``h``, and its standard error; -inf and 0 where the rows are
            so few that all of them may as well be looked up.
        """
        if self.m <= 4 * PROBE or self.k == self.n:
            return -math.inf, 0.0
        rows = self._probe(np.arange(self.m))
        self._look_up(rows, h)
        scores = (self.base[rows] + h[self.index[rows]]) / eps
        top = scores.max(axis=1)
        grown = eps * (top + np.log(np.exp(scores - top[:, None]).sum(axis=1))) - before[rows]
        return float(grown.mean()), float(grown.std()) / math.sqrt(len(rows))

    def _look_up(self, rows: NDArray[np.int64], h: Floats) -> None:
        """New lists for these samples."""
        reference = self.scores.heights(h).double().cpu().numpy()
        self.epoch[rows] = -1
        used = np.unique(self.epoch)
        kept = [int(e) for e in used if e >= 0]
        renumber = np.full(len(self.references) + 1, -1, np.int32)
        renumber[kept] = np.arange(len(kept))
        self.epoch = renumber[self.epoch]
        self.references = [self.references[e] for e in kept] + [reference]
        for start in range(0, len(rows), CHUNK):
            at = rows[start : start + CHUNK]
            best = self.scores.top_k(self.x[torch.from_numpy(at).to(self.x.device)], h, self.k)
            index, value = best.index.cpu().numpy(), best.value.double().cpu().numpy()
            self.index[at] = index
            self.base[at] = value - reference[index]
            self.last[at] = value[:, -1]
            self.epoch[at] = len(self.references) - 1
            self.pause()

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
            fine = first[rows] - margin - drift >= self.last[rows]
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
        y = self.scores.rows(movers, self.x.device)
        high, risen = torch.from_numpy(h[movers]).to(y), torch.from_numpy(rise[movers]).to(y)
        size = max(min(CHUNK, BLOCK // max(len(movers), 1)), 1)
        for start in range(0, len(rows), size):
            at = rows[start : start + size]
            scores = self.scores.dense(self.x[torch.from_numpy(at).to(y.device)], high, y)
            near = scores >= torch.from_numpy(first[at] - margin).to(y)[:, None]
            # A mover that was above the last of the list when it was made is in the list.
            outside = scores - risen <= torch.from_numpy(self.last[at]).to(y)[:, None]
            out[start : start + len(at)] = ~(near & outside).any(dim=1).cpu().numpy()
        return out

    def orphans(self) -> NDArray[np.int64]:
        """Targets that are in no list."""
        seen = np.zeros(self.n, bool)
        seen[self.index[self.epoch >= 0]] = True
        return np.flatnonzero(~seen)

    def revived(self, h: Floats, dead: NDArray[np.int64]) -> Floats:
        """Heights with those of the ``dead`` raised until each touches a sample (a c-transform over the samples)."""
        if len(dead) == 0:
            return h
        first, _, _ = self.best(h)
        h = h.copy()
        h[dead] = np.maximum(h[dead], self.scores.touching(self.x, torch.from_numpy(first), dead))
        return h

    def filled(self, h: Floats, b: Floats, least: float) -> Floats:
        """Heights with those of starved targets raised until each has its share of the samples, if others stay put.

        Soft masses hide that a target among near copies wins no sample. One that has less than ``least`` of its weight,
        where chance would not explain it, gets the height at which ``b_i m`` samples prefer it to what they have.
        """
        first, _, where = self.best(h)
        masses = np.bincount(where, minlength=self.n) / self.m
        starved = np.flatnonzero((masses < least * b) & (self.m * b > EXPECTED))
        h = h.copy()
        quotas = np.ceil(b[starved] * self.m).astype(np.int64)
        step = max(min(FILLED, BLOCK // int(quotas.max(initial=1))), 1)
        for start in range(0, len(starved), step):
            who, quota = starved[start : start + step], torch.from_numpy(quotas[start : start + step])
            y = self.scores.rows(who, self.x.device)
            high, kept = torch.from_numpy(h[who]).to(y), y.new_empty(0, len(who))
            size = max(BLOCK // len(who), int(quota.max()))
            for at in range(0, self.m, size):
                best = torch.from_numpy(first[at : at + size]).to(y)[:, None]
                missing = torch.cat([kept, best - self.scores.dense(self.x[at : at + size], high, y)])
                kept = missing.topk(min(int(quota.max()), len(missing)), dim=0, largest=False).values
            h[who] += kept.sort(dim=0).values.cpu().gather(0, quota[None] - 1)[0].double().numpy()
            self.pause()
        return h

    def stiffness(self, h: Floats) -> Floats:
        """How fast the hard mass of each target grows with its height, from the samples nearest to its facets, (n,).

        ``k / (2 m r)``, r the k-th least difference of the two best scores among samples that have the target as one of
        the two: the bandwidth is the cell's own, so that the thin cells of near copies are seen as stiff as they are.
        """
        first, second, where = self.best(h)
        rival = self.base + h[self.index]
        rival[self.index == where[:, None]] = -np.inf
        other = self.index[np.arange(self.m), rival.argmax(axis=1)]
        gap = np.tile(first - second, 2)
        target = np.concatenate([where, other])
        order = np.lexsort((gap, target))
        start = np.searchsorted(target[order], np.arange(self.n + 1))
        known = start[1:] - start[:-1] >= NEAREST
        out = np.zeros(self.n)
        last = gap[order[start[:-1][known] + NEAREST - 1]]
        out[known] = NEAREST / (2.0 * self.m * np.maximum(last, 1e-300))
        return out

    # ------------------------------------------------- scores in the lists

    def best(self, h: Floats) -> tuple[Floats, Floats, Labels]:
        """Best and second best score in each list at ``h``, and the target of the best: three arrays (m,)."""
        first, second, where = np.empty(self.m), np.empty(self.m), np.empty(self.m, np.int32)
        with loop_threads(self.index.size):
            _top_two(self.index, self.base, h, first, second, where)
        return first, second, where

    def _top(self, rows: NDArray[np.int64], h: Floats) -> Floats:
        """Best score in the lists of these samples."""
        return np.asarray((self.base[rows] + h[self.index[rows]]).max(axis=1))

    def gap(self, h: Floats) -> float:
        """Typical difference of the best and the second best score: the scale below which smoothing is harmless.

        From the median, which the large cells at the rim do not sway; in high dimension it is the mean. Where samples
        are few, heights that give each target its share of them tie the two best of most samples: then it is at least
        a share of the spread of the list, whose scores are about ``gap / j`` apart at place j.
        """
        first, second, _ = self.best(h)
        found = float(np.median(first - second)) / math.log(2.0)
        if self.m < SPARSE * self.n and self.k < self.n:
            found = max(found, TIED * self.spread(h) / float((1.0 / np.arange(1, self.k)).sum()))
        return found

    def spread(self, h: Floats) -> float:
        """Mean difference of the best and the worst score of a list."""
        first, _, _ = self.best(h)
        worst = (self.base + h[self.index]).min(axis=1)
        return float((first - worst).mean())

    def masses(self, h: Floats) -> Floats:
        """Share of the samples whose best target each one is, shape (n,)."""
        return np.bincount(self.best(h)[2], minlength=self.n) / self.m

    def soften(self, h: Floats, eps: float) -> float:
        """Mean of ``eps log sum_j exp(s_ij / eps)``; fills :attr:`prob` with the softmax of each list."""
        with loop_threads(self.index.size):
            _softmax(self.index, self.base, h, 1.0 / eps, self.prob, self.value)
        return float(self.value.mean())
