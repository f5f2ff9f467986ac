"""The loss of the original GAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import softplus

from otgan.adversarial.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GAN(Loss):
    r"""``min_G max_D V(D, G)``, ``V = E_data log D(x) + E_z log(1 - D(G(z)))``, with ``D = sigmoid(score)``.

    For a fixed generator the best D is ``p_data / (p_data + p_g)``, and then ``V = -log 4 + 2 JS(p_data, p_g)``.

    Args:
        saturating: the generator descends ``E log(1 - D(G(z)))``, the minimax game itself, whose gradient vanishes
            where D is sure; otherwise it descends ``-E log D(G(z))``, which has the same fixed point.

    Source:
        Goodfellow et al., "Generative adversarial nets" (NeurIPS 2014), Algorithm 1 and section 3.
    """

    name: ClassVar[str] = "gan"
    saturating: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.saturating, bool):
            raise TypeError(f"saturating must be True or False, got {self.saturating!r}.")

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """``-V``, by ``log sigmoid(s) = -softplus(-s)``, which neither overflows nor loses digits."""
        return softplus(-real).mean() + softplus(fake).mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        """``mean log(1 - D)`` or ``-mean log D``."""
        return -softplus(fake).mean() if self.saturating else softplus(-fake).mean()

    def value(self, critic_loss: float) -> float:
        """``V(D, G)``, at most ``-log 4 + 2 JS``."""
        return -critic_loss
