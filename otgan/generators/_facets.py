"""Facets between power cells, found by sampling: their dihedral angles, and which of them separate modes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan._checks import make_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.measures import Source
    from otgan.potential import BrenierPotential

    Floats = NDArray[np.float64]

_BLOCK = 1 << 16
_EVERY = 8  # samples to a segment
_ROUNDS = 64  # a segment that is not resolved by then, for want of digits, is given up
_LEAST_ANGLE = 1e-9
_STEP = 0.02  # of the search for a valley, in log angle
# Window's factor of angle, and limit: the narrow ones serve high dimensions, where distances concentrate; the widest
# one lets a single facet count, as on the line, where two modes have one.
_VALLEYS = ((1.25, 0.1), (1.5, 0.1), (2.0, 0.25), (4.0, 0.5))


@dataclass(frozen=True)
class Facets:
    """Facets of the power diagram that were found by sampling the source, on the CPU.

    Found in two ways, both of which yield true facets only:

    - The second best target of a point in cell i has a common facet with i (if its own cell is not empty): on the
      segment to a point of its cell all differences of scores are affine, so that no third cell comes in between.
    - On the segment between two samples, in cells i and j, let p be where scores i and j are equal. Either no score
      is greater, and p is on their facet; or cell k is best there, and one of the pairs (i, k), (k, j) is followed in
      the same way: the one with the larger angle. The first way sees a facet with probability in proportion to its
      area over ``|y_i - y_j|``, hence hardly ever one between modes; the second one looks for these.

    What is missing are facets that carry little mass.

    Attributes:
        pairs: (i, j), i < j, shape (f, 2), int64.
        counts: samples whose two best targets they are, shape (f,), int64.
        angles: dihedral angles in radians, see :func:`dihedral`, shape (f,), float64.
        nearest: number x of the sample that came closest, in the order of the stream, shape (f,), int64.
        towards: number z of the sample to which the segment from x crosses the facet, shape (f,), int64; -1 for the
            mass centre of the other cell.
        centers: mass centres of the cells, shape (n, d), float64; NaN where no sample fell.
        samples: how many were drawn.
        seed: of the stream.
    """

    pairs: Tensor
    counts: Tensor
    angles: Tensor
    nearest: Tensor
    towards: Tensor
    centers: Tensor
    samples: int
    seed: int

    def __len__(self) -> int:
        return len(self.pairs)

    def pack(self) -> tuple[dict[str, int], dict[str, Tensor]]:
        """Plain settings and tensors; see :meth:`unpack`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {f"facets.{name}": t for name, t in values.items() if isinstance(t, Tensor)}
        return {name: v for name, v in values.items() if isinstance(v, int)}, tensors

    @staticmethod
    def unpack(config: dict[str, Any], tensors: dict[str, Tensor]) -> Facets:
        """What :meth:`pack` took apart, the tensors' names without their prefix."""
        arguments: dict[str, Any] = {**config, **tensors}
        return Facets(**arguments)


@dataclass(frozen=True)
class SingularFacets:
    """Facets that the extension does not cross.

    Attributes:
        pairs: (i, j), i < j, shape (s, 2), int64.
        angles: dihedral angles in radians, shape (s,), float64.
        counts: samples that came near, shape (s,), int64.
        points: a point of each facet, shape (s, d), float64.
    """

    pairs: Tensor
    angles: Tensor
    counts: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.pairs)


# ------------------------------------------------------------------- angles


def unit_normals(potential: BrenierPotential) -> Tensor:
    """Unit normals ``(y'_i, -1) / |(y'_i, -1)|`` of the supporting planes, shape (n, d + 1), float64.

    ``y' = (y - c) / q`` with c the mean of the targets and q^2 their total variance over d.
    """
    points, weights = potential.points.double(), potential.weights.double()
    centred = points - weights @ points
    scale = math.sqrt(float(weights @ centred.square().sum(dim=1)) / potential.dim) or 1.0
    normals = torch.cat([centred / scale, -torch.ones_like(centred[:, :1])], dim=1)
    return normals / normals.norm(dim=1, keepdim=True)


def dihedral(a: Tensor, b: Tensor) -> Tensor:
    """Angle between unit vectors of shape (..., d + 1), in [0, pi]: ``2 arcsin(|a - b| / 2)``, precise when small."""
    return 2.0 * torch.asin((0.5 * (a - b).norm(dim=-1)).clamp(max=1.0))


# --------------------------------------------------------------- estimation


def stream(source: Source, samples: int, seed: int) -> Iterator[Tensor]:
    """Blocks of samples of the source, always the same ones: made on the CPU, whatever device asks for them."""
    generator = make_generator(seed)
    for start in range(0, samples, _BLOCK):
        yield source.sample(min(_BLOCK, samples - start), generator=generator)


@torch.no_grad()
def estimate_facets(potential: BrenierPotential, source: Source, normals: Tensor, samples: int, seed: int) -> Facets:
    """Facets, and mass centres of the cells, block by block; memory grows with the facets alone."""
    n, device = potential.n, potential.points.device
    total = torch.zeros(n, potential.dim, dtype=torch.float64)
    hits = torch.zeros(n, dtype=torch.int64)
    found = np.zeros((5, 0))  # key, count, closest distance, its x and z; integers below 2^53
    pairs_exist = int(potential.heights.isfinite().sum()) > 1
    for number, block in enumerate(stream(source, samples, seed)):
        x = block.to(device)
        best = potential.top_k(x, 2 if pairs_exist else 1).index
        first = best[:, 0].cpu()
        total.index_add_(0, first, block.double())
        hits += first.bincount(minlength=n)
        if pairs_exist:
            rows = torch.arange(len(x), dtype=torch.float64) + number * _BLOCK
            away = _gap(potential, x, best[:, 0], best[:, 1]) / _apart(potential, best)
            found = _merged(found, n, best, 1.0, away, rows, torch.full_like(rows, -1.0))
            ends = len(x) - len(x) % _EVERY
            start, end = (torch.arange(k, ends, _EVERY, device=device) for k in (0, 1))
            pair, segment = _crossings(potential, normals, x[start], x[end], best[start, 0], best[end, 0])
            infinite = torch.full_like(segment, torch.inf, dtype=torch.float64)
            numbers = (rows[side.cpu()][segment.cpu()] for side in (start, end))
            found = _merged(found, n, pair, 0.0, infinite, *numbers)
    keys = found[0].astype(np.int64)
    pairs = torch.from_numpy(np.stack([keys // n, keys % n], axis=1))
    towards = torch.from_numpy(found[4].astype(np.int64))
    seen = (hits[pairs] > 0).all(dim=1) | (towards >= 0)  # an empty cell has no facet, and no point to go to
    pairs = pairs[seen]
    at = pairs.to(device)
    return Facets(
        pairs,
        torch.from_numpy(found[1].astype(np.int64))[seen],
        dihedral(normals[at[:, 0]], normals[at[:, 1]]).cpu(),
        torch.from_numpy(found[3].astype(np.int64))[seen],
        towards[seen],
        total / hits[:, None],
        samples,
        seed,
    )


def _gap(potential: BrenierPotential, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``<x, y_i - y_j> + h_i - h_j``, float64, shape (m,): differences first, so that a shift of y costs no digits."""
    y, h = potential.points, potential.heights
    return ((y[first].double() - y[second].double()) * x.double()).sum(dim=1) + h[first] - h[second]


def _apart(potential: BrenierPotential, best: Tensor) -> Tensor:
    y = potential.points
    return (y[best[:, 0]].double() - y[best[:, 1]].double()).norm(dim=1)


def _crossings(
    potential: BrenierPotential, normals: Tensor, x: Tensor, z: Tensor, i: Tensor, j: Tensor
) -> tuple[Tensor, Tensor]:
    """One facet on each segment from x (in cell i) to z (in cell j): pairs, shape (s, 2), and the segments' numbers."""
    left = (i != j).nonzero()[:, 0]
    x, z, i, j = x[left].double(), z[left].double(), i[left], j[left]
    pairs, segments = [torch.empty(0, 2, dtype=torch.int64, device=x.device)], [left[:0]]
    for _ in range(_ROUNDS):
        if len(left) == 0:
            break
        here, there = _gap(potential, x, i, j), _gap(potential, z, i, j)
        middle = x + _share(here, there)[:, None] * (z - x)
        k = potential.assign(middle)
        done = (k == i) | (k == j)
        pairs.append(torch.stack([i[done], j[done]], dim=1))
        segments.append(left[done])
        go = ~done
        left, x, z, i, j, k, middle = left[go], x[go], z[go], i[go], j[go], k[go], middle[go]
        near = dihedral(normals[i], normals[k]) >= dihedral(normals[k], normals[j])
        x, z = torch.where(near[:, None], x, middle), torch.where(near[:, None], middle, z)
        i, j = torch.where(near, i, k), torch.where(near, k, j)
    return torch.cat(pairs), torch.cat(segments)


def _share(here: Tensor, there: Tensor) -> Tensor:
    """Where an affine function with these values at the ends of a segment is 0, between 0 and 1."""
    change = here - there
    return torch.where(change == 0.0, 0.5, here / change).clamp(0.0, 1.0)


def _merged(found: Floats, n: int, pair: Tensor, count: float, away: Tensor, x: Tensor, z: Tensor) -> Floats:
    """Add pairs to the table of facets: one column a key ``i n + j``, counts added, the closest sample kept."""
    i, j = pair.min(dim=1).values.cpu().numpy(), pair.max(dim=1).values.cpu().numpy()
    keys = i.astype(np.float64) * n + j
    rows = [keys, np.full(len(keys), count), away.cpu().numpy(), x.cpu().numpy(), z.cpu().numpy()]
    table = np.concatenate([found, np.stack(rows)], axis=1)
    table = table[:, np.lexsort((table[3], table[2], table[0]))]
    new = np.flatnonzero(np.diff(table[0], prepend=-1.0))
    counts = np.add.reduceat(table[1], new) if len(new) else table[1]
    table = table[:, new]
    table[1] = counts
    return table


def points_on(facets: Facets, chosen: Tensor, potential: BrenierPotential, source: Source) -> Tensor:
    """A point of each chosen facet, shape (s, d), float64.

    On the segment from x, the nearest sample, to z: where ``g = <., y_i - y_j> + h_i - h_j`` is 0.
    """
    x = _drawn(facets, facets.nearest[chosen], source)
    z = _drawn(facets, facets.towards[chosen].clamp(min=0), source)
    i, j = facets.pairs[chosen].to(potential.points.device).unbind(dim=1)
    here = _gap(potential, x.to(i.device), i, j).cpu()
    other = torch.where(here >= 0.0, facets.pairs[chosen][:, 1], facets.pairs[chosen][:, 0])
    z = torch.where(facets.towards[chosen][:, None] < 0, facets.centers[other], z)
    there = _gap(potential, z.to(i.device), i, j).cpu()
    return x + _share(here, there)[:, None] * (z - x)


def _drawn(facets: Facets, numbers: Tensor, source: Source) -> Tensor:
    """Samples of these numbers, shape (s, d), float64: the stream once more."""
    out = torch.empty(len(numbers), source.dim, dtype=torch.float64)
    last = int(numbers.max()) if len(numbers) else -1
    for k, block in enumerate(stream(source, facets.samples, facets.seed)):
        if k * _BLOCK > last:
            break
        inside = (numbers >= k * _BLOCK) & (numbers < (k + 1) * _BLOCK)
        out[inside] = block[numbers[inside] - k * _BLOCK].double()
    return out


# ---------------------------------------------------------------- threshold


def singular_threshold(angles: Tensor, joined: int) -> float:
    """The angle in the lowest valley of the facets' angles; inf where there is none.

    A valley is a window on the logarithm of the angle with V facets and ``(V + 1) / (min(L, R) + 1) <= limit``: L is
    the largest number in an equal window to its left, R that of the hump to its right, which ends where the number
    falls to V again. In one hump V is the larger number, apart from chance: the limit is 1/10 for windows that span a
    factor 1.25 or 1.5, 1/4 for a factor 2 and 1/2 for a factor 4. Modes at different distances make several valleys;
    in the lowest one all of them are apart. Below it there must be 2/3 as many facets as targets, without which
    regular facets could not join the targets even in threes: a few near-duplicates make a valley of no meaning.

    Args:
        angles: of all facets, in radians, shape (f,).
        joined: number of targets that have a facet.
    """
    logs = np.sort(np.log(np.maximum(angles.double().cpu().numpy(), _LEAST_ANGLE)))
    if len(logs) < 2:
        return math.inf
    middles = np.arange(logs[0], logs[-1] + _STEP, _STEP)
    open_ = np.searchsorted(logs, middles) >= 2 * joined / 3
    found = [math.inf]
    for ratio, limit in _VALLEYS:
        half = math.log(ratio) / 2
        held = np.searchsorted(logs, middles + half) - np.searchsorted(logs, middles - half)
        left = np.concatenate([[0], np.maximum.accumulate(held)[:-1]])
        score = (held + 1.0) / (np.minimum(left, _next_hump(held)) + 1.0)
        first = int(np.argmax(open_ & (score <= limit)))
        if open_[first] and score[first] <= limit:
            bottom = first + int(np.argmin(np.append(held[first:] == held[first], False)))
            found.append(math.exp(float(middles[first:bottom].mean())))
    return min(found)


def _next_hump(held: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each number rises to before it comes back; 0 for one that falls first."""
    hump = np.zeros_like(held)
    for k, low in enumerate(held):
        other = np.flatnonzero(held[k:] != low)
        if len(other) and held[k + other[0]] > low:
            rise = k + int(other[0])
            back = np.flatnonzero(held[rise:] <= low)
            hump[k] = held[rise : rise + int(back[0]) if len(back) else None].max()
    return hump


def components(facets: Facets, threshold: float) -> Tensor:
    """Components of the graph whose edges are the facets of at most this angle, numbered from 0, shape (n,), int64."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(facets.centers)
    i, j = facets.pairs[facets.angles <= threshold].numpy().T
    graph = coo_matrix((np.ones(len(i), dtype=bool), (i, j)), shape=(n, n))
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))
