"""What a run of :class:`otgan.solvers.stochastic.StochasticNewton` saves, and how it goes on from it, bit by bit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from otgan.solvers._candidates import Candidates
from otgan.solvers._semidual import Descent, Hessian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.solvers._stochastic_run import Run

_PLAIN = (
    *("phase", "worth", "chi2", "stderr", "dead", "n_iter", "streamed", "sizes", "stage", "history"),
    *("best", "settled", "tried"),
)
_ARRAYS = ("h", "kept", "error", "calm", "stiff", "met", "touch")


def save(run: Run) -> None:
    """Write everything that the rest of the run depends on."""
    if run.problem.checkpoint is None or run.phase == "coarse":
        return
    state = {name: getattr(run, name) for name in _PLAIN} | {"seconds": run.clock.seconds}
    arrays = {name: getattr(run, name) for name in _ARRAYS}
    settings, more = run.stream.state()
    state["stream"], arrays = settings, arrays | more
    state["seen"] = [list(entry[:3]) for entry in run.seen]
    arrays["seen"] = np.array([entry[3] for entry in run.seen]).reshape(len(run.seen), run.n)
    if run.problem.observer is not None:
        state["observer"], seen = run.problem.observer.state()
        arrays |= {f"observer.{name}": array for name, array in seen.items()}
    if run.phase == "streaming" and run.hessian is not None:
        arrays |= {f"hessian.{name}": getattr(run.hessian, name) for name in ("ptr", "col", "val")}
        state["eps"] = run.hessian.eps
    elif run.descent is not None:
        arrays |= {f"lists.{name}": array for name, array in run.descent.lists.state().items()}
        habits = [getattr(run.descent, name) for name in ("damping", "trust", "heat", "checked")]
        state["descent"] = [*habits, run.descent.lists.m]
    run.problem.checkpoint.save(state, arrays)


def restore(run: Run) -> None:
    """Go back to where the last save was made, if there is one."""
    found = run.problem.checkpoint.load() if run.problem.checkpoint is not None else None
    if found is None:
        return
    state, tensors = found
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    for name in _PLAIN:
        setattr(run, name, state[name] if state[name] is not None else math.inf)
    for entry in run.history:  # JSON has no infinity
        entry["chi2"] = math.inf if entry["chi2"] is None else entry["chi2"]
    run.clock.earlier = state["seconds"]
    for name in _ARRAYS:
        setattr(run, name, arrays[name])
    run.seen = [(*numbers, counts) for numbers, counts in zip(state["seen"], arrays["seen"], strict=True)]
    draws = [run.sizes[1], *np.diff(run.sizes[1:]).tolist()] if run.phase == "stored" else []
    run.stream.restore(state["stream"], arrays, draws)
    if run.problem.observer is not None:
        run.problem.observer.restore(state["observer"], _under(arrays, "observer."))
    if run.phase == "streaming":
        ptr, col, val = (arrays[f"hessian.{name}"] for name in ("ptr", "col", "val"))
        run.hessian = Hessian(ptr, col, val, run.n, state["eps"])
    elif "descent" in state:
        *habits, m = state["descent"]
        lists = Candidates(run.stream.stored[:m], run.stream.scores, run.solver.k, run.pause)
        lists.restore(_under(arrays, "lists."))
        run.descent = Descent(lists, run.h, run.b, run.solver.smoothing, *habits)


def _under(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
