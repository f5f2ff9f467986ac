"""POT's ``ot.semidiscrete.solve_semidiscrete``: averaged SGD, plain and with decreasing regularisation (DRAG).

It has no callback, but calls the sampler at every iteration: there its running average is read, which is what it would
return if ``max_iter`` had been the iterations so far. Nothing is run twice, and the iterations are those of one call.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from semidiscrete.problems import Problem
from semidiscrete.runs import Recorder, Stop

Sampler = Callable[[int], Any]


@dataclass(frozen=True)
class Pot:
    """Standardised targets; lr0 is given in multiples of n sqrt(d), the first regularisation eps0 in sqrt(d).

    The mean cost is of the order of d, its differences between targets of sqrt(d), and a gradient of 1 / n: a setting
    then means about the same in every problem.
    """

    name: str
    drag: bool
    how: str
    settings: tuple[dict[str, Any], ...]
    patience: float = 1.0
    parts: bool = False

    def missing(self) -> str | None:
        """Why it cannot run."""
        try:
            from ot.semidiscrete import solve_semidiscrete  # noqa: F401
        except ImportError as error:
            return f"{error}; ot.semidiscrete came with POT 0.9.7"
        return None

    def grid(self, problem: Problem) -> list[dict[str, Any]]:
        """Settings to try."""
        return [dict(setting) for setting in self.settings]

    def run(self, problem: Problem, setting: dict[str, Any], recorder: Recorder) -> None:
        """One call, left at the end of its time."""
        batch = int(setting["batch"])
        y = as_backend(problem, fastest(problem, batch, self.drag))
        draw = sampler(problem, y)
        norms = 0.5 * (problem.points**2).sum(dim=1)

        def watched(size: int) -> Any:
            if recorder.due:
                solver = sys._getframe(1).f_locals
                done, dual = solver["t"] - 1, torch.as_tensor(solver["g_avg"]).double()
                if done and recorder.checkpoint(0.5 * dual - norms, done * size):
                    raise Stop
            return draw(size)

        recorder.start()
        try:
            call(y, watched, setting, problem.n, self.drag, 1 << 40)
        except Stop:
            pass


def call(y: Any, draw: Sampler, setting: dict[str, Any], n: int, drag: bool, steps: int) -> Any:
    """The solver itself; returns the dual g (n,) for the cost |x - y|^2."""
    from ot.semidiscrete import solve_semidiscrete

    unit = float(y.shape[1]) ** 0.5
    return solve_semidiscrete(
        y,
        draw,
        max_iter=steps,
        batch_size=int(setting["batch"]),
        lr0=setting["lr0"] * n * unit,
        decreasing_reg=drag,
        decreasing_reg_initial_eps=setting.get("eps0", 0.1) * unit,
    )


def as_backend(problem: Problem, name: str) -> Any:
    """Standardised targets as the array of a backend."""
    return problem.points.numpy() if name == "numpy" else problem.points.to(torch.float32)


def sampler(problem: Problem, y: Any) -> Sampler:
    """Draws standardised samples in the backend of y."""
    d, side, gaussian = problem.dim, 12.0**0.5, problem.gaussian
    if isinstance(y, torch.Tensor):
        stream = torch.Generator().manual_seed(1)
        if gaussian:
            return lambda m: torch.randn(m, d, generator=stream)
        return lambda m: side * (torch.rand(m, d, generator=stream) - 0.5)
    rng = np.random.default_rng(1)
    return (lambda m: rng.standard_normal((m, d))) if gaussian else (lambda m: side * (rng.random((m, d)) - 0.5))


@cache
def fastest(problem: Problem, batch: int, drag: bool) -> str:
    """The faster of NumPy in float64 and torch in float32, timed on a few steps to some of the targets."""
    setting = {"batch": batch, "lr0": 1.0}
    took = {}
    for name in ("numpy", "torch"):
        y = as_backend(problem, name)[:4000]
        draw = sampler(problem, y)
        call(y, draw, setting, problem.n, drag, 1)
        start = time.perf_counter()
        call(y, draw, setting, problem.n, drag, 3)
        took[name] = time.perf_counter() - start
    return min(took, key=lambda name: took[name])


_HOW = "standardised targets, the faster of NumPy float64 and torch float32"
SGD = Pot(
    "POT SGD",
    False,
    f"solve_semidiscrete(decreasing_reg=False), averaged; lr0 (in n sqrt(d)) and batch from a grid; {_HOW}",
    tuple({"lr0": step, "batch": batch} for batch in (256, 1024) for step in (0.03, 0.1, 0.3, 1.0)),
)
DRAG = Pot(
    "POT DRAG",
    True,
    f"solve_semidiscrete(decreasing_reg=True), averaged; lr0, eps0 (in sqrt(d)) and batch from a grid; {_HOW}",
    tuple(
        {"lr0": step, "eps0": eps, "batch": batch}
        for batch in (64, 256)
        for eps in (0.1, 0.3, 1.0)
        for step in (0.1, 0.3)
    ),
)
