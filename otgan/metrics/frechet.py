"""Frechet distance: the Wasserstein distance of two clouds' Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from otgan.metrics._points import pair

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``, m and C the clouds' means and covariances.

    It is W2^2 between the Gaussians of these moments, hence a lower bound of the clouds' own W2^2: 0 for laws that
    agree in mean and covariance, whatever else they differ in. In features of the Inception network it is known as
    FID; in others it is another number, on another scale.

    Covariances are divided by n - 1. The value is nevertheless **biased upwards**, by about
    ``(1/m + 1/n) (5/4 tr C + sum_ij l_i l_j / (2 (l_i + l_j)))`` for Gaussian clouds of one law with eigenvalues l,
    which is ``(1/m + 1/n) d (d + 5) / 4`` for unit ones: compare values at equal sizes only, and beside that of real
    points against real points, as :func:`otgan.metrics.evaluate` does. Below d + 1 points a covariance is singular.

    Args:
        a: (m, d), m >= 2.
        b: (n, d), n >= 2.

    Returns:
        A squared length, in the unit of the points.

    Source:
        Dowson, Landau, "The Frechet distance between multivariate normal distributions" (1982); Heusel, Ramsauer,
        Unterthiner, Nessler, Hochreiter, "GANs trained by a two time-scale update rule" (NeurIPS 2017).

    Example:
        >>> frechet_distance([[0.0], [2.0]], [[4.0], [6.0]])
        16.0
    """
    x, y = pair(a, b, ("a", "b"), (2, 2))
    return frechet_of_moments(*moments(x), *moments(y))


def moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of a cloud, divided by n - 1."""
    mean = points.mean(dim=0)
    centred = points - mean
    return mean, centred.T @ centred / (len(points) - 1)


def frechet_of_moments(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The distance of two Gaussians, see :func:`frechet_distance`.

    ``tr (C1 C2)^(1/2)`` is the sum of the singular values of ``C1^(1/2) C2^(1/2)``: no root of a matrix that is not
    symmetric, and no loss of half of the digits where a covariance is singular.
    """
    cross = torch.linalg.svdvals(_root(cov1) @ _root(cov2)).sum()
    gap = (mean1 - mean2).square().sum() + torch.trace(cov1) + torch.trace(cov2) - 2.0 * cross
    return max(float(gap), 0.0)


def _root(cov: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
