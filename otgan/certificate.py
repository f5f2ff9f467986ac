"""What a potential is worth, measured on samples that the solver did not see."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_count, make_generator
from otgan.cost_potential import KantorovichPotential
from otgan.measures import Empirical, Source
from otgan.repair import Repair, power_cost, repair, repair_cost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otgan.measures import DiscreteMeasure
    from otgan.potential import BrenierPotential

__all__ = ["Certificate", "Repair", "certify", "certify_exact", "chi2_estimate", "repair"]

_Z = 3.0  # standard errors on each side of an interval: 99.7 percent for a Gaussian
_CHUNK = 1 << 16
_BLOCKS = 16  # of samples, for the jackknife
_FAR = 1e3  # deviations from the origin beyond which float32 samples are too coarse
_SUMMED = 2_000_000_000  # atoms times targets up to which a discrete source is summed rather than sampled


@dataclass(frozen=True)
class Certificate:
    """How far the potential's masses are from the target's, and what that says of the Wasserstein distance.

    The cost is ``c(x - y) = |x - y|^p / p``; C(mu, nu), the least mean cost of a coupling, is ``W_p^p / p``.

    Attributes:
        chi2: ``sum_i (w_i - b_i)^2 / b_i``, an unbiased estimate (it can fall below 0) or exact.
        chi2_stderr: its standard error; 0 where exact.
        l1: ``sum_i |w_i - b_i|``, with the sampling noise of the w_i in it.
        max_ratio: ``max_i |w_i / b_i - 1|``, likewise.
        empty_cells: targets that no sample reached.
        w2_lower: lower end of an interval for W2(mu, nu); NaN for p != 2, where nothing is said of it.
        w2_upper: upper end. Sampled ends are three standard errors out.
        n_samples: fresh samples used; 0 where exact.
        n_targets: n.
        exact: whether masses are integrals (True) or sampled.
        dual: ``D(h)``, the Kantorovich dual value, at most ``C(mu, nu)`` (which is W2^2/2 for p = 2).
        transport_cost: ``E |x - T(x)|^p``, the p-th power of the distance to what the map does reach.
        target_gap: an upper bound of W_p between what the map reaches and the target.
        p: exponent of the cost.
        cost_lower: lower end of an interval for C(mu, nu); for p = 2 it is ``w2_lower^2 / 2``.
        cost_upper: upper end, likewise.
    """

    chi2: float
    chi2_stderr: float
    l1: float
    max_ratio: float
    empty_cells: int
    w2_lower: float
    w2_upper: float
    n_samples: int
    n_targets: int
    exact: bool
    dual: float
    transport_cost: float
    target_gap: float
    p: float = 2.0
    cost_lower: float = math.nan
    cost_upper: float = math.nan

    def __post_init__(self) -> None:
        """For p = 2 the two intervals say the same."""
        if self.p == 2.0:
            object.__setattr__(self, "cost_lower", self.w2_lower**2 / 2)
            object.__setattr__(self, "cost_upper", self.w2_upper**2 / 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """The certificate as a few lines of text."""
        how = "exact integrals" if self.exact else f"{self.n_samples:,} fresh samples"
        chi2 = f"{self.chi2:.3g}" if self.exact else f"{self.chi2:.4f} +- {self.chi2_stderr:.4f}"
        rows = [
            ("measured on", how),
            ("chi2 of the cell masses", chi2),
            ("mass misplaced (L1 / 2)", f"{50 * self.l1:.3g} %"),
            ("worst cell |w/b - 1|", f"{self.max_ratio:.3g}"),
            ("empty cells", f"{self.empty_cells:,} of {self.n_targets:,}"),
            ("W2(source, target)", f"between {self.w2_lower:.6g} and {self.w2_upper:.6g}"),
        ]
        if self.p != 2.0:
            ends = self.cost_lower, self.cost_upper
            low, high = ((self.p * end) ** (1.0 / self.p) for end in ends)
            rows[-1] = (f"W_p(source, target), p = {self.p:g}", f"between {low:.6g} and {high:.6g}")
            rows.append(("mean cost |x-y|^p / p", f"between {ends[0]:.6g} and {ends[1]:.6g}"))
        if not self.exact:
            noise = self.n_targets / max(self.n_samples, 1)
            rows[2] = (rows[2][0], f"{rows[2][1]} (of which noise about {40 * noise**0.5:.2g} %)")
            if (missed := self.n_targets * math.exp(-1.0 / noise)) >= 0.5:
                rows[4] = (rows[4][0], f"{rows[4][1]} (of which chance at least {missed:,.0f})")
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


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
            beforehand) and at most 2,000,000.
        seed: of the fresh samples. Do not reuse a solver's seed: :func:`otgan.solve` takes care of that for its own.
        generator: an own stream instead of a seed.
    """
    if not isinstance(source, Source):
        raise TypeError(f"source must be a measure such as og.UniformBox(dim=2), got {type(source).__name__}.")
    if source.dim != potential.dim:
        raise ValueError(f"source has dimension {source.dim}, the potential {potential.dim}.")
    n = potential.n
    least = 20_000 if potential.p == 2.0 else 200_000
    m = as_count(n_samples if n_samples is not None else min(max(50 * n, least), 2_000_000), "n_samples", 2)
    summed = isinstance(source, Empirical) and (source.m <= m or (n_samples is None and source.m * n <= _SUMMED))
    exact = _Exact(source) if summed and isinstance(source, Empirical) else None
    device = potential.points.device
    stream = make_generator(seed, generator, device)
    if isinstance(potential, KantorovichPotential):
        return _certify_cost(potential, source, m, stream, exact)
    blocks = exact or _draws(source, m, stream, potential)
    weights, points = potential.weights.double().cpu(), potential.points.double().cpu()
    mean, middle = source.mean, weights @ points
    shifted, offset = points - middle, source.mean - middle
    # The centred problem in units of the larger side: x' = (x - mean) / s, y' = (y - middle) / s, psi its target dual.
    unit = max(source.variance, float(weights @ (shifted**2).sum(dim=1))) ** 0.5 or 1.0
    y = shifted / unit
    psi = 0.5 * (y**2).sum(dim=1) + (potential.heights.double().cpu() + shifted @ mean) / unit**2
    counts, first = torch.zeros(_BLOCKS, n, dtype=torch.float64), torch.zeros_like(points)
    costs, duals = _Moments(source.variance / unit**2), _Moments(source.variance / unit**2)
    for number, (x, mass) in enumerate(blocks):
        index = potential.assign(x.to(device)).cpu()
        centred = (x.double().cpu() - mean) / unit
        counts[number % _BLOCKS].index_add_(0, index, mass)
        first.index_add_(0, index, centred * mass[:, None])
        square, cost = (centred**2).sum(dim=1), ((centred - y[index]) ** 2).sum(dim=1)
        costs.add(cost, square, mass)
        duals.add(cost / 2 - psi[index], square, mass)
    total = counts.sum(dim=0)
    masses = total / total.sum()
    chi2, stderr = (float(((masses - weights) ** 2 / weights).sum()), 0.0) if exact else chi2_estimate(total, weights)
    fix = repair(y.numpy(), masses.numpy(), weights.numpy(), (first / total[:, None]).numpy(), counts.numpy())
    # A target that is switched off has height -inf: the dual bound is then void.
    dual = duals.mean + float(weights @ psi)
    z = 0.0 if exact else _Z
    low_cost, high_cost = costs.mean - z * costs.stderr, costs.mean + z * costs.stderr
    gap = (fix.gap2 + z * fix.gap2_stderr) ** 0.5
    lower = max((2 * max(dual - z * duals.stderr, 0.0)) ** 0.5, max(low_cost, 0.0) ** 0.5 - gap)
    upper = min(max(high_cost, 0.0) ** 0.5 + gap, max(high_cost + fix.excess + z * fix.excess_stderr, 0.0) ** 0.5)
    shift2 = float((offset / unit) @ (offset / unit))
    drift = 2 * float((masses - weights) @ (y @ offset)) / unit
    return Certificate(
        chi2=chi2,
        chi2_stderr=stderr,
        l1=float((masses - weights).abs().sum()),
        max_ratio=float((masses / weights - 1).abs().max()),
        empty_cells=int((total == 0).sum()),
        w2_lower=unit * (lower**2 + shift2) ** 0.5,
        w2_upper=unit * (max(upper, lower) ** 2 + shift2) ** 0.5,
        n_samples=0 if exact else m,
        n_targets=n,
        exact=exact is not None,
        dual=unit**2 * (dual + 0.5 * shift2),
        transport_cost=unit**2 * (costs.mean + shift2 - drift),
        target_gap=unit * fix.gap2**0.5,
    )


def _certify_cost(
    potential: KantorovichPotential, source: Source, m: int, stream: torch.Generator, exact: _Exact | None
) -> Certificate:
    """:func:`certify` for the cost ``|x - y|^p / p``, in common coordinates of unit size."""
    p, n, device = potential.p, potential.n, potential.points.device
    weights, points = potential.weights.double().cpu(), potential.points.double().cpu()
    middle = weights @ points
    apart = source.mean - middle
    variance = source.variance
    unit = (variance + float(weights @ ((points - middle) ** 2).sum(dim=1)) + float(apart @ apart)) ** 0.5 or 1.0
    y, psi = (points - middle) / unit, potential.psi.double().cpu() / unit**p
    twin = torch.Generator(device=stream.device)
    twin.set_state(stream.get_state())  # draws the same samples once more, when the repair is known

    def cells(samples: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for x, mass in samples:
            yield (x.double().cpu() - middle) / unit, potential.assign(x.to(device)).cpu(), mass

    counts, first = torch.zeros(_BLOCKS, n, dtype=torch.float64), torch.zeros_like(y)
    costs, duals = _Moments(variance / unit**2), _Moments(variance / unit**2)
    for number, (x, cell, mass) in enumerate(cells(exact or _draws(source, m, stream, potential))):
        counts[number % _BLOCKS].index_add_(0, cell, mass)
        first.index_add_(0, cell, x * mass[:, None])
        cost = torch.from_numpy(power_cost((x - y[cell]).numpy(), p))
        square = ((x - apart / unit) ** 2).sum(dim=1)
        costs.add(cost, square, mass)
        duals.add(cost - psi[cell], square, mass)
    total = counts.sum(dim=0)
    masses = total / total.sum()
    centroids = (first / total[:, None]).numpy()
    fix = repair_cost(y.numpy(), masses.numpy(), weights.numpy(), centroids, p, None if exact else counts.numpy())
    excess = 0.0
    for x, cell, mass in cells(exact or _draws(source, m, twin, potential)) if len(fix.share) else ():
        excess += float(mass.numpy() @ fix.excess(x.numpy(), cell.numpy(), y.numpy(), p))
    excess /= float(total.sum())
    chi2, stderr = (float(((masses - weights) ** 2 / weights).sum()), 0.0) if exact else chi2_estimate(total, weights)
    dual = duals.mean + float(weights @ psi)  # -inf where a target is switched off: the bound is then void
    z = 0.0 if exact else _Z
    lower = max(dual - z * duals.stderr, 0.0)
    upper = max(costs.mean + z * costs.stderr + excess + z * fix.excess_stderr, lower)
    return Certificate(
        chi2=chi2,
        chi2_stderr=stderr,
        l1=float((masses - weights).abs().sum()),
        max_ratio=float((masses / weights - 1).abs().max()),
        empty_cells=int((total == 0).sum()),
        w2_lower=unit * (2 * lower) ** 0.5 if p == 2.0 else math.nan,
        w2_upper=unit * (2 * upper) ** 0.5 if p == 2.0 else math.nan,
        n_samples=0 if exact else m,
        n_targets=n,
        exact=exact is not None,
        dual=unit**p * dual,
        transport_cost=unit**p * p * costs.mean,
        target_gap=unit * fix.gap ** (1.0 / p),
        p=p,
        cost_lower=unit**p * lower,
        cost_upper=unit**p * upper,
    )


def certify_exact(
    source: Source, target: DiscreteMeasure, heights: Tensor, masses: np.ndarray, first: np.ndarray
) -> Certificate:
    """The certificate from exact integrals over the cells: no sampling, errors at the level of rounding.

    With x' and y' centred, f' the first moments of the cells and ``h'_i = h_i + <E x, y'_i>``:
    ``E |x' - T|^2 = E |x'|^2 + sum_i w_i |y'_i|^2 - 2 sum_i <f'_i, y'_i>`` and
    ``D(h) = E |x'|^2 / 2 + sum_i b_i |y'_i|^2 / 2 - sum_i (<f'_i, y'_i> + (w_i - b_i) h'_i)``,
    which is ``W2^2 / 2`` up to second order in the error of the masses.

    Args:
        source: mu.
        target: nu.
        heights: h, shape (n,).
        masses: w, shape (n,).
        first: integral of x over each cell, shape (n, d).
    """
    b, points = target.weights.cpu().numpy(), target.points.double().cpu().numpy()
    mean, middle = source.mean.numpy(), target.mean.numpy()
    y, moment = points - middle, first - masses[:, None] * mean
    shifted = heights.double().cpu().numpy() + y @ mean
    shifted = shifted - b @ shifted
    correlation, square = float((moment * y).sum()), (y**2).sum(axis=1)
    cost = max(source.variance + float(masses @ square) - 2 * correlation, 0.0)
    twice_dual = source.variance + float(b @ square) - 2 * correlation - 2 * float((masses - b) @ shifted)
    twice_dual = max(twice_dual, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        fix = repair(y, masses, b, moment / masses[:, None])
    upper = max(min((cost**0.5 + fix.gap2**0.5) ** 2, cost + fix.excess), twice_dual)
    shift2 = float(((mean - middle) ** 2).sum())
    return Certificate(
        chi2=float(((masses - b) ** 2 / b).sum()),
        chi2_stderr=0.0,
        l1=float(np.abs(masses - b).sum()),
        max_ratio=float(np.abs(masses / b - 1).max()),
        empty_cells=int((masses <= 0).sum()),
        w2_lower=(twice_dual + shift2) ** 0.5,
        w2_upper=(upper + shift2) ** 0.5,
        n_samples=0,
        n_targets=target.n,
        exact=True,
        dual=(twice_dual + shift2) / 2,
        transport_cost=cost + shift2 - 2 * float((masses - b) @ (y @ (mean - middle))),
        target_gap=fix.gap2**0.5,
    )


def _draws(
    source: Source, m: int, stream: torch.Generator, potential: BrenierPotential | KantorovichPotential
) -> Iterator[tuple[Tensor, Tensor]]:
    """Fresh samples in blocks, each of mass one; in float64 where the source is too far from the origin for float32."""
    points = potential.points
    far = float(source.mean.abs().max()) > _FAR * (source.variance / source.dim) ** 0.5
    size = min(_CHUNK, -(-m // _BLOCKS))
    for done in range(0, m, size):
        now = min(size, m - done)
        dtype = torch.float64 if far else points.dtype
        yield (
            source.sample(now, generator=stream, device=points.device, dtype=dtype),
            torch.ones(now, dtype=torch.float64),
        )


class _Exact:
    """All atoms of a discrete source in blocks, with their masses."""

    def __init__(self, source: Empirical) -> None:
        self.source = source

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.source.points.split(_CHUNK), self.source.weights.split(_CHUNK), strict=True)


class _Moments:
    """Running mean of values, with a control variate of known mean, and its standard error; in float64, by blocks.

    The values' regression on the control is removed: ``mean v - beta (mean c - E c)``, ``beta = cov(v, c) / var c``.

    Args:
        expected: E c.
    """

    def __init__(self, expected: float) -> None:
        self._expected = expected
        self._count, self._mass = 0, 0.0
        self._means, self._moments = torch.zeros(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)

    def add(self, values: Tensor, controls: Tensor, mass: Tensor) -> None:
        """Take a block of values, controls and masses in (Chan, Golub, LeVeque 1979)."""
        pair = torch.stack([values, controls])
        block = float(mass.sum())
        means = pair @ mass / block
        delta, total = means - self._means, self._mass + block
        centred = pair - means[:, None]
        self._moments += (centred * mass) @ centred.T + torch.outer(delta, delta) * (self._mass * block / total)
        self._means += delta * (block / total)
        self._mass, self._count = total, self._count + values.numel()

    @property
    def _beta(self) -> float:
        variance = float(self._moments[1, 1])
        return float(self._moments[0, 1]) / variance if variance > 0.0 else 0.0

    @property
    def mean(self) -> float:
        """The adjusted mean."""
        return float(self._means[0]) - self._beta * (float(self._means[1]) - self._expected)

    @property
    def stderr(self) -> float:
        """Standard error of the adjusted mean of independent values of equal mass."""
        left = max(float(self._moments[0, 0]) - self._beta * float(self._moments[0, 1]), 0.0)
        return (left / self._mass / max(self._count - 2, 1)) ** 0.5


def chi2_estimate(counts: Tensor, weights: Tensor) -> tuple[float, float]:
    """Unbiased estimate of ``sum_i (w_i - b_i)^2 / b_i`` from cell counts, and its standard error.

    ``sum_i c_i (c_i - 1) / (M (M - 1) b_i) - 1``: a U-statistic of order two with the kernel ``1{i = j} / b_i``. Its
    variance is ``4 z_1 / M + 2 z_2 / M^2`` to leading order (Hoeffding 1948), where
    ``z_1 = sum w^3/b^2 - (sum w^2/b)^2`` is estimated without bias from triples and
    ``z_2 = sum w^2/b^2 - (sum w^2/b)^2`` from pairs.

    Args:
        counts: c_i, shape (n,), samples in each cell.
        weights: b_i, shape (n,), sum 1.
    """
    c, b = counts.double(), weights.double().to(counts.device)
    m = float(c.sum())
    if m < 2:
        raise ValueError(f"chi2 needs at least 2 samples, got {m:.0f}.")
    seen = c > 0
    c, b = c[seen], b[seen]
    ratio = (c - 1) / (m - 1) / b
    theta = float((c / m * ratio).sum())
    triples = float((c / m * ratio * ((c - 2) / max(m - 2, 1.0) / b)).sum())
    first = max(triples - theta**2, 0.0)
    second = max(float((c / m / b * ratio).sum()) - theta**2, 0.0)
    return theta - 1.0, (4.0 * first / m + 2.0 * second / m**2) ** 0.5
