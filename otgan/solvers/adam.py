"""First-order stochastic solver: Adam on the heights, the classic algorithm of AE-OT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan import kernels
from otgan._checks import as_count, as_positive
from otgan.certificate import chi2_estimate
from otgan.potential import fix_gauge
from otgan.solvers.base import Outcome, Problem, Stopwatch
from otgan.standardization import Standardization

if TYPE_CHECKING:
    from otgan.callbacks import Callback
    from otgan.measures import DiscreteMeasure

_REVIVAL_SAMPLES = 8192
_EXPECTED = 12.0  # samples that a cell should get for its emptiness to mean something: chance e^-12


@dataclass(frozen=True)
class Adam:
    """Adam on the convex energy ``E(h) = E_mu u_h - <b, h>``, whose stochastic gradient is ``counts / M - b``.

    The algorithm of An et al., "AE-OT: a new generative model based on extended semi-discrete optimal transport"
    (ICLR 2020), with what it needs to work unattended: it runs in centred coordinates of unit size, so that its step
    means the same whatever the units of the data; it starts from Voronoi heights, dead cells revived by a c-transform;
    it averages the iterates (Polyak, Juditsky 1992) and judges the average on fresh samples; and when that no longer
    improves it doubles the samples and lowers the step.

    For a cost ``|x - y|^p / p`` with p != 2 the heights are the dual values psi of the scores
    ``psi_i - |x - y_i|^p / p``, and nothing else changes: the gradient is the same.

    ``tol`` bounds chi2 of the masses, estimate plus one standard error; no cell may be empty that should not be.

    Args:
        lr: first step, in units of the typical difference of two targets' scores.
        decay: factor on the step at each stall.
        betas: Adam's averaging of gradient and squared gradient.
        batch: first number of samples a step; by default about 2 n, within [1024, 65536].
        max_batch: where doubling stops.
        check_every: steps between two judgements.
        max_iter: steps at most.
    """

    lr: float = 0.03
    decay: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)
    batch: int | None = None
    max_batch: int = 1 << 18
    check_every: int = 50
    max_iter: int = 20_000

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        as_positive(self.lr, "lr")
        if not 0.0 < as_positive(self.decay, "decay") < 1.0:
            raise ValueError(f"decay must be between 0 and 1, got {self.decay}.")
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}.")
        if self.batch is not None:
            as_count(self.batch, "batch", 2)
        for setting in ("max_batch", "check_every", "max_iter"):
            as_count(getattr(self, setting), setting, 1)

    name = "adam"
    any_cost = True

    def default_tol(self, target: DiscreteMeasure) -> float:
        """Chi2 of one percent."""
        return 1e-2

    def __call__(self, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None) -> Outcome:
        """Run until chi2 <= tol, or until time, steps or the caller's patience end."""
        return _Run(self, problem, tol, clock, callback).loop()


class _Run:
    """State of one solve, in standardised coordinates."""

    def __init__(self, solver: Adam, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None) -> None:
        self.solver, self.problem, self.tol, self.clock, self.callback = solver, problem, tol, clock, callback
        target = problem.target
        self.n, device = target.n, target.points.device
        self.change = Standardization.of(problem.source, target, problem.p)
        self.y64 = self.change.target(target.points)
        self.y = self.y64.to(torch.float32)
        self.b = target.weights.to(device)
        self.batch = min(solver.batch or min(max(2 * self.n, 1024), 65536), solver.max_batch)
        self.step = solver.lr * self.change.score_scale
        self.h = fix_gauge(self.change.voronoi(self.y64), self.b)
        self.first, self.second = torch.zeros_like(self.h), torch.zeros_like(self.h)
        self.adam_steps = 0
        self.average, self.averaged = self.h.clone(), 0
        self.best, self.best_error, self.best_dead = self.h.clone(), math.inf, True
        self.n_iter = self.n_samples = 0
        self.history: list[dict[str, Any]] = []

    def draw(self, m: int) -> Tensor:
        """Fresh samples in standardised coordinates, float32, shape (m, d)."""
        self.n_samples += m
        x = self.problem.source.sample(m, generator=self.problem.generator, device=self.y.device, dtype=torch.float64)
        return self.change.source(x).to(torch.float32)

    def counts(self, heights: Tensor, m: int) -> Tensor:
        """Cell counts of m fresh samples, float64, shape (n,)."""
        total = torch.zeros(self.n, dtype=torch.float64, device=self.y.device)
        h = heights.to(torch.float32)
        while m > 0:
            size = min(m, 1 << 16)
            cell = kernels.assign(self.draw(size), self.y, h, p=self.problem.p).index
            total += torch.bincount(cell, minlength=self.n)
            m -= size
        return total

    def revive(self) -> None:
        """Raise every height until its cell touches a sample: ``h_i += min_x u_h(x) - <x, y_i> - h_i``."""
        x = self.draw(_REVIVAL_SAMPLES)
        gaps = kernels.slack(x, self.y, self.h.to(torch.float32), p=self.problem.p)
        self.h += gaps.double().clamp_min(0.0)
        self.h = fix_gauge(self.h, self.b)

    def descend(self) -> float:
        """One Adam step on a fresh batch; returns the batch's own chi2."""
        counts = self.counts(self.h, self.batch)
        gradient = counts / self.batch - self.b
        beta1, beta2 = self.solver.betas
        self.adam_steps += 1
        self.first.lerp_(gradient, 1 - beta1)
        self.second.lerp_(gradient**2, 1 - beta2)
        mean = self.first / (1 - beta1**self.adam_steps)
        size = (self.second / (1 - beta2**self.adam_steps)).sqrt()
        # A cell whose gradient is as small as its own sampling noise must not jump: the noise is the floor.
        floor = (self.b / self.batch).sqrt() * 0.1
        self.h = fix_gauge(self.h - self.step * mean / (size + floor), self.b)
        self.averaged += 1
        self.average.lerp_(self.h, min(1.0, 4.0 / (self.averaged + 3.0)))  # later iterates weigh more
        return chi2_estimate(counts, self.b)[0]

    def judge(self) -> tuple[float, float, bool]:
        """Chi2 of the average on fresh samples and its standard error, for no more samples than the steps took."""
        wanted = 6.0 * math.sqrt(2 * self.n) / self.tol
        m = int(max(min(wanted, self.batch * self.solver.check_every), 4096))
        counts = self.counts(self.average, m)
        dead = bool(((counts == 0) & (m * self.b > _EXPECTED)).any())
        return *chi2_estimate(counts, self.b), dead

    def loop(self) -> Outcome:
        """Descend, judge, and lower the step when stalled."""
        if self.n == 1:
            self.best_error = 0.0
            return self.outcome("converged", "there is one target: every map sends everything to it.")
        previous, stalls = math.inf, 0
        try:
            self.revive()
            while self.n_iter < self.solver.max_iter:
                noisy = self.descend()
                self.n_iter += 1
                if self.n_iter % self.solver.check_every == 0:
                    chi2, stderr, dead = self.judge()
                    if chi2 + stderr <= self.tol:  # one of many looks: only a second one on its own samples decides
                        chi2, stderr, dead = self.judge()
                    error = chi2 + stderr
                    if error < self.best_error and (not dead or self.best_dead):
                        self.best, self.best_error, self.best_dead = self.average.clone(), error, dead
                    self.history.append(self.record(chi2, stderr, noisy))
                    if self.best_error <= self.tol and not self.best_dead:
                        return self.outcome("converged", f"chi2 {chi2:.3g} is within tol {self.tol:g}.")
                    stalls = stalls + 1 if error > 0.9 * previous else 0
                    previous = min(previous, error)
                    if stalls:
                        self.refine()
                    if dead:
                        self.h = self.average.clone()
                        self.averaged = 0
                        self.revive()
                if self.report():
                    return self.outcome("stopped", "a callback asked to stop; the best heights so far are returned.")
                if self.clock.expired():
                    advice = f"chi2 is {self.best_error:.3g}, tol {self.tol:g}: raise max_time or tol."
                    return self.outcome("max_time", f"max_time ended the run; {advice}")
        except KeyboardInterrupt:
            return self.outcome("interrupted", "interrupted; the best heights so far are returned.")
        advice = f"chi2 is {self.best_error:.3g}, tol {self.tol:g}: raise max_iter or tol."
        return self.outcome("max_iter", f"{self.n_iter} steps were not enough; {advice}")

    def refine(self) -> None:
        """Go on from the average with a smaller step and more samples, the average with half of its memory."""
        self.h = self.average.clone()
        self.averaged //= 2
        self.step *= self.solver.decay
        self.batch = min(2 * self.batch, self.solver.max_batch)

    def record(self, chi2: float, stderr: float, noisy: float) -> dict[str, Any]:
        return {
            "n_iter": self.n_iter,
            "chi2": chi2,
            "chi2_stderr": stderr,
            "batch_chi2": noisy,
            "batch": self.batch,
            "step": self.step,
            "n_samples": self.n_samples,
            "seconds": self.clock.seconds,
        }

    def report(self) -> bool:
        if self.callback is None:
            return False
        scores = self.n_samples * self.n
        detail = {"samples": self.batch, "step": self.step}
        heights = self.change.heights(self.best, self.problem.target.points)
        return bool(
            self.callback(
                self.problem.state(
                    self.solver.name, self.n_iter, self.best_error, self.tol, self.clock, scores, heights, detail
                )
            )
        )

    def outcome(self, status: Any, message: str) -> Outcome:
        best = self.best if math.isfinite(self.best_error) else self.average
        return Outcome(
            heights=fix_gauge(self.change.heights(best, self.problem.target.points), self.b),
            status=status,
            message=message[0].upper() + message[1:],
            n_iter=self.n_iter,
            n_scores=self.n_samples * self.n,
            n_samples=self.n_samples,
            history=self.history,
        )
