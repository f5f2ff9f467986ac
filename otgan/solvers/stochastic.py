"""Second-order stochastic solver: sparse Newton on stored samples, then Newton-preconditioned streaming."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan import kernels
from otgan.certificate import chi2_estimate
from otgan.potential import Standardization, fix_gauge
from otgan.solvers._coarse import Start, coarse_start
from otgan.solvers._semidual import DAMPING, Candidates, Hessian, newton_step
from otgan.solvers.base import Outcome, Problem, Stopwatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.callbacks import Callback
    from otgan.measures import DiscreteMeasure
    from otgan.solvers.result import Status

    Floats = NDArray[np.float64]

_EXPECTED = 12.0  # samples that a cell should get for its emptiness to mean something: chance e^-12
_LEAST_STORED, _LEAST_BATCH = 4096, 1024
_CHUNK = 1 << 16
_PATIENCE = 20.0  # times (n - 1) / tol samples, after which a run that does not get there ends
_SLOW = 1.5  # times the statistical limit, above which heights are worth less than the samples they saw
_WINDOW = 1.5  # chi2 is estimated from the batches since the samples were fewer by this factor


@dataclass(frozen=True)
class StochasticNewton:
    r"""Newton's method on samples of the source, at the statistical limit.

    No method that saw N samples can expect a chi2 of the masses much below ``(n - 1) / N``: this one stays within about
    ten percent of it. It minimises the convex energy ``E(h) = E_mu u_h - <b, h>`` in three phases:

    1. *Coarse to fine*: groups of targets get their mass before targets do, by dense Newton on group offsets.
    2. *Stored samples*: Newton's method on the entropic semi-dual (Genevay, Cuturi, Peyre, Bach, NeurIPS 2016) of a few
       samples a target, each of which sees its best targets only. Lists are looked up again where drift of the heights
       leaves their completeness unproven; targets in no list are revived by a c-transform.
    3. *Streaming*: hard counts c of M fresh samples are an unbiased gradient, and with a Hessian H that stays fixed::

           h <- h - (M / t) H^{-1} (c / M - b),      t <- t + M

       is the stochastic approximation of Robbins and Monro with Newton's gain: the last h averages all samples, and
       its covariance is the smallest possible (Sacks, Ann. Math. Statist. 29, 1958). t starts at the number of samples
       that the heights of phase 2 are worth, ``(n - 1) / chi2``.

    ``tol`` bounds chi2 of the masses, estimate plus one standard error; no cell may be empty that should not be. Every
    batch is counted before it is learned from, so the estimate is unbiased and costs nothing.

    Args:
        samples_per_target: budget N / n of source samples, all phases together; by default what ``tol`` needs.
        stored: samples a target of phase 2; less when the budget is small.
        max_stored: most samples of phase 2, which bounds the memory.
        k: best targets that a stored sample sees.
        smoothing: temperature of phase 2, in units of the mean gap between the two best scores of a sample.
        hessian_smoothing: temperature of the Hessian of phase 3, in the same unit.
        growth: samples of a batch relative to those that came before.
        max_iter: steps at most, of phases 2 and 3 together.
    """

    samples_per_target: float | None = None
    stored: float = 4.0
    max_stored: int = 1 << 20
    k: int = 32
    smoothing: float = 0.5
    hessian_smoothing: float = 1.0
    growth: float = 0.1
    max_iter: int = 10_000

    name = "stochastic-newton"

    def default_tol(self, target: DiscreteMeasure) -> float:
        """Chi2 of one percent."""
        return 1e-2

    def __call__(self, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None) -> Outcome:
        """Run until chi2 <= tol, or until samples, time, steps or the caller's patience end."""
        if problem.source.dim == 1:
            raise ValueError("method='stochastic-newton' needs dimension 2 or more; on the line use 'auto' or 'adam'.")
        return _Run(self, problem, tol, clock, callback).run()


class _End(Exception):
    """Ends a run from wherever it is."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status: Status = status


class _Run:
    """State of one solve, in standardised coordinates."""

    def __init__(
        self, solver: StochasticNewton, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None
    ) -> None:
        self.solver, self.problem, self.tol, self.clock, self.callback = solver, problem, tol, clock, callback
        target = problem.target
        self.n, self.device = target.n, target.points.device
        self.change = Standardization.of(problem.source, target)
        self.y64 = self.change.target(target.points)
        self.y = self.y64.to(torch.float32)
        self.weights = target.weights.to(self.device)
        self.b = target.weights.double().cpu().numpy()
        self.start = Start(-0.5 * (self.y64**2).sum(dim=1).cpu().numpy())
        self.h = self.start.heights
        self.phase = "coarse"
        self.worth = 0.0  # t: independent samples that the heights are worth
        self.chi2, self.stderr, self.dead = math.inf, 0.0, True
        self.seen: list[tuple[float, float, float, NDArray[np.float64]]] = []
        self.n_iter = self.n_samples = self.streamed = 0
        self.lists: Candidates | None = None
        self.history: list[dict[str, Any]] = []
        wanted = 1.2 * (self.n - 1) / tol
        self.wanted = max(int(wanted), 2 * _LEAST_STORED)
        if solver.samples_per_target is not None:
            self.budget = max(int(solver.samples_per_target * self.n), 1)
            self.wanted = min(self.wanted, self.budget)
        else:
            self.budget = max(int(_PATIENCE * wanted), 100 * _LEAST_STORED)

    # ------------------------------------------------------------- run

    def run(self) -> Outcome:
        """All phases."""
        status: Status
        if self.n == 1:
            self.chi2, self.dead = 0.0, False
            return self.outcome("converged")
        try:
            status = self.solve()
        except _End as end:
            status = end.status
        except KeyboardInterrupt:
            status = "interrupted"
        return self.outcome(status)

    def solve(self) -> Status:
        share = min(self.solver.stored * self.n, self.wanted / 3)
        m = int(min(max(share, min(_LEAST_STORED, self.budget / 2)), self.solver.max_stored))
        x = self.draw(max(m, 2))
        try:
            coarse_start(x, self.y, self.y64, self.b, self.start, self.pause)
        finally:
            self.h = self.start.heights
        self.tell()
        hessian = self.stored_phase(x)
        return self.streaming_phase(hessian)

    def stored_phase(self, x: Tensor) -> Hessian:
        """Newton's method on the samples x, the first half of them first; returns the Hessian for the next phase."""
        self.phase = "stored"
        half = max(len(x) // 2, 1)
        lists = self.lists = Candidates(x[:half], self.y, self.solver.k, self.pause)
        self.minimise(lists, tol=0.1)
        lists = self.lists = lists.extended(x)
        self.minimise(lists, tol=0.02)
        return lists.hessian(self.h, max(self.solver.hessian_smoothing * lists.gap(self.h), 1e-6))

    def minimise(self, lists: Candidates, tol: float) -> None:
        """Newton steps until the soft chi2 on the stored samples is below ``tol`` and the lists proven complete."""
        lists.refresh(self.h, 0.0)
        trust = 0.5
        for _ in range(60):
            dead = lists.orphans()
            if len(dead):
                self.h = lists.revived(self.h, dead)
                lists.refresh(self.h, 0.0)
            eps = max(self.solver.smoothing * lists.gap(self.h), 1e-6)
            reach = trust * lists.spread(self.h) if lists.k < lists.n else math.inf
            before = lists.energy(self.h, self.b, eps)
            new, chi2, _ = newton_step(lists, self.h, self.b, eps, reach)
            renewed = lists.refresh(new, 3.0 * eps)
            if renewed > 0.0 and lists.energy(new, self.b, eps) > before:
                # The lists hid where the energy rises. It is convex: a part of the way is better.
                new = 0.75 * self.h + 0.25 * new
                renewed = max(lists.refresh(new, 3.0 * eps), renewed)
                trust = max(0.25 * trust, 0.01)
            else:
                trust = min(1.5 * trust, 0.5)
            self.h = new - self.b @ new
            self.n_iter += 1
            self.history.append(self.record(stored_chi2=chi2, renewed=renewed, eps=eps))
            self.tell()
            if chi2 < tol and renewed < 0.1 or chi2 < 0.1 * tol:
                return

    def streaming_phase(self, hessian: Hessian) -> Status:
        """Robbins-Monro with Newton's gain on fresh samples."""
        self.phase, self.streaming_since = "streaming", self.clock.seconds
        stored = self.n_samples
        damping = DAMPING * self.b / hessian.eps
        reach = 2.0 * hessian.eps
        while self.n_samples < self.budget:
            m = int(max(self.solver.growth * max(self.worth, stored), self.n / 2, _LEAST_BATCH))
            if self.n_samples < self.wanted:
                m = min(m, self.wanted - self.n_samples)
            m = max(min(m, self.budget - self.n_samples), 2)
            counts = self.counts(m)
            estimate, stderr = chi2_estimate(torch.from_numpy(counts), torch.from_numpy(self.b))
            if self.streamed == 0:
                known = (self.n - 1) / max(estimate, 1e-12)
                self.worth = float(min(max(known, 0.5 * stored), 2.0 * stored))
            self.seen.append((self.worth, estimate, stderr, counts))
            self.streamed += m
            self.worth += m
            step = hessian.solve(self.b - counts / m, damping)
            step -= np.median(step)
            self.h = self.h + np.clip(m / self.worth * step, -reach, reach)
            self.h -= self.b @ self.h
            self.n_iter += 1
            self.judge()
            self.history.append(self.record(batch_chi2=estimate, batch=m))
            self.tell()
            if max(self.chi2, 0.0) + self.stderr <= self.tol and not self.dead and self.n_samples >= self.wanted:
                return "converged"
        return "max_iter"

    def judge(self) -> None:
        """Chi2 now from the latest batches: each is unbiased for the heights it was counted at, and chi2 ~ 1 / t."""
        self.seen = [entry for entry in self.seen if entry[0] * _WINDOW >= self.worth] or self.seen[-1:]
        weight = np.array([1.0 / (t * max(stderr, 1e-12)) ** 2 for t, _, stderr, _ in self.seen])
        scaled = np.array([t * chi2 for t, chi2, _, _ in self.seen])
        self.chi2 = float(weight @ scaled / weight.sum() / self.worth)
        self.stderr = float(weight.sum() ** -0.5 / self.worth)
        counts = np.sum([entry[3] for entry in self.seen], axis=0)
        if (self.chi2 - 3.0 * self.stderr) * self.worth > _SLOW * (self.n - 1):
            # Some errors decay slower than 1 / t (cells in chains): larger steps until they are gone.
            self.worth = max((self.n - 1) / self.chi2, 0.25 * self.worth, 4.0 * _LEAST_BATCH, 4.0 * self.n)
            self.seen.clear()
        self.dead = bool(((counts == 0) & (counts.sum() * self.b > _EXPECTED)).any())

    # ------------------------------------------------------------- parts

    def draw(self, m: int) -> Tensor:
        """Fresh samples in standardised coordinates, float32, shape (m, d)."""
        self.n_samples += m
        source, out = self.problem.source, torch.empty(m, self.y.shape[1], device=self.device)
        for at in range(0, m, _CHUNK):
            size = min(_CHUNK, m - at)
            x = source.sample(size, generator=self.problem.generator, device=self.device, dtype=torch.float64)
            out[at : at + size] = self.change.source(x)
        return out

    def counts(self, m: int) -> Floats:
        """Cell counts of m fresh samples at the current heights, shape (n,)."""
        total = torch.zeros(self.n, dtype=torch.float64, device=self.device)
        h = torch.from_numpy(self.h).to(self.y)
        for at in range(0, m, _CHUNK):
            x = self.draw(min(_CHUNK, m - at))
            total += torch.bincount(kernels.assign(x, self.y, h).index, minlength=self.n)
            self.pause()
        return total.cpu().numpy()

    def pause(self) -> None:
        """Ends the run when its time is up."""
        if self.clock.expired():
            raise _End("max_time")

    @property
    def n_scores(self) -> int:
        """Scores computed so far."""
        return self.start.n_scores + (self.lists.n_scores if self.lists else 0) + self.streamed * self.n

    def record(self, **more: Any) -> dict[str, Any]:
        return {
            "n_iter": self.n_iter,
            "phase": self.phase,
            "chi2": self.chi2,
            "chi2_stderr": self.stderr,
            "n_samples": self.n_samples,
            "seconds": self.clock.seconds,
            **more,
        }

    def tell(self) -> None:
        """Report to the callback; end where it, the time or the number of steps asks for it."""
        if self.callback is not None:
            heights = self.change.heights(torch.from_numpy(self.h).to(self.device), self.problem.target.points)
            detail: dict[str, Any] = {"phase": self.phase, "samples": self.n_samples}
            if self.phase == "streaming":
                left = max(self.wanted - self.n_samples, 0) / max(self.streamed, 1)
                detail["seconds_left"] = left * (self.clock.seconds - self.streaming_since)
            error = self.chi2 + self.stderr
            state = self.problem.state(
                self.solver.name, self.n_iter, error, self.tol, self.clock, self.n_scores, heights, detail
            )
            if self.callback(state):
                raise _End("stopped")
        if self.n_iter >= self.solver.max_iter:
            raise _End("max_iter")
        self.pause()

    def outcome(self, status: Status) -> Outcome:
        heights = self.change.heights(torch.from_numpy(self.h).to(self.device), self.problem.target.points)
        known = f"chi2 is about {self.chi2:.3g}" if math.isfinite(self.chi2) else "chi2 is not known yet"
        message = {
            "converged": f"Chi2 {self.chi2:.3g} is within tol {self.tol:g}.",
            "max_time": f"max_time ended the run; {known}, tol {self.tol:g}: raise max_time or tol.",
            "max_iter": f"{self.n_iter} steps and {self.n_samples:,} samples were not enough; {known}, tol "
            f"{self.tol:g}: raise max_iter, samples_per_target or tol.",
            "stopped": f"A callback asked to stop; {known}.",
            "interrupted": f"Interrupted; the heights so far are returned, {known}.",
        }[status]
        if self.n == 1:
            message = "There is one target: every map sends everything to it."
        return Outcome(
            heights=fix_gauge(heights, self.weights),
            status=status,
            message=message,
            n_iter=self.n_iter,
            n_scores=self.n_scores,
            n_samples=self.n_samples,
            history=self.history,
        )
