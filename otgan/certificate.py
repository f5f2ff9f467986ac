"""What a potential is worth, measured on samples that the solver did not see."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_count, make_generator
from otgan.measures import Empirical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgan.measures import DiscreteMeasure, Source
    from otgan.potential import BrenierPotential

_Z = 3.0  # standard errors on each side of an interval: 99.7 percent for a Gaussian
_EXACT_SUPPORT = 1000  # targets up to which the distance between masses and weights is solved exactly
_ROUNDING = 1e-14
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Certificate:
    """How far the potential's masses are from the target's, and what that says of the Wasserstein distance.

    Attributes:
        chi2: ``sum_i (w_i - b_i)^2 / b_i``, an unbiased estimate (it can fall below 0) or exact.
        chi2_stderr: its standard error; 0 where exact.
        l1: ``sum_i |w_i - b_i|``, with the sampling noise of the w_i in it.
        max_ratio: ``max_i |w_i / b_i - 1|``, likewise.
        empty_cells: targets that no sample reached.
        w2_lower: lower end of an interval for W2(mu, nu).
        w2_upper: upper end. Sampled ends are three standard errors out.
        n_samples: fresh samples used; 0 where exact.
        n_targets: n.
        exact: whether masses are integrals (True) or sampled.
        dual: ``D(h)``, the Kantorovich dual value for the cost |x-y|^2/2, at most W2^2/2.
        transport_cost: ``E |x - T_h(x)|^2``, the squared distance to what the map does reach.
        target_gap: an upper bound of W2 between what the map reaches and the target.
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
            ("empty cells", f"{self.empty_cells} of {self.n_targets:,}"),
            ("W2(source, target)", f"between {self.w2_lower:.6g} and {self.w2_upper:.6g}"),
        ]
        if not self.exact:
            noise = self.n_targets / max(self.n_samples, 1)
            rows[2] = (rows[2][0], f"{rows[2][1]} (of which noise about {40 * noise**0.5:.2g} %)")
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def certify(
    potential: BrenierPotential,
    source: Source,
    n_samples: int | None = None,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Measure a potential on fresh samples of the source.

    The interval for W2 holds up to three standard errors. Lower end: the larger of ``sqrt(2 D(h))`` (weak duality)
    and ``sqrt(E|x - T|^2) - W2(nu_h, nu)``. Upper end: the smaller of ``sqrt(E|x - T|^2) + W2(nu_h, nu)`` and the cost
    of an explicit coupling, T_h repaired to reach the target's masses (see :func:`repair`). All are formed for the
    centred measures; the distance of the means is added exactly.

    An :class:`~otgan.measures.Empirical` source of at most M points is not sampled but summed: the certificate is
    then exact for the map ``T_h`` (which, unlike a plan, splits no atom).

    Args:
        potential: u_h with its weights b.
        source: mu.
        n_samples: M; by default 50 a target, at least 20,000 and at most 2,000,000.
        seed: of the fresh samples. Do not reuse a solver's seed: :func:`otgan.solve` takes care of that for its own.
        generator: an own stream instead of a seed.
    """
    if source.dim != potential.dim:
        raise ValueError(f"source has dimension {source.dim}, the potential {potential.dim}.")
    n = potential.n
    m = as_count(n_samples if n_samples is not None else int(min(max(50 * n, 20_000), 2_000_000)), "n_samples", 2)
    atoms = source if isinstance(source, Empirical) and source.m <= m else None
    exact = atoms is not None
    blocks = (
        _atoms(atoms)
        if atoms is not None
        else _draws(source, m, make_generator(seed, generator, potential.points.device), potential)
    )
    weights = potential.weights.double().cpu()
    points = potential.points.double().cpu()
    heights = potential.heights.double().cpu()
    mean, middle = source.mean, weights @ points
    offset = mean - middle
    counts, first = torch.zeros(n, dtype=torch.float64), torch.zeros_like(points)
    costs, duals = _Moments(), _Moments()
    for x, mass in blocks:
        index = potential.assign(x).cpu()
        counts.index_add_(0, index, mass)
        # The centred problem: x' = x - mean, y' = y - middle; its heights are h_i + <mean, y'_i>.
        centred, y = x.double().cpu() - mean, points[index] - middle
        first.index_add_(0, index, centred * mass[:, None])
        costs.add(((centred - y) ** 2).sum(dim=1), mass)
        duals.add(0.5 * (centred**2).sum(dim=1) - (centred * y).sum(dim=1) - heights[index] - y @ mean, mass)
    masses = counts / counts.sum()
    chi2, stderr = (float(((masses - weights) ** 2 / weights).sum()), 0.0) if exact else chi2_estimate(counts, weights)
    shifted = points - middle
    # A target that is switched off has height -inf: the dual bound is then void.
    dual = duals.mean + float(weights @ (0.5 * (shifted**2).sum(dim=1) + heights + shifted @ mean))
    centroids = (first / counts[:, None]).numpy()
    gap, excess = repair(shifted.numpy(), masses.numpy(), weights.numpy(), centroids)
    z = 0.0 if exact else _Z
    low_cost, high_cost = costs.mean - z * costs.stderr, costs.mean + z * costs.stderr
    lower = max((2 * max(dual - z * duals.stderr, 0.0)) ** 0.5, max(low_cost, 0.0) ** 0.5 - gap)
    upper = min(high_cost**0.5 + gap, max(high_cost + excess, 0.0) ** 0.5)
    shift2 = float(offset @ offset)
    return Certificate(
        chi2=chi2,
        chi2_stderr=stderr,
        l1=float((masses - weights).abs().sum()),
        max_ratio=float((masses / weights - 1).abs().max()),
        empty_cells=int((counts == 0).sum()),
        w2_lower=(lower**2 + shift2) ** 0.5,
        w2_upper=(upper**2 + shift2) ** 0.5,
        n_samples=0 if exact else m,
        n_targets=n,
        exact=exact,
        dual=dual + 0.5 * shift2,
        transport_cost=costs.mean + shift2 - 2 * float((masses - weights) @ (shifted @ offset)),
        target_gap=gap,
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
        gap, excess = repair(y, masses, b, moment / masses[:, None])
    upper = max(min((cost**0.5 + gap) ** 2, cost + excess), twice_dual)
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
        target_gap=gap,
    )


def _draws(
    source: Source, m: int, stream: torch.Generator, potential: BrenierPotential
) -> Iterator[tuple[Tensor, Tensor]]:
    """Fresh samples in blocks, each of mass one."""
    points = potential.points
    for done in range(0, m, _CHUNK):
        size = min(_CHUNK, m - done)
        yield (
            source.sample(size, generator=stream, device=points.device, dtype=points.dtype),
            torch.ones(size, dtype=torch.float64),
        )


def _atoms(source: Empirical) -> Iterator[tuple[Tensor, Tensor]]:
    """All atoms of a discrete source in blocks, with their masses."""
    yield from zip(source.points.split(_CHUNK), source.weights.split(_CHUNK), strict=True)


class _Moments:
    """Running weighted mean and its standard error in float64, a block at a time (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mass, self.mean, self._m2 = 0, 0.0, 0.0, 0.0

    def add(self, values: Tensor, mass: Tensor) -> None:
        """Take a block of values and their masses in."""
        block = float(mass.sum())
        mean = float(mass @ values) / block
        delta, total = mean - self.mean, self.mass + block
        self._m2 += float(mass @ (values - mean) ** 2) + delta * delta * self.mass * block / total
        self.mean += delta * block / total
        self.mass, self.count = total, self.count + values.numel()

    @property
    def stderr(self) -> float:
        """Standard error of the mean of independent values of equal mass."""
        return (self._m2 / self.mass / max(self.count - 1, 1)) ** 0.5


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
    pairs = c * (c - 1) / (m * (m - 1))
    theta = float((pairs / b).sum())
    triples = float((pairs * (c - 2) / max(m - 2, 1.0) / b**2).sum())
    first = max(triples - theta**2, 0.0)
    second = max(float((pairs / b**2).sum()) - theta**2, 0.0)
    return theta - 1.0, (4.0 * first / m + 2.0 * second / m**2) ** 0.5


def repair(points: np.ndarray, masses: np.ndarray, weights: np.ndarray, centroids: np.ndarray) -> tuple[float, float]:
    """What it costs to carry the masses that a map reaches to the masses that it should reach.

    Both numbers belong to couplings P of ``sum w_i delta(y_i)`` and ``sum b_i delta(y_i)``, measures on one support:

    - the gap, an upper bound of their W2: ``(sum P_ij |y_i - y_j|^2)^(1/2)``;
    - the excess ``sum P_ij (|c_i - y_j|^2 - |c_i - y_i|^2)`` with c_i the centroid of cell i: by how much the transport
      cost changes when the part P_ij of the cell's mass goes to y_j instead of y_i. Added to ``E |x - T(x)|^2`` it is
      the cost of a coupling of source and target, hence an upper bound of W2^2.

    Exact minima (POT's network simplex) for small n. Beyond, the best of two plans along a k-d ordering of the points,
    where neighbours in the order are neighbours in space: all mass monotonically, or only the surplus ``(w - b)+`` to
    the deficit ``(b - w)+``.

    Args:
        points: shape (n, d).
        masses: w, shape (n,).
        weights: b, shape (n,).
        centroids: shape (n, d); a row with w_i = 0 is not read.
    """
    w, b = masses / masses.sum(), weights / weights.sum()
    if np.abs(w - b).sum() <= _ROUNDING:
        return 0.0, 0.0
    scale = float(np.ptp(points, axis=0).max())
    middle = points.mean(axis=0)
    y, live = (points - middle) / scale, w > 0
    c = np.where(live[:, None], (centroids - middle) / scale, 0.0)
    if len(points) <= _EXACT_SUPPORT:
        import ot
        from scipy.spatial.distance import cdist

        gap = ot.emd2(w[live], b, cdist(y[live], y, "sqeuclidean"), numItermax=5_000_000)
        change = cdist(c[live], y, "sqeuclidean") - ((c - y)[live] ** 2).sum(axis=1)[:, None]
        excess = ot.emd2(w[live], b, change, numItermax=5_000_000)
        return scale * max(float(gap), 0.0) ** 0.5, scale**2 * float(excess)
    order = _kd_order(y)
    difference = (w - b)[order]
    whole = _monotone_plan(w[order], b[order])
    part = _monotone_plan(np.maximum(difference, 0.0), np.maximum(-difference, 0.0))
    gaps, excesses = [], []
    for i, j, mass in (whole, part):
        i, j = order[i], order[j]
        gaps.append(float(mass @ ((y[i] - y[j]) ** 2).sum(axis=1)))
        excesses.append(float(mass @ (((c[i] - y[j]) ** 2).sum(axis=1) - ((c[i] - y[i]) ** 2).sum(axis=1))))
    return scale * min(gaps) ** 0.5, scale**2 * min(excesses)


def _monotone_plan(surplus: np.ndarray, deficit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From, to and mass of the plan that carries one vector of masses to another in the order of their entries."""
    total = surplus.sum()
    a, b = np.cumsum(surplus / total), np.cumsum(deficit / deficit.sum())
    cuts = np.union1d(a, b)
    cuts = np.concatenate([[0.0], cuts[(cuts > 0) & (cuts < 1)], [1.0]])
    at = (cuts[1:] + cuts[:-1]) / 2
    last_from, last_to = np.flatnonzero(surplus)[-1], np.flatnonzero(deficit)[-1]
    i, j = np.minimum(np.searchsorted(a, at), last_from), np.minimum(np.searchsorted(b, at), last_to)
    return i, j, total * np.diff(cuts)


def _kd_order(points: np.ndarray) -> np.ndarray:
    """Order of the leaves of a k-d tree: consecutive points are close in space."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(points, leafsize=4).indices)
