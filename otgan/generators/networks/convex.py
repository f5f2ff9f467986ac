"""What a convex network must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ConvexNetwork(nn.Module, ABC):
    """A convex potential N on R^d whose gradient is an explicit network: ``net(z) = grad N(z)``, shape (m, d).

    An explicit gradient is one forward pass with tied weights, so that a loss on the map costs one ordinary backward
    pass instead of a derivative of a derivative.
    """

    @abstractmethod
    def value(self, z: Tensor) -> Tensor:
        """``N(z)``, shape (m,)."""

    @abstractmethod
    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``N(z)``, shape (m,), and ``grad N(z)``, shape (m, d)."""

    def forward(self, z: Tensor) -> Tensor:
        """``grad N(z)``, shape (m, d)."""
        return self.value_and_gradient(z)[1]
