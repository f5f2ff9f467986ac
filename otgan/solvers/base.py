"""What every solver is given and gives back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from otgan.callbacks import State

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from otgan.callbacks import Callback
    from otgan.certificate import Certificate
    from otgan.measures import DiscreteMeasure, Source
    from otgan.solvers.checkpoint import Checkpoint
    from otgan.solvers.result import Plan, Status


class Observer(Protocol):
    """Is shown every batch that a sampling solver streams, so that others learn from it at no cost of scores."""

    def __call__(self, x: Tensor, index: Tensor) -> None:
        """``x`` (m, d): samples of the source in their own units; ``index`` (m,): the power cell of each."""

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Plain settings and arrays, saved with the solver's own at a checkpoint."""

    def restore(self, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Back to what :meth:`state` returned."""


@dataclass(frozen=True)
class Problem:
    """A source, a target, a stream of random numbers, the exponent of the cost ``|x - y|^p / p``, and who takes part.

    Attributes:
        checkpoint: where progress is saved, if anywhere.
        observer: who is shown the batches, if anyone.
    """

    source: Source
    target: DiscreteMeasure
    generator: torch.Generator
    p: float = 2.0
    checkpoint: Checkpoint | None = None
    observer: Observer | None = None

    def state(
        self,
        method: str,
        n_iter: int,
        error: float,
        tol: float,
        clock: Stopwatch,
        n_scores: int,
        heights: Tensor,
        detail: dict[str, Any],
    ) -> State:
        """What a callback is told."""
        return State(method, n_iter, error, tol, clock.seconds, n_scores, heights, detail)


class Stopwatch:
    """Time since the start, and whether ``max_time`` seconds have passed.

    Attributes:
        max_time: limit of this run; None for none.
        earlier: seconds of the runs that this one continues, which the limit does not count.
    """

    def __init__(self, max_time: float | None = None) -> None:
        self._start = time.perf_counter()
        self.max_time = max_time
        self.earlier = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start, those of earlier runs included."""
        return self.earlier + time.perf_counter() - self._start

    def expired(self) -> bool:
        """Whether the time is up."""
        return self.max_time is not None and self.seconds - self.earlier >= self.max_time


@dataclass(frozen=True)
class Outcome:
    """What a solver hands to :func:`otgan.solve`: heights in the problem's own units, shape (n,), float64.

    For p != 2 the heights are the dual values psi_i of the scores ``psi_i - |x - y_i|^p / p``.
    """

    heights: Tensor
    status: Status
    message: str
    n_iter: int
    n_scores: int = 0
    n_samples: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    plan: Plan | None = None
    value: float | None = None
    certificate: Certificate | None = None
    masses: Tensor | None = None
    centroids: Tensor | None = None


class Solver(Protocol):
    """A frozen dataclass of settings, called on a problem.

    One with a class attribute ``any_cost = True`` heeds ``problem.p``; others are given problems with p = 2 only.
    One with a method ``accepts(source)`` raises there for sources that it does not know, before anything is computed.
    """

    @property
    def name(self) -> str:
        """What ``method=`` calls it."""

    def default_tol(self, target: DiscreteMeasure) -> float:
        """The bar when none is given."""

    def __call__(self, problem: Problem, tol: float, clock: Stopwatch, callback: Callback | None) -> Outcome:
        """Solve."""
