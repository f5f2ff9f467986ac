"""How much each target counts as a neighbour of each other one: sparse, symmetric, with the targets' own masses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from otgan import kernels

if TYPE_CHECKING:
    from otgan.potential import BrenierPotential

_LISTED = 3.0  # neighbours listed, over the effective number: what is beyond has next to no weight
_SPARE = 4  # listed beyond these, as rounding may disturb their order
_STEPS, _EXACT = 30, 1e-9
_ROUNDS, _BALANCED = 500, 1e-6
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Affinities:
    """Rows ``P_ij`` of shares in compressed form: row i is the part ``offsets[i] : offsets[i + 1]`` of the others.

    Attributes:
        offsets: shape (n + 1,), int64.
        index: j, shape (e,), int64.
        share: P_ij > 0, shape (e,), float32; a row sums to 1.
    """

    offsets: Tensor
    index: Tensor
    share: Tensor

    def rows(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours and shares of some targets, both (c, r), r the longest row; what is missing has share 0."""
        start, length = self.offsets[cells], self.offsets[cells + 1] - self.offsets[cells]
        place = torch.arange(int(length.max()), device=start.device)
        present = place < length[:, None]
        at = torch.where(present, start[:, None] + place, start[:, None])
        return self.index[at], torch.where(present, self.share[at].double(), 0.0)

    def mean(self, points: Tensor) -> Tensor:
        """``sum_j P_ij y_j``, shape (n, d), float64."""
        row = torch.repeat_interleave(self.offsets.diff())
        middle = points.double().mean(dim=0)  # shares sum to 1 as float32 does, which far from the origin is not enough
        out = torch.zeros_like(points, dtype=torch.float64)
        step = max(1, _BLOCK // points.shape[1])
        for start in range(0, len(row), step):
            here = slice(start, start + step)
            out.index_add_(0, row[here], self.share[here, None].double() * (points[self.index[here]].double() - middle))
        return out + middle


class Nearest:
    """The k nearest other points, for several k: looked up once for twice as many as are asked for.

    Args:
        points: shape (n, d).
    """

    def __init__(self, points: Tensor) -> None:
        self.points = points
        self._found: tuple[Tensor, Tensor] | None = None

    def __call__(self, k: int) -> tuple[Tensor, Tensor]:
        """As :func:`nearest_others`."""
        if self._found is None or self._found[0].shape[1] < k:
            self._found = nearest_others(self.points, min(2 * k, len(self.points) - 1))
        near, square = self._found
        return near[:, :k], square[:, :k]


def affinities(potential: BrenierPotential, neighbours: float, nearest: Nearest | None = None) -> Affinities:
    r"""Doubly stochastic entropic affinities of the targets y_i with weights b_i, no target being its own neighbour.

    Row i starts as ``p_j ~ b_j exp(-|y_i - y_j|^2 / e_i)``, e_i such that the perplexity ``exp(-sum_j p_j log p_j)`` is
    the number of ``neighbours``, j over the nearest three times as many. The symmetric ``b_i p_ij + b_j p_ji`` is then
    scaled by Sinkhorn's iteration to marginals b on both sides: a plan pi from nu to itself, ``P_ij = pi_ij / b_i``.
    Where the lists are so sparse that no such plan exists, rows sum to 1 and columns nearly have their masses.

    Args:
        potential: its points and weights.
        neighbours: the perplexity.
        nearest: of the same points, where several plans are made.

    Source:
        Hinton, Roweis, "Stochastic neighbor embedding" (NeurIPS 2002) for the perplexity; Landa, Coifman, Kluger,
        "Doubly stochastic normalization of the Gaussian kernel is robust to heteroskedastic noise" (SIMODS 2021) for
        the scaling and the empty diagonal; both in one: Van Assel, Vayer, Flamary, Courty, "SNEkhorn" (NeurIPS 2023).
    """
    from scipy.sparse import csr_array

    n = potential.n
    if n == 1:
        one = torch.zeros(1, dtype=torch.int64, device=potential.points.device)
        return Affinities(torch.cat([one, one + 1]), one, torch.ones_like(one, dtype=torch.float32))
    weights = potential.weights.double().cpu().numpy()
    listed = min(max(math.ceil(_LISTED * neighbours), 1), n - 1)
    near, square = nearest(listed) if nearest is not None else nearest_others(potential.points, listed)
    shares = _rows(square, potential.weights.double()[near], neighbours).cpu().numpy()
    index = near.cpu().numpy()
    rows = np.repeat(np.arange(n), listed)
    one_way = csr_array(((weights[:, None] * shares).ravel(), (rows, index.ravel())), shape=(n, n))
    plan = (one_way + one_way.T).tocsr()
    factor = np.ones(n)
    for _ in range(_ROUNDS):
        mass = factor * (plan @ factor)
        if np.abs(mass - weights).sum() <= _BALANCED:
            break
        factor *= np.sqrt(weights / np.maximum(mass, np.finfo(np.float64).tiny))
    row = np.repeat(np.arange(n), np.diff(plan.indptr))
    values = plan.data * factor[row] * factor[plan.indices]
    values /= np.maximum(np.bincount(row, values, n), np.finfo(np.float64).tiny)[row]
    device = potential.points.device
    return Affinities(
        torch.from_numpy(plan.indptr.astype(np.int64)).to(device),
        torch.from_numpy(plan.indices.astype(np.int64)).to(device),
        torch.from_numpy(values.astype(np.float32)).to(device),
    )


def nearest_others(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k < n nearest other points and the squares of their distances, both (n, k), ascending, float64."""
    n = len(points)
    y = points.double()
    y = y - y.mean(dim=0)
    unit = float(y.abs().max()) or 1.0  # without it, squares leave the range of float32
    y = y / unit
    fast = y.float()
    found = kernels.top_k(fast, fast, (-0.5 * y.square().sum(dim=1)).float(), min(k + 1 + _SPARE, n)).index
    square = torch.empty(found.shape, dtype=torch.float64, device=y.device)
    for part in torch.arange(n, device=y.device).split(max(1, _BLOCK // (found.shape[1] * y.shape[1]))):
        square[part] = (y[part, None, :] - y[found[part]]).square_().sum(dim=2)
    square[found == torch.arange(n, device=y.device)[:, None]] = math.inf  # itself
    square, order = square.sort(dim=1)
    return found.gather(1, order)[:, :k], square[:, :k] * unit**2


def _rows(square: Tensor, weights: Tensor, perplexity: float) -> Tensor:
    """Shares of the listed neighbours, shape (n, k): each row's scale by Newton's method on its logarithm."""
    wanted = math.log(max(min(perplexity, 0.95 * square.shape[1]), 1.0))
    tiny = torch.finfo(torch.float64).tiny
    extra = square - square[:, :1]
    extra = extra / extra.mean(dim=1, keepdim=True).clamp_min(tiny)
    prior = weights.log()
    inverse = torch.zeros_like(extra[:, :1])  # log of 1 / e_i in this unit
    low, high = inverse - 14.0, inverse + 14.0
    for _ in range(_STEPS):
        logs = torch.log_softmax(prior - inverse.exp() * extra, dim=1)
        share = logs.exp()
        entropy = -(share * logs).sum(dim=1, keepdim=True)
        apart = extra - (share * extra).sum(dim=1, keepdim=True)
        low = torch.where(entropy > wanted, inverse, low)
        high = torch.where(entropy > wanted, high, inverse)
        slope = -inverse.exp() * (share * apart * logs).sum(dim=1, keepdim=True)  # of -entropy
        step = inverse + (entropy - wanted) / slope.clamp_min(tiny)
        step = torch.where((step > low) & (step < high), step, 0.5 * (low + high))
        inverse = torch.where((entropy - wanted).abs() <= _EXACT, inverse, step)
    return torch.softmax(prior - inverse.exp() * extra, dim=1)
