"""Fit a network to a semi-discrete optimal map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from otgan._checks import as_count, as_points, as_positive
from otgan.generators._pairs import as_pairs, draw_pairs
from otgan.generators._training import Settings, Training
from otgan.generators.generator import NetworkGenerator, check_brenier
from otgan.generators.networks import ICNN, ConvexNetwork, ResidualMLP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from otgan.generators._training import FitState
    from otgan.measures import Source
    from otgan.potential import BrenierPotential

_RATES = {"convex": 4e-2, "other": 2e-3}


def fit_generator(
    potential: BrenierPotential,
    source: Source,
    network: str | nn.Module = "icnn",
    *,
    loss: Literal["auto", "fenchel-young", "squared"] = "auto",
    steps: int = 6000,
    batch: int = 1024,
    lr: float | None = None,
    seed: int = 0,
    pairs: int | tuple[Tensor, Tensor] | None = None,
    validation: float = 0.05,
    warm_up: float = 0.25,
    averaging: float = 0.999,
    patience: int = 10,
    max_time: float | None = None,
    progress: bool = False,
    callback: Callable[[FitState], object] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
) -> NetworkGenerator:
    r"""A generator that smooths ``T_h``, fitted to pairs ``(x, T_h(x))`` with x drawn from the source.

    Two losses, in coordinates where source and target have the same covariance (:class:`Coordinates`):

    - "squared": ``E |G(x) - T_h(x)|^2``, for any network. Its minimiser is the mean of T_h around x, which is shrunk:
      T_h is an optimal map to n samples, which strays from the map to their law by the order ``n^(-1/d)``.
    - "fenchel-young": ``E u(x) + u*(T_h(x)) - <x, T_h(x)> >= 0``, for a convex u with G = grad u. As T_h carries the
      source to the targets, it is the Kantorovich semi-dual of u over that of u_h. For each u it is the mean over the
      targets, so that its expectation over samples of a law is the semi-dual of the law, which the Brenier
      potential minimises: no shrinkage. The pairs make its gradient one of little noise, since x and the point
      ``x* = grad u*(T_h(x))`` nearly agree. Conjugates are exact: each target keeps its x* from visit to visit.

    "auto" fits convex networks with the squared loss first (the share ``warm_up`` of the steps), then with Fenchel and
    Young's; others with the squared loss alone. Adam with a cosine-shaped rate in each phase, averaged weights; those
    with the least loss on held-out targets are returned.

    Both assume a map without jumps, and pay for it where the target has separate modes: on 20 principal components of
    1,500 handwritten digits, W2 to the other digits was 23.3 for "icnn", 19.4 for "mlp", 19.5 for T_h and 18.6 for the
    entropic map. On the smooth maps of the Wasserstein-2 benchmark the order is the reverse, by a factor of ten
    (``tests/benchmarks/bench_w2maps.py``).

    Args:
        potential: u_h of a solve.
        source: mu of the same solve.
        network: "icnn", "mlp", or a module (m, d) -> (m, d), which is trained in place.
        loss: see above.
        steps: of Adam, both phases together.
        batch: pairs a step.
        lr: largest rate; 0.04 for convex networks, 0.002 for others.
        seed: of pairs, shuffling and initial weights.
        pairs: how many are drawn; by default 8 a target, between 2^16 and 2^19. Or the pairs themselves: source points
            (m, d) and the cells (m,) they lie in, as a solver saw them; then no score is computed here.
        validation: fraction of the targets held out, at most half; 0 holds none out and returns the last weights.
        warm_up: share of the steps with squared loss before the other.
        averaging: factor of the exponential average of the weights.
        patience: measurements (40 in a run) without improvement, after which the fit ends.
        max_time: seconds, pairs included; rates fall in time for it.
        progress: show a bar on standard error.
        callback: called with a :class:`FitState` after every measurement; a true return value ends the fit.
        checkpoint: folder in which the fit keeps its state; when it holds one of the same fit, that is continued and,
            without ``max_time``, ends exactly as if it had not been interrupted.
        checkpoint_every: steps between two writes.

    Returns:
        A :class:`NetworkGenerator` with ``report``. Ctrl-C also ends in one, with status "interrupted".

    Raises:
        RuntimeError: the loss is NaN or infinite.
    """
    check_brenier(potential, source, "A network is fitted to the map of a BrenierPotential (p = 2)")
    seed = as_count(seed, "seed")
    model = as_network(network, potential.dim, seed).to(potential.points.device)
    convex = isinstance(model, ConvexNetwork)
    if loss not in ("auto", "fenchel-young", "squared"):
        raise ValueError(f"loss must be 'auto', 'fenchel-young' or 'squared', got {loss!r}.")
    if loss == "fenchel-young" and not convex:
        raise ValueError(f"loss='fenchel-young' needs a convex network such as 'icnn', got {type(model).__name__}.")
    steps = as_count(steps, "steps", 1)
    if loss == "squared" or not convex:
        first = steps
    else:
        first = int(steps * _fraction(warm_up, "warm_up", 1.0)) if loss == "auto" else 0
    settings = Settings(
        steps=steps,
        squared=first,
        batch=as_count(batch, "batch", 1),
        lr=_RATES["convex" if convex else "other"] if lr is None else as_positive(lr, "lr"),
        seed=seed,
        averaging=_fraction(averaging, "averaging", 1.0),
        patience=as_count(patience, "patience", 1),
        max_time=math.inf if max_time is None else as_positive(max_time, "max_time"),
        every=max(steps // 40, 1),
        checkpoint=checkpoint,
        checkpoint_every=as_count(checkpoint_every, "checkpoint_every", 1),
    )
    training, aside = Training(settings), _fraction(validation, "validation", 0.5)
    if isinstance(pairs, tuple):
        data = as_pairs(potential, *_known(pairs, potential), aside, seed)
    else:
        data = draw_pairs(potential, source, None if pairs is None else as_count(pairs, "pairs", 1), aside, seed)
    report = training.run(model, data, progress=progress, callback=callback)
    return NetworkGenerator(model, data.coordinates, source, report)


def _known(pairs: tuple[Tensor, Tensor], potential: BrenierPotential) -> tuple[Tensor, Tensor]:
    x = as_points(pairs[0], "pairs[0]", potential.dim)
    index = torch.as_tensor(pairs[1], device=x.device)
    if index.shape != x.shape[:1] or index.dtype.is_floating_point:
        raise ValueError(
            f"pairs[1] must hold {len(x)} whole numbers, the cells of the points, got {tuple(index.shape)}."
        )
    low, high = int(index.min()), int(index.max())
    if not 0 <= low <= high < potential.n:
        raise ValueError(f"pairs[1] must number cells 0 to {potential.n - 1}, got {low} to {high}.")
    return x.to(potential.points.device), index.long().to(potential.points.device)


def as_network(network: str | nn.Module, dim: int, seed: int) -> nn.Module:
    """The network of that name, or the caller's own, if it has parameters and maps (m, d) to (m, d)."""
    if isinstance(network, nn.Module):
        parameters = [p for p in network.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(f"The network {type(network).__name__} has no parameter to train.")
        _probe(network, torch.zeros(2, dim).to(parameters[0]))
        return network
    if network == "icnn":
        return ICNN(dim, seed=seed)
    if network == "mlp":
        return ResidualMLP(dim, seed=seed)
    raise ValueError(f"network must be 'icnn', 'mlp' or a torch module, got {network!r}.")


@torch.no_grad()
def _probe(network: nn.Module, x: Tensor) -> None:
    """Two points through the network, whose state stays as it is."""
    training, name = [(module, module.training) for module in network.modules()], type(network).__name__
    network.eval()
    try:
        out = network(x)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"The network {name} must map points of shape (m, {x.shape[1]}) to the same shape; at two points it fails "
            f"with: {error}"
        ) from error
    finally:
        for module, mode in training:
            module.training = mode
    shape = getattr(out, "shape", None)
    if shape != x.shape:
        got = type(out).__name__ if shape is None else tuple(shape)
        raise ValueError(
            f"The network {name} must map shape (m, {x.shape[1]}) to itself; of (2, {x.shape[1]}) it made {got}."
        )


def _fraction(value: float, name: str, most: float) -> float:
    number = float(value)
    if not 0.0 <= number <= most:
        raise ValueError(f"{name} must be between 0 and {most:g}, got {value!r}.")
    return number
