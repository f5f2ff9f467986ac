"""OTT-JAX's ``SemidiscreteSolver``: its own ``step``, compiled in a loop as its ``__call__`` does, in pieces.

Pieces carry the whole state (iterate, average, optimiser), so they are one run; the chi2 that ``__call__`` would
measure every ``error_eval_every`` steps is left out, which saves it time. Compilation is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from semidiscrete.problems import Problem
from semidiscrete.runs import Recorder

_MOST = 1 << 18  # steps of a run, which OTT keeps losses for
_AVERAGE = 0.01  # weight of the new iterate in OTT's running average; its default of 0.99 hardly averages


@dataclass(frozen=True)
class Ott:
    """Standardised targets, float32; lr and eps0 are given in multiples of sqrt(d), as for POT."""

    name: str
    how: str
    settings: tuple[dict[str, Any], ...]
    patience: float = 1.0
    parts: bool = (
        True  # its average has a fixed length in steps: small batches lead at first, and stay above large ones
    )

    def missing(self) -> str | None:
        """Why it cannot run."""
        try:
            import ott.solvers.linear.semidiscrete  # noqa: F401
        except ImportError as error:
            return f"{error}; `pip install otgan[bench]` brings OTT-JAX 0.6, for Python 3.11 and later"
        return None

    def grid(self, problem: Problem) -> list[dict[str, Any]]:
        """Settings to try."""
        return [dict(setting) for setting in self.settings]

    def run(self, problem: Problem, setting: dict[str, Any], recorder: Recorder) -> None:
        """Pieces of about a tenth of the time so far."""
        import jax

        batch = int(setting["batch"])
        begin, advance = pieces(problem, batch)
        number = {name: setting[name] * problem.dim**0.5 for name in ("lr", "eps0")}
        norms = 0.5 * (problem.points**2).sum(dim=1)
        state = begin()
        jax.block_until_ready(advance(state, 1, number))  # compiles
        recorder.start()
        steps, done = 1, 0
        while done < _MOST:
            before = recorder.seconds
            state = jax.block_until_ready(advance(state, steps, number))
            done += steps
            took = max((recorder.seconds - before) / steps, 1e-6)
            if recorder.due or done == _MOST:
                dual = torch.from_numpy(np.array(state.g_ema, dtype=np.float64))
                if recorder.checkpoint(0.5 * dual - norms, done * batch):
                    return
            steps = int(min(max(0.1 * recorder.seconds / took, 1), 2 * steps, _MOST - done))


@cache
def pieces(problem: Problem, batch: int) -> tuple[Callable[[], Any], Callable[[Any, int, dict[str, float]], Any]]:
    """The first state, and a compiled function that makes so many steps with lr and eps0.

    The step size is ``lr / sqrt(1 + t)``, the regularisation ``eps0 / sqrt(1 + t)`` of the cost |x - y|^2.
    """
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax
    from ott.geometry.semidiscrete_pointcloud import SemidiscretePointCloud
    from ott.problems.linear.semidiscrete_linear_problem import SemidiscreteLinearProblem
    from ott.solvers.linear.semidiscrete import SemidiscreteSolver, SemidiscreteState

    side, gaussian = math.sqrt(3.0), problem.gaussian

    def sample(rng: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return jr.normal(rng, shape, dtype) if gaussian else jr.uniform(rng, shape, dtype, -side, side)

    y = jnp.asarray(problem.points.numpy(), jnp.float32)
    ot_problem = SemidiscreteLinearProblem(SemidiscretePointCloud(sample, y, epsilon=0.0))

    def solver(number: dict[str, Any]) -> Any:
        def schedule(t: Any) -> Any:
            return number["lr"] / jnp.sqrt(1.0 + t)

        return SemidiscreteSolver(
            num_iterations=_MOST,
            batch_size=batch,
            optimizer=optax.adam(schedule),
            error_eval_every=_MOST,
            potential_ema=_AVERAGE,
            epsilon_scheduler=lambda t, target: number["eps0"] / jnp.sqrt(1.0 + t),
        )

    def begin() -> Any:
        g, unknown = jnp.zeros(problem.n), jnp.full(_MOST, jnp.inf)
        optimizer = solver({"lr": 1.0, "eps0": 0.0}).optimizer
        return SemidiscreteState(jnp.array(0), jnp.array(0.0), g, g, optimizer.init(g), unknown, unknown, unknown[:1])

    @jax.jit
    def advance(state: Any, steps: Any, number: dict[str, Any]) -> Any:
        rule = solver(number)
        return jax.lax.fori_loop(
            0, steps, lambda _, now: rule.step(jr.fold_in(jr.key(1), now.it), now, ot_problem), state
        )

    return begin, advance


ADAM = Ott(
    "OTT-JAX",
    "SemidiscreteSolver with Adam, step lr / sqrt(t), regularisation eps0 / sqrt(t), potential_ema 0.01, float32; "
    "lr, eps0 (in sqrt(d)) and batch from a grid; standardised targets",
    tuple(
        {"lr": lr, "eps0": eps, "batch": batch}
        for batch in (256, 1024)
        for eps in (0.1, 1.0)
        for lr in (0.03, 0.1, 0.3, 1.0)
    ),
)
