"""What every adversarial loss answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn


class Loss(ABC):
    """The two objectives of one adversarial method, on the critic's scores of a minibatch.

    A score is what the critic's network returns, one number a point, without any sigmoid. Subclasses are frozen
    dataclasses of their own constants.
    """

    name: ClassVar[str]
    """What ``method=`` calls it."""

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic descends, a scalar, from the scores of data (m,) and of generated points (m,)."""

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> Tensor:
        """What the generator descends, a scalar, from the scores of its points (m,)."""

    @abstractmethod
    def value(self, critic_loss: float) -> float:
        """What the critic makes as large as it can, from its loss without penalty: the estimate of a divergence."""

    def penalty(
        self, critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """What is added to the critic's loss, from the points themselves (m, ...); None where there is nothing."""
        return None

    def constrain(self, parameters: Sequence[Tensor]) -> None:
        """Bring the critic's weights back where they may be, after each of its steps."""
        return None


class WassersteinLoss(Loss):
    """``E_data f(x) - E_z f(G(z))``, raised by the critic, lowered by the generator; what keeps f Lipschitz differs."""

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """``mean f(G(z)) - mean f(x)``, without any penalty."""
        return fake.mean() - real.mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        """``-mean f(G(z))``."""
        return -fake.mean()

    def value(self, critic_loss: float) -> float:
        """``mean f(x) - mean f(G(z))``: an estimate of W1, or of K W1 for a K-Lipschitz f, without any penalty."""
        return -critic_loss
