"""Regression pairs (x, T_h(x)) for a generator, with some targets held out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from otgan.generators.networks import Coordinates
from otgan.potential import BrenierPotential

if TYPE_CHECKING:
    from otgan.measures import Source

_PER_TARGET, _FEWEST, _MOST = 8, 1 << 16, 1 << 19
_ENOUGH = 4  # a target, of those that cost nothing
_NUMBERS = 1 << 26  # coordinates of all pairs, which bounds the memory
_HELD_OUT = 2048  # pairs that are measured, one a target


@dataclass(frozen=True)
class Pairs:
    """Source points z and numbers i of their targets t_i, in coordinates of equal covariance, float32.

    Attributes:
        coordinates: from x, y to z, t.
        z: (m, d).
        index: (m,).
        held_z: (k, d), in cells of targets that ``index`` never names.
        held_index: (k,), each target once.
        targets: t_i, (n, d).
        start: mean of the source points of each cell, (n, d): where conjugates start.
        order: the shuffled rows of the current epoch, by (seed, epoch).
    """

    coordinates: Coordinates
    z: Tensor
    index: Tensor
    held_z: Tensor
    held_index: Tensor
    targets: Tensor
    start: Tensor
    order: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Points z and numbers i of one step, shuffled anew each epoch.

        A function of (step, seed) alone, so that a continued fit sees the same batches.
        """
        size = min(size, len(self.z))
        per_epoch = len(self.z) // size
        epoch, place = divmod(step, per_epoch)
        if (seed, epoch) not in self.order:
            self.order.clear()  # one epoch at a time
            stream = torch.Generator().manual_seed((seed * 1_000_003 + epoch) & 0x7FFF_FFFF_FFFF_FFFF)
            self.order[seed, epoch] = torch.randperm(len(self.z), generator=stream)
        rows = self.order[seed, epoch][place * size : (place + 1) * size].to(self.z.device)
        return self.z[rows], self.index[rows]


def pairs_wanted(n: int, dim: int) -> int:
    """How many pairs a fit to n targets asks for by default."""
    return max(min(max(min(_PER_TARGET * n, _MOST), _FEWEST), _NUMBERS // dim), 1024)


def enough_pairs(held: int, n: int, wanted: int, asked: bool) -> bool:
    """Whether pairs that a solver showed will do, so that none is drawn: half of what was asked for, or 4 a target."""
    return held >= 0.5 * wanted or (not asked and held >= _ENOUGH * n)


def draw_pairs(potential: BrenierPotential, source: Source, count: int | None, validation: float, seed: int) -> Pairs:
    """Draw source points, look up their cells, and set the cells of a fraction of the targets aside."""
    device = potential.points.device
    count = pairs_wanted(potential.n, potential.dim) if count is None else count
    stream = torch.Generator(device=device).manual_seed(seed)
    x = source.sample(count, generator=stream, device=device)
    return as_pairs(potential, x, _assigned(potential, x), validation, seed)


def _assigned(potential: BrenierPotential, x: Tensor) -> Tensor:
    """Cells of x, shape (m,), in float32, which is precise enough for pairs: around the targets' mean, in their extent.

    A shift of all targets changes the scores of one x by the same number, a common factor of targets and heights does
    not change their order.
    """
    y = potential.points.double()
    y = y - y.mean(dim=0)
    unit = float(y.abs().max()) or 1.0
    near = BrenierPotential((y / unit).float(), potential.heights / unit, potential.weights, potential.center)
    return near.assign(x)


def as_pairs(potential: BrenierPotential, x: Tensor, index: Tensor, validation: float, seed: int) -> Pairs:
    """Source points, shape (m, d), whose cells (m,) are known, with the cells of a fraction of the targets aside."""
    n, dim, device = potential.n, potential.dim, potential.points.device
    coordinates = Coordinates.of(x, potential.points, potential.weights).to(device)
    z = coordinates.source(x.double()).float()
    targets = coordinates.target(potential.points.double()).float()
    counts = torch.bincount(index, minlength=n)
    start = torch.zeros(n, dim, device=device).index_add_(0, index, z) / counts.clamp_min(1)[:, None]
    start = torch.where((counts == 0)[:, None], targets, start)
    aside = torch.zeros(n, dtype=torch.bool, device=device)
    wanted = min(int(validation * n), n - 1)
    if wanted:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(device)
        aside[order[:wanted]] = True
    held = aside[index]
    rows = held.nonzero()[:, 0]
    first = torch.full((n,), len(x), device=device).scatter_reduce_(0, index[rows], rows, "amin")
    chosen = first[first < len(x)].sort().values[:_HELD_OUT]
    if bool(held.all()):
        raise ValueError(f"No pair is left to fit to: validation={validation} sets all {len(x)} aside; lower it.")
    return Pairs(coordinates, z[~held], index[~held], z[chosen], index[chosen], targets, start)
