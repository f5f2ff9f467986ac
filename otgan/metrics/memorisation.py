"""Memorisation: how near samples are to training points, which only held-out points can put into proportion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_count
from otgan.metrics._neighbours import nearest
from otgan.metrics._points import pair, random_rows

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_NAMES = ("samples", "train")
_SAME = 1e-6  # of the training points' deviation: nearer than that is the same point
_ROUNDING = 4.0


def nearest_distance(samples: ArrayLike, train: ArrayLike) -> float:
    """Median distance of a sample to its nearest training point (distance to closest record).

    Its null is the same of held-out points: smaller is copying, larger is off the data.

    Args:
        samples: (m, d).
        train: (n, d).

    Returns:
        A length, in the unit of the points.

    Example:
        >>> nearest_distance([[0.5], [3.0]], [[0.0], [2.0]])
        0.75
    """
    x, y = pair(samples, train, _NAMES)
    return median(nearest(x, y, 1)[1][:, 0])


def nearest_ratio(samples: ArrayLike, train: ArrayLike) -> float:
    """Median of the distance to the nearest over that to the second nearest training point.

    Between 0 (copies) and 1, without unit; its null is the same of held-out points. A sample that coincides with two
    equal training points counts as 0.

    Args:
        samples: (m, d).
        train: (n, d), n >= 2.

    Example:
        >>> nearest_ratio([[0.5]], [[0.0], [2.0]])
        0.3333333333333333
    """
    x, y = pair(samples, train, _NAMES, (1, 2))
    return median(ratios(nearest(x, y, 2)[1]))


def authenticity(samples: ArrayLike, train: ArrayLike) -> float:
    """Share of samples that are farther from their nearest training point than that point is from its own nearest.

    With t the training point nearest to s, s is authentic when ``|s - t| > min |t - t'|`` over the other training
    points t'. Copies give 0. Fresh points are not all authentic either: one is not when it and t are each other's
    nearest, which for many points of a continuous law has probability ``1 / (2 - I_{3/4}((d + 1) / 2, 1/2))``, I the
    regularised incomplete beta function. That leaves an authentic share of 0.333 on the line, 0.379 in the plane, and
    1/2 in the limit of high dimension. More than held-out points have is distance from the data, no virtue.

    Args:
        samples: (m, d).
        train: (n, d), n >= 2.

    Source:
        Alaa, van Breugel, Saveliev, van der Schaar, "How faithful is your synthetic data?" (ICML 2022).

    Example:
        >>> authenticity([[0.0], [1.2]], [[0.0], [3.0], [4.0]])
        0.0
    """
    x, y = pair(samples, train, _NAMES, (1, 2))
    index, distance = nearest(x, y, 1)
    return float(authentic(index[:, 0], distance[:, 0], nearest(y, y, 1, same=True)[1][:, 0]).mean())


def copies(samples: ArrayLike, train: ArrayLike, tol: float | None = None) -> float:
    """Share of samples within ``tol`` of a training point.

    Args:
        samples: (m, d).
        train: (n, d).
        tol: a length. When left out, a millionth of the training points' root mean square distance from their mean,
            or a few units in the last place of the coarser of the two dtypes where that is more: the same point, up
            to rounding.

    Example:
        >>> copies([[0.0], [0.4]], [[0.0], [1.0]])
        0.5
    """
    x, y = pair(samples, train, _NAMES)
    if tol is None:
        length = same_length(y, samples, train)
    elif not 0.0 <= (length := float(tol)) < float("inf"):
        raise ValueError(f"tol must be a finite length >= 0, got {tol!r}.")
    return float((nearest(x, y, 1)[1][:, 0] <= length).double().mean())


def train_share(samples: ArrayLike, train: ArrayLike, test: ArrayLike, seed: int = 0) -> float:
    """Share of samples nearer to the training than to the held-out points, as many of each; a tie counts half.

    For samples that are independent of both it is 1/2 in the mean; more is memorisation.

    Args:
        samples: (m, d).
        train: (n, d).
        test: (l, d).
        seed: of the cut of the larger of train and test to the size of the smaller.

    Source:
        Platzer, Reutterer, "Holdout-based empirical assessment of mixed-type synthetic data" (2021).

    Example:
        >>> train_share([[0.1], [0.2], [0.9]], [[0.0]], [[1.0]])
        0.6666666666666666
    """
    x, y = pair(samples, train, _NAMES)
    _, z = pair(samples, test, ("samples", "test"))
    rng = np.random.default_rng(as_count(seed, "seed"))
    size = min(len(y), len(z))
    to_train = nearest(x, random_rows(y, size, rng), 1)[1][:, 0]
    to_test = nearest(x, random_rows(z, size, rng), 1)[1][:, 0]
    return float(((to_train < to_test).double() + 0.5 * (to_train == to_test).double()).mean())


def median(values: Tensor) -> float:
    """The mean of the two middle ones for an even number."""
    return float(np.median(values.cpu().numpy()))


def ratios(distance: Tensor) -> Tensor:
    """First over second column, 0 where both are 0."""
    return distance[:, 0] / torch.where(distance[:, 1] > 0, distance[:, 1], 1.0)


def authentic(index: Tensor, distance: Tensor, spacing: Tensor) -> Tensor:
    """1.0 for each authentic sample, from its nearest training point, its distance and the training points' spacing."""
    return (distance > spacing[index]).double()


def same_length(train: Tensor, *given: ArrayLike) -> float:
    """Length below which two points are one, see :func:`copies`."""
    spread = float(train.var(dim=0, correction=0).sum()) ** 0.5
    coarse = any(str(getattr(values, "dtype", "")).endswith("float32") for values in given)
    digit = torch.finfo(torch.float32 if coarse else torch.float64).eps
    return max(_SAME * spread, _ROUNDING * digit * float(train.abs().max()) * train.shape[1] ** 0.5)
