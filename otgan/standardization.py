"""Changes of variable that make a problem centred and of unit size: solvers work in theirs and answer in the user's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from otgan.measures import DiscreteMeasure, Source
from otgan.potential import voronoi_heights


@dataclass(frozen=True)
class Standardization:
    """Affine changes of variable that make a problem centred and of unit size.

    With ``x = s + p x'`` and ``y = c + q y'``, ``<x, y_i> + h_i = p q (<x', y'_i> + h'_i)`` + terms that do not depend
    on i, where ``h_i = p q h'_i - <s, y_i - c>``: cells, masses and map are the same, so a solver that works in
    x', y', h' gives one answer whatever the units and the origin of the data.

    Attributes:
        source_shift: s, shape (d,), float64.
        source_scale: p > 0.
        target_shift: c, shape (d,), float64.
        target_scale: q > 0.
    """

    source_shift: Tensor
    source_scale: float
    target_shift: Tensor
    target_scale: float

    @staticmethod
    def of(source: Source, target: DiscreteMeasure, p: float = 2.0) -> Standardization:
        """What suits the cost ``|x - y|^p / p``.

        For p = 2 zero mean and one unit of variance a coordinate on average, on both sides; for other exponents a
        :class:`CommonStandardization`.
        """
        if p == 2.0:
            scales = _scale(source.variance, source.dim), _scale(target.variance, target.dim)
            return Standardization(source.mean, scales[0], target.mean, scales[1])
        apart = source.mean - target.mean
        scale = (source.variance + target.variance + float(apart @ apart)) ** 0.5 or 1.0
        variation = (source.variance * target.variance / source.dim) ** 0.5 / scale**2
        return CommonStandardization(target.mean, scale, target.mean, scale, p, variation or 1.0)

    @property
    def score_scale(self) -> float:
        """Typical difference of two targets' scores, in scaled variables."""
        return math.sqrt(len(self.source_shift))

    @property
    def height_scale(self) -> float:
        """What a height is multiplied by on the way back: p q."""
        return self.source_scale * self.target_scale

    def voronoi(self, y: Tensor) -> Tensor:
        """Heights h' for which the cells of the scaled targets y', shape (n, d), are their Voronoi cells."""
        return voronoi_heights(y)

    def source(self, x: Tensor) -> Tensor:
        """``x' = (x - s) / p``."""
        return (x - self.source_shift.to(x)) / self.source_scale

    def target(self, y: Tensor) -> Tensor:
        """``y' = (y - c) / q``, float64."""
        return (y.double() - self.target_shift.to(y.device)) / self.target_scale

    def heights(self, scaled: Tensor, points: Tensor) -> Tensor:
        """``h_i = p q h'_i - <s, y_i - c>``."""
        offset = (points.double() - self.target_shift.to(points.device)) @ self.source_shift.to(points.device)
        return self.height_scale * scaled.double() - offset

    def scaled_heights(self, heights: Tensor, points: Tensor) -> Tensor:
        """Inverse of :meth:`heights`."""
        offset = (points.double() - self.target_shift.to(points.device)) @ self.source_shift.to(points.device)
        return (heights.double() + offset) / self.height_scale


@dataclass(frozen=True)
class CommonStandardization(Standardization):
    """One change of variables for both sides: all that a cost of distances survives.

    With ``x = s + r x'`` and ``y = s + r y'``, ``psi_i - |x - y_i|^p / p = r^p (psi'_i - |x' - y'_i|^p / p)`` for
    ``psi_i = r^p psi'_i``, and what is called heights is psi. Here s is the mean of the targets and
    ``r^2 = E |x - y|^2`` of independent x and y, so that a typical cost is of order 1 whatever p.

    Attributes:
        p: exponent of the cost.
        variation: ``sqrt(V_x V_y / d) / r^2``: the standard deviation of ``<x', y'>``, and by how much the costs of two
            targets typically differ from one x to another.
    """

    p: float
    variation: float

    @property
    def score_scale(self) -> float:
        """Typical difference of two targets' scores, in scaled variables."""
        return self.variation

    @property
    def height_scale(self) -> float:
        """``r^p``."""
        return self.target_scale**self.p

    def voronoi(self, y: Tensor) -> Tensor:
        """``psi' = 0``, shape (n,), float64."""
        return torch.zeros(len(y), dtype=torch.float64, device=y.device)

    def heights(self, scaled: Tensor, points: Tensor) -> Tensor:
        """``psi_i = r^p psi'_i``."""
        return self.height_scale * scaled.double()

    def scaled_heights(self, heights: Tensor, points: Tensor) -> Tensor:
        """Inverse of :meth:`heights`."""
        return heights.double() / self.height_scale


def _scale(variance: float, dim: int) -> float:
    scale = (variance / dim) ** 0.5
    return scale if scale > 0.0 else 1.0
