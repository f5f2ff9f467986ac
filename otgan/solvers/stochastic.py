"""Second-order stochastic solver: sparse Newton on stored samples, then Newton-preconditioned streaming."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from otgan._checks import as_count, as_positive
from otgan.solvers._stochastic_run import Run

if TYPE_CHECKING:
    from otgan.callbacks import Callback
    from otgan.measures import DiscreteMeasure
    from otgan.solvers.base import Outcome, Problem, Stopwatch


@dataclass(frozen=True)
class StochasticNewton:
    r"""Newton's method on samples of the source, at the statistical limit.

    No method that saw N samples can expect a chi2 of the masses much below ``(n - 1) / N``: this one stays within about
    ten percent of it. It minimises the convex energy ``E(h) = E_mu u_h - <b, h>`` in three phases:

    1. *Coarse to fine*: groups of targets get their mass before targets do, by dense Newton on group offsets.
    2. *Stored samples*: Newton's method on the entropic semi-dual (Genevay, Cuturi, Peyre, Bach, NeurIPS 2016) of a few
       samples a target, each of which sees its best targets only. Lists are looked up again where drift of the heights
       leaves their completeness unproven; targets in no list are revived by a c-transform. Where mass has to travel
       far from cell to cell (targets on a curve or in a plane), all samples that fit are stored.
    3. *Streaming*: hard counts c of M fresh samples are an unbiased gradient, and with a Hessian H that stays fixed::

           h <- h - (M / t) H^{-1} (c / M - b),      t <- t + M

       is the stochastic approximation of Robbins and Monro with Newton's gain: the last h averages all samples, and
       its covariance is the smallest possible (Sacks, Ann. Math. Statist. 29, 1958). t starts at the number of samples
       that the heights of phase 2 are worth, ``(n - 1) / chi2``.

    Targets on a line, in whatever dimension, need none of this: the quantiles of the samples are the answer.

    ``tol`` bounds chi2 of the masses, estimate plus one standard error; no cell may be empty that should not be. Every
    batch is counted before it is learned from, so the estimate is unbiased and costs nothing.

    Args:
        samples_per_target: budget N / n of source samples, all phases together; by default what ``tol`` needs.
        stored: samples a target of phase 2; less when the budget is small, more where mass travels far.
        max_stored: most samples of phase 2, which bounds the memory.
        k: best targets that a stored sample sees.
        smoothing: temperature of phase 2, in units of the mean gap between the two best scores of a sample.
        hessian_smoothing: temperature of the Hessian of phase 3, in the same unit.
        growth: samples of a batch relative to those that came before.
        max_iter: steps at most, of phases 2 and 3 together.
        device: where samples are drawn and scored, such as "cuda"; that of the targets when left out. Targets that
            lie elsewhere (host memory, a memory-mapped file) stay there and are streamed.
    """

    samples_per_target: float | None = None
    stored: float = 4.0
    max_stored: int = 3 << 18
    k: int = 24
    smoothing: float = 0.5
    hessian_smoothing: float = 1.0
    growth: float = 0.15
    max_iter: int = 10_000
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        for setting in ("stored", "smoothing", "hessian_smoothing", "growth"):
            as_positive(getattr(self, setting), setting)
        if self.samples_per_target is not None:
            as_positive(self.samples_per_target, "samples_per_target")
        for setting, least in (("max_stored", 2), ("k", 2), ("max_iter", 1)):
            as_count(getattr(self, setting), setting, least)

    name = "stochastic-newton"
    any_cost = True

    def default_tol(self, target: DiscreteMeasure) -> float:
        """Chi2 of one percent."""
        return 1e-2

    def course(self) -> tuple[Any, ...]:
        """The settings that decide the course of a run: all but where it ends."""
        return tuple((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "max_iter")

    def __call__(self, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None) -> Outcome:
        """Run until chi2 <= tol, or until samples, time, steps or the caller's patience end."""
        if problem.source.dim == 1 and problem.p != 2.0:
            raise ValueError("method='stochastic-newton' needs p = 2 on the line; use 'auto' or 'adam' there.")
        return Run(self, problem, tol, clock, callback).run()
