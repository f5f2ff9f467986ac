"""One measured run: a stopwatch that stands still while chi2 is measured, and the curve that it records."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from semidiscrete.problems import ENOUGH, LEVELS, Problem


class Point(NamedTuple):
    """A checkpoint: seconds and samples up to it, chi2 of what the user would have got, standard error, empty cells."""

    seconds: float
    samples: int
    chi2: float
    stderr: float
    empty: int


class Reached(NamedTuple):
    """Seconds and samples to a level."""

    seconds: float
    samples: float


class Stop(Exception):
    """Leaves a solver that cannot be asked to stop."""


@dataclass
class Recorder:
    """Measures heights at times that grow by a constant factor, and says when the run is over.

    Args:
        problem: what is solved.
        cap: seconds of the run, measuring not counted.
        checkpoints: how many the run is to have, from ``cap / span`` to ``cap``.
        span: see above.
        thorough: look for empty cells, which takes many samples, at the end.
    """

    problem: Problem
    cap: float
    checkpoints: int = 20
    span: float = 200.0
    thorough: bool = True
    curve: list[Point] = field(default_factory=list)
    over: bool = False

    def __post_init__(self) -> None:
        """Plan the first checkpoint."""
        self._factor = self.span ** (1.0 / max(self.checkpoints - 1, 1))
        self._next = self.cap / self.span
        self._paused = 0.0
        self._start = time.perf_counter()

    def start(self) -> None:
        """Set the stopwatch to zero: what came before was warming up."""
        self._start, self._paused = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Seconds of the method's own work."""
        return time.perf_counter() - self._start - self._paused

    @property
    def paused(self) -> float:
        """Seconds spent on measuring."""
        return self._paused

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.seconds >= min(self._next, self.cap)

    def checkpoint(self, heights: torch.Tensor, samples: int, seconds: float | None = None) -> bool:
        """Measure heights h' (n,), standardised, after ``samples`` draws; True when the run is over."""
        now = time.perf_counter()
        seconds = now - self._start - self._paused if seconds is None else seconds
        last = seconds >= self.cap
        if torch.isfinite(heights).all():
            many = 12 * self.problem.n if self.thorough else 0  # few samples miss cells that are not empty
            found = self.problem.measure(heights, least=many if last else 0)
            if not last and found.chi2 <= ENOUGH:
                last = True
                if found.samples < many:
                    found = self.problem.measure(heights, least=many)
            self.curve.append(Point(seconds, samples, found.chi2, found.stderr, found.empty))
        else:
            self.curve.append(Point(seconds, samples, math.inf, 0.0, self.problem.n))
            last = True
        while self._next <= seconds:
            self._next *= self._factor
        self._paused += time.perf_counter() - now
        self.over = self.over or last
        return self.over


def level_times(curve: list[Point], levels: tuple[float, ...] = LEVELS) -> list[Reached | None]:
    """Seconds and samples at which chi2 first falls to each level, or None.

    Between the checkpoint that is at or below the level and the one before it, log chi2 is linear in log seconds (and
    in log samples). A first checkpoint that is below already gives its own time, an upper bound.
    """
    found: list[Reached | None] = []
    for level in levels:
        at = next((i for i, point in enumerate(curve) if point.chi2 <= level), None)
        if at is None:
            found.append(None)
            continue
        after, before = curve[at], curve[at - 1] if at else None
        if before is None or not math.isfinite(before.chi2) or min(before.seconds, before.samples) <= 0:
            found.append(Reached(after.seconds, float(after.samples)))
            continue
        low = math.log(max(after.chi2, 0.1 * level))  # an estimate without bias may fall below 0
        share = (math.log(before.chi2) - math.log(level)) / (math.log(before.chi2) - low)
        seconds = before.seconds * (after.seconds / before.seconds) ** share
        found.append(Reached(seconds, before.samples * (after.samples / before.samples) ** share))
    return found


def rank(curve: list[Point]) -> tuple[float, float]:
    """Orders runs: the lowest chi2 at the end wins, and among those that reached the last level the fastest."""
    return (max(curve[-1].chi2, ENOUGH), curve[-1].seconds) if curve else (math.inf, math.inf)


def as_record(
    problem: Problem, method: str, setting: dict[str, Any], trial: bool, recorder: Recorder, note: str
) -> dict[str, Any]:
    """A run as it stands in the JSON file."""
    return {
        "problem": problem.name,
        "n": problem.n,
        "dim": problem.dim,
        "source": "Gaussian" if problem.gaussian else "cube",
        "method": method,
        "setting": setting,
        "note": note,
        "trial": trial,
        "cap": recorder.cap,
        "curve": [list(point) for point in recorder.curve],
    }
