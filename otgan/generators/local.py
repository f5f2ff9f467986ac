"""Locally affine maps: each power cell is stretched over the neighbourhood of its target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_count, as_points, as_positive
from otgan.generators._affinities import Affinities, Nearest, affinities
from otgan.generators._cells import CellMoments, cell_moments
from otgan.generators.generator import (
    Generator,
    TargetGenerator,
    check_brenier,
    pack_with_potential,
    register_generator,
    tensors_under,
)
from otgan.generators.selection import SAMPLES, Judge, Score, climb
from otgan.measures.saving import unpack_source
from otgan.potential import BrenierPotential

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgan._checks import ArrayLike
    from otgan.measures import Source

_NEIGHBOURS = 16.0
_FEWEST, _MOST = 2.0, 64.0
_SAMPLES, _FEWER = 32, 8  # a target
_LEAST_SAMPLES, _MANY_SAMPLES = 1 << 15, 1 << 20
_NUMBERS = 1 << 22  # float64 numbers of a matrix a cell, held at a time
_RANK = 1e-10  # of the largest eigenvalue: what is below is rounding


class LocalGenerator(TargetGenerator):
    r"""Smoothed optimal map: on the power cell of target i the affine optimal map to the target's neighbourhood.

        ``G(x) = m_i + A_i (x - c_i)``   for x in the cell W_i(h), c_i its mass centre,

        ``m_i = sum_j P_ij y_j``,   ``S_i = sum_j P_ij (y_j - m_i)(y_j - m_i)^T``,

    and A_i the symmetric matrix that carries the covariance Sigma_i of the cell to S_i, the optimal (Bures) map between
    centred Gaussians: ``A_i = B (B^T Sigma_i B)^(-1/2) B^T`` for any B with ``B B^T = S_i``.

    Which target is near is decided by T_h, how a sample differs from it by the place of x in the cell: G is a map of x,
    without noise of its own, and monotone in each cell. It jumps at facets as T_h does.

    **Mean and covariance are the data's.** P is a plan of the targets to themselves in which none stays where it is
    (doubly stochastic affinities, of perplexity ``neighbours`` before they are balanced), so that
    ``sum_i b_i P_ij = b_j``. Hence ``sum_i b_i m_i = E y`` and ``sum_i b_i (S_i + m_i m_i^T) = E y y^T``: what means
    lose, here as in the entropic map, is what the S_i add. It is a smoothed bootstrap with a covariance of its own in
    each place, and without the extra variance.

    Sigma_i is ``(w_i / tr Sigma) Sigma / g^2``: Sigma the covariance within the cells over all cells, w_i the variance
    in cell i, both from samples. Cells are thinner where their targets have neighbours, which one Sigma for all cannot
    know; the number g makes up for it, such that the total variance of ``A_i (x - c_i)`` is that of the S_i.

    Args:
        potential: u_h.
        source: mu.
        neighbours: effective number (perplexity) of a target's neighbours, from 2 on; 16 when left out,
            :meth:`select` chooses by held-out points. Fewer are nearer to copies, more blur what is between.
        samples: drawn to find the cells' centres; when left out 32 a target, at least 2^15, and no more than
            2^20 unless these are less than 8 a target.
        seed: of these samples.
        moments: of the cells, from an earlier generator with the same potential, instead of samples.
        plan: P, when it is known already.

    Attributes:
        scores: of the candidates of :meth:`select`, by number of neighbours.

    Source:
        Silverman, Young, "The bootstrap: to smooth or not to smooth?" (Biometrika 1987) for the smoothed bootstrap that
        keeps the variance; Dowson, Landau, "The Frechet distance between multivariate normal distributions" (J.
        Multivariate Anal. 1982) for A_i; Van Assel, Vayer, Flamary, Courty, "SNEkhorn: dimension reduction with
        symmetric entropic affinities" (NeurIPS 2023) for affinities like P. Their combination on power cells is otgan's
        own.

    Example:
        >>> import numpy as np
        >>> import otgan as og
        >>> y = np.random.default_rng(0).normal(size=(400, 2))
        >>> u = og.solve(og.Gaussian(2), y).potential
        >>> new = LocalGenerator(u, og.Gaussian(2)).sample(4000, seed=1)
        >>> bool(abs(float(new.var(dim=0).sum()) / y.var(axis=0).sum() - 1) < 0.05)
        True
    """

    means: Tensor
    centers: Tensor
    covariance: Tensor
    factor: Tensor
    offsets: Tensor
    index: Tensor
    share: Tensor
    root: Tensor
    inverse_root: Tensor

    def __init__(
        self,
        potential: BrenierPotential,
        source: Source,
        neighbours: float | None = None,
        *,
        samples: int | None = None,
        seed: int = 0,
        moments: CellMoments | None = None,
        plan: Affinities | None = None,
    ) -> None:
        super().__init__(source)
        check_brenier(potential, source, "Local maps are those of a BrenierPotential (p = 2), whose cells are convex")
        self.potential = potential
        self.neighbours = _NEIGHBOURS if neighbours is None else as_positive(neighbours, "neighbours")
        if self.neighbours < _FEWEST:
            raise ValueError(f"neighbours must be at least {_FEWEST:g}, got {neighbours!r}.")
        self.scores: dict[float, Score] = {}
        if moments is None:
            usual = max(min(_SAMPLES * potential.n, _MANY_SAMPLES), _FEWER * potential.n, _LEAST_SAMPLES)
            drawn = usual if samples is None else as_count(samples, "samples", 1)
            moments = cell_moments(potential, source, drawn, as_count(seed, "seed"))
        elif samples is not None:
            raise ValueError("moments are given and samples as well; samples are drawn to find them: leave one out.")
        self.moments = moments
        plan = affinities(potential, self.neighbours) if plan is None else plan
        self._attach(plan, moments.centers, moments.covariance)
        trace = moments.covariance.trace()
        safe = torch.where(moments.width > 0.0, moments.width, 1.0)
        self.factor = torch.where(moments.width > 0.0, trace / safe, 0.0).sqrt()
        self.factor *= self._gain(moments)

    def _attach(self, plan: Affinities, centers: Tensor, covariance: Tensor) -> None:
        """Keep what was found, as buffers, which move with the module."""
        value, vector = torch.linalg.eigh(covariance)
        value = torch.where(value > _RANK * value[-1].clamp_min(0.0), value, 0.0)
        inverse = torch.where(value > 0.0, value, 1.0).rsqrt() * (value > 0.0)
        buffers = {
            **vars(plan),
            "means": plan.mean(self.potential.points),
            "centers": centers,
            "covariance": covariance,
            "factor": torch.ones_like(centers[:, 0]),
            "root": (vector * value.sqrt()) @ vector.T,
            "inverse_root": (vector * inverse) @ vector.T,
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    @property
    def plan(self) -> Affinities:
        """P: which targets are neighbours, and how much each counts."""
        return Affinities(self.offsets, self.index, self.share)

    def _gain(self, moments: CellMoments) -> float:
        """g: the root of the variance of the S_i over that of ``A_i (x - c_i)``, unbiased, over the probed cells."""
        rows = (moments.counts[moments.probed] > 1).nonzero()[:, 0]
        if len(rows) == 0:
            return 1.0
        probe, cells = moments.probe[rows], moments.probed[rows]
        counts = moments.counts[cells].double()
        wanted = got = 0.0
        for part, moved, spread in self._moved(probe, cells):
            wanted += float(spread.sum())
            got += float((moved.square().sum(dim=1) * (counts[part] / (counts[part] - 1.0))).sum())
        return (wanted / got) ** 0.5 if got > 0.0 else 1.0

    @classmethod
    @torch.no_grad()
    def select(
        cls,
        potential: BrenierPotential,
        source: Source,
        held_out: ArrayLike,
        *,
        samples: int = SAMPLES,
        seed: int = 0,
    ) -> LocalGenerator:
        """The number of neighbours with the least :class:`otgan.generators.Score` on points that the solve did not see.

        From 16 on by factors of the root of 2, upwards and downwards while the score falls, then the two between.

        Args:
            potential: u_h.
            source: mu.
            held_out: points of the same law as the targets, shape (k, d), not among them.
            samples: m, drawn for each candidate from the same source points.
            seed: of these, and of the cells' moments.
        """
        y = as_points(held_out, "held_out", potential.dim).to(potential.points)
        if len(y) < 2:
            raise ValueError(f"held_out must hold at least 2 points, got {len(y)}.")
        count = as_count(samples, "samples", 2)
        judge = Judge(y, potential.points, potential.weights)
        best: tuple[float, LocalGenerator] | None = None  # the others' plans would take too much memory
        moments: CellMoments | None = None
        nearest = Nearest(potential.points)

        def score(neighbours: float) -> Score:
            nonlocal best, moments
            plan = affinities(potential, neighbours, nearest)
            made = cls(potential, source, neighbours, seed=seed, moments=moments, plan=plan)
            moments = made.moments
            found = judge(made.sample(count, seed))
            if best is None or found.total < best[0]:
                best = found.total, made
            return found

        most = max(min(_MOST, potential.n / 4.0), _FEWEST)
        scores = climb(score, min(_NEIGHBOURS, most), 2.0**0.5, _FEWEST, most)
        assert best is not None
        best[1].scores = scores
        return best[1]

    def forward(self, x: ArrayLike) -> Tensor:
        """``G(x)``, shape (m, d), in the wider precision of x and the targets; differentiable, with gradient A_i."""
        checked = as_points(x, "x", self.potential.dim, allow_empty=True)
        if isinstance(x, Tensor) and x.is_floating_point():
            checked = x  # the caller's tensor, with its graph
        kind = torch.promote_types(checked.dtype, self.potential.points.dtype)
        if len(checked) == 0:
            return checked.to(kind)
        cells = self.potential.assign(checked.detach())
        z = checked.double() - self.centers[cells]
        parts, pieces = [], []
        for part, moved, _ in self._moved(z, cells):
            parts.append(part)
            pieces.append(self.means[cells[part]] + moved)
        place = torch.cat(parts).argsort()
        return torch.cat(pieces)[place].to(kind)

    def matrices(self, cells: Tensor) -> Tensor:
        """``A_i`` of some cells, shape (c, d, d), float64."""
        return torch.cat([self._matrix(part)[0] for part in cells.split(self._at_once(cells))])

    def _moved(self, z: Tensor, cells: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """In parts: the rows of z, ``A_i z`` of these rows, and ``tr S_i`` of their cells."""
        length = self.offsets.diff()
        found, number = torch.unique(cells, return_inverse=True)
        order = length[found].argsort()  # cells with rows of equal length together
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        rows = rank[number].argsort()
        bounds = torch.searchsorted(rank[number][rows], torch.arange(len(found) + 1, device=rows.device))
        for some in torch.arange(len(found), device=rows.device).split(self._at_once(found)):
            here = rows[int(bounds[some[0]]) : int(bounds[some[-1] + 1])]
            matrix, trace = self._matrix(found[order[some]])
            own = rank[number[here]] - some[0]
            yield here, torch.einsum("mij,mj->mi", matrix[own], z[here]), trace[own]

    def _at_once(self, cells: Tensor) -> int:
        """Cells whose matrices are held at a time."""
        longest = int(self.offsets.diff()[cells].max())
        return max(1, _NUMBERS // (self.potential.dim * max(self.potential.dim, longest)))

    @torch.no_grad()
    def _matrix(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """A_i and ``tr S_i``."""
        index, share = self.plan.rows(cells)
        near = self.potential.points[index].double() - self.means[cells][:, None]
        spread = (near * share[:, :, None].sqrt()).mT  # B, (c, d, r)
        trace = spread.square().sum(dim=(1, 2))
        if spread.shape[2] < self.potential.dim:
            value, vector = torch.linalg.eigh(spread.mT @ (self.covariance.double() @ spread))
            kept = value > _RANK * value[:, -1:].clamp_min(0.0)
            inverse = torch.where(kept, value, 1.0).rsqrt() * kept
            half = spread @ (vector * inverse.sqrt()[:, None])
            matrix = half @ half.mT
        else:
            inner = self.root.double() @ spread
            value, vector = torch.linalg.eigh(inner @ inner.mT)
            half = self.inverse_root.double() @ (vector * value.clamp_min(0.0).sqrt().sqrt()[:, None])
            matrix = half @ half.mT
        return matrix * self.factor[cells][:, None, None], trace

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"neighbours={self.neighbours:.4g}"

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Source, potential, neighbours, and what was found of the cells."""
        config, tensors = pack_with_potential(self, {"neighbours": self.neighbours}, self.potential)
        own = {name: getattr(self, name) for name in ("centers", "covariance", "factor")}
        own |= {f"plan.{name}": t for name, t in vars(self.plan).items()}
        return config, tensors | {f"local.{name}": t for name, t in own.items()}


@register_generator("LocalGenerator")
def _load_local(config: dict[str, Any], tensors: dict[str, Tensor]) -> LocalGenerator:
    own = tensors_under(tensors, "local.")
    generator = LocalGenerator.__new__(LocalGenerator)
    Generator.__init__(generator, unpack_source(config["source"], tensors))
    generator.potential = BrenierPotential(**tensors_under(tensors, "potential."))
    generator.neighbours, generator.scores = float(config["neighbours"]), {}
    generator._attach(Affinities(**tensors_under(own, "plan.")), own["centers"], own["covariance"])
    generator.factor = own["factor"]
    return generator
