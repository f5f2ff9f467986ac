"""The critic between two samples: where generated points are, and real ones are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from otgan._checks import as_points
from otgan.generators.model import Distance
from otgan.measures import DiscreteMeasure, Empirical
from otgan.potential import BrenierPotential
from otgan.solvers import Result, solve

if TYPE_CHECKING:
    from torch import Tensor

    from otgan._checks import ArrayLike
    from otgan.solvers.base import Solver


@dataclass(frozen=True)
class SampleCritic:
    """Kantorovich potential phi between generated and real points: ``critic(x)``, shape (m,), high where generated.

    ``grad phi(x) = x - T(x)``, T the optimal map from the generated to the real points: against it a point moves
    towards the data.

    Attributes:
        result: of the solve from the generated to the real points.
        distance: W2 between the two samples, with its certified interval.
        separation: ``mean phi(generated) - mean phi(real)``, at least ``W2^2 / 2`` (at an exact optimum).
    """

    result: Result
    distance: Distance
    separation: float

    def __call__(self, x: ArrayLike) -> Tensor:
        """``phi(x) = |x|^2/2 - u_h(x)``, shape (m,), cost |x-y|^2/2; defined everywhere, differentiable once."""
        return self.potential.kantorovich(x)

    @property
    def potential(self) -> BrenierPotential:
        """u_h over the real points."""
        potential = self.result.potential
        assert isinstance(potential, BrenierPotential)  # the cost is quadratic
        return potential


def critic_between(
    generated: ArrayLike,
    real: ArrayLike,
    *,
    generated_weights: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    method: str | Solver = "auto",
    **settings: Any,
) -> SampleCritic:
    """Critic between two samples, from the optimal transport of the first to the second.

    The Wasserstein GAN's critic at its optimum (for the squared cost), without training: as phi is the c-transform of
    psi, ``phi(y_i) <= -psi_i``, so that ``E phi(generated) - E phi(real) >= W2^2 / 2``.

    Args:
        generated: (m, d).
        real: (n, d).
        generated_weights: shape (m,), uniform when left out.
        weights: of the real points, shape (n,), likewise.
        method: as for :func:`otgan.solve`: "auto" is the exact network simplex up to m n = 25 million, and samples from
            the generated points beyond.
        **settings: of :func:`otgan.solve`, such as ``seed``, ``tol`` or ``max_time``; the cost is quadratic.

    Raises:
        ValueError: for bad shapes, NaN, or dimensions that differ.

    Example:
        >>> critic = critic_between([[0.0], [1.0]], [[2.0], [3.0]])
        >>> round(critic.distance.value, 6), critic.separation >= 2.0
        (2.0, True)
    """
    x, y = as_points(generated, "generated"), as_points(real, "real")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"generated has dimension {x.shape[1]}, real {y.shape[1]}; compare points of one space.")
    if settings.get("p", 2.0) != 2.0:
        raise ValueError(f"The critic is for the quadratic cost, got p = {settings['p']!r}; leave p out.")
    source, target = Empirical(x, generated_weights), DiscreteMeasure(y, weights)
    result = solve(source, target, method, **settings)
    critic = SampleCritic(result, Distance.of(result.certificate), 0.0)
    at_x, at_y = (critic(z.to(critic.potential.points)) for z in (source.points, target.points))
    apart = source.weights.to(at_x) @ at_x - target.weights.to(at_y) @ at_y
    return replace(critic, separation=float(apart))
