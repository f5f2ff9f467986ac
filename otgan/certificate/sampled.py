"""The certificate from samples that the solver did not see, or from all atoms of a discrete source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_count, make_generator
from otgan.certificate.base import Certificate
from otgan.certificate.coupling import power_cost, repair, repair_cost
from otgan.certificate.statistics import Moments, chi2_estimate
from otgan.cost_potential import KantorovichPotential
from otgan.measures import Empirical, Source

if TYPE_CHECKING:
    from otgan.potential import BrenierPotential

    Potential = BrenierPotential | KantorovichPotential

_Z = 3.0  # standard errors on each side of an interval: 99.7 percent for a Gaussian
_CHUNK = 1 << 16
_BLOCKS = 16  # of samples, for the jackknife
LEAST_SAMPLES = 100
"""Three standard errors of fewer samples are no bound: their own estimate is too uncertain."""

_FAR = 1e3  # deviations from the origin beyond which float32 samples are too coarse
_SUMMED = 2_000_000_000  # atoms times targets up to which a discrete source is summed rather than sampled


def certify(
    potential: BrenierPotential | KantorovichPotential,
    source: Source,
    n_samples: int | None = None,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Measure a potential on fresh samples of the source.

    For a :class:`~otgan.KantorovichPotential` the interval is one for the transport cost ``C = W_p^p / p``: from below
    by weak duality, from above by the cost of the same kind of coupling.

    The interval for W2 holds up to three standard errors. Lower end: the larger of ``sqrt(2 D(h))`` (weak duality)
    and ``sqrt(E|x - T|^2) - W2(nu_h, nu)``. Upper end: the smaller of ``sqrt(E|x - T|^2) + W2(nu_h, nu)`` and the cost
    of an explicit coupling, T_h repaired to reach the target's masses (see :func:`repair`). All are formed for the
    centred measures; the distance of the means is added exactly.

    An :class:`~otgan.measures.Empirical` source of a moderate size is not sampled but summed: the certificate is then
    exact for the map ``T_h`` (which, unlike a plan, splits no atom).

    Args:
        potential: u_h, or phi for another cost, with its weights b.
        source: mu.
        n_samples: M; by default 50 a target, at least 20,000 (200,000 for p != 2, where less is known of the cost
            beforehand) and at most 2,000,000. Not below 100.
        seed: of the fresh samples. Do not reuse a solver's seed: :func:`otgan.solve` takes care of that for its own.
        generator: an own stream instead of a seed.
    """
    if not isinstance(source, Source):
        raise TypeError(f"source must be a measure such as og.UniformBox(dim=2), got {type(source).__name__}.")
    if source.dim != potential.dim:
        raise ValueError(f"source has dimension {source.dim}, the potential {potential.dim}.")
    n = potential.n
    least = 20_000 if potential.p == 2.0 else 200_000
    m = as_count(n_samples if n_samples is not None else min(max(50 * n, least), 2_000_000), "n_samples", LEAST_SAMPLES)
    stream = make_generator(seed, generator, potential.points.device)
    samples: _Samples
    if isinstance(source, Empirical) and (source.m <= m or (n_samples is None and source.m * n <= _SUMMED)):
        samples = _Atoms(source)
    else:
        samples = _Fresh(source, m, stream, potential.points)
    if isinstance(potential, KantorovichPotential):
        return _of_cost(potential, source, samples)
    return _of_distance(potential, source, samples)


def _of_distance(potential: BrenierPotential, source: Source, samples: _Samples) -> Certificate:
    """Masses, and an interval for W2: in centred coordinates ``x' = (x - mean) / s``, ``y' = (y - middle) / s``."""
    weights, points = potential.weights.double().cpu(), potential.points.double().cpu()
    mean, middle = source.mean, weights @ points
    shifted, offset = points - middle, source.mean - middle
    # In units of the larger side.
    unit = max(source.variance, float(weights @ (shifted**2).sum(dim=1))) ** 0.5 or 1.0
    y = shifted / unit
    psi = 0.5 * (y**2).sum(dim=1) + (potential.heights.double().cpu() + shifted @ mean) / unit**2
    frame = _Frame(mean, unit, y, psi, lambda gap: 0.5 * (gap**2).sum(dim=1))
    cells = _Cells.of(potential, source, samples, frame)
    masses, spent = cells.masses, cells.costs
    fix = repair(y.numpy(), masses.numpy(), weights.numpy(), cells.centroids.numpy(), cells.counts.numpy())
    z = 0.0 if samples.exact else _Z
    low_cost, high_cost = 2 * (spent.mean - z * spent.stderr), 2 * (spent.mean + z * spent.stderr)
    gap = (fix.gap2 + z * fix.gap2_stderr) ** 0.5
    lower = max((2 * max(cells.dual - z * cells.slack.stderr, 0.0)) ** 0.5, max(low_cost, 0.0) ** 0.5 - gap)
    upper = min(max(high_cost, 0.0) ** 0.5 + gap, max(high_cost + fix.excess + z * fix.excess_stderr, 0.0) ** 0.5)
    shift2 = float((offset / unit) @ (offset / unit))
    drift = 2 * float((masses - weights) @ (y @ offset)) / unit
    return Certificate(
        **cells.accuracy(),
        w2_lower=unit * (lower**2 + shift2) ** 0.5,
        w2_upper=unit * (max(upper, lower) ** 2 + shift2) ** 0.5,
        dual=unit**2 * (cells.dual + 0.5 * shift2),
        transport_cost=unit**2 * (2 * spent.mean + shift2 - drift),
        target_gap=unit * fix.gap2**0.5,
    )


def _of_cost(potential: KantorovichPotential, source: Source, samples: _Samples) -> Certificate:
    """Masses, and an interval for the cost ``|x - y|^p / p``: in common coordinates of unit size."""
    p, weights, points = potential.p, potential.weights.double().cpu(), potential.points.double().cpu()
    middle = weights @ points
    apart = source.mean - middle
    spread = float(weights @ ((points - middle) ** 2).sum(dim=1))
    unit = (source.variance + spread + float(apart @ apart)) ** 0.5 or 1.0
    y, psi = (points - middle) / unit, potential.psi.double().cpu() / unit**p
    frame = _Frame(middle, unit, y, psi, lambda gap: torch.from_numpy(power_cost(gap.numpy(), p)))
    cells = _Cells.of(potential, source, samples, frame)
    counts = None if samples.exact else cells.counts.numpy()
    fix = repair_cost(y.numpy(), cells.masses.numpy(), weights.numpy(), cells.centroids.numpy(), p, counts)
    excess = 0.0
    if len(fix.share):  # on the same samples once more, now that the repair is known
        for x, cell, mass in frame.cells(potential, samples):
            excess += float(mass.numpy() @ fix.excess(x.numpy(), cell.numpy(), y.numpy(), p))
        excess /= float(cells.counts.sum())
    z = 0.0 if samples.exact else _Z
    lower = max(cells.dual - z * cells.slack.stderr, 0.0)
    upper = max(cells.costs.mean + z * cells.costs.stderr + excess + z * fix.excess_stderr, lower)
    return Certificate(
        **cells.accuracy(),
        w2_lower=unit * (2 * lower) ** 0.5 if p == 2.0 else math.nan,
        w2_upper=unit * (2 * upper) ** 0.5 if p == 2.0 else math.nan,
        dual=unit**p * cells.dual,
        transport_cost=unit**p * p * cells.costs.mean,
        target_gap=unit * fix.gap ** (1.0 / p),
        p=p,
        cost_lower=unit**p * lower,
        cost_upper=unit**p * upper,
    )


# ------------------------------------------------------------------ samples


class _Atoms:
    """All atoms of a discrete source in blocks, with their masses."""

    exact = True
    size = 0

    def __init__(self, source: Empirical) -> None:
        self.source = source

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.source.points.split(_CHUNK), self.source.weights.split(_CHUNK), strict=True)


class _Fresh:
    """Fresh samples in blocks, each of mass one: the same ones each time that they are asked for.

    They come in float64 where the source is too far from the origin for float32.
    """

    exact = False

    def __init__(self, source: Source, m: int, stream: torch.Generator, points: Tensor) -> None:
        far = float(source.mean.abs().max()) > _FAR * (source.variance / source.dim) ** 0.5
        self.source, self.size, self.device = source, m, points.device
        self.dtype = torch.float64 if far else points.dtype
        self._stream, self._state = stream, stream.get_state()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream, self._stream = self._stream, torch.Generator(device=self._stream.device)  # the caller's, once
        self._stream.set_state(self._state)
        size = min(_CHUNK, -(-self.size // _BLOCKS))
        for done in range(0, self.size, size):
            now = min(size, self.size - done)
            x = self.source.sample(now, generator=stream, device=self.device, dtype=self.dtype)
            yield x, torch.ones(now, dtype=torch.float64)


_Samples = _Atoms | _Fresh


@dataclass(frozen=True)
class _Frame:
    """Coordinates of unit size.

    Attributes:
        origin: of x, shape (d,).
        unit: of length.
        y: targets there, shape (n, d).
        psi: their dual values there, shape (n,).
        cost: ``c(z)`` of differences z, (m, d) -> (m,).
    """

    origin: Tensor
    unit: float
    y: Tensor
    psi: Tensor
    cost: Callable[[Tensor], Tensor]

    def cells(self, potential: Potential, samples: _Samples) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Samples in these coordinates, their cells, and their masses, block by block."""
        for x, mass in samples:
            cell = potential.assign(x.to(potential.points.device)).cpu()
            yield (x.double().cpu() - self.origin) / self.unit, cell, mass


@dataclass(frozen=True)
class _Cells:
    """Sums over the samples.

    Attributes:
        counts: mass in each cell by blocks of samples, shape (blocks, n).
        first: sum of x in each cell, shape (n, d).
        costs: of ``c(x - y_i)``, i the cell of x.
        slack: of ``c(x - y_i) - psi_i``.
        dual: ``D(h)``: the mean of ``slack`` and ``sum_i b_i psi_i``; -inf where a target is switched off.
        weights: b, shape (n,).
        samples: what was measured on.
    """

    counts: Tensor
    first: Tensor
    costs: Moments
    slack: Moments
    dual: float
    weights: Tensor
    samples: _Samples

    @staticmethod
    def of(potential: Potential, source: Source, samples: _Samples, frame: _Frame) -> _Cells:
        """One pass over the samples; the controls of the means are ``|x - E x|^2``."""
        counts, first = torch.zeros(_BLOCKS, len(frame.y), dtype=torch.float64), torch.zeros_like(frame.y)
        costs, slack = (Moments(source.variance / frame.unit**2) for _ in range(2))
        centre = (source.mean - frame.origin) / frame.unit
        for number, (x, cell, mass) in enumerate(frame.cells(potential, samples)):
            counts[number % _BLOCKS].index_add_(0, cell, mass)
            first.index_add_(0, cell, x * mass[:, None])
            square, cost = ((x - centre) ** 2).sum(dim=1), frame.cost(x - frame.y[cell])
            costs.add(cost, square, mass)
            slack.add(cost - frame.psi[cell], square, mass)
        weights = potential.weights.double().cpu()
        return _Cells(counts, first, costs, slack, slack.mean + float(weights @ frame.psi), weights, samples)

    @property
    def total(self) -> Tensor:
        """Mass in each cell, shape (n,), in the samples' unit."""
        return self.counts.sum(dim=0)

    @property
    def masses(self) -> Tensor:
        """w, shape (n,), sum 1."""
        return self.total / self.total.sum()

    @property
    def centroids(self) -> Tensor:
        """Shape (n, d); NaN where a cell is empty."""
        return self.first / self.total[:, None]

    def accuracy(self) -> dict[str, Any]:
        """What the certificate says of the masses."""
        w, b = self.masses, self.weights
        exact = self.samples.exact
        chi2, stderr = (float(((w - b) ** 2 / b).sum()), 0.0) if exact else chi2_estimate(self.total, b)
        return {
            "chi2": chi2,
            "chi2_stderr": stderr,
            "l1": float((w - b).abs().sum()),
            "max_ratio": float((w / b - 1).abs().max()),
            "empty_cells": int((self.total == 0).sum()),
            "n_samples": self.samples.size,
            "n_targets": len(b),
            "exact": exact,
        }
