"""The loss of least-squares GANs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otgan.adversarial.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LSGAN(Loss):
    r"""``min_D E (D(x) - b)^2 / 2 + E (D(G(z)) - a)^2 / 2`` and ``min_G E (D(G(z)) - c)^2 / 2``.

    For a fixed generator the best D is ``(b p_data + a p_g) / (p_data + p_g)``.

    Args:
        a: label of generated points.
        b: label of data.
        c: label that the generator wants for its points.

    Source:
        Mao et al., "Least squares generative adversarial networks" (ICCV 2017), equations 2 and 9.
    """

    name: ClassVar[str] = "lsgan"
    a: float = 0.0
    b: float = 1.0
    c: float = 1.0

    def __post_init__(self) -> None:
        for name in ("a", "b", "c"):
            label = getattr(self, name)
            if isinstance(label, bool) or not isinstance(label, (int, float)) or not math.isfinite(label):
                raise TypeError(f"{name} must be a finite number, got {label!r}.")
        if self.a == self.b:
            raise ValueError(f"a and b must differ, or the critic has nothing to tell apart; got {self.a} for both.")

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Half the mean squares of both residuals."""
        return 0.5 * ((real - self.b).square().mean() + (fake - self.a).square().mean())

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Half the mean square of ``D - c``."""
        return 0.5 * (fake - self.c).square().mean()

    def value(self, critic_loss: float) -> float:
        """How much better than one constant D tells both apart: ``(a - b)^2 / 4 - critic_loss``."""
        return 0.25 * (self.a - self.b) ** 2 - critic_loss
