"""What a sample of the source tells of the power cells: where each is, how wide, and of which shape on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from otgan.measures import Source
    from otgan.potential import BrenierPotential

_BLOCK = 1 << 16
_PROBED = 2048  # cells whose points are kept
_PRIOR = 4.0  # coordinates' worth of belief that a cell is as wide as the median one


@dataclass(frozen=True)
class CellMoments:
    """Mass centres and second moments of the cells, float64.

    Attributes:
        centers: c_i, shape (n, d); 0 where no point fell.
        counts: points that fell in each cell, shape (n,), int64.
        width: ``E |x - c_i|^2`` in each cell, shape (n,), drawn towards the median where few points fell; 0 where none
            did.
        covariance: of ``x - c_i`` within the cells, over all cells, shape (d, d).
        probe: points x - c_i of some cells, shape (r, d).
        probed: the cells they lie in, shape (r,).
    """

    centers: Tensor
    counts: Tensor
    width: Tensor
    covariance: Tensor
    probe: Tensor
    probed: Tensor


@torch.no_grad()
def cell_moments(potential: BrenierPotential, source: Source, samples: int, seed: int) -> CellMoments:
    """Moments of the cells from this many points of the source."""
    n, dim, device = potential.n, potential.dim, potential.points.device
    stream = torch.Generator(device=device).manual_seed(seed)
    middle = source.mean.to(device=device, dtype=torch.float64)
    chosen = torch.zeros(n, dtype=torch.bool, device=device)
    chosen[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:_PROBED].to(device)] = True
    counts = torch.zeros(n, dtype=torch.int64, device=device)
    sums = torch.zeros(n, dim, dtype=torch.float64, device=device)
    squares = torch.zeros(n, dtype=torch.float64, device=device)
    second = torch.zeros(dim, dim, dtype=torch.float64, device=device)
    kept: list[tuple[Tensor, Tensor]] = []
    for start in range(0, samples, _BLOCK):
        x = source.sample(min(_BLOCK, samples - start), generator=stream, device=device)
        index = potential.assign(x)
        z = x.double() - middle
        counts += torch.bincount(index, minlength=n)
        sums.index_add_(0, index, z)
        squares.index_add_(0, index, z.square().sum(dim=1))
        second += z.T @ z
        rows = chosen[index].nonzero()[:, 0]
        kept.append((z[rows], index[rows]))
    found = counts.clamp_min(1).double()
    centers = sums / found[:, None]
    within = (second - centers.T @ sums) / max(samples - int((counts > 0).sum()), 1)
    spread = (squares - (centers * sums).sum(dim=1)).clamp_min(0.0)
    free = (counts - 1).clamp_min(0).double()
    several = counts > 1
    median = float((spread[several] / free[several]).median()) if bool(several.any()) else 0.0
    width = (dim * spread + _PRIOR * median) / (dim * free + _PRIOR)
    probe, probed = torch.cat([z for z, _ in kept]), torch.cat([index for _, index in kept])
    return CellMoments(
        torch.where(counts[:, None] > 0, centers + middle, 0.0),
        counts,
        torch.where(counts > 0, width, 0.0),
        0.5 * (within + within.T),
        probe - centers[probed],
        probed,
    )
