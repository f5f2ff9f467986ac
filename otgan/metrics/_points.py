"""What the metrics share: checked pairs of point clouds, estimates with an error, disjoint random parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_points

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class TooFewError(ValueError):
    """A metric needs more points than it was given."""


@dataclass(frozen=True)
class Estimate:
    """A number with the standard error of its own Monte Carlo; ``float(estimate)`` is the number.

    Attributes:
        value: the number.
        stderr: its standard error, in the same unit.
    """

    value: float
    stderr: float

    def __float__(self) -> float:
        return self.value


def cloud(value: ArrayLike, name: str, least: int = 1, dim: int | None = None) -> Tensor:
    """Points of shape (n, d) in float64, n >= least."""
    points = as_points(value, name, dim).double()
    if len(points) < least:
        raise TooFewError(f"{name} holds {len(points)} point(s), this metric needs at least {least}; pass more.")
    return points


def pair(
    a: ArrayLike, b: ArrayLike, names: tuple[str, str] = ("a", "b"), least: tuple[int, int] = (1, 1)
) -> tuple[Tensor, Tensor]:
    """Two clouds of one dimension, on the device of the first."""
    first = cloud(a, names[0], least[0])
    return first, cloud(b, names[1], least[1], first.shape[1]).to(first.device)


def unit_of(*clouds: Tensor) -> tuple[Tensor, float]:
    """Centre, shape (d,), and half extent of clouds: distances in this unit around this centre suit float32."""
    low = torch.stack([points.amin(dim=0) for points in clouds]).amin(dim=0)
    high = torch.stack([points.amax(dim=0) for points in clouds]).amax(dim=0)
    centre = low / 2 + high / 2
    radius = max(float(torch.linalg.vector_norm(points - centre, dim=1).max()) for points in clouds)
    return centre, radius or 1.0


def random_rows(points: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """``count`` different rows, in random order; all rows as they are when there are no more."""
    if count >= len(points):
        return points
    return points[torch.from_numpy(rng.permutation(len(points))[:count]).to(points.device)]
