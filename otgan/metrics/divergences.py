"""Divergences of adversarial training in numbers: Kullback-Leibler, Jensen-Shannon, and the Wasserstein distance W1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otgan._checks import as_count, as_tensor, as_weights, require_finite
from otgan.metrics._points import pair, unit_of

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_EXACT = 25_000_000  # entries of the cost matrix off the line


def kl_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """``KL(P || Q) = sum_i p_i log(p_i / q_i)``, in nats; infinite where P has mass that Q has not.

    Args:
        p: masses of P on the points of a common support (or densities on a common grid of equal cells), any shape;
            normalised here.
        q: those of Q, of the same shape.

    Raises:
        ValueError: for shapes that differ, NaN, negative masses, or none at all.

    Source:
        Kullback, Leibler (1951).

    Example:
        >>> round(kl_divergence([1, 0], [1, 1]), 6), kl_divergence([1, 1], [1, 0])
        (0.693147, inf)
    """
    a, b = _masses(p, q)
    return _kl(a, b)


def js_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """``JS(P, Q) = (KL(P || M) + KL(Q || M)) / 2``, ``M = (P + Q) / 2``, in nats: between 0 and ``log 2``.

    It is ``log 2`` for every two measures on disjoint supports, however near they are: the reason why a GAN's generator
    has no gradient there. A GAN's value at the best discriminator is ``-log 4 + 2 JS(p_data, p_g)``.

    Args:
        p: masses of P, as for :func:`kl_divergence`.
        q: masses of Q.

    Source:
        Lin, "Divergence measures based on the Shannon entropy" (1991); Goodfellow et al. (2014), Theorem 1.

    Example:
        >>> js_divergence([1, 0], [0, 1]) == math.log(2)
        True
    """
    a, b = _masses(p, q)
    middle = (a + b) / 2
    return min(max((_kl(a, middle) + _kl(b, middle)) / 2, 0.0), math.log(2.0))


def w1(a: ArrayLike, b: ArrayLike, *, a_weights: ArrayLike | None = None, b_weights: ArrayLike | None = None) -> float:
    """Wasserstein distance ``W1 = min over couplings of E |x - y|``, exactly.

    On the line it is ``integral |F_a - F_b|``, from a sort; elsewhere a network simplex (POT), on m n pairs.

    Args:
        a: points (m, d), or (m,) on the line.
        b: points (n, d), or (n,).
        a_weights: masses of a, shape (m,), > 0, normalised; uniform when left out.
        b_weights: masses of b, shape (n,).

    Returns:
        W1, in the unit of the points.

    Raises:
        ValueError: for bad shapes, NaN, weights that are not > 0, or more than 25 million pairs off the line.

    Example:
        >>> w1([0.0, 1.0], [3.0, 2.0])
        2.0
    """
    x, y = pair(_column(a, "a"), _column(b, "b"))
    p, q = as_weights(a_weights, len(x), "a_weights").numpy(), as_weights(b_weights, len(y), "b_weights").numpy()
    centre, unit = unit_of(x, y)
    first, second = (((z - centre) / unit).cpu().numpy() for z in (x, y))
    if first.shape[1] == 1:
        return unit * _line_w1(first[:, 0], second[:, 0], p, q)
    if len(x) * len(y) > _EXACT:
        raise ValueError(
            f"{len(x):,} x {len(y):,} pairs are too many for the exact W1 (at most {_EXACT:,}); take subsets, or use "
            "sliced_w2."
        )
    import ot
    from scipy.spatial.distance import cdist

    return unit * max(float(ot.emd2(p, q, cdist(first, second), numItermax=5_000_000)), 0.0)


def histograms(
    a: ArrayLike, b: ArrayLike, bins: int = 50
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
    """Shares of two clouds in the cells of one grid over both, from which KL and JS can be computed.

    Both are then those of the binned laws, never more than those of the laws themselves (data processing), and biased
    upwards by chance where cells hold few points.

    Args:
        a: points (m, d), or (m,) on the line; d at most 3.
        b: points (n, d), or (n,).
        bins: cells along each axis.

    Returns:
        Shares of a and of b, each of shape (bins,) * d and summing to 1, and the edges along each axis, (bins + 1,).
    """
    x, y = pair(_column(a, "a"), _column(b, "b"))
    if x.shape[1] > 3:
        raise ValueError(f"A grid needs dimension 3 at most, got {x.shape[1]}; project the points first.")
    count = as_count(bins, "bins", 1)
    both = torch.cat([x, y]).cpu().numpy()
    edges = [np.linspace(low, high if high > low else low + 1.0, count + 1) for low, high in zip(
        both.min(axis=0), both.max(axis=0), strict=True
    )]  # fmt: skip
    shares = [np.histogramdd(z.cpu().numpy(), bins=edges)[0] / len(z) for z in (x, y)]
    return shares[0], shares[1], edges


def _masses(p: ArrayLike, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = []
    for name, value in (("p", p), ("q", q)):
        masses = as_tensor(value, name).double().cpu()
        require_finite(masses, name)
        if masses.numel() == 0 or float(masses.min()) < 0.0 or float(masses.sum()) <= 0.0:
            raise ValueError(f"{name} must hold masses >= 0, not all 0.")
        array = (masses / masses.max()).numpy()
        found.append(array / array.sum())
    if found[0].shape != found[1].shape:
        raise ValueError(f"p and q must have the same shape, got {found[0].shape} and {found[1].shape}.")
    return found[0].ravel(), found[1].ravel()


def _kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    seen = p > 0.0
    if bool((q[seen] == 0.0).any()):
        return math.inf
    return max(float((p[seen] * np.log(p[seen] / q[seen])).sum()), 0.0)


def _column(value: ArrayLike, name: str) -> Tensor:
    points = as_tensor(value, name)
    return points[:, None] if points.ndim == 1 else points


def _line_w1(a: NDArray[np.float64], b: NDArray[np.float64], p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """``integral |F_a - F_b|`` over the merged points."""
    at = np.concatenate([a, b])
    order = np.argsort(at, kind="stable")
    height = np.cumsum(np.concatenate([p, -q])[order])
    return float((np.abs(height[:-1]) * np.diff(at[order])).sum())
