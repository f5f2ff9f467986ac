"""The library's own solvers as a user calls them: ``og.solve``, watched by its callback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import otgan as og
from semidiscrete.problems import ENOUGH, Measured, Problem
from semidiscrete.runs import Recorder


def counted(source: og.Source) -> tuple[og.Source, list[int]]:
    """A fresh source that adds up how many samples were drawn from it."""
    config, tensors = source.state()
    fresh, total, draw = type(source).from_state(config, tensors), [0], source.sample

    def sample(m: int, **options: Any) -> torch.Tensor:
        total[0] += m
        return draw(m, **options)

    fresh.sample = sample  # type: ignore[method-assign]
    return fresh, total


@dataclass(frozen=True)
class Ours:
    """``og.solve(method=...)`` with settings from a grid (one entry: the defaults, nothing to tune)."""

    name: str
    method: str
    how: str
    settings: tuple[dict[str, Any], ...] = ({},)
    patience: float = 1.0  # lengthens the trials
    parts: bool = False  # whether each batch size gets trials and a full run of its own

    def missing(self) -> str | None:
        """It is here."""
        return None

    def grid(self, problem: Problem) -> list[dict[str, Any]]:
        """Settings to try; a batch is given in multiples of n."""
        return [dict(setting) for setting in self.settings]

    def run(self, problem: Problem, setting: dict[str, Any], recorder: Recorder) -> None:
        """One solve, to a tolerance a little below the last level."""
        source, drawn = counted(problem.source)
        options = {**setting}
        if "batch" in options:
            options["batch"] = max(int(options["batch"] * problem.n), 64)
        # Kernels are compiled once a machine, for the shapes' kinds and not for their sizes: not a part of the solve.
        og.solve(problem.source, problem.target.points[:300], method=self.method, max_time=1.0, certify_samples=1000)

        def watch(state: og.callbacks.State) -> bool:
            if not recorder.due or recorder.over:
                return recorder.over
            return recorder.checkpoint(self._scaled(problem, state.heights), drawn[0])

        recorder.start()
        result = og.solve(
            source,
            problem.target,
            method=self.method,
            tol=ENOUGH,
            seed=1,
            callback=watch,
            certify_samples=1000,
            **options,
        )
        if not recorder.over:
            seconds = result.seconds - recorder.paused
            recorder.checkpoint(self._scaled(problem, result.potential.heights), result.n_samples, seconds)

    def efficiency(self, problem: Problem) -> tuple[float, float]:
        """``chi2 N / (n - 1)`` of a run that may draw N = 50 n samples, and its standard error: 1 is the limit."""
        result = og.solve(
            problem.source,
            problem.target,
            method=self.method,
            tol=1e-9,
            seed=2,
            certify_samples=1000,
            samples_per_target=50,
        )
        least = int(2500 * (2 * problem.n) ** 0.5)  # a standard error of 2 %
        found: Measured = problem.measure(self._scaled(problem, result.potential.heights), least)
        unit = result.n_samples / (problem.n - 1)
        return found.chi2 * unit, found.stderr * unit

    @staticmethod
    def _scaled(problem: Problem, heights: torch.Tensor) -> torch.Tensor:
        return problem.change.scaled_heights(heights, problem.target.points)


NEWTON = Ours("otgan stochastic-newton", "stochastic-newton", "og.solve, its defaults")
ADAM = Ours(
    "otgan adam",
    "adam",
    "og.solve; lr and first batch (in multiples of n) from a grid",
    tuple({"lr": lr, "batch": batch} for lr, batch in ((0.01, 0.5), (0.03, 0.5), (0.1, 0.5), (0.03, 2.0))),
    patience=3.0,  # it tells of nothing better than its start before it judged itself once
)
