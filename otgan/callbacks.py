"""What a solver tells while it works, and the progress bar that listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class State:
    """One moment of a solve, handed to every callback.

    Attributes:
        method: name of the solver.
        n_iter: iterations done.
        error: the quantity that ``tol`` is compared with, as known now; inf before the first measurement.
        tol: the bar.
        seconds: since the start.
        n_scores: (sample, target) scores computed so far.
        heights: the best heights so far (at first, those it starts from), shape (n,), float64; do not change them.
        detail: what else the solver knows (batch size, step size, ...).
    """

    method: str
    n_iter: int
    error: float
    tol: float
    seconds: float
    n_scores: int
    heights: Tensor
    detail: dict[str, Any]


Callback = Callable[[State], object]
"""Called after every iteration; a true return value asks the solver to stop with status "stopped"."""


class Progress:
    """A tqdm bar on standard error: iterations, the current error against the bar, and the solver's details.

    Args:
        total: iterations that are expected at most, if known.
    """

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._bar: Any = None

    def __call__(self, state: State) -> None:
        """Show ``state``."""
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(desc=state.method, total=self._total, unit="it", leave=False, mininterval=0.2)
        self._bar.n = state.n_iter
        shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in state.detail.items()}
        self._bar.set_postfix({"error": f"{state.error:.3g} -> {state.tol:g}", **shown}, refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
