"""Precision and recall, density and coverage: balls around points stand for the supports of two laws."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from otgan._checks import as_count
from otgan.metrics._neighbours import Balls, nearest
from otgan.metrics._points import TooFewError, pair

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_NAMES = ("samples", "real")


@dataclass(frozen=True)
class PRDC:
    """Precision, recall, density and coverage; see the functions of these names."""

    precision: float
    recall: float
    density: float
    coverage: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def precision(samples: ArrayLike, real: ArrayLike, k: int = 3) -> float:
    """Share of samples inside the support of the real points, the union of balls ``B(y_j, r_j)``.

    r_j is the distance of y_j to its k-th nearest other real point. Balls are closed.

    Args:
        samples: (m, d).
        real: (n, d), n > k.
        k: neighbours.

    Returns:
        Between 0 and 1. For samples of the real law it is below 1: compare with real points of the same sizes.

    Raises:
        ValueError: for bad shapes, NaN, or k too large.

    Source:
        Kynkaanniemi, Karras, Laine, Lehtinen, Aila, "Improved precision and recall metric for assessing generative
        models" (NeurIPS 2019).

    Example:
        >>> precision([[0.5], [9.0]], [[0.0], [1.0], [2.0]], k=1)
        0.5
    """
    x, y = pair(samples, real, _NAMES)
    return _share(Balls(y, _radii(y, _check_k(y, k, "real"))).covers(x))


def recall(samples: ArrayLike, real: ArrayLike, k: int = 3) -> float:
    """Share of real points inside the support of the samples: :func:`precision` with the roles exchanged.

    Args:
        samples: (m, d), m > k.
        real: (n, d).
        k: neighbours.

    Example:
        >>> recall([[0.0], [1.0]], [[0.5], [9.0]], k=1)
        0.5
    """
    x, y = pair(samples, real, _NAMES)
    return _share(Balls(x, _radii(x, _check_k(x, k, "samples"))).covers(y))


def density(samples: ArrayLike, real: ArrayLike, k: int = 5) -> float:
    """``1/(k m) sum_ij 1{x_i in B(y_j, r_j)}``: real balls that a sample is in, over the expected number k.

    Its mean is exactly 1 when samples and real points are independent draws of one continuous law; it has no upper
    bound, and exceeds 1 where samples crowd into dense regions.

    Args:
        samples: (m, d).
        real: (n, d), n > k.
        k: neighbours.

    Source:
        Naeem, Oh, Uh, Choi, Yoo, "Reliable fidelity and diversity metrics for generative models" (ICML 2020).
    """
    x, y = pair(samples, real, _NAMES)
    k = _check_k(y, k, "real")
    return _mean_count(Balls(y, _radii(y, k)), x, k)


def coverage(samples: ArrayLike, real: ArrayLike, k: int = 5) -> float:
    """Share of real points whose ball ``B(y_j, r_j)`` holds at least one sample.

    For m samples and n real points of one continuous law its mean is
    ``1 - (n - 1) ... (n - k) / ((m + n - 1) ... (m + n - k))``, about ``1 - 2^-k`` for m = n.

    Args:
        samples: (m, d).
        real: (n, d), n > k.
        k: neighbours.

    Source:
        Naeem et al. (ICML 2020), as :func:`density`.
    """
    x, y = pair(samples, real, _NAMES)
    return _covered(x, y, _radii(y, _check_k(y, k, "real")))


def prdc(samples: ArrayLike, real: ArrayLike, k: int = 5, k_support: int = 3) -> PRDC:
    """All four at once, sharing their searches.

    Args:
        samples: (m, d), m > k_support.
        real: (n, d), n > k and k_support.
        k: neighbours of density and coverage.
        k_support: neighbours of precision and recall.
    """
    x, y = pair(samples, real, _NAMES)
    k, k_support = _check_k(y, k, "real"), _check_k(y, k_support, "real")
    _check_k(x, k_support, "samples")
    distance = nearest(y, y, max(k, k_support), same=True)[1]
    wide, support = distance[:, k - 1], distance[:, k_support - 1]
    return PRDC(
        precision=_share(Balls(y, support).covers(x)),
        recall=_share(Balls(x, _radii(x, k_support)).covers(y)),
        density=_mean_count(Balls(y, wide), x, k),
        coverage=_covered(x, y, wide),
    )


def _check_k(points: Tensor, k: int, name: str) -> int:
    k = as_count(k, "k", 1)
    if len(points) <= k:
        raise TooFewError(f"{name} holds {len(points)} point(s), k = {k} neighbours need at least {k + 1}.")
    return k


def _radii(points: Tensor, k: int) -> Tensor:
    return nearest(points, points, k, same=True)[1][:, k - 1]


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())


def _mean_count(balls: Balls, x: Tensor, k: int) -> float:
    return float(balls.count(x).double().mean()) / k


def _covered(x: Tensor, y: Tensor, radii: Tensor) -> float:
    return _share(nearest(y, x, 1)[1][:, 0] <= radii * (1 + 1e-12))
