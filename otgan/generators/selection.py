"""How good samples are against points held out, in one number that copies and blurs both raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from otgan import kernels
from otgan.potential import BrenierPotential

if TYPE_CHECKING:
    from otgan.measures import Source

SAMPLES = 8192  # of a candidate: their noise is then small beside that of the held-out points
VALIDATION = 0.1  # share of the targets that a choice among generators holds out
_FEWEST, _MOST = 20, 2048
_PROBES = 1024
_MOST_REGS = 32
_TAIL, _STRAY = 0.01, 3.0


class Score(NamedTuple):
    """Distances between the laws of samples and of held-out points; without unit, each between 0 and 1, 0 is best.

    Attributes:
        reach: Kolmogorov-Smirnov distance of the laws of the distance to the nearest training point. Copies are too
            near, means of points of different modes too far: either shows, and cannot make up for the other.
        stray: share of samples farther from the training points than all but 1 % of the held-out ones, less that 1 %:
            what lies between modes, which ``reach`` does not see while it is larger elsewhere.
        law: root of the energy coefficient ``D^2 / (2 E|X - Y|)`` (Szekely, Rizzo 2013), unbiased D^2 cut at 0: missing
            mass, lost variance.
    """

    reach: float
    stray: float
    law: float

    @property
    def total(self) -> float:
        """``reach + 3 stray + law``: the share that strays is known that much better than the two distances."""
        return self.reach + _STRAY * self.stray + self.law


def held_out_score(samples: Tensor, held_out: Tensor, train: Tensor) -> Score:
    """Score of samples (m, d) against held-out points (k, d), given the training points (n, d)."""
    centre = train.double().mean(dim=0)
    x, y, t = (points.to(centre) - centre for points in (samples, held_out, train))
    ours, theirs = _reach(x, t), _reach(y, t)
    beyond = float((ours > theirs.quantile(1.0 - _TAIL)).double().mean())
    law = _coefficient(x[:_MOST], y[:_MOST]) ** 0.5
    return Score(_kolmogorov(ours, theirs), max(beyond - _TAIL, 0.0), law)


def noise_floor(held_out: Tensor, train: Tensor, seed: int = 0) -> float:
    """What one half of the held-out points scores against the other: mean over five random halvings.

    A candidate that scores no worse cannot be told from the data by so few points.
    """
    stream = torch.Generator().manual_seed(seed)
    totals = []
    for _ in range(5):
        order = torch.randperm(len(held_out), generator=stream).to(held_out.device)
        a, b = held_out[order].tensor_split(2)
        totals.append(held_out_score(a, b, train).total)
    return sum(totals) / len(totals)


def split_targets(n: int, seed: int, fraction: float = VALIDATION) -> Tensor | None:
    """Numbers of the targets that a choice among generators holds out; None where they would be too few to tell."""
    wanted = min(int(fraction * n), _MOST)
    if wanted < _FEWEST:
        return None
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:wanted]


def without(potential: BrenierPotential, aside: Tensor) -> BrenierPotential:
    """u_h over the other targets: their cells take over the mass of those that are set aside.

    Nothing is solved again, so that masses are wrong by about the share that is hidden. All candidates suffer from that
    alike, and the smoothness that is best depends on the distances of the targets, which hardly change.
    """
    kept = torch.ones(potential.n, dtype=torch.bool, device=potential.points.device)
    kept[aside.to(kept.device)] = False
    return BrenierPotential(
        potential.points[kept], potential.heights[kept], potential.weights[kept], center=potential.center
    )


def drawn(points: Tensor, weights: Tensor, seed: int) -> Tensor:
    """The points themselves for equal weights, otherwise as many drawn with these weights."""
    if float(weights.max()) <= 1.000001 * float(weights.min()):
        return points
    stream = torch.Generator().manual_seed(seed)
    return points[torch.multinomial(weights.cpu(), len(points), True, generator=stream).to(points.device)]


def candidate_regs(potential: BrenierPotential, source: Source, rule: float, seed: int = 0) -> list[float]:
    """Regularisations worth trying, each half of the one before.

    From four times the ``rule`` (means of many targets) down to half of the median lead of a source point's best
    target over its second best, where most samples are copies. On separate modes the useful ones are far below the
    rule, which knows the spread of all targets and not that within a mode.
    """
    x = source.sample(_PROBES, seed=seed, device=potential.points.device, dtype=torch.float64)
    best = potential.top_k(x, min(2, potential.n)).value
    lead = float((best[:, 0] - best[:, -1]).median())
    regs = [4.0 * rule]
    while len(regs) < _MOST_REGS and regs[-1] > lead:
        regs.append(regs[-1] / 2.0)
    return regs


def _reach(x: Tensor, train: Tensor) -> Tensor:
    """Distance of each x to its nearest training point, shape (m,)."""
    index = kernels.assign(x, train, -0.5 * train.square().sum(dim=1)).index
    return (x - train[index]).norm(dim=1)


def _kolmogorov(a: Tensor, b: Tensor) -> float:
    """``sup |F_a - F_b|`` of the empirical distribution functions."""
    a, b = a.sort().values, b.sort().values
    at = torch.cat([a, b])
    left = torch.searchsorted(a, at, right=True).double() / len(a)
    return float((left - torch.searchsorted(b, at, right=True).double() / len(b)).abs().max())


def _coefficient(x: Tensor, y: Tensor) -> float:
    """Energy coefficient of the laws of x and y, in [0, 1]."""
    cross = float(torch.cdist(x, y).mean())
    within = sum(float(torch.cdist(z, z).sum()) / max(len(z) * (len(z) - 1), 1) for z in (x, y))
    return min(max(1.0 - within / (2.0 * cross), 0.0), 1.0) if cross > 0.0 else 0.0
