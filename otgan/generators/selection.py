"""How good samples are against points held out, in one number that copies and blurs both raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from otgan import kernels
from otgan.generators._affinities import nearest_others
from otgan.potential import BrenierPotential

if TYPE_CHECKING:
    from collections.abc import Callable

    from otgan.measures import Source

SAMPLES = 8192  # of a candidate: their noise is then small beside that of the held-out points
VALIDATION = 0.1  # share of the targets that a choice among generators holds out
_FEWEST, _MOST = 20, 2048
_PROBES = 1024
_MOST_REGS = 32
_TAIL, _STRAY = 0.01, 3.0
_SPACED = 4


class Score(NamedTuple):
    """Distances between the laws of samples and of held-out points; without unit, each between 0 and 1, 0 is best.

    Attributes:
        reach: Kolmogorov-Smirnov distance of the laws of the distance to the nearest training point, in units of that
            point's spacing: its mean distance to the four training points nearest to it. Copies are too near, means of
            points of different modes too far: either shows, and cannot make up for the other. Without the unit, too
            near where points are dense and too far where they are sparse would look right together.
        stray: share of samples farther from the training points, in this unit, than all but 1 % of the held-out ones,
            less that 1 %: what lies between modes.
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


class Judge:
    """Scores of samples against the same held-out points, given the training points.

    How far a new point is from the nearest training point is known from more than the held-out points: each training
    point is held out from the others, so that with weights all equal its distance to the nearest of them has the same
    law. The distances of both make the reference of ``reach`` and ``stray``.

    Args:
        held_out: (k, d).
        train: (n, d).
        weights: of the training points, shape (n,); uniform when left out.
        alone: the held-out points are the only reference.
    """

    def __init__(self, held_out: Tensor, train: Tensor, weights: Tensor | None = None, *, alone: bool = False) -> None:
        self._centre = train.double().mean(dim=0)
        self._train = self._inputs(train)
        self._held_out = self._inputs(held_out)[:_MOST]
        self._within = _within(self._held_out)
        self._spacing, own = _spacing(self._train)
        reach = self._reach(self._inputs(held_out))
        if not alone and (weights is None or _equal(weights)):
            reach = torch.cat([reach, own])
        self._reference = reach.sort().values

    def __call__(self, samples: Tensor) -> Score:
        """Score of samples (m, d)."""
        x = self._inputs(samples)
        reach = self._reach(x)
        limit = self._reference[int((1.0 - _TAIL) * (len(self._reference) - 1))]
        beyond = float((reach > limit).double().mean())
        cross = float(torch.cdist(x[:_MOST], self._held_out).mean())
        law = 1.0 - (_within(x[:_MOST]) + self._within) / (2.0 * cross) if cross > 0.0 else 0.0
        return Score(_kolmogorov(reach, self._reference), max(beyond - _TAIL, 0.0), min(max(law, 0.0), 1.0) ** 0.5)

    def _inputs(self, points: Tensor) -> Tensor:
        return points.to(self._centre) - self._centre

    def _reach(self, x: Tensor) -> Tensor:
        """Distance of each x to its nearest training point over that point's spacing, shape (m,)."""
        index = kernels.assign(x, self._train, -0.5 * self._train.square().sum(dim=1)).index
        return _over((x - self._train[index]).norm(dim=1), self._spacing[index])


def held_out_score(samples: Tensor, held_out: Tensor, train: Tensor) -> Score:
    """Score of samples (m, d) against held-out points (k, d), given the training points (n, d); see :class:`Judge`."""
    return Judge(held_out, train)(samples)


def noise_floor(held_out: Tensor, train: Tensor, seed: int = 0) -> float:
    """What one half of the held-out points scores against the other: mean over five random halvings.

    Neither half knows more of the law than its own points: what a model that learned it from so few would reach.
    """
    stream = torch.Generator().manual_seed(seed)
    totals = []
    for _ in range(5):
        order = torch.randperm(len(held_out), generator=stream).to(held_out.device)
        a, b = held_out[order].tensor_split(2)
        totals.append(Judge(b, train, alone=True)(a).total)
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
    if _equal(weights):
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


def climb(score: Callable[[float], Score], start: float, ratio: float, low: float, high: float) -> dict[float, Score]:
    """Scores by value: of ``start``, of its multiples by ``ratio`` upwards, then downwards, while the total falls.

    At last those of the two values between the best and its neighbours.
    """
    scores = {start: score(start)}

    def best() -> float:
        return min(scores, key=lambda value: scores[value].total)

    for step in (ratio, 1.0 / ratio):
        while low <= best() * step <= high and best() * step not in scores:
            value = best() * step
            scores[value] = score(value)
    for value in (best() * ratio**0.5, best() / ratio**0.5):
        if low <= value <= high:
            scores[value] = score(value)
    return dict(sorted(scores.items()))


def _spacing(train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance of each training point to the four nearest others; and its own reach from the others, both (n,).

    Its reach is that of a held-out point: the spacing of its nearest neighbour is then one that it is no part of.
    """
    n = len(train)
    if n < 3:
        return torch.ones_like(train[:, 0]), train.new_empty(0)
    near, square = nearest_others(train, min(_SPACED + 1, n - 1))
    distance = square.sqrt()
    first = near[:, 0]
    others = near[first] != torch.arange(n, device=train.device)[:, None]
    others &= others.cumsum(dim=1) <= min(_SPACED, n - 2)
    without = (distance[first] * others).sum(dim=1) / others.sum(dim=1)
    return distance[:, :_SPACED].mean(dim=1), _over(distance[:, 0], without)


def _over(distance: Tensor, spacing: Tensor) -> Tensor:
    """Their ratio, 0 where both are."""
    return torch.where(distance > 0.0, distance / spacing, 0.0)


def _equal(weights: Tensor) -> bool:
    return float(weights.max()) <= 1.000001 * float(weights.min())


def _kolmogorov(a: Tensor, b: Tensor) -> float:
    """``sup |F_a - F_b|`` of the empirical distribution functions."""
    a, b = a.sort().values, b.sort().values
    at = torch.cat([a, b])
    left = torch.searchsorted(a, at, right=True).double() / len(a)
    return float((left - torch.searchsorted(b, at, right=True).double() / len(b)).abs().max())


def _within(x: Tensor) -> float:
    """``E |X - X'|`` of two different points."""
    return float(torch.cdist(x, x).sum()) / max(len(x) * (len(x) - 1), 1)
