"""One verb: pick a solver, run it, certify what it found."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from otgan._checks import as_count, as_exponent, as_positive
from otgan.callbacks import Progress
from otgan.cells import has_exact_cells
from otgan.certificate import LEAST_SAMPLES, certify
from otgan.cost_potential import KantorovichPotential
from otgan.measures import DiscreteMeasure, Empirical, Source
from otgan.potential import BrenierPotential, fix_gauge
from otgan.solvers.adam import Adam
from otgan.solvers.base import Outcome, Problem, Solver, Stopwatch
from otgan.solvers.checkpoint import Checkpoint, fingerprint
from otgan.solvers.discrete import Discrete
from otgan.solvers.exact import Newton
from otgan.solvers.result import ConvergenceError, Result
from otgan.solvers.stochastic import StochasticNewton
from otgan.standardization import Standardization

if TYPE_CHECKING:
    from pathlib import Path

    from otgan._checks import ArrayLike
    from otgan.callbacks import Callback, State
    from otgan.solvers.base import Observer

SOLVERS: dict[str, type] = {
    "adam": Adam,
    "discrete": Discrete,
    "newton": Newton,
    "stochastic-newton": StochasticNewton,
}
"""Every solver by the name that ``method=`` knows."""

_EXACT_SIZE = 25_000_000  # m * n up to which a discrete source is solved exactly: seconds to a minute
_EXACT_CELLS = {1: 10_000_000, 2: 2_000_000, 3: 300_000}  # targets up to which exact cells take minutes, by dimension
_HURRIED_SAMPLES = 20_000
_CERTIFY_STREAM = 0x5EED_CE27  # separates the certificate's random stream from the solver's


def solve(
    source: Source,
    target: DiscreteMeasure | ArrayLike,
    method: str | Solver = "auto",
    *,
    p: float = 2.0,
    tol: float | None = None,
    seed: int | None = 0,
    max_time: float | None = None,
    max_iter: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    on_failure: Literal["return", "raise"] = "return",
    certify_samples: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 60.0,
    observer: Observer | None = None,
    **options: Any,
) -> Result:
    """Find heights h whose power cells have the target's masses: ``mu(W_i(h)) = b_i``.

    Minimises the convex energy ``E(h) = integral u_h dmu - <b, h>``, whose gradient is ``w(h) - b``; at the minimum
    ``T_h = grad u_h`` is the optimal transport map from the source to the target for the cost |x-y|^2.

    For another strictly convex cost ``|x - y|^p / p`` the unknowns are the dual values psi of the cells of
    ``psi_i - |x - y_i|^p / p``; the energy is then ``-E phi - <b, psi>``, minus the Kantorovich dual, and the potential
    a :class:`~otgan.KantorovichPotential`.

    Args:
        source: mu, a measure of :mod:`otgan.measures`.
        target: nu, or its points, shape (n, d) (uniform weights).
        method: "auto", a name in :data:`SOLVERS`, or a solver object such as ``Adam(lr=0.1)``.
        p: exponent of the cost, > 1. "newton" knows p = 2 only.
        tol: the bar, in the solver's own error: chi2 of the masses for sampling solvers, ``max_i |w_i/b_i - 1|`` for
            "newton".
        seed: of all random numbers; the same seed gives the same answer on the same machine. ``None``: a fresh one.
        max_time: seconds after which the best so far is returned with status "max_time".
        max_iter: iterations at most; the solver's own default when left out.
        progress: show a progress bar on standard error.
        callback: called with a :class:`otgan.callbacks.State` after every iteration; a true return value stops. The
            network simplex of "discrete" runs to its end in one call: no callback, no time limit.
        on_failure: "return" a result that did not reach ``tol``, with a status that says so, or "raise"
            :class:`ConvergenceError`, which carries that result.
        certify_samples: fresh samples of the certificate, at least 100; see :func:`otgan.certify`.
        checkpoint: folder where progress is saved, for "stochastic-newton". When it holds the progress of the same
            problem with the same settings (``max_time`` and ``max_iter`` may differ), the run goes on from there and
            ends with the same numbers as one that was never interrupted.
        checkpoint_every: seconds between two saves.
        observer: is shown each batch that "stochastic-newton" streams and the cell of each sample
            (:class:`otgan.solvers.base.Observer`); other methods show it nothing.
        **options: settings of the solver, such as ``lr=0.1`` for "adam".

    Returns:
        A :class:`Result`. Ctrl-C also ends in one, with status "interrupted" and the best heights so far.

    Example:
        >>> result = solve(UniformBox(dim=2), [[0.2, 0.5], [0.8, 0.5]], tol=1e-3)
        >>> result.converged
        True
    """
    if not isinstance(source, Source):
        raise TypeError(
            f"source must be a measure such as og.UniformBox(dim=2), got {type(source).__name__}; "
            "for points use og.Empirical(points)."
        )
    p = as_exponent(p)
    nu = DiscreteMeasure.of(target)
    if source.dim != nu.dim:
        raise ValueError(f"source has dimension {source.dim} but the target's points have dimension {nu.dim}.")
    if on_failure not in ("return", "raise"):
        raise ValueError(f"on_failure must be 'return' or 'raise', got {on_failure!r}.")
    if certify_samples is not None:
        certify_samples = as_count(certify_samples, "certify_samples", LEAST_SAMPLES)
    if max_time is not None:
        max_time = as_positive(max_time, "max_time")
    if max_iter is not None:
        options["max_iter"] = as_count(max_iter, "max_iter", 1)
    solver, reason = _pick(source, nu, method, options, p)
    bar = as_positive(tol, "tol") if tol is not None else solver.default_tol(nu)
    root = _root_seed(seed)
    generator = torch.Generator(device=nu.points.device).manual_seed(_stream(root, 0))
    saving = _checkpoint(checkpoint, checkpoint_every, solver, fingerprint(source, nu, bar, root, p))
    problem = Problem(source, nu, generator, p, saving, observer)
    shown = Progress(options.get("max_iter")) if progress else None
    clock = Stopwatch(max_time)
    try:
        outcome = solver(problem, bar, clock, _both(callback, shown))
    except KeyboardInterrupt:
        outcome = _untouched(problem)
    finally:
        if shown is not None:
            shown.close()
    seconds = clock.seconds
    potential: BrenierPotential | KantorovichPotential
    if p == 2.0:
        potential = BrenierPotential(nu.points, outcome.heights, nu.weights, center=source.mean)
    else:
        potential = KantorovichPotential(nu.points, outcome.heights, nu.weights, p)
    certificate = outcome.certificate
    if certificate is None:
        stream = torch.Generator(device=nu.points.device).manual_seed(_stream(root, _CERTIFY_STREAM))
        if certify_samples is None and outcome.status in ("interrupted", "max_time"):
            certify_samples = _HURRIED_SAMPLES  # who sets a limit or presses Ctrl-C does not want to wait
        try:
            certificate = certify(potential, source, certify_samples, generator=stream)
        except KeyboardInterrupt:
            certificate = certify(potential, source, _HURRIED_SAMPLES // 10, generator=stream)
    result = Result(
        potential=potential,
        source=source,
        target=nu,
        method=solver.name,
        reason=reason,
        status=outcome.status,
        message=outcome.message,
        tol=bar,
        n_iter=outcome.n_iter,
        n_scores=outcome.n_scores,
        n_samples=outcome.n_samples,
        seconds=seconds,
        history=outcome.history,
        certificate=certificate,
        plan=outcome.plan,
        value=outcome.value,
        masses=outcome.masses,
        centroids=outcome.centroids,
    )
    if on_failure == "raise" and not result.converged:
        raise ConvergenceError(result)
    return result


def _pick(
    source: Source, target: DiscreteMeasure, method: str | Solver, options: dict[str, Any], p: float
) -> tuple[Solver, str]:
    """The solver and the reason for it."""
    solver, reason = _named(source, target, method, options, p)
    if p != 2.0 and not getattr(solver, "any_cost", False):
        known = ", ".join(repr(name) for name, kind in SOLVERS.items() if getattr(kind, "any_cost", False))
        raise ValueError(
            f"method={solver.name!r} knows the quadratic cost only (p = 2, cells with flat walls), got p = {p:g}; use "
            f"'auto' or one of {known}."
        )
    accepts = getattr(solver, "accepts", None)  # before anything is computed: what comes first may take hours
    if accepts is not None:
        accepts(source)
    return solver, reason


def _named(
    source: Source, target: DiscreteMeasure, method: str | Solver, options: dict[str, Any], p: float
) -> tuple[Solver, str]:
    if not isinstance(method, str):
        if isinstance(method, type) or not callable(method):
            raise TypeError(f"method must be 'auto', one of {sorted(SOLVERS)} or a solver object, got {method!r}.")
        if options:
            raise ValueError(f"Settings {sorted(options)} belong into the solver object: {type(method).__name__}(...).")
        return method, f"The caller passed a {type(method).__name__} solver."
    if method == "auto":
        if isinstance(source, Empirical) and source.m * target.n <= _EXACT_SIZE:
            method = "discrete"
            reason = f"Picked the exact network simplex: the source has {source.m} points, the target {target.n}."
        elif p == 2.0 and has_exact_cells(source) and target.n <= _EXACT_CELLS[source.dim]:
            method = "newton"
            reason = f"Picked Newton on exact cells: they are known for {source!r}."
        elif source.dim == 1 and p != 2.0:
            method = "adam"
            reason = f"Picked Adam on sampled cell masses: a {type(source).__name__} source on the line."
        else:
            method = "stochastic-newton"
            reason = (
                f"Picked Newton's method on samples: a {type(source).__name__} source in dimension {source.dim} has "
                "no exact cells here."
            )
    elif method in SOLVERS:
        reason = f"The caller asked for method={method!r}."
    else:
        raise ValueError(f"Unknown method {method!r}; expected 'auto' or one of {sorted(SOLVERS)}.")
    try:
        return SOLVERS[method](**options), reason
    except TypeError:
        known = sorted(setting.name for setting in fields(SOLVERS[method]))
        unknown = sorted(set(options) - set(known))
        if not unknown:
            raise  # a known setting of a wrong kind, whose own message says so
        raise TypeError(
            f"method={method!r} has no setting {', '.join(unknown)}; it knows {', '.join(known)}."
        ) from None


def picks(
    source: Source, target: DiscreteMeasure, method: str | Solver, options: dict[str, Any], p: float = 2.0
) -> str:
    """Name of the solver that :func:`solve` would run."""
    return _pick(source, target, method, options, p)[0].name


def _checkpoint(path: str | Path | None, every: float, solver: Solver, problem: str) -> Checkpoint | None:
    """Where the solver saves its progress, or an error for those that do not."""
    every = as_positive(every, "checkpoint_every")
    if path is None:
        return None
    if not isinstance(solver, StochasticNewton):
        raise ValueError(
            f"checkpoint is for method='stochastic-newton'; method={solver.name!r} runs here and saves no progress. "
            "Leave checkpoint out, or ask for that method."
        )
    return Checkpoint(path, every, f"{problem} {solver.course()}")


def _untouched(problem: Problem) -> Outcome:
    """Voronoi heights, for a solver that was interrupted before it had anything better."""
    change = Standardization.of(problem.source, problem.target, problem.p)
    points = problem.target.points
    heights = change.heights(change.voronoi(change.target(points)), points)
    weights = problem.target.weights.to(points.device)
    message = "Interrupted before the first step; heights are those of Voronoi cells."
    return Outcome(fix_gauge(heights, weights), "interrupted", message, n_iter=0)


def _root_seed(seed: int | None) -> int:
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)
    return as_count(seed, "seed")


def _stream(root: int, stream: int) -> int:
    """Seeds of independent random streams from one seed."""
    return int(np.random.SeedSequence([root, stream]).generate_state(1, np.uint64)[0] >> 1)


def _both(callback: Callback | None, shown: Progress | None) -> Callback | None:
    if callback is None or shown is None:
        return callback or shown

    def call(state: State) -> bool:
        shown(state)
        return bool(callback(state))

    return call
