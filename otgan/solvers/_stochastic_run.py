"""One run of :class:`otgan.solvers.stochastic.StochasticNewton`: its phases, its state, its checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from otgan._threads import one_thread
from otgan.certificate import chi2_estimate
from otgan.measures import DiscreteMeasure
from otgan.potential import fix_gauge
from otgan.solvers._candidates import EXPECTED, Candidates
from otgan.solvers._coarse import Start, coarse_start
from otgan.solvers._collinear import Line
from otgan.solvers._nested import RATIO, handed_on, part
from otgan.solvers._sampling import Stream
from otgan.solvers._semidual import DAMPING, Descent, Hessian, bounded
from otgan.solvers._stochastic_saving import restore, save
from otgan.solvers.base import Outcome, Problem, Stopwatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.callbacks import Callback
    from otgan.solvers.result import Status
    from otgan.solvers.stochastic import StochasticNewton

    Floats = NDArray[np.float64]

_STARVED = 0.25  # share of its weight below which a cell of the stored samples is filled up
_LEAST_STORED, _LEAST_BATCH = 4096, 1024
_PATIENCE = 20.0  # times (n - 1) / tol samples, after which a run that does not get there ends
_SLOW = 1.5  # times the statistical limit, above which heights are worth less than the samples they saw
_WINDOW = 1.5  # chi2 is estimated from the batches since the samples were fewer by this factor
_ROUGH = 0.2  # roughness of the Hessian from which on samples are better stored than streamed; for so few samples:
_FEW, _ROUGH_FEW = 1 << 15, 0.165
_FLIPPED = 6.0  # product of two errors in a row, in standard deviations, that shows a cell swing to and fro
_STIFF = 4.0  # times the smoothed Hessian, above which the stiffness of a cell is not noise
_WATCHED, _MISSED = 1.5, 3.0  # samples that a cell should have got by now: watched, and lifted, if it got none
_FAINT = 1e-3  # probabilities that the Hessian of the streaming phase leaves out
_SETTLED, _FINAL = 0.2, 0.05  # soft chi2 on the stored samples, over the limit n / m, that ends a set; the last one
_STORED_BYTES = 1 << 30  # of the coordinates of stored samples
_MAX_STEPS = 25  # Newton steps on one set of stored samples
_ENOUGH = 0.5  # targets a stored sample up to which the Hessian is trusted as it is
_NESTED = 30_000  # targets from which on an eighth of them is solved first, with this many samples each:
_NESTED_SAMPLES = 16.0
_SMALL = 4096  # targets up to which one thread does
_WARM = 4.0  # temperature, over that wanted, up to which heights count


class _End(Exception):
    """Ends a run from wherever it is."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status: Status = status


class Run:
    """State of one solve, in standardised coordinates."""

    def __init__(
        self, solver: StochasticNewton, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None
    ) -> None:
        self.solver, self.problem, self.tol, self.clock, self.callback = solver, problem, tol, clock, callback
        self.n = n = problem.target.n
        self.stream = Stream(problem, solver.device, self.pause)
        self.b = problem.target.weights.double().cpu().numpy()
        self.start = Start(self.stream.first_heights())
        self.h = self.start.heights
        self.phase = "coarse"
        self.worth = 0.0  # t: independent samples that the heights are worth
        self.chi2, self.stderr, self.dead = math.inf, 0.0, True
        self.error, self.calm = np.zeros(n), np.ones(n)  # of the latest batch in standard deviations; lost gain
        self.stiff = np.zeros(n)
        # Whether a sample of the streaming phase fell into the cell, and else the height that touches one of them.
        self.met, self.touch = np.zeros(n, bool), np.full(n, np.inf)
        self.seen: list[tuple[float, float, float, Floats]] = []  # batches: t, chi2, its error, counts
        self.n_iter = self.streamed = 0
        self.descent: Descent | None = None
        self.best, self.kept, self.settled, self.tried = math.inf, self.h, False, 0  # on the present stored samples
        self.hessian: Hessian | None = None
        self.history: list[dict[str, Any]] = []
        wanted = 1.2 * (n - 1) / tol
        self.wanted = max(int(wanted), 2 * _LEAST_STORED)
        if solver.samples_per_target is not None:
            self.budget = max(int(solver.samples_per_target * n), 1)
            self.wanted = min(self.wanted, self.budget)
        else:
            self.budget = max(int(_PATIENCE * wanted), 100 * _LEAST_STORED)
        self.room = max(min(solver.max_stored, _STORED_BYTES // (4 * problem.target.dim)), 2)
        share = min(solver.stored * n, self.wanted / 3)
        m = max(int(min(max(share, min(_LEAST_STORED, self.budget / 2)), self.room)), 2)
        self.sizes, self.stage = [max(m // 2, 1), m], 0

    # ------------------------------------------------------------- run

    def run(self) -> Outcome:
        """All phases."""
        if self.n == 1:
            self.chi2, self.dead = 0.0, False
            return self.outcome("converged")
        status: Status
        try:
            with one_thread(self.n <= _SMALL):
                restore(self)
                status = "max_iter" if self.n_iter >= self.solver.max_iter and not self.done() else self.solve()
        except _End as end:
            status = end.status
        except KeyboardInterrupt:
            status = "interrupted"
        return self.outcome(status)

    def done(self) -> bool:
        """Whether a run that is continued was at its end, so that it needs no further step to say so."""
        return max(self.chi2, 0.0) + self.stderr <= self.tol and not self.dead and self.stream.drawn >= self.wanted

    def solve(self) -> Status:
        """From wherever the run stands."""
        line = self.stream.line() if self.phase == "coarse" else None
        if line is not None:
            return self.on_a_line(line)
        if self.phase == "coarse":
            x = self.stream.draw(self.sizes[-1])
            if self.n >= _NESTED:
                self.h = self.nested_start()
            else:
                try:
                    with one_thread():
                        coarse_start(x, self.stream.scores, self.b, self.start, self.pause)
                finally:
                    self.h = self.start.heights
            self.tell()
            self.stream.settle_precision(self.h)
            self.phase = "stored"
        if self.phase == "stored":
            self.stored_phase()
            self.phase = "streaming"
            save(self)
        return self.streaming_phase()

    def on_a_line(self, line: Line) -> Status:
        """Quantiles of all samples: each batch is counted at those of the samples before it, then joins them."""
        self.phase = "streaming"
        self.streaming_since = self.clock.seconds
        known = np.sort(self.stream.along(line, max(int(0.9 * self.wanted), 2)))
        cuts = line.cuts(known, self.b)
        while self.stream.drawn < self.budget:
            self.h = line.heights(cuts)
            m = min(max(len(known) // 10, _LEAST_BATCH), self.budget - self.stream.drawn)
            fresh = self.stream.along(line, max(m, 2))
            counts = torch.from_numpy(line.counts(fresh, cuts))
            self.chi2, self.stderr = chi2_estimate(counts, torch.from_numpy(self.b))
            self.streamed += len(fresh)
            self.n_iter += 1
            known = np.sort(np.concatenate([known, fresh]))
            cuts = line.cuts(known, self.b)
            self.history.append(self.record(batch_chi2=self.chi2, batch=len(fresh)))
            self.tell()
            if max(self.chi2, 0.0) + self.stderr <= self.tol and self.stream.drawn >= self.wanted:
                break
        self.h, self.dead = line.heights(cuts), False
        return "converged" if max(self.chi2, 0.0) + self.stderr <= self.tol else "max_iter"

    def nested_start(self) -> Floats:
        """Heights handed on by a solve of an eighth of the targets."""
        stream = self.stream
        anchors, label = part(stream.scores.y, self.n // RATIO)
        stream.scores.count += self.n * len(anchors)
        points = self.problem.target.points[torch.from_numpy(anchors).to(stream.targets_device)]
        some = DiscreteMeasure(points, np.bincount(label, self.b, minlength=len(anchors)))
        problem = replace(self.problem, target=some, checkpoint=None, observer=None)
        solver = replace(self.solver, samples_per_target=_NESTED_SAMPLES, max_iter=10_000)
        inner = Run(solver, problem, 1e-12, self.clock, None)
        outcome = inner.run()
        stream.drawn += outcome.n_samples
        stream.scores.count += outcome.n_scores
        if outcome.status == "interrupted":
            raise KeyboardInterrupt
        h = stream.change.scaled_heights(outcome.heights, points).cpu().numpy()
        self.pause()
        return handed_on(stream.stored[self.sizes[0] :], stream.scores, anchors, h)

    def stored_phase(self) -> None:
        """Newton's method on stored samples, the first half of them first; leaves the Hessian for the next phase."""
        while True:
            size = self.sizes[self.stage]
            if self.descent is None:
                lists = Candidates(self.stream.stored[:size], self.stream.scores, self.solver.k, self.pause)
                self.descent = Descent(lists, self.h, self.b, self.solver.smoothing)
            elif self.descent.lists.m < size:
                self.descent.place(self.h, self.descent.lists.extended(self.stream.stored[:size]))
            share = _SETTLED if self.stage < 2 else _FINAL  # after the third set few samples are left to mend anything
            self.minimise(self.descent, share * min(self.n / size, 1.0))
            lists = self.descent.lists
            self.h = lists.filled(self.h, self.b, _STARVED)
            self.descent.place(self.h)
            self.stage += 1
            if self.stage < len(self.sizes):
                continue
            hessian = Hessian.of(
                lists, self.h, self.solver.hessian_smoothing * lists.gap(self.h), min(_FAINT, 0.5 / lists.k)
            )
            most = min(int(0.9 * self.wanted), self.room)
            rough = _ROUGH if most > _FEW else _ROUGH_FEW
            if len(self.sizes) > 2 or most < 1.5 * size or self.roughness(hessian) < rough:
                self.hessian, self.stiff = hessian, lists.stiffness(self.h)
                return
            self.stream.draw(most - size)
            self.sizes.append(most)

    def roughness(self, hessian: Hessian) -> float:
        """As the Hessian says, which is recorded too."""
        value = hessian.roughness(self.b, np.random.default_rng(0))
        self.history.append(self.record(roughness=value))
        return value

    def minimise(self, descent: Descent, tol: float) -> None:
        """Newton steps until the soft chi2 on the stored samples is below ``tol`` and the lists proven complete."""
        while not self.settled and self.tried < _MAX_STEPS:
            before, heat = descent.h, descent.heat
            step = descent.step()
            if heat <= _WARM and step.chi2 < self.best:
                self.best, self.kept = step.chi2, before
            self.settled = heat <= _WARM and (step.chi2 < tol and step.renewed < 0.1 or step.chi2 < 0.1 * tol)
            self.h = descent.h
            self.tried += 1
            self.n_iter += 1
            self.history.append(self.record(stored_chi2=step.chi2, renewed=step.renewed, eps=step.eps))
            self.tell()
        if not self.settled and self.best < math.inf:
            self.h = self.kept
            descent.place(self.h)
        self.best, self.settled, self.tried = math.inf, False, 0

    def streaming_phase(self) -> Status:
        """Robbins-Monro with Newton's gain on fresh samples.

        Among near copies a cell is stiffer than the smoothed Hessian says, and swings between empty and twice its
        weight: while its error changes its sign, its gain is halved (Kesten, Ann. Math. Statist. 29, 1958).
        """
        hessian = self.hessian
        assert hessian is not None
        self.streaming_since = self.clock.seconds
        stored = self.sizes[-1]
        # From few samples a target the Hessian is mostly noise: it is mixed with its mean diagonal.
        few = max(self.n / stored - _ENOUGH, 0.0)
        typical = float(hessian.diagonal.sum()) * self.b
        damping = DAMPING * self.b / hessian.eps + few * typical
        # A cell that the stored samples hardly met would otherwise swing between empty and too large.
        damping += hessian.unseen(self.b, 0.5)
        damping += np.maximum(self.stiff - _STIFF * hessian.diagonal, 0.0)
        reach = 2.0 * hessian.eps
        while self.stream.drawn < self.budget:
            drawn = self.stream.drawn
            m = int(max(self.solver.growth * max(self.worth, stored), self.n / 2, _LEAST_BATCH))
            if drawn < self.wanted < drawn + 1.5 * m:  # no small batch is left over
                m = self.wanted - drawn
            m = max(min(m, self.budget - drawn), 2)
            unmet = np.flatnonzero(~self.met & (self.streamed * self.b > _WATCHED))
            counts, touch = self.stream.counts(m, self.h, unmet)
            self.touch[unmet] = np.minimum(self.touch[unmet], touch)
            self.met |= counts > 0
            estimate, stderr = chi2_estimate(torch.from_numpy(counts), torch.from_numpy(self.b))
            stderr = max(stderr, math.sqrt(2.0 * (self.n - 1)) / m)  # that at chi2 = 0, where few samples show none
            if self.streamed == 0:
                known = (self.n - 1) / max(estimate, 1e-12)
                self.worth = float(min(max(known, 0.5 * stored), 2.0 * stored))
            self.seen.append((self.worth, estimate, stderr, counts))
            self.streamed += m
            self.worth += m
            error = (self.b - counts / m) * np.sqrt(m / self.b)
            self.calm[error * self.error < -_FLIPPED] *= 2.0
            self.error = error
            stiff = damping + (self.calm - 1.0) * (hessian.diagonal + damping)
            step = (1.0 + few) * hessian.solve(self.b - counts / m, stiff)
            self.h = self.h + m / self.worth * bounded(step, reach)
            lost = ~self.met & (self.streamed * self.b > _MISSED) & np.isfinite(self.touch)
            self.h[lost] = np.maximum(self.h[lost], self.touch[lost])
            middle = self.b @ self.h
            self.h -= middle
            self.touch -= middle
            self.n_iter += 1
            self.judge()
            self.history.append(self.record(batch_chi2=estimate, batch=m))
            self.tell()
            if max(self.chi2, 0.0) + self.stderr <= self.tol and not self.dead and self.stream.drawn >= self.wanted:
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
        empty = (counts == 0) & (counts.sum() * self.b > EXPECTED)
        self.dead = bool(empty.any())
        if self.dead:
            self.h = self.stream.revived(self.h, np.flatnonzero(empty))

    # ------------------------------------------------------------- parts

    def pause(self) -> None:
        """Ends the run when its time is up."""
        if self.clock.expired():
            raise _End("max_time")

    def record(self, **more: Any) -> dict[str, Any]:
        """One entry of the history."""
        return {
            "n_iter": self.n_iter,
            "phase": self.phase,
            "chi2": self.chi2,
            "chi2_stderr": self.stderr,
            "n_samples": self.stream.drawn,
            "seconds": self.clock.seconds,
            **more,
        }

    def tell(self) -> None:
        """Report to the callback, save when due; end where caller, time or the number of steps asks for it."""
        if self.problem.checkpoint is not None and self.problem.checkpoint.due():
            save(self)
        if self.callback is not None:
            detail: dict[str, Any] = {"phase": self.phase, "samples": self.stream.drawn}
            if self.phase == "streaming":
                left = max(self.wanted - self.stream.drawn, 0) / max(self.streamed, 1)
                detail["seconds_left"] = left * (self.clock.seconds - self.streaming_since)
            error, heights = self.chi2 + self.stderr, self.stream.heights(self.h)
            state = self.problem.state(
                self.solver.name, self.n_iter, error, self.tol, self.clock, self.stream.scores.count, heights, detail
            )
            if self.callback(state):
                self.end("stopped")
        if self.n_iter >= self.solver.max_iter:
            self.end("max_iter")
        if self.clock.expired():
            self.end("max_time")

    def end(self, status: Status) -> NoReturn:
        """Save, and end the run here."""
        save(self)
        raise _End(status)

    def outcome(self, status: Status) -> Outcome:
        """What the caller gets."""
        known = f"chi2 is about {self.chi2:.3g}" if math.isfinite(self.chi2) else "chi2 is not known yet"
        message = {
            "converged": f"Chi2 {self.chi2:.3g} is within tol {self.tol:g}.",
            "max_time": f"max_time ended the run; {known}, tol {self.tol:g}: raise max_time or tol.",
            "max_iter": f"{self.n_iter} steps and {self.stream.drawn:,} samples were not enough; {known}, tol "
            f"{self.tol:g}: raise max_iter, samples_per_target or tol.",
            "stopped": f"A callback asked to stop; {known}.",
            "interrupted": f"Interrupted; the heights so far are returned, {known}.",
        }[status]
        if self.n == 1:
            message = "There is one target: every map sends everything to it."
        return Outcome(
            heights=fix_gauge(self.stream.heights(self.h), self.problem.target.weights.to(self.stream.targets_device)),
            status=status,
            message=message,
            n_iter=self.n_iter,
            n_scores=self.stream.scores.count,
            n_samples=self.stream.drawn,
            history=self.history,
        )
