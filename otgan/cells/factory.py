"""Which exact cells belong to which source."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch

from otgan.cells.affine import AffineCells
from otgan.measures import Empirical, Gaussian, GridDensity, Source, UniformBall, UniformBox, UniformPolytope

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.cells._line_sources import Line
    from otgan.cells.base import ExactCells

    Floats = NDArray[np.float64]


_in_child = False


def _after_fork() -> None:
    global _in_child
    _in_child = "otgan.cells.planar" in sys.modules  # its threads may have run in the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def has_exact_cells(source: Source) -> bool:
    """Whether cells of this source are known in closed form or to rounding."""
    if isinstance(source, Gaussian):
        return source.dim == 1 or (source.dim == 2 and float(torch.linalg.cond(source.cov)) < 1e12)
    if isinstance(source, Empirical):
        return source.dim == 1
    if isinstance(source, UniformBall):
        return source.dim <= 2
    return isinstance(source, (UniformBox, UniformPolytope, GridDensity)) and source.dim <= 3


def require_exact_cells(source: Source) -> None:
    """Raise a ValueError that names the sources with exact cells, where this is none of them."""
    if not has_exact_cells(source):
        raise ValueError(
            f"{source!r} has no exact cells; exact are UniformBox and UniformPolytope up to dimension 3, UniformBall, "
            "Gaussian (of full rank) up to 2, GridDensity, and Empirical on the line. Use method='auto'."
        )


def exact_cells(source: Source, points: Floats) -> ExactCells:
    """Exact power cells of ``points``, shape (n, d), under ``source``.

    ========================= ========== =============================================
    source                    dimension  how
    ========================= ========== =============================================
    UniformBox                1, 2, 3    intervals, clipped polygons, clipped polyhedra
    UniformPolytope           2, 3       clipped polygons, clipped polyhedra
    UniformBall               1, 2       intervals, polygons with exact arcs
    Gaussian                  1, 2       error functions; whitened, integrated to 1e-13
    GridDensity               2          polygons cut against the pixels
    Empirical                 1          cumulative sums
    ========================= ========== =============================================

    Raises:
        ValueError: no exact cells for this source and dimension.
    """
    if _in_child and source.dim == 2:
        raise RuntimeError(
            "Exact planar cells run on OpenMP threads, which do not survive a fork: start worker processes with the "
            "'spawn' or 'forkserver' method (multiprocessing.get_context)."
        )
    require_exact_cells(source)
    if source.dim == 1:
        from otgan.cells.line import LineCells

        return LineCells(points, line(source))
    if isinstance(source, UniformPolytope) and source.dim == 3:
        from otgan.cells.spatial import Polytope, SpatialCells

        return SpatialCells(points, Polytope.hull(source.vertices.numpy()))
    if isinstance(source, UniformBox) and source.dim == 3:
        from otgan.cells.spatial import Polytope, SpatialCells

        return SpatialCells(points, Polytope.box(source.low.numpy(), source.high.numpy()))
    return _planar(source, points)


def line(source: Source) -> Line:
    """A one-dimensional source as distribution functions."""
    from otgan.cells._line_sources import EmpiricalLine, GaussianLine, UniformLine

    if isinstance(source, UniformBox):
        return UniformLine(float(source.low), float(source.high))
    if isinstance(source, UniformBall):
        return UniformLine(float(source.center) - source.radius, float(source.center) + source.radius)
    if isinstance(source, Gaussian):
        return GaussianLine(float(source.mean), source.variance**0.5)
    if isinstance(source, Empirical):
        return EmpiricalLine(source.points[:, 0].double().cpu().numpy(), source.weights.numpy())
    raise ValueError(f"{source!r} is not a source on the line.")


def _planar(source: Source, points: Floats) -> ExactCells:
    from otgan.cells.planar import PlanarCells

    if isinstance(source, UniformBox):
        (a, b), (c, d) = source.low.tolist(), source.high.tolist()
        return PlanarCells(points, np.array([[a, b], [c, b], [c, d], [a, d]]))
    if isinstance(source, UniformPolytope):
        return PlanarCells(points, source.vertices.numpy())
    if isinstance(source, UniformBall):
        from otgan.cells._density_disc import DiscDensity

        disc = DiscDensity(source.center.numpy(), source.radius)
        return PlanarCells(points, disc.domain, disc)
    if isinstance(source, GridDensity):
        from otgan.cells._density_image import ImageDensity

        image = ImageDensity(source.values.numpy(), source.low.numpy(), source.high.numpy())
        return PlanarCells(points, image.domain, image)
    if not isinstance(source, Gaussian):
        raise ValueError(f"{source!r} is not a source in the plane with exact cells.")
    from otgan.cells._density_gaussian import GaussianDensity

    standard = GaussianDensity()
    factor, mean = source.factor.numpy(), source.mean.numpy()
    return AffineCells(PlanarCells(points @ factor, standard.domain, standard), points, factor, mean)
